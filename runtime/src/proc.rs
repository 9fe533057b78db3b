//! A step's /proc: a new one, else the one that kiln has, else files that tell of the machine and of no process.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::{mounts, world};

const PROC_FILES: &str = include_str!("../data/proc_files");

/// As much of a file in /proc as is copied: more than any of those has.
const MAX_PROC_FILE: u64 = 1 << 20;

const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Which one a step has, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proc {
    /// Of its own processes.
    Fresh,
    /// The one that kiln has.
    Bound,
    /// [`fill`]ed with copies.
    Minimal,
}

/// Mounts one, attached nowhere: the one that was asked for, else the best that can be had.
pub(crate) fn mount(asked: Option<Proc>) -> io::Result<(Proc, OwnedFd)> {
    let make = |which: Proc| {
        let made = match which {
            Proc::Fresh => mounts::fresh("proc", &[], ATTRIBUTES),
            Proc::Bound => bound(),
            Proc::Minimal => minimal(),
        };
        made.map(|made| (which, made))
    };
    match asked {
        Some(which) => make(which),
        // A new one is refused where parts of /proc are covered, as in a container.
        None => make(Proc::Fresh).or_else(|_| make(Proc::Bound)).or_else(|_| make(Proc::Minimal)),
    }
}

fn bound() -> io::Result<OwnedFd> {
    let bound = mounts::bind(Path::new("/proc"), ATTRIBUTES)?;
    // One of another world's processes would tell a step nothing of itself.
    openat(&bound, "self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(bound)
}

fn minimal() -> io::Result<OwnedFd> {
    let memory = mounts::tmpfs(&[("mode", "0555")], ATTRIBUTES)?;
    fill(&memory)?;
    mounts::set(memory.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(memory)
}

/// Copies what tells of the machine, as it is now; nothing that tells of a process but an empty list of mounts.
pub(crate) fn fill(dir: impl AsFd) -> io::Result<()> {
    for name in world::entries(PROC_FILES) {
        let mut content = Vec::new();
        // A kernel without it has nothing to tell.
        let Ok(known) = File::open(Path::new("/proc").join(name)) else { continue };
        if known.take(MAX_PROC_FILE).read_to_end(&mut content).is_ok() {
            put(&dir, name, &content)?;
        }
    }
    put(&dir, "self/mounts", b"rootfs / rootfs rw 0 0\n")?;
    Ok(symlinkat("self/mounts", &dir, "mounts")?)
}

fn put(dir: impl AsFd, name: &str, content: &[u8]) -> io::Result<()> {
    for (end, _) in name.match_indices('/') {
        match mkdirat(&dir, &name[..end], Mode::from_raw_mode(0o555)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    File::from(openat(&dir, name, flags, Mode::from_raw_mode(0o444))?).write_all(content)
}
