//! What was carried, as plain data.

use kiln_core::Digest;
use serde::{Deserialize, Serialize};

/// An export that is finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryExport {
    /// Where to.
    pub place: String,
    /// The generation; none if nothing had changed, so that none was made.
    pub generation: Option<Digest>,
    /// The caches.
    pub caches: Vec<CarriedCache>,
    /// Files that were read: the others were known.
    pub read_files: u64,
    /// Bytes that were moved.
    pub moved: u64,
    /// Bytes of all packs that the generation needs.
    pub packed: u64,
    /// Files and bytes that stayed behind for `max-size` or `max-age`.
    pub left_behind: (u64, u64),
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// What one should know: files that could not be read.
    pub notes: Vec<String>,
}

/// An import that is finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryImport {
    /// Where from.
    pub place: String,
    /// The caches.
    pub caches: Vec<CarriedCache>,
    /// Bytes that were moved.
    pub moved: u64,
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// What one should know: files that were in the way.
    pub notes: Vec<String>,
}

/// One cache that was carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedCache {
    /// Its id.
    pub id: String,
    /// `global`, or a platform.
    pub scope: String,
    /// Its files; of an import, those that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of a restore for a build: bytes of restored files that steps read, if that can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// What a build restored and saved of cache mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryReport {
    /// From where caches came.
    pub restored: Vec<CarryImport>,
    /// Where they went.
    pub saved: Vec<CarryExport>,
}
