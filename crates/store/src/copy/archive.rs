//! `ADD` of an archive: its entries over the image.
//!
//! Entries are made in the layer by the same hands as a base layer's ([`crate::unpack::make`]); what differs is where they
//! go. Names and links are taken as if the destination were the root, and what is there is found in the layer and in the
//! image below it. An entry takes the place of whatever has its name, whole directories included, unless both are
//! directories. A name like `.wh.x` means nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoError, IoResultExt};
use rustix::fs::{Mode, OFlags};

use super::job::Common;
use super::layer::{DirMeta, LayerDir};
use super::{CopyError, CopyReport};
use crate::Ids;
use crate::error::{ArchiveError, EntryProblem};
use crate::tree::resolve::{Found, Unresolved, resolve};
use crate::tree::selected::{Entry as Chosen, Identity, Match, Selected, open_dir};
use crate::tree::{FileStat, Kind as FileKind, Time};
use crate::unpack::entry::{Entries, Entry, Kind};
use crate::unpack::make::{At, Maker};
use crate::unpack::{self, UnpackOptions};

/// A source that is a tar, compressed or not.
pub(super) struct Archive<'a> {
    chosen: &'a Chosen,
    may_change: bool,
    file: File,
    /// Relative to its source.
    path: &'a Path,
    full: PathBuf,
}

/// Opens what a source names, if it is an archive: by its content, whatever its name.
pub(super) fn open<'a>(from: &'a Selected, m: &'a Match) -> Result<Option<Archive<'a>>, CopyError> {
    let chosen = from.entry(m.entry);
    if chosen.kind() != FileKind::File {
        return Ok(None);
    }
    let full = from.full(&m.path);
    let dir = from.open_dir(m.path.parent().unwrap_or(Path::new(""))).at("open", &full)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&dir, from.name(m.entry), flags, Mode::empty()).at("open", &full)?;
    let mut archive =
        Archive { chosen, may_change: from.may_change(), file: File::from(file), path: &m.path, full };
    let is_tar = unpack::is_tar(&archive.file).map_err(|error| archive.error(error))?;
    std::io::Seek::rewind(&mut archive.file).at("read", &archive.full)?;
    Ok(is_tar.then_some(archive))
}

impl Archive<'_> {
    /// Unpacks into a directory of the layer.
    pub(super) fn unpack(
        &self,
        layer: &mut LayerDir<'_>,
        dest: &Path,
        common: &Common<'_>,
        owner: Option<(u32, u32)>,
    ) -> Result<CopyReport, CopyError> {
        let extracted = extract(&self.file, layer, dest, common, owner);
        let mut report = extracted.map_err(|stopped| stopped.of(self.path, &self.full))?;
        let now = FileStat::of(&self.file).at("stat", &self.full)?;
        if self.may_change && Identity::from(&now) != self.chosen.stat {
            report.changed.push(self.full.clone());
        }
        Ok(report)
    }

    fn error(&self, error: ArchiveError) -> CopyError {
        Stopped::Bad(error).of(self.path, &self.full)
    }
}

/// Unpacks a build context into an empty directory, while it comes. All of it belongs to root; devices are left out.
///
/// # Errors
/// It is no tar that can be read, whatever its compression, or it is hostile; the file system failed. `name` is what
/// messages call it.
pub fn unpack_context(
    dir: &Path,
    name: &Path,
    reader: impl Read,
    ids: Ids,
    cancel: &Cancel,
) -> Result<CopyReport, CopyError> {
    let mut layer = LayerDir::open(dir, None, ids)?;
    let root = layer.duplicate()?;
    let common = Common::plain(&root, dir, ids, cancel);
    let report = extract(reader, &mut layer, Path::new(""), &common, Some((0, 0)))
        .map_err(|stopped| stopped.of(name, name))?;
    layer.finish()?;
    Ok(report)
}

/// Why an archive was not unpacked to its end.
enum Stopped {
    Cancelled,
    Bad(ArchiveError),
}

impl Stopped {
    /// Names the archive.
    fn of(self, path: &Path, full: &Path) -> CopyError {
        match self {
            Self::Cancelled => CopyError::Cancelled,
            Self::Bad(ArchiveError::Io(error)) => CopyError::Io(error),
            Self::Bad(ArchiveError::Read { message }) => {
                CopyError::Io(IoError::new("read", full, &std::io::Error::other(message)))
            }
            Self::Bad(error) => CopyError::Archive { path: path.to_owned(), error },
        }
    }
}

