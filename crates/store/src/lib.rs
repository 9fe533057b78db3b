//! Everything on disk: blobs, snapshots, layers, fetched sources, cache mounts, records.
//!
//! [`Store`] is one directory that any number of kiln processes share; docs/store.md describes every path in it.
//! Nothing here is fsynced while a build runs: what it makes is synced in one go at its end and marked; what has no
//! mark after the machine went down is checked or removed.

mod blob;
pub mod cache_mount;
mod claim;
mod collect;
mod compress;
pub mod copy;
mod deep;
mod disk;
mod durable;
mod early;
mod error;
pub mod estargz;
mod fixed;
mod fsck;
mod image;
mod last_use;
mod layer;
mod layout;
mod lock;
mod merged;
mod moved;
mod notes;
pub mod owner;
mod partial;
mod pin;
mod probe;
mod record;
mod removals;
mod remove;
mod scratch;
mod source;
mod store;
pub mod tree;
mod twin;
mod unpack;

pub use blob::BlobWriter;
pub use claim::{Claim, Claimed, GaveUp, Holder, Waiting};
pub use collect::room::{Parts, Room};
pub use collect::usage::Usage;
pub use collect::{PruneOptions, PruneReport, Removed, ThingKind};
pub use compress::{Compression, deflate_alone};
pub use error::{ArchiveError, EntryProblem, StoreError};
pub use fsck::Problem;
pub use image::TaggedImage;
pub use layer::active::ActiveLayer;
pub use layer::changes::{Change, FileState};
pub use layer::kept::KeptHold;
pub use layer::list::Said;
pub use layer::pack::{LayerOptions, PackedLayer, WholeTree};
pub use layer::take::Spooled;
pub use layout::Ids;
pub use merged::{MergedTree, Share};
pub use notes::{NoteKind, unpack_note};
pub use pin::Pin;
pub use record::{RecordInfo, RecordKind};
pub use removals::{Removal, RemovalReason};
pub use source::{NewFile, NewSource, SourceId};
pub use store::Store;
pub use twin::Twin;
pub use unpack::{UnpackOptions, begins_archive};
