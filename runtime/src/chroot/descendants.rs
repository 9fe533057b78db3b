//! Ends every process that comes from this one, without a pid namespace to do it.
//!
//! A subreaper (PR_SET_CHILD_SUBREAPER) gets the orphans among its descendants as children, so none leaves its tree,
//! whatever it does: setsid(2), forking twice. So it is enough to kill children until there are none. Each is killed with
//! its process group, which the kernel does at one stroke: a fork that is under way fails. That ends what forks without
//! end, which killing one process after the other would not, on a machine that is busy with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getpid};
use rustix::fs::{Mode, OFlags, RawDir, openat};

/// The processes below this one, which is a subreaper from now on.
pub(crate) struct Descendants {
    /// /proc, from before the process moves to where there is none.
    proc: OwnedFd,
}

impl Descendants {
    pub(crate) fn adopt() -> io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { proc: rustix::fs::open("/proc", flags, Mode::empty())? })
    }

    /// Kills and reaps all, but for the children in `spared` and what is below those. Spared ones that have ended are
    /// taken from the set.
    pub(crate) fn end(&self, spared: &mut BTreeSet<i32>) -> io::Result<()> {
        loop {
            // What has ended anyway. Who has no children has no descendants: orphans would be its children.
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                    Ok(status) => match status.pid() {
                        Some(pid) => _ = spared.remove(&pid.as_raw()),
                        None => break,
                    },
                    Err(nix::Error::ECHILD) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            let children: Vec<i32> =
                self.children()?.into_iter().filter(|pid| !spared.contains(pid)).collect();
            if children.is_empty() && !spared.is_empty() {
                return Ok(());
            }
            for child in children.iter().map(|pid| Pid::from_raw(*pid)) {
                // Nobody but this process can reap its children, so the number is still that child's, and that of its
                // group is still the group's. A step's process has left kiln's group with setsid(2).
                if let Ok(group) = getpgid(Some(child))
                    && group != getpgrp()
                {
                    let _ = killpg(group, Signal::SIGKILL);
                }
                let _ = kill(child, Signal::SIGKILL);
            }
            if let Some(first) = children.first() {
                let _ = waitpid(Pid::from_raw(*first), Some(WaitPidFlag::__WALL));
            }
        }
    }

    fn children(&self) -> io::Result<Vec<i32>> {
        let own = getpid().as_raw();
        // Not every kernel has that (CONFIG_PROC_CHILDREN).
        let Ok(listed) = self.read(&format!("{own}/task/{own}/children")) else { return self.search(own) };
        Ok(listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// The same from what is known of every process that can be seen.
    fn search(&self, own: i32) -> io::Result<Vec<i32>> {
        // Opened anew: a directory's descriptor has one position for all.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(&self.proc, ".", flags, Mode::empty())?;
        let mut space = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(proc, space.spare_capacity_mut());
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The fourth field, behind a name in parentheses that may hold anything: proc(5).
            let Ok(stat) = self.read(&format!("{pid}/stat")) else { continue };
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            if fields.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) == Some(own) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let file = openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
