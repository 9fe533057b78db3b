//! The files that a caller has open, by a file descriptor of the process (pidfd_getfd(2)): a third of the time that the same
//! takes through /proc, where the kernel makes three files for each process that is looked at, and takes them away again. And what
//! comes this way is the caller's open file itself, with its position.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::place::status_line;

/// PIDFD_THREAD of linux/pidfd.h, since Linux 6.9: threads can have open files of their own.
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());

/// Takes copies of what callers have open. Remembers the last caller: most calls follow one of the same.
pub(super) struct Opened {
    last: Option<(u32, OwnedFd)>,
    /// Whether there are descriptors of threads.
    threads: bool,
}

impl Opened {
    pub(super) fn new() -> Self {
        Self { last: None, threads: crate::kernel::version() >= (6, 9) }
    }

    /// Returns a copy of a caller's descriptor to look at; none if there is none, or this way does not lead there as quickly.
    ///
    /// The copy must be gone before the caller goes on: what else it shares with the caller's (locks, the end of a pipe)
    /// would live longer than the caller thinks.
    pub(super) fn copy(&mut self, tid: u32, descriptor: i32) -> Option<OwnedFd> {
        if self.threads { self.take(tid, descriptor).ok() } else { None }
    }

    /// The same on every kernel that answers calls.
    ///
    /// # Errors
    /// EBADF if the caller has no such descriptor, ESRCH if there is no caller.
    pub(super) fn take(&mut self, tid: u32, descriptor: i32) -> Result<OwnedFd, Errno> {
        if descriptor < 0 {
            return Err(Errno::BADF);
        }
        // A thread that is gone stays gone for this descriptor, though another has its number by now.
        if let Some((last, process)) = &self.last
            && *last == tid
        {
            match pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()) {
                Err(Errno::SRCH) => {}
                taken => return self.checked(tid, descriptor, taken?),
            }
        }
        let process = if self.threads {
            pidfd_open(Pid::from_raw(tid.cast_signed()).ok_or(Errno::SRCH)?, THREAD)?
        } else {
            let group = status_line(tid, "Tgid:").map_err(|_| Errno::SRCH)?;
            let group = group.parse().ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            pidfd_open(group, PidfdFlags::empty())?
        };
        let file = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty());
        self.last = Some((tid, process));
        self.checked(tid, descriptor, file?)
    }

    /// Before Linux 6.9 what was taken is the first thread's, and the caller may have open files of its own (CLONE_FILES).
    fn checked(&self, tid: u32, descriptor: i32, file: OwnedFd) -> Result<OwnedFd, Errno> {
        if self.threads {
            return Ok(file);
        }
        let theirs = rustix::fs::statat(CWD, format!("{tid}/fd/{descriptor}"), AtFlags::empty());
        let (theirs, taken) = (theirs.map_err(|_| Errno::BADF)?, rustix::fs::fstat(&file)?);
        if (theirs.st_dev, theirs.st_ino) == (taken.st_dev, taken.st_ino) {
            Ok(file)
        } else {
            Err(Errno::BADF)
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};

    use super::*;

    /// What is taken shares its position with the caller's, on old kernels as on new ones.
    #[test]
    fn what_is_taken_is_the_open_file_itself() {
        for threads in [false, true] {
            let of_a_thread = std::thread::spawn(move || {
                #[expect(deprecated, reason = "the descriptor table stays shared")]
                rustix::thread::unshare(rustix::thread::UnshareFlags::FS).unwrap();
                rustix::process::chdir("/proc").unwrap();
                if threads && crate::kernel::version() < (6, 9) {
                    return;
                }
                let mut opened = Opened { last: None, threads };
                let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
                for _ in 0..2 {
                    let file = open("/etc/passwd", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
                    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
                    let taken = opened.take(tid, number).unwrap();
                    seek(&taken, SeekFrom::Start(7)).unwrap();
                    assert_eq!(seek(&file, SeekFrom::Current(0)), Ok(7), "{threads}");
                }
                assert_eq!(opened.take(tid, 100_000).unwrap_err(), Errno::BADF);
                assert_eq!(opened.take(tid, -1).unwrap_err(), Errno::BADF);
                assert_eq!(opened.copy(tid, 0).is_some(), threads);
            });
            of_a_thread.join().unwrap();
        }
    }
}
