//! Answers system calls of a step: that has a single id, so that it sees as many as it likes; or that shall see its directories in
//! another order. seccomp_unotify(2).
//!
//! A thread for each step, in kiln's own process: with the step's user namespace, outside of its pid namespace. It acts
//! for code that nobody trusts, with kiln's rights over the same files: what it is told to act on is looked up once, from
//! the caller's own root, and acted on through that descriptor. docs/decisions/0011-single-id.md
//! tells how and why, 0031-directory-order.md of the other.

mod available;
mod calls;
mod create;
mod credentials;
mod directories;
mod execute;
mod identity;
mod layout;
mod links;
mod listing;
mod opened;
mod owners;
mod ownership;
mod place;
mod sets;
mod status;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;

use kiln_core::{DirectoryOrder, IoError, IoResultExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use serde::{Deserialize, Serialize};

pub(crate) use available::available;
use calls::{Call, Calls, Known};
#[cfg(test)]
pub(crate) use credentials::{Change, Kind};
use directories::Directories;
use opened::Opened;
use owners::Table;
use place::{CALLERS_CWD, LOOK, Place, errno};
use sets::Sets;

use crate::sys::notify::{self as sys, Answer, Notification};

/// Owners of symbolic links, fifos and sockets, by path in a layer.
pub type LinkOwners = BTreeMap<PathBuf, (u32, u32)>;

/// What a step's system calls are answered for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// For ids and owners, of which there is a single one.
    pub(crate) ids: bool,
    /// For the order in which directories are listed.
    pub(crate) order: Option<DirectoryOrder>,
}

impl Answers {
    /// Whether for anything.
    pub(crate) fn any(self) -> bool {
        self.ids || self.order.is_some()
    }
}

/// What a step's process hands over.
#[derive(Debug)]
pub(crate) struct Handed {
    /// Where its calls arrive.
    pub(crate) listener: OwnedFd,
    /// Its root directory.
    pub(crate) root: OwnedFd,
}

/// A thread that answers a step's calls until its last process is gone.
#[derive(Debug)]
pub(crate) struct Supervisor(JoinHandle<Result<LinkOwners, IoError>>);

impl Supervisor {
    /// Starts it. `below` are the owners of the links that the step begins with; `upper` is where it leaves its own.
    pub(crate) fn start(
        handed: Handed,
        answers: Answers,
        below: LinkOwners,
        upper: PathBuf,
    ) -> Result<Self, IoError> {
        let look =
            |path: &str| rustix::fs::open(path, LOOK | OFlags::DIRECTORY, Mode::empty()).at("open", path);
        let machine = look("/proc")?;
        let upper =
            rustix::fs::open(&upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .at("open", &upper)?;
        let run = move || {
            let Handed { listener, root } = handed;
            become_one_of_the_step(&root, &machine).at("enter", "the step's root")?;
            // Before Linux 6.6 there is no such thing, and it costs nothing but time.
            let _ = sys::wake_in_turn(listener.as_fd());
            // Before Linux 6.12, in turn with all others.
            let _ = sys::take_short_turns();
            let mut answerer = Answerer::new(listener, root, upper, answers);
            if answers.ids {
                links::add_below(&mut answerer.table, &answerer.root, &below);
            }
            answerer.serve().at("answer", "a step's system calls")?;
            if let Some(trouble) = answerer.trouble {
                return Err(trouble);
            }
            if !answers.ids {
                return Ok(LinkOwners::new());
            }
            Ok(links::left(&answerer.table, &answerer.root, &answerer.upper))
        };
        let thread = std::thread::Builder::new().name("notify".to_owned()).spawn(run);
        Ok(Self(thread.at("start", "a thread")?))
    }

    /// Waits for its end, which comes with that of the step's last process; returns owners of links in its layer.
    pub(crate) fn finish(self) -> Result<LinkOwners, IoError> {
        let ended = self.0.join();
        ended.unwrap_or_else(|_| Err(IoError::new("answer", "a step's system calls", &Errno::IO.into())))
    }
}

/// Gives this thread the step's root, and the machine's /proc as its working directory, from where it reaches the step's
/// processes. Keeps the rights it needs.
fn become_one_of_the_step(root: &OwnedFd, machine: &OwnedFd) -> io::Result<()> {
    #[expect(deprecated, reason = "the descriptor table stays shared")]
    rustix::thread::unshare(UnshareFlags::FS)?;
    enter_root(root, machine)?;
    rustix::process::umask(Mode::empty());
    let needed = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::SYS_RESOURCE;
    let has = rustix::thread::capabilities(None)?;
    let kept = needed & has.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn enter_root(root: &OwnedFd, machine: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::fchdir(machine)?)
}

/// What the thread knows.
struct Answerer {
    listener: OwnedFd,
    /// The step's.
    root: OwnedFd,
    /// What it has changed of that, as kiln sees it.
    upper: OwnedFd,
    calls: Calls,
    sets: Sets,
    table: Table,
    place: Place,
    opened: Opened,
    /// Whether some process has called chroot(2): from then on, each caller's root is looked up.
    has_roots: bool,
    /// The step's mounts, by number, once they were needed.
    mounts: Option<HashSet<u64>>,
    /// If they are listed in another order.
    directories: Option<Directories>,
    /// What keeps the answers from being what they should be.
    trouble: Option<IoError>,
}

impl Answerer {
    fn new(listener: OwnedFd, root: OwnedFd, upper: OwnedFd, answers: Answers) -> Self {
        Self {
            listener,
            root,
            upper,
            calls: Calls::new(answers),
            sets: Sets::new(),
            table: Table::default(),
            place: Place::new(),
            opened: Opened::new(),
            has_roots: false,
            mounts: None,
            directories: answers.order.map(Directories::new),
            trouble: None,
        }
    }

