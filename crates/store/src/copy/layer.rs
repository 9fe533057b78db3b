//! The layer that is being filled, seen over the image below it: what is where, and which directories were made.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::CopyError;
use crate::layer::OPAQUE;
use crate::layout::Ids;
use crate::owner;
use crate::tree::resolve::{Found, Resolved, Unresolved, look_up, resolve};
use crate::tree::selected::open_dir;
use crate::tree::xattr::{self, Which, Xattrs};
use crate::tree::{FileStat, Time};
use crate::unpack::tree::remove_directory;

/// The time of what has none of its own, without SOURCE_DATE_EPOCH: 1980-01-01. Not now, so that the same build
/// makes the same layer twice; not 1970, which zip files cannot hold.
pub(super) const UNDATED: Time = Time { secs: 315_532_800, nanos: 0 };

/// A layer directory in overlay form, fresh and empty at first.
pub(super) struct LayerDir<'a> {
    pub(super) root: OwnedFd,
    pub(super) path: &'a Path,
    parent: Option<BorrowedFd<'a>>,
    ids: Ids,
    made: Vec<MadeDir>,
    by_path: HashMap<PathBuf, usize>,
    /// Where the layer takes away what the image has, and whether that is a directory: nothing of it shows any more.
    cut: HashMap<PathBuf, bool>,
    /// Whether the root's metadata is left alone.
    root_is_theirs: bool,
}

/// A directory of the layer. Its metadata is set at the end: until then files are still put into it.
struct MadeDir {
    path: PathBuf,
    in_parent: bool,
    /// Taken away again.
    gone: bool,
    meta: DirMeta,
}

/// What a directory will look like.
#[derive(Debug, Clone)]
pub(super) struct DirMeta {
    pub(super) mode: u32,
    /// None: as it is (its record, if any, is among the attributes).
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mtime: Time,
    pub(super) xattrs: Option<Arc<Xattrs>>,
}

