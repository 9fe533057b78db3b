//! OCI image config, manifest, index, layout directories and archives.
