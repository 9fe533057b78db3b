//! Finds, and where missing makes, the places in a root file system where something is mounted.
//!
//! Every path is resolved inside the root: the kernel does it for paths that exist (openat2(2), RESOLVE_IN_ROOT), and
//! for others each component is opened without following, so that neither a link in an image nor one that another
//! process is just making can lead out.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, futimens, mkdirat, openat, openat2,
    readlinkat, statx,
};
use rustix::io::Errno;

use crate::stubs::{Stubs, Time};

/// As many links as the kernel follows: path_resolution(7).
const MAX_LINKS: usize = 40;

/// What is to be mounted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// A root file system, and what was made in it.
pub(crate) struct Places {
    root: OwnedFd,
    /// Its mount: stubs in other mounts are not ours to remove.
    mount: Option<u64>,
    pub(crate) stubs: Stubs,
}

impl Places {
    pub(crate) fn new(root: OwnedFd) -> io::Result<Self> {
        let mount = mount_of(root.as_fd())?;
        Ok(Self { root, mount, stubs: Stubs::default() })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens what is at `path`, if anything is.
    pub(crate) fn find(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        match open_in(&self.root, path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the mount point `path`; makes it, and the directories above, if missing.
    pub(crate) fn find_or_make(&mut self, path: &str, kind: Kind) -> io::Result<OwnedFd> {
        match self.find(path)? {
            Some(found) => Ok(found),
            None => self.make(path, kind),
        }
    }

    /// Gives the directories in which something was made their times back.
    pub(crate) fn restore_times(&mut self) -> io::Result<()> {
        // What is mounted over one hides it from the step, too; and the time of that is nobody's business.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = &self.root;
        self.stubs.restore_times(|path, times| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            match openat2(root, path, directory, Mode::empty(), resolve) {
                // Or it was moved away with what it was made in, where nothing is mounted.
                Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR) => Ok(false),
                found => Ok(futimens(found?, &times).map(|()| true)?),
            }
        })
    }

    /// Walks to `path` one component at a time and makes what is missing. `..` above the root is the root.
    fn make(&mut self, path: &str, kind: Kind) -> io::Result<OwnedFd> {
        let mut todo: VecDeque<OsString> = VecDeque::new();
        push_front(&mut todo, Path::new(path));
        let mut at: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let here = at.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let no_follow = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match openat(here, &name, no_follow, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let parent: PathBuf = at.iter().map(|(name, _)| name).collect();
                    let last = todo.is_empty();
                    make_one(
                        here,
                        &parent,
                        &name,
                        if last { kind } else { Kind::Directory },
                        self.mount,
                        &mut self.stubs,
                    )?;
                    openat(here, &name, no_follow, Mode::empty())?
                }
                other => other?,
            };
            let file_type = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            if file_type == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&found, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    at.clear();
                }
                push_front(&mut todo, target);
            } else if file_type == FileType::Directory || todo.is_empty() {
                at.push((name, found));
            } else {
                return Err(Errno::NOTDIR.into());
            }
        }
        match at.pop() {
            Some((_, fd)) => Ok(fd),
            None => Ok(self.root.try_clone()?),
        }
    }
}

/// Opens a path inside `root`, links included.
pub(crate) fn open_in(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed meanwhile, anywhere on the machine: openat2(2).
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Tells directories from all else.
pub(crate) fn kind_of(fd: impl AsFd) -> io::Result<Kind> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(if FileType::from_raw_mode(mode) == FileType::Directory { Kind::Directory } else { Kind::File })
}

fn make_one(
    dir: BorrowedFd<'_>,
    parent: &Path,
    name: &OsStr,
    kind: Kind,
    mount: Option<u64>,
    stubs: &mut Stubs,
) -> io::Result<()> {
    let ours = mount_of(dir)? == mount;
    let before = Time::modified(&rustix::fs::fstat(dir)?);
    match kind {
        Kind::Directory => mkdirat(dir, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)?;
        }
    }
    if ours {
        stubs.made(parent, name, before, Time::modified(&rustix::fs::fstat(dir)?));
    }
    Ok(())
}

/// Number of the mount; none before Linux 5.8, where all count as the root's.
fn mount_of(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let known = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let has = StatxFlags::from_bits_retain(known.stx_mask).contains(StatxFlags::MNT_ID);
    Ok(has.then_some(known.stx_mnt_id))
}

fn push_front(todo: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => todo.push_front(name.to_owned()),
            Component::ParentDir => todo.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}
