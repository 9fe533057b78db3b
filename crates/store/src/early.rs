//! Writing out early. What a build makes has to be on the disk at its end ([`durable`](crate::durable)); what is on its way there
//! while the build goes on is not waited for then.

use std::os::fd::AsFd;

use rustix::fs::{Advice, fadvise};

/// Bytes of a file after which writing them out is begun. Smaller files are left to the kernel: of those there may be
/// many, and they go out together at the end.
const STEP: u64 = 8 << 20;

/// How much of a growing file is on its way.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Where what grows begins in its file.
    at: u64,
    begun: u64,
}

impl Early {
    /// Of what grows from a place in its file on.
    pub(crate) fn behind(at: u64) -> Self {
        Self { at, begun: 0 }
    }

    /// Notes that there are that many bytes now, and begins to write out those not begun with. Does not wait.
    pub(crate) fn written(&mut self, file: impl AsFd, size: u64) {
        let length = size.saturating_sub(self.begun);
        if length >= STEP {
            // "Don't need" starts writing dirty pages and drops clean ones only; what was written a moment ago is dirty.
            // sync_file_range(2) would say it better, but has no safe wrapper. Advice may be ignored, so failures are.
            let _ = fadvise(file, self.at + self.begun, std::num::NonZeroU64::new(length), Advice::DontNeed);
            self.begun = size;
        }
    }
}

/// Bytes to copy at once so that a file that is being copied goes out meanwhile.
pub(crate) const COPY: usize = STEP as usize;
