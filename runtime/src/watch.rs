//! What init itself sees to while a step runs: its time, and where there is no control group, its memory and its processes.
//!
//! This is a watchdog and not a wall: it looks every 20 ms, and what was too much is ended afterwards. Memory is what is
//! resident and not of a file (RssAnon, RssShmem): not address space, which programs reserve without using it, so that
//! RLIMIT_AS would be the wrong limit.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use kiln_core::{Exceeded, Resources};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::enter::Isolation;

/// How often memory and processes are looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// So many processes more than allowed can be started between two looks: RLIMIT_NPROC, which counts those of the user
/// in all steps of this kiln.
pub(crate) const PROCESSES_IN_BETWEEN: u64 = 1000;

/// What is left of the step's limits for init to keep.
pub(crate) struct Watch {
    timeout: Option<u64>,
    deadline: Option<(Instant, u64)>,
    memory: Option<u64>,
    pids: Option<u32>,
    isolation: Isolation,
    proc: Option<OwnedFd>,
}

impl Watch {
    /// Makes one, where there is a /proc still. `all`: no control group does the rest.
    pub(crate) fn new(resources: &Resources, all: bool, isolation: Isolation) -> io::Result<Self> {
        let (memory, pids) = if all { (resources.memory, resources.pids) } else { (None, None) };
        let watches = memory.is_some() || pids.is_some();
        let proc = watches.then(open_proc).transpose()?;
        Ok(Self { timeout: resources.timeout_ms, deadline: None, memory, pids, isolation, proc })
    }

    /// Starts the clock, in the step's own root.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        self.deadline = self.timeout.map(|limit| (Instant::now() + Duration::from_millis(limit), limit));
        if self.proc.is_some() && self.isolation == Isolation::Namespaces {
            // A new one as a rule, which has the step's processes only. One without processes is of no use.
            let inside = open_proc()?;
            if own_pid(&inside).is_ok() {
                self.proc = Some(inside);
            }
        }
        Ok(())
    }

    /// How long nothing needs to be looked at; none: for ever.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let left = self.deadline.map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()));
        match (&self.proc, left) {
            (Some(_), left) => Some(left.map_or(INTERVAL, |left| left.min(INTERVAL))),
            (None, left) => left,
        }
    }

    /// Says which limit is exceeded now, if one is.
    pub(crate) fn look(&self) -> io::Result<Option<Exceeded>> {
        if let Some((deadline, limit)) = self.deadline
            && Instant::now() >= deadline
        {
            return Ok(Some(Exceeded::Time { limit }));
        }
        let Some(proc) = &self.proc else { return Ok(None) };
        let uses = match self.isolation {
            Isolation::Namespaces => of_namespace(proc)?,
            Isolation::Chroot => of_descendants(proc)?,
        };
        let threads: u64 = uses.iter().map(|one| one.threads).sum();
        if let Some(limit) = self.pids.filter(|limit| threads > u64::from(*limit)) {
            return Ok(Some(Exceeded::Pids { limit }));
        }
        let bytes: u64 = uses.iter().map(|one| one.bytes).sum();
        let Some(limit) = self.memory.filter(|limit| bytes > *limit) else { return Ok(None) };
        // What processes share since a fork was counted for each.
        let exact: u64 = uses.iter().map(|one| exact(proc, one.pid).unwrap_or(one.bytes)).sum();
        Ok((exact > limit).then_some(Exceeded::Memory { limit }))
    }
}

fn open_proc() -> io::Result<OwnedFd> {
    Ok(openat(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The processes of this namespace but init.
fn of_namespace(proc: &OwnedFd) -> io::Result<Vec<Use>> {
    let own = own_pid(proc)?;
    let namespace =
        |pid: i32| statat(proc, format!("{pid}/ns/pid"), AtFlags::empty()).map(|stat| stat.st_ino);
    // A /proc of this namespace has no others in it. One that is bound from outside has.
    let ours = if own == 1 { None } else { Some(namespace(own)?) };
    let among = |pid: &i32| *pid != own && ours.is_none_or(|ours| namespace(*pid) == Ok(ours));
    Ok(numbers(proc)?.into_iter().filter(among).filter_map(|pid| Use::of(proc, pid)).collect())
}

/// What comes from this process: no orphan leaves its tree, as it is a subreaper.
fn of_descendants(proc: &OwnedFd) -> io::Result<Vec<Use>> {
    let own = own_pid(proc)?;
    let all: Vec<Use> = numbers(proc)?.into_iter().filter_map(|pid| Use::of(proc, pid)).collect();
    let parents: HashMap<i32, i32> = all.iter().map(|one| (one.pid, one.parent)).collect();
    let descends = |one: &Use| {
        // What was read at different times may go round in a circle.
        let mut parent = one.parent;
        for _ in 0..parents.len() {
            if parent == own {
                return true;
            }
            match parents.get(&parent) {
                Some(next) => parent = *next,
                None => return false,
            }
        }
        false
    };
    Ok(all.into_iter().filter(descends).collect())
}

/// This process's number in that /proc.
fn own_pid(proc: &OwnedFd) -> io::Result<i32> {
    let own = readlinkat(proc, "self", Vec::new())?;
    own.to_str().ok().and_then(|own| own.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn numbers(proc: &OwnedFd) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(proc)? {
        found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

/// What one process uses.
struct Use {
    pid: i32,
    parent: i32,
    threads: u64,
    bytes: u64,
}

impl Use {
    /// None if it has ended.
    fn of(proc: &OwnedFd, pid: i32) -> Option<Self> {
        let status = read(proc, &format!("{pid}/status"))?;
        let kib = |name| field(&status, name).unwrap_or(0) * 1024;
        Some(Self {
            pid,
            parent: i32::try_from(field(&status, "PPid:")?).ok()?,
            threads: field(&status, "Threads:")?,
            bytes: kib("RssAnon:") + kib("RssShmem:"),
        })
    }
}

/// The process's share of the memory it has, in bytes.
fn exact(proc: &OwnedFd, pid: i32) -> Option<u64> {
    let rollup = read(proc, &format!("{pid}/smaps_rollup"))?;
    let [anon, shmem] = ["Pss_Anon:", "Pss_Shmem:"].map(|name| field(&rollup, name));
    Some((anon? + shmem?) * 1024)
}

fn read(proc: &OwnedFd, path: &str) -> Option<String> {
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    io::read_to_string(std::fs::File::from(file)).ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Keeps this process, and what it starts, on some processors: those that were asked for, or so many as `--cpus` amounts
/// to where no control group keeps that. `turn` spreads steps that run at the same time.
pub(crate) fn stay_on(resources: &Resources, by_affinity: bool, turn: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in &resources.cpuset {
        let cpu = usize::try_from(*cpu).unwrap_or(usize::MAX);
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        set.set(cpu);
    }
    if !resources.cpuset.is_empty() {
        sched_setaffinity(None, &set)?;
    }
    let Some(milli) = resources.cpus_milli.filter(|_| by_affinity) else { return Ok(()) };
    let had = sched_getaffinity(None)?;
    let available: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| had.is_set(*cpu)).collect();
    let wanted = usize::try_from(milli.div_ceil(1000)).unwrap_or(usize::MAX);
    if wanted >= available.len() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for index in 0..wanted {
        set.set(available[(turn * wanted + index) % available.len()]);
    }
    Ok(sched_setaffinity(None, &set)?)
}
