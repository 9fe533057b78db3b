//! Whether a store's files are as kiln wrote them, or somebody copied them.
//!
//! A copy may have other owners (cp(1) without `-a`, chown(1), another range of subordinate ids), no extended attributes, or
//! other inodes and hard links. Steps would take the first for what earlier steps left. So each store has one file that shows it: it
//! belongs to user and group 1, as the store's users see it, and an attribute has its inode.

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{AtFlags, CWD, Gid, RenameFlags, Uid, XattrFlags, chownat, getxattr, setxattr};
use rustix::io::Errno;

use crate::collect::kept_size;
use crate::durable::children;
use crate::error::StoreError;
use crate::layout::{self, Ids, Layout};
use crate::scratch::random_name;
use crate::tree::FileStat;

const MARK: &str = "user.kiln.probe";

/// Whom the probe belongs to where files can have any owner: neither who runs kiln nor nobody.
const OTHER: u32 = 1;

/// What the probe shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The store is where it was made.
    Same,
    /// It is a copy with all that counts. Files that had several names may be several files now.
    Moved,
    /// It is a copy without extended attributes, so nothing in it is marked as whole.
    Bare,
}

/// Looks at the probe; makes it if there is none, as in a new store.
///
/// # Errors
/// [`StoreError::Owners`].
pub(crate) fn look(layout: &Layout) -> Result<Shown, StoreError> {
    let path = path(layout);
    let stat = match FileStat::at(CWD, &path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => {
            make(layout, &path)?;
            return Ok(Shown::Same);
        }
        Err(error) => return Err(error).at("stat", path)?,
    };
    if layout.ids == Ids::Full && (stat.uid, stat.gid) != (OTHER, OTHER) {
        return Err(StoreError::Owners { root: layout.root.clone() });
    }
    let mut value = [0_u8; 24];
    Ok(match getxattr(&path, MARK, &mut value) {
        Ok(length) if value[..length] == *stat.ino.to_string().as_bytes() => Shown::Same,
        Ok(_) | Err(Errno::RANGE) => Shown::Moved,
        Err(Errno::NODATA) => Shown::Bare,
        Err(error) => return Err(error).at("read an attribute of", path)?,
    })
}

/// Says that the store is all right where it is. What was kept of sizes goes: they are those of other files.
pub(crate) fn settle(layout: &Layout) -> Result<(), StoreError> {
    for ids in [Ids::Full, Ids::Single] {
        let owned = layout.at(ids.dir());
        for dir in children(&owned.join(layout::LAYERS))? {
            kept_size::forget(&dir);
        }
        crate::scratch::remove_tree(&owned.join(kept_size::LISTS));
    }
    for dir in children(&layout.at(layout::SOURCES))? {
        kept_size::forget(&dir);
    }
    let _ = std::fs::remove_file(layout.at(layout::ACCOUNT));
    let path = path(layout);
    Ok(mark(&path).at("mark", path)?)
}

fn path(layout: &Layout) -> PathBuf {
    layout.owned().join(layout::PROBE)
}

/// Makes it whole, or not at all. Where its owner cannot be set there are no owners that could be lost.
fn make(layout: &Layout, path: &Path) -> Result<(), IoError> {
    let new = layout.owned().join(format!(".probe-{}", random_name()));
    File::create_new(&new).at("create", &new)?;
    let made = mark(&new).and_then(|()| match layout.ids {
        Ids::Full => {
            let (uid, gid) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
            chownat(CWD, &new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        Ids::Single => Ok(()),
    });
    match made.and_then(|()| rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&new);
            // Another process was faster; or this is no place for attributes or owners, which others say better.
            match error {
                Errno::EXIST | Errno::PERM | Errno::INVAL | Errno::NOTSUP => Ok(()),
                error => Err(error).at("make", path),
            }
        }
    }
}

fn mark(path: &Path) -> Result<(), Errno> {
    let stat = FileStat::at(CWD, path)?;
    setxattr(path, MARK, stat.ino.to_string().as_bytes(), XattrFlags::empty())
}
