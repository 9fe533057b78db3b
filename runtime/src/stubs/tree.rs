//! A layer's directory after a step.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timestamps, fgetxattr, flistxattr, fstat,
    futimens, openat2, statat, unlinkat,
};
use rustix::io::Errno;

/// A layer's directory. No path leads out of it: a step may have left links where directories were.
pub(super) struct Tree {
    path: PathBuf,
    fd: OwnedFd,
}

/// What is at a path.
pub(super) enum At {
    Nothing,
    Directory(OwnedFd),
    /// A file, or a path through one or through a link.
    Other,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self, IoError> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty()).at("open", path)?;
        Ok(Self { path: path.to_owned(), fd })
    }

    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    pub(super) fn at(&self, path: &Path) -> Result<At, IoError> {
        let inside = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            return match openat2(&self.fd, inside, DIRECTORY, Mode::empty(), resolve) {
                // Something was renamed meanwhile, anywhere on the machine: openat2(2).
                Err(Errno::AGAIN) => continue,
                Err(Errno::NOENT) => Ok(At::Nothing),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(At::Other),
                found => Ok(At::Directory(found.at("open", self.shown(path))?)),
            };
        }
    }

    /// The directory that has the last name of `path`.
    pub(super) fn above(&self, path: &Path) -> Result<Option<OwnedFd>, IoError> {
        Ok(match self.at(path.parent().unwrap_or(Path::new("")))? {
            At::Directory(found) => Some(found),
            At::Nothing | At::Other => None,
        })
    }

    pub(super) fn stat(&self, directory: &OwnedFd, path: &Path) -> Result<Stat, IoError> {
        fstat(directory).at("stat", self.shown(path))
    }

    pub(super) fn is_empty(&self, directory: &OwnedFd, path: &Path) -> Result<bool, IoError> {
        for entry in Dir::read_from(directory).at("list", self.shown(path))? {
            let entry = entry.at("list", self.shown(path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn remove_if_empty(&self, path: &Path) -> Result<(), IoError> {
        let (Some(parent), Some(name)) = (self.above(path)?, path.file_name()) else { return Ok(()) };
        let stat = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.at("stat", self.shown(path))?,
        };
        let how = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
            _ => return Ok(()),
        };
        match unlinkat(&parent, name, how) {
            Err(Errno::NOTEMPTY) => Ok(()),
            other => other.at("remove", self.shown(path)),
        }
    }

    pub(super) fn set_times(
        &self,
        directory: &OwnedFd,
        path: &Path,
        times: Timestamps,
    ) -> Result<(), IoError> {
        futimens(directory, &times).at("set the time of", self.shown(path))
    }

    /// Extended attributes that matter for the layer. Of overlay's own only "opaque" does: it means that the step
    /// removed the directory and made it anew.
    pub(super) fn attributes(
        &self,
        directory: &OwnedFd,
        path: &Path,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, IoError> {
        let mut names = vec![0; 4096];
        let length = loop {
            match flistxattr(directory, &mut names) {
                Err(Errno::RANGE) => names.resize(names.len() * 2, 0),
                Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
                other => break other.at("list attributes of", self.shown(path))?,
            }
        };
        let mut found = BTreeMap::new();
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let overlays = name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
            if name == b"security.selinux" || (overlays && !name.ends_with(b".opaque")) {
                continue;
            }
            let mut value = vec![0; 65_536];
            let length = fgetxattr(directory, name, &mut value).at("read attributes of", self.shown(path))?;
            value.truncate(length);
            found.insert(name.to_vec(), value);
        }
        Ok(found)
    }
}
