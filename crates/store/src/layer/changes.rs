//! What a layer changes of what lies below it, file by file: what `kiln debug diff` shows.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _, LayerId};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, openat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{DIRECTORY, is_opaque, is_whiteout};
use crate::error::StoreError;
use crate::layout::TREE;
use crate::owner::{self, LinkOwners};
use crate::store::Store;

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Absolute. What is no UTF-8 in it is replaced in JSON.
    #[serde(with = "lossy")]
    pub path: PathBuf,
    /// What it was; none if it is new.
    pub before: Option<FileState>,
    /// What it is; none if it was removed.
    pub after: Option<FileState>,
}

/// What a file is, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// `file`, `directory`, `link`, `fifo`, `socket`, `block-device`, `character-device`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file; 0 for all else.
    pub size: u64,
}

impl Store {
    /// Lists what a layer changes, by path: a directory comes before what is in it. `below` is the merged view of what lies
    /// below it, `links` are the [`link_owners`](Self::link_owners) there.
    ///
    /// # Errors
    /// Files cannot be looked at.
    pub fn changes(
        &self,
        layer: &LayerId,
        below: impl AsFd,
        links: &LinkOwners,
    ) -> Result<Vec<Change>, StoreError> {
        let dir = self.0.layout.layer(layer);
        let tree = dir.join(TREE);
        let mut walk = Walk { upper: LinkOwners::read(&dir)?, lower: links, changes: Vec::new() };
        let upper = openat(CWD, &tree, DIRECTORY, Mode::empty()).at("open", &tree)?;
        let lower = below.as_fd().try_clone_to_owned().at("open", &tree)?;
        if self.layer_info(layer)?.root {
            let root = Path::new("");
            let before = state(lower.as_fd(), OsStr::new("."), root, walk.lower)?.map(|(state, _)| state);
            let after = state(upper.as_fd(), OsStr::new("."), root, &walk.upper)?.map(|(state, _)| state);
            walk.changes.push(Change { path: "/".into(), before, after });
        }
        walk.directory(&upper, Some(&lower), Path::new(""))?;
        Ok(walk.changes)
    }
}

struct Walk<'a> {
    upper: LinkOwners,
    lower: &'a LinkOwners,
    changes: Vec<Change>,
}

impl Walk<'_> {
    /// `lower` is what is at the same place below; nothing there, or no directory, is none.
    fn directory(&mut self, upper: &OwnedFd, lower: Option<&OwnedFd>, inside: &Path) -> Result<(), IoError> {
        let mut names = children(upper, inside)?;
        let hidden = match lower {
            Some(lower) if is_opaque(upper).at("read xattrs of", inside)? => children(lower, inside)?,
            _ => BTreeSet::new(),
        };
        names.extend(hidden);
        for name in names {
            let path = inside.join(&name);
            let before = match lower {
                Some(lower) => state(lower.as_fd(), &name, &path, self.lower)?,
                None => None,
            };
            let after = state(upper.as_fd(), &name, &path, &self.upper)?;
            let (was_dir, is_dir) = (is_dir(before.as_ref()), is_dir(after.as_ref()));
            let (before, after) = (before.map(|(state, _)| state), after.map(|(state, _)| state));
            // A deletion of what is not there says nothing.
            if before.is_some() || after.is_some() {
                self.changes.push(Change { path: Path::new("/").join(&path), before, after });
            }
            if is_dir {
                let open = |dir: &OwnedFd| openat(dir, &name, DIRECTORY, Mode::empty()).at("open", &path);
                let below = lower.filter(|_| was_dir).map(open).transpose()?;
                self.directory(&open(upper)?, below.as_ref(), &path)?;
            }
        }
        Ok(())
    }
}

fn is_dir(found: Option<&(FileState, FileType)>) -> bool {
    matches!(found, Some((_, FileType::Directory)))
}

fn children(dir: &OwnedFd, inside: &Path) -> Result<BTreeSet<OsString>, IoError> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(dir).at("read", inside)? {
        let entry = entry.at("read", inside)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// None if there is nothing, or what stands for a deletion.
fn state(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    links: &LinkOwners,
) -> Result<Option<(FileState, FileType)>, IoError> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.at("stat", path)?,
    };
    if is_whiteout(&stat) {
        return Ok(None);
    }
    // By its directory's descriptor: no link on the way can lead elsewhere.
    let place = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    let owner = owner::of_path(&place, &stat).at("read owner of", path)?;
    let kind = owner.file_type();
    let (uid, gid) = links.0.get(path).copied().unwrap_or((owner.uid, owner.gid));
    let size = if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    let state = FileState { kind: word(kind).to_owned(), mode: owner.mode & 0o7777, uid, gid, size };
    Ok(Some((state, kind)))
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::BlockDevice => "block-device",
        FileType::CharacterDevice => "character-device",
        FileType::RegularFile | FileType::Unknown => "file",
    }
}

/// Paths as JSON strings, whatever their bytes.
mod lossy {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&path.to_string_lossy())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        String::deserialize(deserializer).map(PathBuf::from)
    }
}