fn extract(
    reader: impl Read,
    layer: &mut LayerDir<'_>,
    dest: &Path,
    common: &Common<'_>,
    owner: Option<(u32, u32)>,
) -> Result<CopyReport, Stopped> {
    let maker = Maker::new(common.ids);
    let report = CopyReport::default();
    let mut target = Target { layer, dest, common, owner, maker, report, parent: None };
    let mut cancelled = false;
    let unpacked = unpack::stream(
        reader,
        &UnpackOptions::default(),
        |_| {},
        |entries| {
            while let Some(entry) = entries.next_entry()? {
                cancelled = common.cancel.is_cancelled();
                if cancelled {
                    break;
                }
                target.put(entry, entries)?;
            }
            if cancelled { Ok(()) } else { entries.drain() }
        },
    );
    if cancelled {
        return Err(Stopped::Cancelled);
    }
    unpacked.map_err(Stopped::Bad)?;
    let mut report = target.report;
    report.link_owners = target.maker.links;
    Ok(report)
}

/// Where the entries go.
struct Target<'t, 'l, 'c> {
    layer: &'t mut LayerDir<'l>,
    dest: &'t Path,
    common: &'t Common<'c>,
    /// Of all entries, whatever the archive says.
    owner: Option<(u32, u32)>,
    maker: Maker,
    report: CopyReport,
    /// The directory that was last written to: as entries name it, where that is in the layer, and open.
    parent: Option<(PathBuf, PathBuf, OwnedFd)>,
}

