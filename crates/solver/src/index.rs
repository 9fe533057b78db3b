//! Records of finished steps, and where they are kept.

use kiln_core::{Digest, Snapshot, Step, StepId};
use serde::{Deserialize, Serialize};

use crate::{KeyInputs, KeyParts};

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

    /// Returns the record that somewhere else is kept for a key, in this index's own names of layers: asked where
    /// [`lookup`](Self::lookup) has none that counts. Its layers need not be here; the worker gets them when their files are
    /// needed. What cannot be had is none: no failure elsewhere is one of the build. May take as long as a network does.
    fn elsewhere(&self, key: &Digest, sought: &Sought<'_>) -> Elsewhere {
        let _ = (key, sought);
        Elsewhere::Nothing
    }

    /// Returns the content key that somewhere else is known for what is sought, whose sources' files nobody has hashed here.
    fn alias_elsewhere(&self, sought: &Sought<'_>) -> Option<Digest> {
        let _ = sought;
        None
    }

    /// Whether there is an elsewhere. If not, nothing is asked of it.
    fn reaches_out(&self) -> bool {
        false
    }

    /// Takes note that a step's key will be looked up soon, unless something unforeseen comes first. Must not block.
    fn foresee(&self, id: StepId, key: &Digest) {
        let _ = (id, key);
    }

    /// Takes note of a step whose record was found, or made. Called on the thread that did it, before steps above begin.
    fn settled(&self, sought: &Sought<'_>, record: &StepRecord) {
        let _ = (sought, record);
    }
}

/// What there is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// No record.
    Nothing,
    /// One that does not count: it was made over another execution of the step below, or it is better to run the step. Then
    /// none above it counts either.
    Unfit,
    /// One that counts, if its snapshot is the right one.
    Record(StepRecord),
}

/// A step whose record is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// Which.
    pub id: StepId,
    /// The step.
    pub step: &'a Step,
    /// What its key is made of; a source's content may not be known.
    pub inputs: &'a KeyInputs,
    /// The snapshot below it, if there is one and it is known: a record's must begin with its layers.
    pub root: Option<&'a Snapshot>,
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
