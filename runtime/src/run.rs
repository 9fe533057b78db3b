//! Runs one process and follows it to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_core::{
    Cancel, Exceeded, ExitStatus, IoError, IoResultExt, LogStream, NetworkMode, Resources, Rootfs, RunSpec,
    Security, StepUsage,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::cgroup::Group;
use crate::child::Child;
use crate::enter::{Entered, Isolation};
use crate::error::RunError;
use crate::notify::LinkOwners;
use crate::signals::Signals;
use crate::terminal::{self, Relay};
use crate::wire::Said;

/// As much as is read at once: a pipe's whole capacity.
const CHUNK: usize = 64 * 1024;

/// How a process went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub status: ExitStatus,
    /// What it used, with all its children.
    pub usage: StepUsage,
    /// Owners of the symbolic links, fifos and sockets in the layer that the step leaves, where they are not what the file
    /// system says: by path in the layer.
    pub link_owners: LinkOwners,
    /// The limit that it came up against, if it ended badly for that.
    pub exceeded: Option<Exceeded>,
}

/// Runs one process in fresh namespaces. Stays on the calling thread until it and all its descendants are gone.
///
/// `output` gets what is written, as it comes, on this thread. After the end, mount points that were made for the step's
/// mounts are taken out of the root file system; in a chroot, that and what was moved there is the store's to take out. With `spec.tty`, everything comes as [`LogStream::Stdout`].
///
/// # Errors
/// The process could not be started, or was cancelled; how it ended by itself is in the report. After an error the
/// root file system holds whatever came before it.
pub fn run(
    entered: &Entered,
    spec: &RunSpec,
    output: &mut dyn FnMut(LogStream, &[u8]),
    cancel: &Cancel,
) -> Result<RunReport, RunError> {
    check(entered, spec)?;
    let (stdout, their_stdout) = io::pipe().at("make", "a pipe")?;
    let (stderr, their_stderr) = io::pipe().at("make", "a pipe")?;
    let child = Child::spawn(entered, spec, [stdin(spec)?, their_stdout.into(), their_stderr.into()], None)?;
    let sources = vec![(stdout.into(), LogStream::Stdout), (stderr.into(), LogStream::Stderr)];
    finish(entered, follow(child, spec, sources, output, cancel, None))
        .and_then(|report| blame_network(entered, spec, report))
}

/// Runs one process with the caller's terminal or standard streams.
///
/// With `spec.tty` it gets a terminal of its own, and this one is relayed to it in raw mode; otherwise it inherits the
/// standard streams themselves. `signals` are passed on to it.
///
/// # Errors
/// As [`run`]; or the caller's standard output is no terminal where one is needed.
pub fn run_interactive(
    entered: &Entered,
    spec: &RunSpec,
    signals: &Signals,
    cancel: &Cancel,
) -> Result<RunReport, RunError> {
    check(entered, spec)?;
    let copy =
        |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned().at("copy", "a standard stream");
    let (out, err) = (io::stdout(), io::stderr());
    let streams =
        [stdin(spec)?, copy(std::os::fd::AsFd::as_fd(&out))?, copy(std::os::fd::AsFd::as_fd(&err))?];
    if !spec.tty {
        let child = Child::spawn(entered, spec, streams, None)?;
        let _attached = signals.attach(child.process());
        return finish(entered, follow(child, spec, Vec::new(), &mut |_, _| {}, cancel, None))
            .and_then(|report| blame_network(entered, spec, report));
    }
    let mut relay = Relay::start(spec.stdin)?;
    let child = Child::spawn(entered, spec, streams, terminal::window())?;
    let _attached = signals.attach(child.process());
    let mut failed = None;
    let mut output = |_: LogStream, bytes: &[u8]| {
        let written =
            io::Write::write_all(&mut out.lock(), bytes).and_then(|()| io::Write::flush(&mut out.lock()));
        failed = failed.take().or_else(|| written.err());
    };
    let report = finish(entered, follow(child, spec, Vec::new(), &mut output, cancel, Some(&mut relay)));
    match failed {
        Some(error) => Err(IoError::new("write to", "standard output", &error).into()),
        None => report.and_then(|report| blame_network(entered, spec, report)),
    }
}

/// Refuses what a step cannot have without namespaces.
fn check(entered: &Entered, spec: &RunSpec) -> Result<(), RunError> {
    let wants = [
        (spec.network == NetworkMode::None, "--network=none"),
        (spec.network == NetworkMode::Private, "a network of its own"),
        (spec.security == Security::Insecure, "--security=insecure"),
        (spec.emulator.is_some(), "an emulator"),
        (spec.read_only, "a read-only root file system"),
        (matches!(spec.rootfs, Rootfs::Overlay { .. }), "a merged root file system"),
    ];
    match wants.into_iter().find(|(wanted, _)| *wanted) {
        Some((_, what)) if entered.isolation() == Isolation::Chroot => {
            Err(RunError::NeedsNamespaces { what: what.to_owned() })
        }
        _ if spec.directory_order.is_some() && spec.security == Security::Sandbox => {
            entered.can_reorder().map_err(|reason| {
                IoError::new(
                    "reorder",
                    format!("the step's directories: {reason}"),
                    &io::ErrorKind::Unsupported.into(),
                )
                .into()
            })
        }
        _ => Ok(()),
    }
}