impl Target<'_, '_, '_> {
    fn put(&mut self, mut entry: Entry, entries: &mut Entries) -> Result<(), ArchiveError> {
        let name = clean(&entry.name).map_err(|problem| entries.bad(problem))?;
        let Some(last) = name.file_name() else { return Ok(()) };
        // As BuildKit has it: an archive brings files, not devices.
        if matches!(entry.kind, Kind::Char(..) | Kind::Block(..)) {
            self.report.left_out += 1;
            return Ok(());
        }
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let time = self.common.time(Time { secs: entry.mtime.0, nanos: entry.mtime.1 });
        entry.mtime = (time.secs, time.nanos);
        let dir = self.enter(name.parent().unwrap_or(Path::new("")), entries)?;
        let path = dir.join(last);
        let found = self.layer.look(&path)?;
        if entry.kind == Kind::Directory {
            if !matches!(found, Found::Dir | Found::Missing) {
                self.clear(&path)?;
            }
            return self.directory(&path, &entry);
        }
        self.report.files += 1;
        self.report.bytes += entry.size;
        if let Kind::HardLink(target) = &entry.kind {
            return self.hard_link(&path, last, found, target, entries);
        }
        self.make_room(&path, found)?;
        let (_, _, parent) = self.parent.as_ref().expect("it was entered");
        let at = At { parent, name: last.as_bytes(), path: path.as_os_str().as_bytes() };
        if !self.maker.make(at, &entry, entries)? {
            return Err(
                IoError::new("create", self.layer.full(&path), &rustix::io::Errno::EXIST.into()).into()
            );
        }
        Ok(())
    }

    /// Finds the directory that an entry goes into, through links, and makes what is missing of it.
    fn enter(&mut self, dir: &Path, entries: &Entries) -> Result<PathBuf, ArchiveError> {
        if let Some((known, path, _)) = &self.parent
            && known == dir
        {
            return Ok(path.clone());
        }
        let unusable = |reason: &str| {
            let parent = dir.to_string_lossy().into_owned();
            entries.bad(EntryProblem::Parent { parent, reason: reason.to_owned() })
        };
        let (layer, dest) = (&mut *self.layer, self.dest);
        let at =
            resolve(dir, true, &mut |path| layer.look(&dest.join(path))).map_err(|error| match error {
                Unresolved::Loop => unusable("too many symbolic links"),
                Unresolved::NotDirectory(_) => unusable("not a directory"),
                Unresolved::Lookup(error) => error.into(),
            })?;
        if at.found == Found::Other {
            return Err(unusable("not a directory"));
        }
        let path = if at.path.as_os_str().is_empty() { dest.to_owned() } else { dest.join(&at.path) };
        // Nobody is said to own what is only implied.
        let mtime = super::place::undated(self.common.epoch);
        let implied = DirMeta { mode: 0o755, owner: Some((0, 0)), mtime, xattrs: None };
        layer.make_dir(&path, &implied).map_err(|error| match error {
            CopyError::Io(error) => ArchiveError::Io(error),
            other => unusable(&other.to_string()),
        })?;
        let fd = open_dir(layer.root.as_fd(), &path).at("open", layer.full(&path))?;
        self.parent = Some((dir.to_owned(), path.clone(), fd));
        Ok(path)
    }

    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<(), ArchiveError> {
        let mtime = Time { secs: entry.mtime.0, nanos: entry.mtime.1 };
        let meta = DirMeta { mode: entry.mode, owner: Some((entry.uid, entry.gid)), mtime, xattrs: None };
        match self.layer.make_dir(path, &meta) {
            Ok(_) => {}
            Err(CopyError::Io(error)) => return Err(error.into()),
            Err(other) => unreachable!("what was in the way of {} is gone: {other}", path.display()),
        }
        self.layer.set_meta(path, meta);
        Ok(self.layer.set_xattrs(path, &entry.xattrs)?)
    }

    /// Another name for a file that the archive, or a source before it, brought.
    fn hard_link(
        &mut self,
        path: &Path,
        name: &OsStr,
        found: Found,
        target: &[u8],
        entries: &Entries,
    ) -> Result<(), ArchiveError> {
        let text = || String::from_utf8_lossy(target).into_owned();
        let missing = || entries.bad(EntryProblem::LinkTarget { target: text() });
        let to = clean(target).map_err(|problem| entries.bad(problem))?;
        let Some(to_name) = to.file_name() else {
            return Err(entries.bad(EntryProblem::LinkToDirectory { target: text() }));
        };
        let (layer, dest) = (&*self.layer, self.dest);
        let dir = to.parent().unwrap_or(Path::new(""));
        let dir = resolve(dir, true, &mut |path| layer.look(&dest.join(path))).map_err(|_| missing())?;
        let to = dest.join(dir.path).join(to_name);
        if to == path {
            return Ok(());
        }
        let to_dir = to.parent().unwrap_or(Path::new(""));
        let to_dir = open_dir(layer.root.as_fd(), to_dir).map_err(|_| missing())?;
        match FileStat::at(&to_dir, to_name) {
            Ok(stat) if stat.kind() == FileKind::Dir => {
                return Err(entries.bad(EntryProblem::LinkToDirectory { target: text() }));
            }
            Ok(_) => {}
            Err(_) => return Err(missing()),
        }
        self.make_room(path, found)?;
        let (_, _, parent) = self.parent.as_ref().expect("it was entered");
        let at = At { parent, name: name.as_bytes(), path: path.as_os_str().as_bytes() };
        // What was cleared away for it may have held what it leads to.
        match self.maker.link((&to_dir, to_name.as_bytes(), to.as_os_str().as_bytes()), at) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(IoError::new("link", self.layer.full(path), &rustix::io::Errno::EXIST.into()).into())
            }
            Err(ArchiveError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// Takes away what a file replaces.
    fn make_room(&mut self, path: &Path, found: Found) -> Result<(), ArchiveError> {
        match found {
            Found::Missing => Ok(()),
            _ => self.clear(path),
        }
    }

    fn clear(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let keeps = |open: &(PathBuf, PathBuf, OwnedFd)| !open.1.starts_with(path);
        // The parent that was entered for this entry is above the path and stays.
        self.parent = self.parent.take().filter(keeps);
        self.maker.links.0.retain(|link, _| !link.starts_with(path));
        Ok(self.layer.clear(path)?)
    }
}

/// Takes a name apart as BuildKit does: `/` at the start is the destination, `a/../b` is `b`, and what leads out is refused.
fn clean(name: &[u8]) -> Result<PathBuf, EntryProblem> {
    if name.is_empty() || name.contains(&0) {
        return Err(EntryProblem::Name);
    }
    let mut path = PathBuf::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if !path.pop() {
                    return Err(EntryProblem::DotDot);
                }
            }
            _ => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}
