//! Writing entries into a fresh directory that nobody else sees yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_carry::{Entry, Kind};
use kiln_core::{IoError, IoResultExt as _};
use kiln_store::{Ids, owner};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, fstat};
use rustix::io::Errno;

/// A directory that is being filled.
pub(super) struct Filling<'a> {
    root: OwnedFd,
    path: PathBuf,
    ids: Ids,
    entries: &'a BTreeMap<PathBuf, Entry>,
    /// What one should know.
    pub(super) notes: Mutex<Vec<String>>,
}

/// A file whose chunks come one by one.
pub(super) struct Partial<'a> {
    pub(super) path: &'a Path,
    pub(super) entry: &'a Entry,
    /// Bytes that are not there yet.
    pub(super) missing: AtomicU64,
}

impl<'a> Filling<'a> {
    /// Begins: makes the directories of what `wanted` says is to be written.
    pub(super) fn begin(
        path: &Path,
        ids: Ids,
        entries: &'a BTreeMap<PathBuf, Entry>,
        wanted: &dyn Fn(&Path) -> bool,
    ) -> Result<Self, IoError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        let filling = Self { root, path: path.to_owned(), ids, entries, notes: Mutex::default() };
        for (path, entry) in entries {
            if entry.kind == Kind::Directory && !path.as_os_str().is_empty() && wanted(path) {
                rustix::fs::mkdirat(&filling.root, path, Mode::RWXU).at("create", filling.path.join(path))?;
            }
        }
        Ok(filling)
    }

    /// Writes a chunk of a file; the last one finishes the file.
    pub(super) fn write(&self, file: &Partial<'_>, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        let path = || self.path.join(file.path);
        // All parents are directories of our own making.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, file.path, flags, Mode::RUSR | Mode::WUSR);
        let open = File::from(fd.at("create", path())?);
        open.write_all_at(bytes, at).at("write", path())?;
        let length = bytes.len() as u64;
        if file.missing.fetch_sub(length, Ordering::AcqRel) == length {
            self.finish(&open, file.path, file.entry)?;
        }
        Ok(())
    }

    /// Makes an empty file.
    pub(super) fn empty(&self, path: &Path, entry: &Entry) -> Result<(), IoError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, path, flags, Mode::RUSR | Mode::WUSR);
        self.finish(&fd.at("create", self.path.join(path))?, path, entry)
    }

    /// Makes what is no regular file, and in the end gives directories their times.
    pub(super) fn end(&self, wanted: &dyn Fn(&Path) -> bool) -> Result<(), IoError> {
        for (path, entry) in self.entries.iter().filter(|(path, _)| wanted(path)) {
            let full = || self.path.join(path);
            match &entry.kind {
                Kind::Link { target } => {
                    rustix::fs::symlinkat(target, &self.root, path).at("create", full())?;
                    self.nofollow(path, entry)?;
                }
                Kind::Hard { to } => {
                    rustix::fs::linkat(&self.root, to, &self.root, path, AtFlags::empty())
                        .at("link", full())?;
                }
                Kind::Fifo => {
                    let mode = Mode::from_raw_mode(entry.mode);
                    let kind = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(&self.root, path, kind, mode, 0).at("create", full())?;
                    self.nofollow(path, entry)?;
                }
                Kind::Directory | Kind::File { .. } => {}
            }
        }
        let directories = self.entries.iter().rev().filter(|(_, entry)| entry.kind == Kind::Directory);
        for (path, entry) in directories.filter(|(path, _)| path.as_os_str().is_empty() || wanted(path)) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let fd = rustix::fs::openat(&self.root, name, flags, Mode::empty());
            self.finish(&fd.at("open", self.path.join(path))?, path, entry)?;
        }
        Ok(())
    }

    /// Owner, attributes, mode and times, in the order in which none undoes another.
    fn finish(&self, file: impl AsFd, path: &Path, entry: &Entry) -> Result<(), IoError> {
        let full = || self.path.join(path);
        let stat = fstat(&file).at("stat", full())?;
        let set = owner::set(self.ids, &file, &stat, entry.uid, entry.gid);
        if let Err(error) = set {
            self.not_mapped(error, path, entry)?;
        }
        for (name, value) in &entry.xattrs {
            owner::set_xattr(&file, name, value).at("set attributes of", full())?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).at("set the mode of", full())?;
        rustix::fs::futimens(&file, &times(entry)).at("set the times of", full())
    }

    fn nofollow(&self, path: &Path, entry: &Entry) -> Result<(), IoError> {
        if self.ids == Ids::Full && (entry.uid, entry.gid) != (0, 0) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(entry.uid), rustix::fs::Gid::from_raw(entry.gid));
            let set = rustix::fs::chownat(&self.root, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            if let Err(error) = set {
                self.not_mapped(error.into(), path, entry)?;
            }
        }
        rustix::fs::utimensat(&self.root, path, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the times of", self.path.join(path))
    }

    /// An owner that there is not here: the file is root's.
    fn not_mapped(&self, error: std::io::Error, path: &Path, entry: &Entry) -> Result<(), IoError> {
        let errno = error.raw_os_error();
        if errno != Some(Errno::INVAL.raw_os_error()) && errno != Some(Errno::PERM.raw_os_error()) {
            return Err(error).at("set the owner of", self.path.join(path));
        }
        let mut notes = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if notes.len() < 10 {
            notes.push(format!(
                "{}: nobody is {}:{} here; it is root's",
                path.display(),
                entry.uid,
                entry.gid
            ));
        }
        Ok(())
    }
}

fn times(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.mtime.0, tv_nsec: i64::from(entry.mtime.1) };
    // Older than the file's last change, so that a step's read is noted (relatime: mount(8)).
    let last_access = Timespec { tv_sec: entry.last_use(), tv_nsec: 0 };
    Timestamps { last_access, last_modification: modified }
}

/// Bytes that may be written where a directory is.
pub(super) fn room(path: &Path) -> Result<u64, IoError> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there).at("ask for the room at", there)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
