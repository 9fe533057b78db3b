//! Everything on disk: blobs, snapshots, layers, cache mounts, records.
//!
//! [`Store`] is one directory that any number of kiln processes share; docs/store.md describes every path in it.
//! Nothing here is fsynced while a build runs: what a process makes is listed, synced in one go at its end, and
//! removed again if the machine went down before that.

mod error;
mod layout;
mod lock;
pub mod owner;
mod scratch;
mod store;

pub use error::StoreError;
pub use layout::Ids;
pub use store::Store;
