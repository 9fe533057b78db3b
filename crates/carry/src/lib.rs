//! The form in which cache mounts travel between machines. No I/O of its own: bytes come in and go out as slices.
//!
//! Files are cut into **chunks** (a small file is one, a large one is cut where its content says so), chunks of one or
//! two MiB together are a zstd frame, frames of some MiB together a **pack**: a blob. An **index** says which files there
//! are and which chunks they are made of. Index and packs are the layers of one OCI artifact, a **generation**; a
//! **pointer**, an OCI index, lists the generations of one name. docs/cache-export.md has every field;
//! docs/decisions/0025 says why it is so.

mod chunk;
mod error;
mod fit;
mod generation;
mod index;
mod pack;
mod sound;
mod text;
mod union;

pub use chunk::{MAX_CHUNK, MIN_CHUNK, cut};
pub use error::CarryError;
pub use fit::{Fit, fit};
pub use generation::{
    ARTIFACT_TYPE, Generation, INDEX_TYPE, MANIFEST_TYPE, PACK_TYPE, POINTER_TYPE, Pointer, generation_tag,
    is_generation_of,
};
pub use index::{Chunk, Entry, Frame, Index, Kind, Location, Pack, Tree};
pub use pack::{Finished, Frames, MAX_FRAME, MAX_PACK, PackWriter, decode_frame};
pub use text::{read, write};
pub use union::{Strategy, heads, keep_packs, union};
