//! Owners (and device numbers) that the file system cannot hold, recorded beside the files.
//!
//! Where kiln has a single id, chown(2) is impossible; where it is not real root, mknod(2) of a device is. Then a
//! file says in the xattr `user.kiln.stat` what it stands for, as `uid:gid:mode` or `uid:gid:mode:major:minor`
//! (ids decimal; mode octal, type bits included). Overlay copies `user.*` xattrs up, so the record survives the
//! steps that follow. The permission bits of the file itself always count, because chmod(2) works; of the recorded
//! mode only the type is read. Symbolic links can have no such xattr: their owners stand in `owners.json` beside the
//! layer's tree. It is the same idea as containers/storage's `user.containers.override_stat`
//! (<https://github.com/containers/storage/blob/main/pkg/idtools/idtools.go>).
//!
//! Whoever owns a file can write such attributes, a step's user too, who must not become root by them in the image that
//! comes of it. So what is kept beside a file counts only where the file belongs to the user that kiln itself is: root, or
//! with a single id everybody.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _, StatRecord};
use rustix::fs::{
    FileType, Stat, XattrFlags, fgetxattr, fgetxattr_query, flistxattr, fremovexattr, fsetxattr, lgetxattr,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::layout::{Ids, OWNERS_FILE};

pub use kiln_core::STAT_XATTR;

/// What a file stands for: as a layer's tar has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Major and minor number; 0 but for devices.
    pub device: (u32, u32),
}

impl Owner {
    /// Returns what the file itself says.
    pub fn of_stat(stat: &Stat) -> Self {
        let device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            _ => (0, 0),
        };
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, device }
    }

    /// Returns the type that the file stands for.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    fn with_record(self, record: &[u8]) -> Option<Self> {
        let record: StatRecord = std::str::from_utf8(record).ok()?.parse().ok()?;
        let StatRecord { uid, gid, device, .. } = record;
        Some(Self { uid, gid, mode: record.shown_mode(self.mode), device })
    }

    fn to_record(self) -> String {
        let Self { uid, gid, mode, device } = self;
        StatRecord { uid, gid, mode, device }.to_string()
    }
}

/// Returns what the open file stands for: its record, or else `stat`, which must be its own.
///
/// # Errors
/// The xattr cannot be read.
pub fn of(file: impl AsFd, stat: &Stat) -> io::Result<Owner> {
    let mut buffer = [0_u8; 80];
    found(fgetxattr(file, STAT_XATTR, &mut buffer), &buffer, stat)
}

/// Returns what the file at `path` (not followed) stands for. For symbolic links see [`LinkOwners`].
///
/// # Errors
/// The xattr cannot be read.
pub fn of_path(path: &Path, stat: &Stat) -> io::Result<Owner> {
    if !can_hold(FileType::from_raw_mode(stat.st_mode)) {
        return Ok(Owner::of_stat(stat));
    }
    let mut buffer = [0_u8; 80];
    found(lgetxattr(path, STAT_XATTR, &mut buffer), &buffer, stat)
}

/// Makes the open file or directory, whose `stat` is given, belong to `uid` and `gid`: by chown(2), or where the ids are single by a
/// record, which is left out (or taken away) where the file says the same. chown(2) clears set-id bits and
/// capabilities: set modes and xattrs afterwards.
///
/// # Errors
/// A system call failed.
pub fn set(ids: Ids, file: impl AsFd, stat: &Stat, uid: u32, gid: u32) -> io::Result<()> {
    let same = (stat.st_uid, stat.st_gid) == (uid, gid);
    match ids {
        Ids::Full if same => Ok(()),
        Ids::Full => Ok(rustix::fs::fchown(
            file,
            Some(rustix::fs::Uid::from_raw(uid)),
            Some(rustix::fs::Gid::from_raw(gid)),
        )?),
        Ids::Single => record(file, &Owner { uid, gid, mode: stat.st_mode, device: (0, 0) }, stat),
    }
}

