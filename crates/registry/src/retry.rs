//! What is tried again, how often, and after how long.

use std::time::Duration;

use reqwest::StatusCode;

use crate::RegistryError;

/// Requests in all for one answer.
pub(crate) const TRIES: u32 = 5;
/// The longest that a Retry-After is obeyed; a registry that wants more is reported.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// So much of a blob in one go starts the counting of its tries anew.
pub(crate) const PROGRESS: u64 = 1 << 20;

/// Returns the time to wait after the `failed`th failure: `first`, doubled each time; none after none.
pub(crate) fn wait(first: Duration, failed: u32) -> Duration {
    match failed {
        0 => Duration::ZERO,
        failed => first * 2_u32.pow((failed - 1).min(6)),
    }
}

/// Returns whether a status may be another one next time.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// How much a failure takes of the tries. Waiting for one who says nothing is dear: twice is enough.
pub(crate) fn cost(error: &RegistryError) -> u32 {
    if matches!(error, RegistryError::Stalled { .. }) { TRIES.div_ceil(2) } else { 1 }
}
