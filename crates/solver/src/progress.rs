//! What a build hears of its steps while they go on.

use std::time::Duration;

use kiln_core::{Digest, StepId, StepOutcome};

use crate::Finished;

/// Is told what becomes of each step. All calls of one build come from one thread, the one that called
/// [`solve`](crate::solve), and none may block for long: the schedule waits.
///
/// A step is either `cached`, or `started` and later `finished`, or never mentioned (nothing needed it); or `started` and later
/// `cached`, if another process was about to execute it, or did, when its turn came. What fails
/// before it runs, such as a copy whose source is not there, is `started` and `finished` in one go.
pub trait Progress {
    /// The step is about to run.
    fn started(&self, id: StepId);

    /// The step need not run: its result is there.
    fn cached(&self, id: StepId);

    /// The step ended. `duration` is of wall time and without the time that it waited for its turn.
    fn finished(&self, id: StepId, outcome: StepOutcome, duration: Duration);

    /// The step has this content key and no record that counts. `outdated` says that there is one, over another execution of
    /// the steps below. It runs if something needs its files, and is `started` after this.
    fn missed(&self, id: StepId, key: &Digest, outdated: bool) {
        let _ = (id, key, outdated);
    }

    /// The step's snapshot is settled, by a record or by running; called right before `cached` or `finished`. Work
    /// on a result, such as packing its layer, can begin here while other steps run.
    fn settled(&self, id: StepId, finished: &Finished) {
        let _ = (id, finished);
    }
}
