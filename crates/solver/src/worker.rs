//! The seam behind which steps are executed.

use std::collections::HashMap;
use std::fmt::Display;

use kiln_core::{Cancel, Chmod, Digest, Op, Selection, Snapshot, Step, StepId};

use crate::Place;

/// Executes one step. The seam behind which a step may one day run elsewhere: nothing here assumes that a snapshot
/// is a local directory.
///
/// The solver never calls [`execute`](Self::execute) twice for one step of a build, nor at all for a context.
pub trait Worker: Sync {
    /// Why a step failed. Its `Display` is the one line that [`Progress`](crate::Progress) is told.
    type Error: Display + Send;

    /// Returns the digest of what `selection` selects from a context (`snapshot` is none) or from a snapshot: of that
    /// in it which `usage` lets a step see. `op` is the source's.
    ///
    /// Each source, selection and usage is asked for at most once in a build, several of them at once, on threads
    /// that serve other requests afterwards; for a remote source, which may take its time, on one of its own.
    ///
    /// Calls `late` if a remote source has to be fetched to know it: then the steps that wait for the digest hardly have a
    /// record, and what else they need is made meanwhile.
    ///
    /// # Errors
    /// If the files cannot be read, or the selection selects nothing where it must.
    #[allow(clippy::too_many_arguments)]
    fn content_digest(
        &self,
        source: StepId,
        op: &Op,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, Self::Error>;

    /// Makes the files present that a remote source stands for: a step that takes from it has to run, and does so when
    /// this has returned. Asked at most once for each in a build, on a thread of its own, while other steps run.
    ///
    /// # Errors
    /// If they cannot be had.
    fn fetch(&self, source: StepId, op: &Op, cancel: &Cancel) -> Result<(), Self::Error>;

    /// Waits until nobody else, in any process, executes a step with this key, and keeps others from it until what is returned
    /// has been told how it ended; none if there is no need to. Asked before a step that is going to be recorded is executed,
    /// on its thread. The step is looked up once more then. While it waits it leaves its `place`.
    ///
    /// # Errors
    /// If it cannot be found out who does. What is returned after `cancel` was raised counts as cancelled.
    fn claim(
        &self,
        id: StepId,
        step: &Step,
        key: &Digest,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Box<dyn Claim>>, Self::Error> {
        let _ = (id, step, key, place, cancel);
        Ok(None)
    }

    /// Runs a step and returns its snapshot; for an image, makes its layers present.
    ///
    /// The snapshot's layers begin with those of `inputs.root`: by that a record is known to be made over this
    /// root. Each call has a thread to itself, which ends with the call. While it waits for others it leaves its `place`.
    ///
    /// # Errors
    /// If the step fails. What is returned after `cancel` was raised counts as cancelled.
    fn execute(
        &self,
        id: StepId,
        step: &Step,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Snapshot, Self::Error>;
}

/// Keeps others from executing a step that is executed here. If it is dropped, nobody is told how it ended.
pub trait Claim {
    /// Lets others go on. If it ended well, its record is there.
    fn end(self: Box<Self>, well: bool);
}

/// How a step takes files from a source, and so what of them can decide its result. Not part of a key: it follows
/// from the operation, which is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceUse {
    /// `COPY` and `ADD`.
    Copied {
        /// Whether permission bits are seen: not under an octal `--chmod`, which replaces them.
        modes: bool,
        /// Whether owners are seen where the source is a stage or an image, whose files keep theirs: not under
        /// `--chown`.
        owners: bool,
    },
    /// A bind mount: files are seen as they are.
    Mounted,
}

impl SourceUse {
    /// Returns how an operation takes all its sources.
    pub const fn of(op: &Op) -> Self {
        match op {
            Op::Copy(op) => {
                Self::Copied { modes: !matches!(op.chmod, Some(Chmod::Octal(_))), owners: op.chown.is_none() }
            }
            Op::Image(_)
            | Op::Context(_)
            | Op::Http(_)
            | Op::Git(_)
            | Op::Run(_)
            | Op::Workdir(_)
            | Op::Merge(_) => Self::Mounted,
        }
    }
}

/// What a step is executed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The root file system's; empty for scratch.
    pub root: Snapshot,
    /// Those of the sources and seeds. Contexts have none.
    pub snapshots: HashMap<StepId, Snapshot>,
}
