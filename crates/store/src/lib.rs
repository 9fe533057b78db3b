//! Everything on disk: blobs, snapshots, layers, cache mounts, records.
