//! Records of finished steps, and where they are kept.

use kiln_core::{Digest, Snapshot};
use serde::{Deserialize, Serialize};

use crate::KeyParts;

/// Finds and keeps records. Several builds, in several processes, may use one index at once.
///
/// An error of any method fails the build: a record that could not be written must not be found missing later. An
/// implementation answers "nothing there" for records that it cannot understand.
pub trait CacheIndex: Sync {
    /// Why the index does not work.
    type Error;

    /// Returns the record of a key, if there is one whose snapshot is still there. What is returned stays there
    /// until the build ends.
    ///
    /// # Errors
    /// If the index cannot be read.
    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, Self::Error>;

    /// Returns the content key that was last noted for a definition key.
    ///
    /// # Errors
    /// If the index cannot be read.
    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, Self::Error>;

    /// Keeps a record in place of any other of its key, and returns it as it is kept: with the index's clock as
    /// [`created`](StepRecord::created), whatever stood there. The parts of its key are kept beside it: only who
    /// explains a miss reads them.
    ///
    /// # Errors
    /// If the record could not be written.
    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, Self::Error>;

    /// Notes that a definition key stands for a content key, in place of any other.
    ///
    /// # Errors
    /// If the note could not be written.
    fn record_alias(&self, definition: &Digest, content: &Digest) -> Result<(), Self::Error>;
}

/// One execution of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's content key.
    pub key: Digest,
    /// What it left behind.
    pub snapshot: Snapshot,
    /// When it was recorded, seconds since 1970; set by the index.
    pub created: u64,
    /// How long it ran, microseconds of wall time.
    pub duration_us: u64,
    /// `[build 2/4] RUN make`.
    pub title: String,
}