/// Records what the open file stands for; takes a record away where the file itself says the same.
///
/// # Errors
/// The xattr cannot be written.
pub fn record(file: impl AsFd, owner: &Owner, stat: &Stat) -> io::Result<()> {
    let (own, wanted) = (Owner::of_stat(stat), *owner);
    if (own.uid, own.gid, own.file_type(), own.device)
        == (wanted.uid, wanted.gid, wanted.file_type(), wanted.device)
    {
        return match fremovexattr(file, STAT_XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    Ok(fsetxattr(file, STAT_XATTR, owner.to_record().as_bytes(), XattrFlags::empty())?)
}

/// Extended attributes: values by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Xattrs that cannot be set, or must not take effect, are kept under this prefix.
const KEPT: &[u8] = b"user.kiln.xattr.";

/// Gives an open file an xattr that a layer says it has. Where the kernel forbids it, and where it would mean something
/// to overlay or to kiln, it is kept under another name, which [`xattrs`] undoes.
///
/// # Errors
/// The xattr cannot be written.
pub fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    let direct = is_carried(name) && !is_private(name);
    if direct {
        match fsetxattr(&file, name, value, XattrFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fsetxattr(file, [KEPT, name].concat(), value, XattrFlags::empty())?)
}

/// Returns the xattrs of an open file as a layer has them: `user.*`, `trusted.*`, `security.capability` and those that
/// were kept; without kiln's and overlay's own, and without what belongs to this machine (labels, ACLs).
///
/// # Errors
/// They cannot be read.
pub fn xattrs(file: impl AsFd) -> io::Result<Xattrs> {
    let mut found = BTreeMap::new();
    let mut small = [0_u8; 512];
    let large;
    let names: &[u8] = match flistxattr(&file, &mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(found),
        Ok(length) => &small[..length],
        // 64 KiB is the kernel's limit: xattr(7).
        Err(Errno::RANGE) => {
            let mut list = vec![0; 64 << 10];
            let length = flistxattr(&file, &mut list[..])?;
            list.truncate(length);
            large = list;
            &large
        }
        Err(error) => return Err(error.into()),
    };
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let shown = match name.strip_prefix(KEPT) {
            // Those that give a right, a file's owner cannot set.
            Some(kept) if !kept.starts_with(b"user.") && !is_trusted(rustix::fs::fstat(&file)?.st_uid) => {
                continue;
            }
            Some(kept) => kept,
            None if is_carried(name) && !is_private(name) => name,
            None => continue,
        };
        let mut value = vec![0; fgetxattr_query(&file, name)?];
        let length = fgetxattr(&file, name, &mut value[..])?;
        value.truncate(length);
        found.insert(shown.to_vec(), value);
    }
    Ok(found)
}

/// Returns both, [`of`] and [`xattrs`]: with one call for a file that has no attributes at all, as most have none.
///
/// # Errors
/// They cannot be read.
pub fn look(file: impl AsFd, stat: &Stat) -> io::Result<(Owner, Xattrs)> {
    match rustix::fs::flistxattr_query(&file) {
        Ok(0) | Err(Errno::OPNOTSUPP) => Ok((Owner::of_stat(stat), BTreeMap::new())),
        _ => Ok((of(&file, stat)?, xattrs(&file)?)),
    }
}

fn is_carried(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"trusted.") || name == b"security.capability"
}

fn is_private(name: &[u8]) -> bool {
    [&b"user.kiln."[..], b"user.overlay.", b"trusted.overlay."].iter().any(|own| name.starts_with(own))
}

/// Owners of the symbolic links (and fifos and devices) of one layer, which can carry no `user.*` xattr: by path
/// in the layer, without leading slash. Links that are not listed belong to whom the file system says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkOwners(pub BTreeMap<PathBuf, (u32, u32)>);

impl LinkOwners {
    /// Reads the list of the layer in `dir` (the directory that holds the tree).
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(dir: &Path) -> Result<Self, IoError> {
        let path = dir.join(OWNERS_FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).at("read", path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).at("read", path),
        }
    }

    /// Writes the list, if there is anything in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), IoError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let path = dir.join(OWNERS_FILE);
        let text = serde_json::to_vec(self).map_err(io::Error::from).at("write", &path)?;
        std::fs::write(&path, text).at("write", path)
    }
}

/// Only regular files and directories can have `user.*` xattrs: xattr(7).
fn can_hold(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

/// Whether what is kept beside a file of this owner's was written by kiln, or by who may do all that it says.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

fn found(got: Result<usize, Errno>, buffer: &[u8], stat: &Stat) -> io::Result<Owner> {
    let own = Owner::of_stat(stat);
    if !is_trusted(stat.st_uid) {
        return Ok(own);
    }
    match got {
        Ok(length) => Ok(own.with_record(&buffer[..length]).unwrap_or(own)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(own),
        Err(error) => Err(error.into()),
    }
}