/// In a chroot, an init that was killed leaves processes behind.
fn finish(entered: &Entered, report: Result<RunReport, RunError>) -> Result<RunReport, RunError> {
    if report.is_err() && entered.isolation() == Isolation::Chroot {
        match entered.nursery()?.end_orphans() {
            // It is gone itself: then the step's init has ended them.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            ended => ended.at("end", "the step's processes")?,
        }
    }
    report
}

/// The loop: output, messages, the end.
fn follow(
    mut child: Child,
    spec: &RunSpec,
    mut sources: Vec<(OwnedFd, LogStream)>,
    output: &mut dyn FnMut(LogStream, &[u8]),
    cancel: &Cancel,
    mut relay: Option<&mut Relay>,
) -> Result<RunReport, RunError> {
    let guard = child.kill_on(cancel);
    let mut buffer = vec![0; CHUNK];
    let mut talking = true;
    loop {
        let mut wanted = vec![PollFd::from_borrowed_fd(child.pidfd(), PollFlags::IN)];
        if talking {
            wanted.push(PollFd::from_borrowed_fd(child.control(), PollFlags::IN));
        }
        let first_source = wanted.len();
        wanted.extend(sources.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        let first_relayed = wanted.len();
        if let Some(relay) = &relay {
            wanted.extend(relay.wanted());
        }
        match poll(&mut wanted, None) {
            Err(Errno::INTR) => continue,
            other => other.at("wait for", "the step")?,
        };
        let ready: Vec<bool> = wanted.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(wanted);
        for index in (0..sources.len()).rev() {
            if ready[first_source + index] && !pump(&sources[index], &mut buffer, output)? {
                sources.remove(index);
            }
        }
        if let Some(relay) = &mut relay {
            relay.turn(&ready[first_relayed..])?;
        }
        if talking && ready[1] {
            talking = child.receive()?;
            if let Some(terminal) = child.take_terminal() {
                if let Some(relay) = &mut relay {
                    relay.attach(&terminal)?;
                }
                sources.push((terminal, LogStream::Stdout));
            }
        }
        if ready[0] {
            break;
        }
    }
    // Every process of the step is gone. What they wrote is here; if somebody outside was handed a pipe, we do not wait.
    for source in &sources {
        while is_readable(&source.0)? && pump(source, &mut buffer, output)? {}
    }
    let said = child.finish();
    drop(guard);
    match said {
        Ok(Said::Ended { status, exceeded, mut usage, stubs }) => {
            let link_owners = child.link_owners()?;
            match &spec.rootfs {
                Rootfs::Overlay { lower, upper, .. } => stubs.remove(upper, lower)?,
                Rootfs::Tree { path } => stubs.remove_from_tree(path)?,
            }
            // A cancelled step may have ended well all the same; then it did.
            let group = child.group();
            if let Some(group) = group {
                group.improve(&mut usage);
            }
            let exceeded = exceeded.or_else(|| exceeded_of(group?, &spec.resources));
            let exceeded = exceeded.filter(|_| !status.success());
            Ok(RunReport { status, usage, link_owners, exceeded })
        }
        _ if cancel.is_cancelled() => Err(RunError::Cancelled),
        Err(RunError::InitDied) if child.group().is_some_and(Group::ran_out_of_memory) => {
            let status = ExitStatus::Signal(libc::SIGKILL);
            let limit = spec.resources.memory.unwrap_or_default();
            let (usage, exceeded) = (StepUsage::default(), Some(Exceeded::Memory { limit }));
            Ok(RunReport { status, usage, link_owners: child.link_owners()?, exceeded })
        }
        Ok(Said::Failed(error)) => Err(error),
        Ok(Said::Terminal | Said::Calls) => Err(RunError::InitDied),
        Err(error) => Err(error),
    }
}

/// The limit of its control group that a step ran into.
fn exceeded_of(group: &Group, resources: &Resources) -> Option<Exceeded> {
    let memory = resources.memory.filter(|_| group.ran_out_of_memory());
    let pids = || resources.pids.filter(|_| group.ran_out_of_processes());
    memory.map(|limit| Exceeded::Memory { limit }).or_else(|| Some(Exceeded::Pids { limit: pids()? }))
}

/// A step that failed while its network was gone failed for that.
fn blame_network(entered: &Entered, spec: &RunSpec, report: RunReport) -> Result<RunReport, RunError> {
    if spec.network == NetworkMode::Private
        && !report.status.success()
        && let Some(failure) = entered.private_network()?.failure()
    {
        return Err(failure.clone().into());
    }
    Ok(report)
}

/// Reads once. Returns whether there may be more.
fn pump(
    (fd, stream): &(OwnedFd, LogStream),
    buffer: &mut [u8],
    output: &mut dyn FnMut(LogStream, &[u8]),
) -> Result<bool, IoError> {
    match rustix::io::read(fd, &mut *buffer) {
        // A terminal whose last user is gone.
        Ok(0) | Err(Errno::IO) => Ok(false),
        Ok(length) => {
            output(*stream, &buffer[..length]);
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(error) => Err(IoError::new("read", "the step's output", &error.into())),
    }
}

fn is_readable(fd: &OwnedFd) -> Result<bool, IoError> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).at("poll", "the step's output")? > 0)
}

fn stdin(spec: &RunSpec) -> Result<OwnedFd, IoError> {
    if spec.stdin && !spec.tty {
        return std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned().at("copy", "standard input");
    }
    let null = Path::new("/dev/null");
    Ok(std::fs::File::open(null).at("open", null)?.into())
}
