//! When a stream that still brings something counts as stalled.

use std::time::Duration;

/// What a stream must bring within the stall time; less is as good as nothing.
const TRICKLE: u64 = 16 << 10;

/// Time spent waiting for the network (not for the reader), and what came in it.
#[derive(Default)]
pub(crate) struct Window {
    waited: Duration,
    bytes: u64,
}

impl Window {
    /// Counts one piece and the wait for it.
    pub(crate) fn is_trickle(&mut self, waited: Duration, bytes: usize, stall: Duration) -> bool {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < stall {
            return false;
        }
        let trickle = self.bytes < TRICKLE;
        *self = Self::default();
        trickle
    }
}