    /// Answers until nobody is left to ask.
    fn serve(&mut self) -> io::Result<()> {
        // Since Linux 6.11 receiving ends when nobody is left; before, only polling tells.
        let polls = crate::kernel::version() < (6, 11);
        loop {
            if polls && self.is_over(true)? {
                return Ok(());
            }
            let notification = match sys::receive(self.listener.as_fd()) {
                Ok(notification) => notification,
                // A caller died before we looked, or the last one did, or a signal came.
                Err(error) if matches!(errno_of(&error), Errno::NOENT | Errno::INTR) => {
                    if self.is_over(false)? {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let answer = match self.decide(&notification) {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(errno) => Answer::Error(errno),
            };
            match sys::answer(self.listener.as_fd(), notification.id, answer) {
                // It is gone.
                Err(error) if matches!(errno_of(&error), Errno::NOENT | Errno::INPROGRESS) => {}
                other => other?,
            }
        }
    }

    /// Whether nobody is left; waits until somebody asks, or only looks.
    fn is_over(&self, waits: bool) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut ready = [PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut ready, if waits { None } else { Some(&now) }) {
                Err(Errno::INTR) => {}
                Ok(_) => return Ok(ready[0].revents().contains(PollFlags::HUP)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Finds an answer; none if the caller has it already, or is gone.
    fn decide(&mut self, call: &Notification) -> Result<Option<Answer>, Errno> {
        let Some(Known { call: kind, narrow }) = self.calls.find(call.architecture, call.number) else {
            return Ok(Some(Answer::Continue));
        };
        if self.has_roots {
            self.enter_root_of(call.tid)?;
        }
        let [a, b, c, d, e, _] = call.arguments;
        let answer = match kind {
            Call::Stat { follow, layout } => self.stat(call, CALLERS_CWD, a, follow, Some(layout), b),
            Call::Fstat(layout) => self.fstat(call, int(a), layout, b),
            Call::Fstatat(layout) => self.stat_at(call, [a, b, d], Some(layout), c, 0),
            Call::Statx => self.stat_at(call, [a, b, c], None, e, word(d)),
            Call::Chown { follow } => {
                self.place.read(call.tid, CALLERS_CWD, a, false)?;
                self.chown(call, follow, id(b, narrow), id(c, narrow))
            }
            Call::Fchown => {
                self.place.descriptor(call.tid, int(a));
                self.chown(call, true, id(b, narrow), id(c, narrow))
            }
            Call::Fchownat => {
                let (flags, allowed) = (word(e), libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH);
                if flags & !allowed.cast_unsigned() != 0 {
                    return Ok(Some(Answer::Continue));
                }
                let empty = flags & libc::AT_EMPTY_PATH.cast_unsigned() != 0;
                self.place.read(call.tid, int(a), b, empty)?;
                let follow = flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() == 0;
                self.chown(call, follow, id(c, false), id(d, false))
            }
            Call::Mknod => self.mknod(call, CALLERS_CWD, a, word(b), c),
            Call::Mknodat => self.mknod(call, int(a), b, word(c), d),
            Call::Mkdir => self.mkdir(call, CALLERS_CWD, a, word(b)),
            Call::Mkdirat => self.mkdir(call, int(a), b, word(c)),
            Call::Symlink => self.symlink(call, a, CALLERS_CWD, b),
            Call::Symlinkat => self.symlink(call, a, int(b), c),
            Call::Creat => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
                return self.open(call, CALLERS_CWD, a, flags.bits(), word(b));
            }
            Call::Open => return self.open(call, CALLERS_CWD, a, word(b), word(c)),
            Call::Openat => return self.open(call, int(a), b, word(c), word(d)),
            Call::Openat2 => return self.open_how(call, [a, b, c, d]),
            Call::Execve => self.execute(call, CALLERS_CWD, a, 0),
            Call::Execveat => self.execute(call, int(a), b, word(e)),
            Call::List(form) => self.list(call, int(a), b, word(c), form),
            Call::Chroot => {
                // Outside of a new root the mounts could not be seen any more.
                self.mounts(call.tid)?;
                self.has_roots = true;
                Ok(Answer::Continue)
            }
            ids => self.identity(call, ids, narrow),
        };
        answer.map(Some)
    }

    /// Says that the caller's memory was read while it stood still for us, so that it may be acted upon.
    fn check(&self, call: &Notification) -> Result<(), Errno> {
        if sys::still_waits(self.listener.as_fd(), call.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// Takes the root directory that the caller has.
    fn enter_root_of(&self, tid: u32) -> Result<(), Errno> {
        rustix::process::chroot(format!("{tid}/root"))
    }

    /// Returns the numbers of the step's mounts.
    fn mounts(&mut self, tid: u32) -> Result<&HashSet<u64>, Errno> {
        if self.mounts.is_none() {
            let path = format!("{tid}/mountinfo");
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let text = io::read_to_string(std::fs::File::from(file)).map_err(errno)?;
            let numbers = text.lines().filter_map(|line| line.split(' ').next()?.parse().ok());
            self.mounts = Some(numbers.collect());
        }
        Ok(self.mounts.get_or_insert_default())
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// An argument of 32 bits. The kernel does not look at the rest either.
fn word(argument: u64) -> u32 {
    (argument & 0xffff_ffff) as u32
}

fn int(argument: u64) -> i32 {
    word(argument).cast_signed()
}

/// An id; in 16 bits, -1 is -1 all the same.
fn id(argument: u64, narrow: bool) -> u32 {
    match word(argument) {
        wide if !narrow => wide,
        wide => match wide & 0xffff {
            0xffff => credentials::NONE,
            id => id,
        },
    }
}
