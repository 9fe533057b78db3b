//! Control groups: where kiln may make one, a step with limits gets one of its own, which goes when the step has ended.
//!
//! Version 2 where a subtree is ours to write (systemd gives a user one, and root has all), version 1 as root
//! (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, cgroups(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_core::{Resources, StepUsage};
use rustix::fs::{Access, access};

use crate::sys;

#[cfg(test)]
mod tests;

/// Processes that are in a step's group but not the step's: its init.
const OWN_PROCESSES: u32 = 1;

/// Microseconds; the kernel's and docker's default.
const CPU_PERIOD: u64 = 100_000;

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Groups {
    /// A directory whose subgroups have the memory and pids controllers, perhaps cpu.
    V2 { base: PathBuf, cpu: bool },
    /// One directory for each controller.
    V1 { memory: PathBuf, pids: PathBuf, cpu: PathBuf },
}

impl Groups {
    /// Looks for them.
    ///
    /// # Errors
    /// Why there are none, as the end of a sentence.
    pub(crate) fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let groups = Self::among(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        groups.sweep();
        groups
            .try_out()
            .map_err(|error| format!("{} cannot be used: {error}", groups.bases()[0].display()))?;
        Ok(groups)
    }

    fn among(own: &str, mounts: &str) -> Result<Self, String> {
        let places: Vec<Place> = own.lines().filter_map(|line| Place::parse(line, mounts)).collect();
        let controller =
            |name: &str| places.iter().find(|place| place.has(name)).map(|place| place.dir.clone());
        if let (Some(memory), Some(pids), Some(cpu)) =
            (controller("memory"), controller("pids"), controller("cpu"))
        {
            let closed = [&memory, &pids, &cpu].into_iter().find(|dir| !may_make_in(dir));
            if let Some(dir) = closed {
                return Err(format!("{} cannot be written", dir.display()));
            }
            return Ok(Self::V1 { memory, pids, cpu });
        }
        let Some(unified) = places.iter().find(|place| place.controllers.is_empty()) else {
            return Err("no control groups are mounted".to_owned());
        };
        unified.delegated()
    }

