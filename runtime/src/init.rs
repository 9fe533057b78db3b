//! The first process of a step's namespaces: makes the world, starts the step, reaps, reports.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_core::ExitStatus;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use crate::error::{RunError, Stage, StageExt};
use crate::step::Step;
use crate::stubs::Stubs;
use crate::wire::{self, Said, Start};
use crate::{sys, world};

/// Serves as init; does not return. `filter` is for a sandboxed step's system calls.
pub(crate) fn serve(control: OwnedFd, filter: &[libc::sock_filter]) -> ! {
    let mut control = UnixStream::from(control);
    let said = match run(&mut control, filter) {
        Ok((status, stubs)) => Said::Ended { status, usage: sys::usage_of_children(), stubs },
        Err(error) => Said::Failed(error),
    };
    // If kiln is gone, nobody wants to know. The kernel ends what is left of the step with us.
    let _ = wire::write(&mut control, &said);
    sys::exit_now(0)
}

fn run(control: &mut UnixStream, filter: &[libc::sock_filter]) -> Result<(ExitStatus, Stubs), RunError> {
    // The step inherits these: Rust, and whoever started kiln, may ignore some.
    sys::reset_signals();
    let Start { spec, ids, window } = wire::read(control).stage(Stage::ReadSpec, "kiln")?;
    // Modes are given as they shall be.
    rustix::process::umask(rustix::fs::Mode::empty());
    if spec.network.is_isolated() {
        sys::loopback_up().stage(Stage::Network, "lo")?;
    }
    match rustix::system::sethostname(spec.hostname.as_bytes()) {
        // podman's filter allows namespaces and mounts, but not this: then the container's name is the step's.
        Err(Errno::PERM) => {}
        named => named.stage(Stage::Network, &spec.hostname)?,
    }
    let stubs = world::enter(&spec, &ids)?;
    let mut step = Step::prepare(&spec, &ids, filter)?;
    if spec.tty {
        let terminal = open_terminal(control, &step, window).stage(Stage::Terminal, "/dev/ptmx")?;
        step.use_terminal(terminal);
    } else {
        own_pipes(&step);
    }
    // The step must not reach kiln's own memory and program through /proc/1.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).stage(Stage::Start, "init")?;
    let signals = SigSet::all();
    signals.thread_block().stage(Stage::Wait, "signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).stage(Stage::Wait, "signals")?;
    let main = step.start()?;
    drop(step);
    Ok((wait(main, &signals, control).stage(Stage::Wait, "the step")?, stubs))
}

/// Reaps whatever ends until the step's process does; passes signals on to that.
fn wait(main: Pid, signals: &SignalFd, control: &UnixStream) -> io::Result<ExitStatus> {
    loop {
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        poll(&mut ready, None)?;
        if !ready[1].revents().is_empty() {
            // kiln says nothing more: it is gone, and so must the step be.
            sys::exit_now(1)
        }
        let Some(info) = signals.read_signal()? else { continue };
        match Signal::try_from(info.ssi_signo.cast_signed()) {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(main)? {
                    return Ok(status);
                }
            }
            // A realtime signal is not known here; the step's process may be ending.
            Ok(signal) => _ = kill(main, signal),
            Err(_) => {}
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

/// A terminal of the step's own: the other side goes to kiln, so that the caller's is out of reach (TIOCSTI).
fn open_terminal(control: &UnixStream, step: &Step<'_>, window: Option<(u16, u16)>) -> io::Result<OwnedFd> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let terminal = rustix::fs::open(&name, flags, rustix::fs::Mode::empty())?;
    if let Some((ws_row, ws_col)) = window {
        let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size)?;
    }
    let (uid, _) = step.owner();
    rustix::fs::fchown(&terminal, Some(uid), None)?;
    let mut message = Vec::new();
    wire::write(&mut message, &Said::Terminal)?;
    let fds = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(control, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL)?;
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
