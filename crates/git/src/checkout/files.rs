//! From trees to files.
//!
//! The target begins empty and nobody else writes to it. Each name is checked, and everything is made anew: a directory,
//! a file or a link that is there already is an error. So no path leads through a link, whatever a tree says.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use gix_hash::ObjectId;
use gix_object::tree::EntryKind;
use gix_object::{Kind, TreeRefIter};
use gix_validate::path::component;
use kiln_core::IoResultExt as _;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::Checkout;
use crate::GitError;
use crate::location::Location;
use crate::pack::Objects;

/// Writes one repository's files.
pub(super) struct Files<'a, 'c, 'p> {
    location: &'a Location,
    time: i64,
    target: &'a Path,
    shared: &'a mut Checkout<'c, 'p>,
    pub(super) written: Written,
}

/// What was written, paths relative to the target.
#[derive(Default)]
pub(super) struct Written {
    /// Without the target itself; each behind what it is in.
    pub(super) directories: Vec<PathBuf>,
    pub(super) submodules: Vec<(PathBuf, ObjectId)>,
    /// Files, links and submodules, in git's order.
    pub(super) index: Vec<IndexEntry>,
}

/// A line of `.git/index`.
pub(super) struct IndexEntry {
    pub(super) path: PathBuf,
    pub(super) kind: EntryKind,
    pub(super) id: ObjectId,
}

/// A link's target is a path; this is the longest one that Linux takes.
const LONGEST_LINK: usize = 4095;

impl<'a, 'c, 'p> Files<'a, 'c, 'p> {
    pub(super) fn new(
        location: &'a Location,
        time: i64,
        target: &'a Path,
        shared: &'a mut Checkout<'c, 'p>,
    ) -> Self {
        Self { location, time, target, shared, written: Written::default() }
    }

    pub(super) fn tree(&mut self, objects: &mut Objects, id: ObjectId) -> Result<(), GitError> {
        self.directory(objects, id, Path::new(""), 0)
    }

    fn directory(
        &mut self,
        objects: &mut Objects,
        id: ObjectId,
        path: &Path,
        depth: usize,
    ) -> Result<(), GitError> {
        let limit = self.shared.access.limits.depth;
        if depth > limit {
            return Err(self.too_large(format!("it has directories more than {limit} deep")));
        }
        let data = objects.get(id, Kind::Tree)?.to_vec();
        for entry in TreeRefIter::from_bytes(&data, gix_hash::Kind::Sha1) {
            let entry = entry.map_err(|_| GitError::Pack {
                remote: self.location.name.clone(),
                reason: format!("object {id}, a tree, cannot be read"),
            })?;
            if self.shared.access.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            let (kind, id) = (entry.mode.kind(), entry.oid.to_owned());
            let path = self.checked(path, entry.filename, kind)?;
            self.count()?;
            if kind != EntryKind::Tree {
                self.written.index.push(IndexEntry { path: path.clone(), kind, id });
            }
            match kind {
                EntryKind::Tree => {
                    self.make_directory(&path)?;
                    self.directory(objects, id, &path, depth + 1)?;
                }
                EntryKind::Commit => {
                    self.make_directory(&path)?;
                    self.written.submodules.push((path, id));
                }
                EntryKind::Link => {
                    let data = objects.get(id, Kind::Blob)?;
                    self.link(&path, data)?;
                }
                EntryKind::Blob => self.file(&path, 0o644, objects.get(id, Kind::Blob)?)?,
                EntryKind::BlobExecutable => self.file(&path, 0o755, objects.get(id, Kind::Blob)?)?,
            }
        }
        Ok(())
    }

    /// Adds a name to a path. What git refuses is refused: `.`, `..`, slashes, `.git` in any spelling that some file system
    /// takes for it, and a link in the place of `.gitmodules`.
    fn checked(&self, parent: &Path, name: &[u8], kind: EntryKind) -> Result<PathBuf, GitError> {
        let rules = component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
        let mode = (kind == EntryKind::Link).then_some(component::Mode::Symlink);
        let path = parent.join(OsStr::from_bytes(name));
        match component(name.into(), mode, rules) {
            Ok(_) => Ok(path),
            Err(error) => Err(self.refused(&parent.join(OsStr::from_bytes(name)), &error.to_string())),
        }
    }

    fn make_directory(&mut self, path: &Path) -> Result<(), GitError> {
        let full = self.target.join(path);
        let made = DirBuilder::new().mode(0o755).create(&full);
        self.new_one(path, made, "make")?;
        // The umask had a say.
        fs::set_permissions(&full, Permissions::from_mode(0o755)).at("set the mode of", &full)?;
        self.written.directories.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<(), GitError> {
        let limit = self.shared.access.limits.total;
        self.shared.bytes += data.len() as u64;
        if self.shared.bytes > limit {
            return Err(self.too_large(format!("its files have more than {} MiB", limit >> 20)));
        }
        let full = self.target.join(path);
        let mut file = self.new_one(path, File::create_new(&full), "create")?;
        file.write_all(data).at("write", &full)?;
        file.set_permissions(Permissions::from_mode(mode)).at("set the mode of", &full)?;
        set_time(&full, self.time)
    }

    fn link(&mut self, path: &Path, to: &[u8]) -> Result<(), GitError> {
        if to.is_empty() || to.len() > LONGEST_LINK || to.contains(&0) {
            return Err(self.refused(path, "a link that leads to what is no path"));
        }
        let full = self.target.join(path);
        self.new_one(path, symlink(OsStr::from_bytes(to), &full), "make the link")?;
        set_time(&full, self.time)
    }

    /// A name that is there twice is somebody's trick.
    fn new_one<T>(&self, path: &Path, made: std::io::Result<T>, verb: &str) -> Result<T, GitError> {
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(self.refused(path, "it is there twice"))
            }
            made => Ok(made.at(verb, self.target.join(path))?),
        }
    }

    fn count(&mut self) -> Result<(), GitError> {
        let limit = self.shared.access.limits.entries;
        self.shared.entries += 1;
        if self.shared.entries > limit {
            return Err(self.too_large(format!("it has more than {limit} files")));
        }
        Ok(())
    }

    fn refused(&self, path: &Path, reason: &str) -> GitError {
        let mut reason = reason.to_owned();
        reason[..1].make_ascii_lowercase();
        GitError::Path {
            remote: self.location.name.clone(),
            path: crate::error::plain(&path.to_string_lossy()),
            reason,
        }
    }

    fn too_large(&self, what: String) -> GitError {
        GitError::TooLarge { remote: self.location.name.clone(), what }
    }
}

/// Dates directories once nothing is written into them any more.
pub(super) fn set_times(target: &Path, directories: &[PathBuf], time: i64) -> Result<(), GitError> {
    for directory in directories.iter().rev() {
        set_time(&target.join(directory), time)?;
    }
    set_time(target, time)
}

pub(super) fn set_time(path: &Path, time: i64) -> Result<(), GitError> {
    let time = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the times of", path)?)
}
