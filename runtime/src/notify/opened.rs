//! The files that a caller has open, by a file descriptor of the process (pidfd_getfd(2)): a third of the time that the same
//! takes through /proc, where the kernel makes three files for each process that is looked at, and takes them away again.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// PIDFD_THREAD of linux/pidfd.h, since Linux 6.9: threads can have open files of their own.
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());

/// Takes copies of what callers have open. Remembers the last caller: most calls follow one of the same.
pub(super) struct Opened {
    last: Option<(u32, OwnedFd)>,
    can: bool,
}

impl Opened {
    pub(super) fn new() -> Self {
        Self { last: None, can: crate::kernel::version() >= (6, 9) }
    }

    /// Returns a copy of a caller's descriptor; none if there is none, or this way does not lead there.
    ///
    /// The copy must be gone before the caller goes on: what else it shares with the caller's (locks, the end of a pipe)
    /// would live longer than the caller thinks.
    pub(super) fn copy(&mut self, tid: u32, descriptor: i32) -> Option<OwnedFd> {
        if !self.can || descriptor < 0 {
            return None;
        }
        // A thread that is gone stays gone for this descriptor, though another has its number by now.
        if let Some((last, process)) = &self.last
            && *last == tid
            && let Ok(file) = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())
        {
            return Some(file);
        }
        let process = pidfd_open(Pid::from_raw(tid.cast_signed())?, THREAD).ok()?;
        let file = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty()).ok();
        self.last = Some((tid, process));
        file
    }
}
