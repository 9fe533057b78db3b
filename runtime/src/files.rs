//! How many files may be open: kiln's own limit, and that of its steps.
//!
//! The soft limit is 1024 nearly everywhere, for the sake of select(2). kiln opens a directory for each of hundreds of
//! layers, and may go to the hard limit. A step gets back what the caller had: programs that close every possible descriptor
//! take long with a high one.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static CALLERS: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's limit as far as it goes.
pub(crate) fn raise() {
    let callers = *CALLERS.get_or_init(|| getrlimit(Resource::Nofile));
    // No limit at all is more than the kernel gives (fs.nr_open); then it stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: callers.maximum, ..callers });
}

/// Gives the caller's limit back, in a child between vfork and exec.
pub(crate) fn restore() {
    if let Some(callers) = CALLERS.get() {
        // Lowering is always allowed.
        let _ = setrlimit(Resource::Nofile, *callers);
    }
}
