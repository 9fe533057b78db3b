//! A step's init process as seen from kiln: started, watched, killed, reaped.

use std::ffi::CStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kiln_core::{Cancel, CancelGuard, ExitStatus, IoError, IoResultExt, RunSpec};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::enter::Entered;
use crate::error::RunError;
use crate::sys::{self, StringArray};
use crate::wire::{self, Said, Start};

/// The name under which this binary, executed again, serves as init.
pub(crate) const INIT: &str = "kiln-init";

/// Where init finds its end of the control socket.
pub(crate) const CONTROL: i32 = 3;

const SELF: &CStr = c"/proc/self/exe";

/// A running init process.
pub(crate) struct Child {
    pidfd: Arc<OwnedFd>,
    control: UnixStream,
    received: Vec<u8>,
    terminal: Option<OwnedFd>,
}

impl Child {
    /// Starts one in namespaces of its own and tells it what to run.
    ///
    /// The calling thread is its parent: if that ends, the kernel kills it (PR_SET_PDEATHSIG), and it also ends
    /// by itself when the control socket closes.
    pub(crate) fn spawn(entered: &Entered, spec: &RunSpec, stdio: [OwnedFd; 3]) -> Result<Self, RunError> {
        let (control, theirs) = UnixStream::pair().at("make", "a socket")?;
        let lift = |fd: OwnedFd| {
            if std::os::fd::AsRawFd::as_raw_fd(&fd) > CONTROL {
                return Ok(fd);
            }
            rustix::io::fcntl_dupfd_cloexec(&fd, CONTROL + 1).at("copy", "a descriptor")
        };
        let [stdin, stdout, stderr] = stdio;
        let descriptors = [lift(stdin)?, lift(stdout)?, lift(stderr)?, lift(theirs.into())?];
        let args = StringArray::new([INIT]).at("start", INIT)?;
        let env = StringArray::new([""; 0]).at("start", INIT)?;
        let mut flags = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if spec.isolate_network {
            flags |= libc::CLONE_NEWNET;
        }
        let mut failure: Option<io::Error> = None;
        let child = &mut || {
            failure = become_init(&descriptors, &args, &env).err();
            127
        };
        let (_, pidfd) = sys::vfork(flags, child).at("make namespaces for", "a step")?;
        let mut this = Self { pidfd: Arc::new(pidfd), control, received: Vec::new(), terminal: None };
        drop(descriptors);
        if let Some(error) = failure {
            this.reap()?;
            return Err(IoError::new("execute", "/proc/self/exe", &error).into());
        }
        match wire::write(&mut this.control, &Start { spec: spec.clone(), ids: entered.ids().clone() }) {
            // It is gone already; what it said, if anything, is read as ever.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.at("send", "the step to its init")?,
        }
        Ok(this)
    }

    /// Kills everything in its namespaces when `cancel` says so.
    pub(crate) fn kill_on(&self, cancel: &Cancel) -> CancelGuard {
        let pidfd = Arc::clone(&self.pidfd);
        // It may just have ended.
        cancel.on_cancel(move || _ = pidfd_send_signal(&*pidfd, Signal::KILL))
    }

    /// Readable when every process in its namespaces is gone.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when it says something.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Takes in what it says now. Returns whether there may be more later.
    pub(crate) fn receive(&mut self) -> Result<bool, IoError> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let received =
            recvmsg(&self.control, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT);
        let bytes = match received {
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::CONNRESET) => return Ok(false),
            other => other.at("read from", "the step's init")?.bytes,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                self.terminal = fds.next();
            }
        }
        self.received.extend_from_slice(&buffer[..bytes]);
        Ok(bytes > 0)
    }

    /// The other side of the step's terminal, once.
    pub(crate) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits for its end, which [`pidfd`](Self::pidfd) has told, and gives its last word.
    pub(crate) fn finish(&mut self) -> Result<Said, RunError> {
        while self.receive()? && !self.is_complete() {}
        let status = self.reap()?;
        let mut messages = self.received.as_slice();
        while let Ok(said) = wire::read(&mut messages) {
            if !matches!(said, Said::Terminal) {
                return Ok(said);
            }
        }
        Err(RunError::InitDied { status })
    }

    /// Whether nothing more can come: it is dead, so that what is not here now will not be.
    fn is_complete(&self) -> bool {
        let mut ready = [rustix::event::PollFd::new(&self.control, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(rustix::event::poll(&mut ready, Some(&now)), Ok(1..))
    }

    fn reap(&self) -> Result<ExitStatus, IoError> {
        loop {
            return match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => continue,
                // A program that reaps all children took it.
                Err(Errno::CHILD) | Ok(None) => Ok(ExitStatus::Code(0)),
                Err(error) => Err(IoError::new("wait for", "the step's init", &error.into())),
                Ok(Some(status)) => Ok(match status.terminating_signal() {
                    Some(signal) => ExitStatus::Signal(signal),
                    None => ExitStatus::Code(status.exit_status().unwrap_or(0)),
                }),
            };
        }
    }
}

impl Drop for Child {
    /// On a way out that nobody planned nothing may stay behind. After `finish` this finds no process.
    fn drop(&mut self) {
        if pidfd_send_signal(&*self.pidfd, Signal::KILL).is_ok() {
            let _ = self.reap();
        }
    }
}

/// Runs between vfork and exec: system calls only.
fn become_init(
    descriptors: &[OwnedFd; 4],
    args: &StringArray,
    env: &StringArray,
) -> io::Result<std::convert::Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    for (number, fd) in (0..).zip(descriptors) {
        sys::place(fd.as_fd(), number)?;
    }
    sys::close_on_exec_from(CONTROL.cast_unsigned() + 1)?;
    Err(sys::exec(SELF, args, env))
}
