//! A step's init process as seen from kiln: started, watched, killed.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kiln_core::{Cancel, CancelGuard, IoError, IoResultExt, NetworkMode, RunSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, pidfd_send_signal};

use crate::enter::{Entered, Isolation};
use crate::error::RunError;
use crate::network::PrivateNetwork;
use crate::wire::{self, Said, Start};

/// How long an init without namespaces may take to end what it started, on a way out that nobody planned.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A running init process.
pub(crate) struct Child {
    pidfd: Arc<OwnedFd>,
    control: Arc<UnixStream>,
    isolation: Isolation,
    received: Vec<u8>,
    terminal: Option<OwnedFd>,
}

impl Child {
    /// Starts one in namespaces of its own and tells it what to run. If kiln is gone, it ends by itself.
    pub(crate) fn spawn(
        entered: &Entered,
        spec: &RunSpec,
        stdio: [OwnedFd; 3],
        window: Option<(u16, u16)>,
    ) -> Result<Self, RunError> {
        let (control, theirs) = UnixStream::pair().at("make", "a socket")?;
        let [stdin, stdout, stderr] = &stdio;
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
        let isolation = entered.isolation();
        let network = match spec.network {
            NetworkMode::Private => Some(entered.private_network()?),
            NetworkMode::Host | NetworkMode::None => None,
        };
        let namespace = network.map(PrivateNetwork::namespace);
        let forked = match &spec.emulator {
            None => entered.nursery()?.fork(isolation, spec.network, namespace, streams),
            Some(emulator) => {
                entered.emulating(emulator, namespace)?.fork(isolation, spec.network, None, streams)
            }
        };
        let pidfd = forked.at("make namespaces for", "a step")?;
        let (pidfd, control) = (Arc::new(pidfd), Arc::new(control));
        let this = Self { pidfd, control, isolation, received: Vec::new(), terminal: None };
        drop((stdio, theirs));
        match wire::write(
            &mut &*this.control,
            &Start {
                spec: spec.clone(),
                ids: entered.ids().clone(),
                isolation,
                host: network.and_then(PrivateNetwork::host),
                window,
            },
        ) {
            // It is gone already; what it said, if anything, is read as ever.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.at("send", "the step to its init")?,
        }
        Ok(this)
    }

    /// Kills everything in its namespaces when `cancel` says so.
    pub(crate) fn kill_on(&self, cancel: &Cancel) -> CancelGuard {
        let (pidfd, control, isolation) =
            (Arc::clone(&self.pidfd), Arc::clone(&self.control), self.isolation);
        // It may just have ended.
        cancel.on_cancel(move || match isolation {
            Isolation::Namespaces => _ = pidfd_send_signal(&*pidfd, Signal::KILL),
            Isolation::Chroot => _ = control.shutdown(Shutdown::Write),
        })
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
            recvmsg(&*self.control, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT);
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

    /// Gives its last word, after [`pidfd`](Self::pidfd) has told its end.
    pub(crate) fn finish(&mut self) -> Result<Said, RunError> {
        while self.receive()? && !self.is_complete() {}
        let mut messages = self.received.as_slice();
        while let Ok(said) = wire::read(&mut messages) {
            if !matches!(said, Said::Terminal) {
                return Ok(said);
            }
        }
        Err(RunError::InitDied)
    }

    /// Whether nothing more can come: it is dead, so that what is not here now will not be.
    fn is_complete(&self) -> bool {
        let mut ready = [PollFd::new(&*self.control, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut ready, Some(&now)), Ok(1..))
    }
}

impl Drop for Child {
    /// On a way out that nobody planned nothing may stay behind. After its end this finds no process.
    fn drop(&mut self) {
        if self.isolation == Isolation::Chroot {
            // It has to end the others before itself.
            let _ = self.control.shutdown(Shutdown::Write);
            let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&PATIENCE));
        }
        if pidfd_send_signal(&*self.pidfd, Signal::KILL).is_ok() {
            let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None);
        }
    }
}
