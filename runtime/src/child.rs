//! A step's init process as seen from kiln: started, watched, killed.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_core::{Cancel, CancelGuard, IoError, IoResultExt, NetworkMode, Rootfs, RunSpec, Security};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::Group;
use crate::enter::{Entered, Isolation};
use crate::error::RunError;
use crate::network::PrivateNetwork;
use crate::notify::{Answers, Handed, LinkOwners, Supervisor};
use crate::wire::{self, Said, Start};

/// How long an init without namespaces may take to end what it started, on a way out that nobody planned.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A running init process.
pub(crate) struct Child {
    pidfd: Arc<OwnedFd>,
    control: Arc<UnixStream>,
    isolation: Isolation,
    received: Vec<u8>,
    /// Those that came with messages which are not read yet, in their order.
    descriptors: VecDeque<Vec<OwnedFd>>,
    terminal: Option<OwnedFd>,
    last_word: Option<Said>,
    /// What its supervisor is to be told, until there is one.
    answers: Option<(Answers, LinkOwners, PathBuf)>,
    supervisor: Option<Supervisor>,
    /// Goes after the processes in it.
    group: Option<Group>,
}

impl Child {
    /// Starts one in namespaces of its own and tells it what to run. If kiln is gone, it ends by itself.
    pub(crate) fn spawn(
        entered: &Entered,
        spec: &RunSpec,
        stdio: [OwnedFd; 3],
        window: Option<(u16, u16)>,
    ) -> Result<Self, RunError> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
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
        let sandboxed = spec.security == Security::Sandbox;
        let answers = Answers {
            ids: entered.answers() && sandboxed,
            order: spec.directory_order.filter(|_| sandboxed),
        };
        let mut this = Self {
            pidfd: Arc::new(pidfd),
            control: Arc::new(control),
            isolation,
            received: Vec::new(),
            descriptors: VecDeque::new(),
            terminal: None,
            last_word: None,
            answers: answers.any().then(|| (answers, spec.link_owners.clone(), top_of(&spec.rootfs))),
            supervisor: None,
            group: None,
        };
        // Before it knows what to do, so that all it starts is in there.
        this.group = entered.group(&spec.resources, || this.pid().at("find", "the step's init"))?;
        drop((stdio, theirs));
        let start = Start {
            spec: RunSpec { link_owners: LinkOwners::new(), ..spec.clone() },
            ids: entered.ids().clone(),
            isolation,
            answers,
            host: network.and_then(PrivateNetwork::host),
            proc: entered.proc(),
            watched: this.group.is_none(),
            by_affinity: !this.group.as_ref().is_some_and(Group::limits_cpu),
            turn: TURN.fetch_add(1, Ordering::Relaxed),
            window,
        };
        match wire::write(&mut &*this.control, &start) {
            // It is gone already; what it said, if anything, is read as ever.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.at("send", "the step to its init")?,
        }
        Ok(this)
    }

    /// The control group that keeps its limits, if there is one.
    pub(crate) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Its process id as kiln sees it.
    fn pid(&self) -> io::Result<u32> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd()))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        pid.ok_or_else(|| io::Error::from(Errno::SRCH))
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

    /// Its descriptor, for who sends it signals.
    pub(crate) fn process(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
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
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(wire::MOST_DESCRIPTORS))];
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
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.descriptors.push_back(fds.collect());
            }
        }
        self.received.extend_from_slice(&buffer[..bytes]);
        self.take_messages()?;
        Ok(bytes > 0)
    }

    fn take_messages(&mut self) -> Result<(), IoError> {
        loop {
            let mut unread = self.received.as_slice();
            let Ok(said) = wire::read::<Said>(&mut unread) else { return Ok(()) };
            let read = self.received.len() - unread.len();
            self.received.drain(..read);
            let mut fds = match said {
                Said::Terminal | Said::Calls => self.descriptors.pop_front().unwrap_or_default().into_iter(),
                Said::Ended { .. } | Said::Failed(_) => Vec::new().into_iter(),
            };
            match (said, fds.next(), fds.next()) {
                (Said::Terminal, terminal, _) => self.terminal = terminal,
                (Said::Calls, Some(listener), Some(root)) => {
                    let (answers, below, top) = self.answers.take().unwrap_or_default();
                    let handed = Handed { listener, root };
                    self.supervisor = Some(Supervisor::start(handed, answers, below, top)?);
                }
                // Too many files are open here: the step's calls fail, and it ends.
                (Said::Calls, ..) => {}
                (last, ..) => self.last_word = Some(last),
            }
        }
    }

    /// Owners of links in the step's layer, after its end.
    pub(crate) fn link_owners(&mut self) -> Result<LinkOwners, IoError> {
        self.supervisor.take().map_or_else(|| Ok(LinkOwners::new()), Supervisor::finish)
    }

    /// The other side of the step's terminal, once.
    pub(crate) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Gives its last word, after [`pidfd`](Self::pidfd) has told its end.
    pub(crate) fn finish(&mut self) -> Result<Said, RunError> {
        while self.receive()? && !self.is_complete() {}
        self.last_word.take().ok_or(RunError::InitDied)
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
        // Its calls can come no more; the root that its thread holds goes with it.
        let _ = self.link_owners();
    }
}

/// Where a root file system takes what a step changes.
fn top_of(rootfs: &Rootfs) -> PathBuf {
    match rootfs {
        Rootfs::Overlay { upper, .. } => upper.clone(),
        Rootfs::Tree { path } => path.clone(),
    }
}