    /// Makes a group with these limits; `init` goes into it, and so what that starts.
    pub(crate) fn make(&self, resources: &Resources, init: u32) -> io::Result<Group> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kiln-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut group = match self {
            Self::V2 { cpu, .. } => Group { dirs: Vec::new(), v2: true, cpu: *cpu },
            Self::V1 { .. } => Group { dirs: Vec::new(), v2: false, cpu: true },
        };
        for dir in self.bases() {
            let dir = dir.join(&name);
            fs::create_dir(&dir)?;
            group.dirs.push(dir);
        }
        let milli = resources.cpus_milli.filter(|_| group.cpu);
        let cpu = milli.map(|milli| u64::from(milli) * CPU_PERIOD / 1000);
        let pids = resources.pids.map(|pids| pids.saturating_add(OWN_PROCESSES));
        match &group.dirs[..] {
            [dir] => {
                set(dir, "memory.max", resources.memory)?;
                if let Err(error) = set(dir, "memory.swap.max", resources.swap())
                    && error.kind() != io::ErrorKind::NotFound
                {
                    // Without it there is no accounting of swap, and none to limit.
                    return Err(error);
                }
                set(dir, "pids.max", pids)?;
                set(dir, "cpu.max", cpu.map(|quota| format!("{quota} {CPU_PERIOD}")))?;
            }
            [memory, pids_dir, cpu_dir] => {
                set(memory, "memory.limit_in_bytes", resources.memory)?;
                let total =
                    resources.memory.zip(resources.swap()).map(|(memory, swap)| memory.saturating_add(swap));
                match set(
                    memory,
                    "memory.memsw.limit_in_bytes",
                    total.filter(|total| *total < i64::MAX as u64),
                ) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                set(pids_dir, "pids.max", pids)?;
                set(cpu_dir, "cpu.cfs_period_us", cpu.map(|_| CPU_PERIOD))?;
                set(cpu_dir, "cpu.cfs_quota_us", cpu)?;
            }
            _ => {}
        }
        for dir in &group.dirs {
            fs::write(dir.join("cgroup.procs"), init.to_string())?;
        }
        Ok(group)
    }

    /// Puts a process into a group with a limit: what files' permissions allow is not all that it takes.
    fn try_out(&self) -> io::Result<()> {
        let limit = Resources { memory: Some(1 << 30), ..Resources::default() };
        let mut made = Err(io::Error::from_raw_os_error(libc::EIO));
        let (pid, _) = sys::vfork(0, &mut || {
            made = self.make(&limit, std::process::id()).map(|mut group| std::mem::take(&mut group.dirs));
            0
        })?;
        nix::sys::wait::waitpid(pid, None)?;
        let group = Group { dirs: made?, v2: true, cpu: false };
        drop(group);
        Ok(())
    }

    fn bases(&self) -> Vec<&Path> {
        match self {
            Self::V2 { base, .. } => vec![base],
            Self::V1 { memory, pids, cpu } => vec![memory, pids, cpu],
        }
    }

    /// Removes what a kiln left that was killed. A group with processes in it cannot be removed.
    fn sweep(&self) {
        for base in self.bases() {
            for entry in fs::read_dir(base).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let pid = name.to_str().and_then(|name| name.strip_prefix("kiln-")?.split('-').next());
                if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                    _ = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

/// A step's group. Removed when this is dropped, which is when every process of the step is gone.
#[derive(Debug)]
pub(crate) struct Group {
    /// One, or memory, pids and cpu.
    dirs: Vec<PathBuf>,
    v2: bool,
    cpu: bool,
}

impl Group {
    /// Whether `--cpus` is kept by it.
    pub(crate) fn limits_cpu(&self) -> bool {
        self.cpu
    }

    /// Whether the kernel killed a process of it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        self.dirs.first().and_then(|dir| field(&dir.join(file), "oom_kill")).is_some_and(|count| count > 0)
    }

    /// Whether a process of it could not fork for being one too many.
    pub(crate) fn ran_out_of_processes(&self) -> bool {
        let dir = self.dirs.get(usize::from(!self.v2));
        dir.and_then(|dir| field(&dir.join("pids.events"), "max")).is_some_and(|count| count > 0)
    }

    /// Puts in what the group knows better than getrusage(2), which leaves out what nobody waited for.
    pub(crate) fn improve(&self, usage: &mut StepUsage) {
        let Some(memory) = self.dirs.first() else { return };
        let peak = if self.v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        if let Some(bytes) = number(&memory.join(peak)) {
            usage.peak_rss_kib = bytes / 1024;
        }
        if self.v2 {
            let stat = memory.join("cpu.stat");
            if let (Some(user), Some(system)) = (field(&stat, "user_usec"), field(&stat, "system_usec")) {
                (usage.user_us, usage.system_us) = (user, system);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // If the kernel is not done with it yet, the next kiln sweeps it up.
            _ = fs::remove_dir(dir);
        }
    }
}

/// One line of /proc/self/cgroup, and where that is mounted.
struct Place {
    /// Empty for version 2.
    controllers: Vec<String>,
    mount: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn parse(line: &str, mounts: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let controllers: Vec<String> =
            controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let (root, mount) = mounts.lines().find_map(|line| {
            // proc_pid_mountinfo(5): ... root mount-point options ... - type source super-options
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let fits = match controllers.first() {
                None => kind == "cgroup2",
                Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            };
            fits.then_some((*left.get(3)?, PathBuf::from(left.get(4)?)))
        })?;
        let inside = Path::new(path).strip_prefix(root).ok()?;
        Some(Self { controllers, dir: mount.join(inside), mount })
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// The nearest group above this process whose subgroups have controllers, if it is ours. This process cannot be moved
    /// there, but what it starts can. Limits on the way there would be escaped: then there is none.
    fn delegated(&self) -> Result<Groups, String> {
        for dir in self.dir.ancestors().take_while(|dir| dir.starts_with(&self.mount)) {
            let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            let has = |name: &str| enabled.split_whitespace().any(|word| word == name);
            if has("memory") && has("pids") {
                return match may_make_in(dir) {
                    true => Ok(Groups::V2 { base: dir.to_owned(), cpu: has("cpu") }),
                    false => Err(format!("{} is not delegated to this user", dir.display())),
                };
            }
            let limited = ["memory.max", "cpu.max"]
                .into_iter()
                .find(|file| fs::read_to_string(dir.join(file)).is_ok_and(|text| !text.starts_with("max")));
            if let Some(file) = limited {
                return Err(format!("{} has a limit of its own", dir.join(file).display()));
            }
        }
        Err("no control group here has the memory and pids controllers".to_owned())
    }
}

/// Whether a group can be made there, and processes be moved into it.
fn may_make_in(dir: &Path) -> bool {
    access(dir, Access::WRITE_OK).is_ok() && access(dir.join("cgroup.procs"), Access::WRITE_OK).is_ok()
}

fn set(dir: &Path, file: &str, value: Option<impl ToString>) -> io::Result<()> {
    value.map_or(Ok(()), |value| {
        fs::OpenOptions::new()
            .write(true)
            .open(dir.join(file))
            .and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()))
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a word at the beginning of a line.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
