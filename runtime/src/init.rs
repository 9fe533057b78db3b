//! The first process of a step's namespaces: makes the world, starts the step, reaps, reports.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_core::{Exceeded, ExitStatus, Limit, NetworkMode, RunSpec};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, PidfdFlags, pidfd_open};

use crate::chroot::{self, Descendants};
use crate::enter::Isolation;
use crate::error::{RunError, Stage, StageExt};
use crate::ids::IdMode;
use crate::meter::Meter;
use crate::proc::Proc;
use crate::seccomp::Filters;
use crate::step::Step;
use crate::streams::Streams;
use crate::stubs::Stubs;
use crate::watch::{self, PROCESSES_IN_BETWEEN, Watch};
use crate::wire::{self, Said, Start};
use crate::{sys, world};

/// Serves as init; does not return. `filters` are for a sandboxed step's system calls.
pub(crate) fn serve(control: OwnedFd, filters: &Filters) -> ! {
    let mut control = UnixStream::from(control);
    let said = match run(&mut control, filters) {
        Ok(ended) => ended,
        Err(error) => Said::Failed(error),
    };
    // If kiln is gone, nobody wants to know. The kernel ends what is left of the step with us.
    let _ = wire::write(&mut control, &said);
    sys::exit_now(0)
}

fn run(control: &mut UnixStream, filters: &Filters) -> Result<Said, RunError> {
    // The step inherits these: Rust, and whoever started kiln, may ignore some.
    sys::reset_signals();
    let Start { mut spec, ids, isolation, answers, host, proc, watched, by_affinity, turn, window } =
        wire::read(control).stage(Stage::ReadSpec, "kiln")?;
    // Modes are given as they shall be.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut meter = Meter::open();
    let mut watch = Watch::new(&spec.resources, watched, isolation).stage(Stage::Limit, "/proc")?;
    let mut place = Place::enter(&spec, &ids, isolation, answers.ids, host, proc)?;
    watch::stay_on(&spec.resources, by_affinity, turn).stage(Stage::Limit, "the processors")?;
    if let Some(pids) = spec.resources.pids.filter(|_| watched) {
        let most = Some(u64::from(pids) + PROCESSES_IN_BETWEEN);
        // Before those that were asked for, which may be lower.
        spec.machine.limits.insert(0, Limit { name: "nproc".to_owned(), soft: most, hard: most });
    }
    let filter = may_filter(isolation).then(|| filters.choose(answers));
    let answered_at = answers.any().then_some(control.as_fd());
    let mut step = Step::prepare(&spec, &ids, answers.ids, filter.as_deref(), answered_at)?;
    if spec.tty {
        let terminal = place.terminal().and_then(|terminal| hand_over(terminal, control, &step, window));
        step.use_terminal(terminal.stage(Stage::Terminal, "/dev/ptmx")?);
    } else {
        own_pipes(&step);
    }
    meter.start();
    watch.start().stage(Stage::Limit, "/proc")?;
    // The step must not reach kiln's own memory and program through /proc/1.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).stage(Stage::Start, "init")?;
    let signals = SigSet::all();
    signals.thread_block().stage(Stage::Wait, "signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .stage(Stage::Wait, "signals")?;
    let main = step.start()?;
    drop(step);
    let ended = wait(main, &signals, control, &mut place, &watch).stage(Stage::Wait, "the step");
    place.end().stage(Stage::Wait, "the step")?;
    let (status, exceeded) = ended?;
    Ok(Said::Ended { status, exceeded, usage: meter.usage(), stubs: place.stubs })
}

/// Where the step runs, and what has to be done for it there.
struct Place {
    stubs: Stubs,
    /// In a chroot: what namespaces do elsewhere.
    descendants: Option<Descendants>,
    /// The process that forked this one; elsewhere the kernel ends this one with it.
    parent: Option<OwnedFd>,
    /// Where there is no real /proc.
    streams: Option<Streams>,
    /// Opened while it could be.
    terminal: Option<(OwnedFd, OwnedFd)>,
}

impl Place {
    fn enter(
        spec: &RunSpec,
        ids: &IdMode,
        isolation: Isolation,
        answered: bool,
        host: Option<IpAddr>,
        proc: Option<Proc>,
    ) -> Result<Self, RunError> {
        if isolation == Isolation::Chroot {
            let descendants = Descendants::adopt().stage(Stage::Wait, "/proc")?;
            let terminal = spec.tty.then(new_terminal).transpose().stage(Stage::Terminal, "/dev/ptmx")?;
            let parent = rustix::process::getppid()
                .map(|parent| pidfd_open(parent, PidfdFlags::empty()))
                .transpose()
                .stage(Stage::Wait, "the nursery")?;
            let streams = Some(chroot::enter(spec)?);
            return Ok(Self {
                stubs: Stubs::default(),
                descendants: Some(descendants),
                parent,
                streams,
                terminal,
            });
        }
        if spec.network == NetworkMode::None {
            sys::loopback_up().stage(Stage::Network, "lo")?;
        }
        match rustix::system::sethostname(spec.hostname.as_bytes()) {
            // podman's filter allows namespaces and mounts, but not this: then the container's name is the step's.
            Err(Errno::PERM) => {}
            named => named.stage(Stage::Network, &spec.hostname)?,
        }
        let (stubs, streams) = world::enter(spec, ids, answered, host, proc)?;
        Ok(Self { stubs, descendants: None, parent: None, streams, terminal: None })
    }

    fn terminal(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.terminal.take().map_or_else(new_terminal, Ok)
    }

    /// Ends what is left of the step, where the kernel does not.
    fn end(&mut self) -> io::Result<()> {
        if let Some(descendants) = &self.descendants {
            descendants.end(&mut BTreeSet::new())?;
        }
        if let Some(streams) = &mut self.streams {
            streams.pump();
        }
        Ok(())
    }
}

/// A filter cannot be had without privileges but for the price of `no_new_privs`, which takes sudo and su from steps. In
/// a chroot it would protect nothing, and a container's own is in force.
pub(crate) fn may_filter(isolation: Isolation) -> bool {
    isolation == Isolation::Namespaces
        || rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// Reaps whatever ends until the step's process does; passes signals on to that; ends the step when it exceeds a limit.
fn wait(
    main: Pid,
    signals: &SignalFd,
    control: &UnixStream,
    place: &mut Place,
    watch: &Watch,
) -> io::Result<(ExitStatus, Option<Exceeded>)> {
    loop {
        let mut ready = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        ready.extend(place.parent.as_ref().map(|parent| PollFd::new(parent, PollFlags::IN)));
        if let Some(streams) = &place.streams {
            ready.extend(streams.wanted().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let pause = watch.pause().map(|pause| Timespec::try_from(pause).map_err(io::Error::other));
        poll(&mut ready, pause.transpose()?.as_ref())?;
        let parent_ended = place.parent.is_some() && !ready[2].revents().is_empty();
        if !ready[1].revents().is_empty() || parent_ended {
            // kiln says nothing more: it is gone, and so must the step be.
            let _ = place.end();
            sys::exit_now(1)
        }
        drop(ready);
        if let Some(exceeded) = watch.look()? {
            return Ok((kill_all(main, place)?, Some(exceeded)));
        }
        if let Some(streams) = &mut place.streams {
            streams.pump();
        }
        let Some(info) = signals.read_signal()? else { continue };
        match Signal::try_from(info.ssi_signo.cast_signed()) {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(main)? {
                    return Ok((status, None));
                }
            }
            // A realtime signal is not known here; the step's process may be ending.
            Ok(signal) => _ = kill(main, signal),
            Err(_) => {}
        }
    }
}

/// Kills the step and waits until nothing of it is left, so that all it used is counted.
fn kill_all(main: Pid, place: &mut Place) -> io::Result<ExitStatus> {
    let killed = ExitStatus::Signal(Signal::SIGKILL as i32);
    if place.descendants.is_some() {
        place.end()?;
        return Ok(killed);
    }
    // All but the first process of a namespace, which is this one. It may have ended just now.
    _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    loop {
        match waitpid(None, None) {
            // It was faster, and failed.
            Ok(WaitStatus::Exited(pid, code)) if pid == main && code != 0 => {
                while waitpid(None, None) != Err(nix::Error::ECHILD) {}
                return Ok(ExitStatus::Code(code));
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(nix::Error::ECHILD) => return Ok(killed),
            Err(error) => return Err(error.into()),
        }
    }
}

fn reap(main: Pid) -> io::Result<Option<ExitStatus>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => ended = Some(ExitStatus::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                ended = Some(ExitStatus::Signal(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(ended),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Both sides of a new terminal.
fn new_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let terminal = rustix::fs::open(&name, flags, rustix::fs::Mode::empty())?;
    Ok((master, terminal))
}

/// A terminal of the step's own: the other side goes to kiln, so that the caller's is out of reach (TIOCSTI).
fn hand_over(
    (master, terminal): (OwnedFd, OwnedFd),
    control: &UnixStream,
    step: &Step<'_>,
    window: Option<(u16, u16)>,
) -> io::Result<OwnedFd> {
    if let Some((ws_row, ws_col)) = window {
        let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size)?;
    }
    let (uid, _) = step.owner();
    rustix::fs::fchown(&terminal, Some(uid), None)?;
    wire::hand_over(control.as_fd(), &Said::Terminal, &[master.as_fd()])?;
    Ok(terminal)
}

/// Lets a step that is not root open /dev/stdout: docker does the same. What is no pipe of ours stays as it is.
fn own_pipes(step: &Step<'_>) {
    let (uid, gid) = step.owner();
    if uid.is_root() {
        return;
    }
    for stream in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let is_pipe = rustix::fs::fstat(stream).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
        });
        if is_pipe {
            // Refused only for a pipe of somebody else's (`kiln run | ...`): that is theirs to open.
            let _ = rustix::fs::fchown(stream, Some(uid), Some(gid));
        }
    }
}