impl<'a> LayerDir<'a> {
    pub(super) fn open(path: &'a Path, parent: Option<BorrowedFd<'a>>, ids: Ids) -> Result<Self, IoError> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self {
            root,
            path,
            parent,
            ids,
            made: Vec::new(),
            by_path: HashMap::new(),
            cut: HashMap::new(),
            root_is_theirs: false,
        })
    }

    /// Returns another descriptor of the layer.
    pub(super) fn duplicate(&self) -> Result<OwnedFd, IoError> {
        rustix::io::fcntl_dupfd_cloexec(&self.root, 0).at("open", self.path)
    }

    /// Takes the root as it is, without metadata of ours.
    pub(super) fn adopt_root(&mut self) {
        self.root_is_theirs = true;
    }

    /// Returns the path of something in the layer, for messages.
    pub(super) fn full(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// Returns what a step after this one would find at a path without links.
    pub(super) fn look(&self, path: &Path) -> Result<Found, IoError> {
        match look_up(&self.root, path).at("stat", self.full(path))? {
            Found::Missing => self.look_below(path),
            found => Ok(found),
        }
    }

    /// Returns what shows through of the image.
    fn look_below(&self, path: &Path) -> Result<Found, IoError> {
        match self.parent {
            Some(parent) if !self.is_cut(path) => look_up(parent, path).at("stat", image_path(path)),
            _ => Ok(Found::Missing),
        }
    }

    fn is_cut(&self, path: &Path) -> bool {
        !self.cut.is_empty() && path.ancestors().any(|at| self.cut.contains_key(at))
    }

    /// Takes away what is at a path, with all below it: of the layer and of the image.
    pub(super) fn clear(&mut self, path: &Path) -> Result<(), IoError> {
        let full = self.full(path);
        match look_up(&self.root, path).at("stat", &full)? {
            Found::Missing => {}
            Found::Dir => {
                let (dir, name) =
                    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
                let parent = open_dir(self.root.as_fd(), dir).at("open", self.full(dir))?;
                remove_directory(&parent, name.as_bytes()).at("remove", &full)?;
                for (_, number) in self.by_path.extract_if(|made, _| made.starts_with(path)) {
                    self.made[number].gone = true;
                }
            }
            _ => rustix::fs::unlinkat(&self.root, path, AtFlags::empty()).at("remove", &full)?,
        }
        match self.look_below(path)? {
            Found::Missing => {}
            below => drop(self.cut.insert(path.to_owned(), below == Found::Dir)),
        }
        Ok(())
    }

    /// Follows a path of the image to where it leads.
    pub(super) fn resolve(
        &self,
        path: &str,
        look: &mut dyn FnMut(&Path) -> Result<Found, IoError>,
    ) -> Result<Resolved, CopyError> {
        resolve(Path::new(path), true, look).map_err(|error| match error {
            Unresolved::Loop => CopyError::LinkLoop { path: PathBuf::from(path) },
            Unresolved::NotDirectory(file) => CopyError::FileInTheWay { path: image_path(&file) },
            Unresolved::Lookup(error) => CopyError::Io(error),
        })
    }

    /// Makes sure that a directory is in the layer: as the image has it, or new with `fresh` as its metadata. Returns
    /// whether the image has it.
    pub(super) fn make_dir(&mut self, path: &Path, fresh: &DirMeta) -> Result<bool, CopyError> {
        if let Some(known) = self.by_path.get(path) {
            return Ok(self.made[*known].in_parent);
        }
        let parent_in_image = match path.parent() {
            Some(parent) => self.make_dir(parent, fresh)?,
            None => self.parent.is_some(),
        };
        let existing = match self.parent {
            Some(parent) if parent_in_image && !self.cut.contains_key(path) => {
                existing_meta(parent, path).at("stat", image_path(path))?
            }
            _ => None,
        };
        if path.parent().is_some() {
            match rustix::fs::mkdirat(&self.root, path, Mode::RWXU) {
                Ok(()) => {}
                // Only where an export goes over files that are there.
                Err(Errno::EXIST) if matches!(look_up(&self.root, path), Ok(Found::Dir)) => {}
                Err(Errno::EXIST) => return Err(CopyError::FileInTheWay { path: image_path(path) }),
                Err(error) => return Err(error).at("create", self.full(path))?,
            }
        }
        let in_parent = existing.is_some();
        if self.cut.get(path) == Some(&true) {
            // Else overlay would show what the image has below it.
            let fd = open_dir(self.root.as_fd(), path).at("open", self.full(path))?;
            rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())
                .at("mark opaque", self.full(path))?;
        }
        let meta = existing.unwrap_or_else(|| match path.parent() {
            Some(_) => fresh.clone(),
            // The root of an image that starts from scratch.
            None => DirMeta { mode: 0o755, owner: Some((0, 0)), mtime: fresh.mtime, xattrs: None },
        });
        self.by_path.insert(path.to_owned(), self.made.len());
        self.made.push(MadeDir { path: path.to_owned(), in_parent, gone: false, meta });
        Ok(in_parent)
    }

    /// Gives a directory of the layer other metadata.
    pub(super) fn set_meta(&mut self, path: &Path, meta: DirMeta) {
        if let Some(known) = self.by_path.get(path) {
            let made = &mut self.made[*known].meta;
            // The old owner's record would undo the new owner.
            let other = |name: &[u8]| name != owner::STAT_XATTR.as_bytes();
            let xattrs = meta.xattrs.or_else(|| made.xattrs.take().and_then(|old| others(&old, other)));
            *made = DirMeta { xattrs, ..meta };
        }
    }

    /// Gives a directory of the layer attributes that an archive says it has, in place of those of the same names.
    pub(super) fn set_xattrs(
        &mut self,
        path: &Path,
        xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), IoError> {
        if xattrs.is_empty() {
            return Ok(());
        }
        let full = self.full(path);
        let fd = open_dir(self.root.as_fd(), path).at("open", &full)?;
        for (name, value) in xattrs {
            owner::set_xattr(&fd, name, value).at("set attributes of", &full)?;
        }
        if let Some(known) = self.by_path.get(path)
            && let Some(old) = self.made[*known].meta.xattrs.take()
        {
            self.made[*known].meta.xattrs = others(&old, |name| !xattrs.contains_key(name));
        }
        Ok(())
    }

    /// Gives a directory of the layer another mode.
    pub(super) fn set_mode(&mut self, path: &Path, mode: u32) {
        if let Some(known) = self.by_path.get(path) {
            self.made[*known].meta.mode = mode;
        }
    }

    /// Returns how many directories were made.
    pub(super) fn dirs(&self) -> usize {
        self.by_path.len()
    }

    /// Sets the metadata of all directories, what is below first: writing into a directory moves its time.
    pub(super) fn finish(self) -> Result<(), IoError> {
        for dir in self
            .made
            .iter()
            .rev()
            .filter(|dir| !(dir.gone || self.root_is_theirs && dir.path.as_os_str().is_empty()))
        {
            let full = self.full(&dir.path);
            let fd = open_dir(self.root.as_fd(), &dir.path).at("open", &full)?;
            if let Some((uid, gid)) = dir.meta.owner {
                set_owner(self.ids, &fd, uid, gid).at("set the owner of", &full)?;
            }
            if let Some(xattrs) = &dir.meta.xattrs {
                xattr::write(&fd, xattrs).at("set attributes of", &full)?;
            }
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(dir.meta.mode & 0o7777))
                .at("set the mode of", &full)?;
            rustix::fs::futimens(&fd, &timestamps(dir.meta.mtime)).at("set the time of", &full)?;
        }
        Ok(())
    }
}

pub(super) fn others(xattrs: &Xattrs, keep: impl Fn(&[u8]) -> bool) -> Option<Arc<Xattrs>> {
    let rest: Xattrs = xattrs.iter().filter(|(name, _)| keep(name)).cloned().collect();
    (!rest.is_empty()).then(|| Arc::new(rest))
}

/// Gives an open file or directory its owner.
pub(super) fn set_owner(ids: Ids, fd: impl AsFd, uid: u32, gid: u32) -> std::io::Result<()> {
    let stat = rustix::fs::fstat(&fd)?;
    owner::set(ids, fd, &stat, uid, gid)
}

/// Returns the metadata of a directory of the image. Its owner travels as it is stored: by number, or as kiln's own
/// record among the attributes.
fn existing_meta(parent: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Option<DirMeta>> {
    let fd = match open_dir(parent, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = FileStat::of(&fd)?;
    let xattrs = xattr::read(&fd, Which::Stored)?;
    let recorded = xattrs.iter().any(|(name, _)| name == owner::STAT_XATTR.as_bytes());
    Ok(Some(DirMeta {
        mode: stat.permissions(),
        owner: (!recorded).then_some((stat.uid, stat.gid)),
        mtime: stat.mtime,
        xattrs: (!xattrs.is_empty()).then(|| Arc::new(xattrs)),
    }))
}

pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the time of a file that is not open; a link is not followed.
pub(super) fn set_time(dir: impl AsFd, name: impl rustix::path::Arg, time: Time) -> rustix::io::Result<()> {
    rustix::fs::utimensat(dir, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn image_path(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
