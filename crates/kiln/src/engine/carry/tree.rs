//! A cache's directory as entries, with what the kernel says of each file so that an unchanged one need not be read.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_carry::{Entry, Kind};
use kiln_core::{Cancel, IoError, IoResultExt as _};
use kiln_store::cache_mount::STAGED_INSIDE;
use kiln_store::owner::{self, Owner};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Error;

/// What shows that a file is the one it was: inode, size, and both times to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) ctime: (i64, u32),
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        let nanos = |nanos| u32::try_from(nanos).unwrap_or(0);
        Self {
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
        }
    }
}

/// A directory tree. Files have no chunks yet.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    /// Of regular files.
    pub(super) identities: HashMap<PathBuf, Identity>,
    /// What does not travel, one phrase each.
    pub(super) left: Vec<String>,
}

/// Looks at everything in a directory, which nobody changes meanwhile.
pub(super) fn walk(root: &Path, cancel: &Cancel) -> Result<Walked, Error> {
    let mut walked = Walked::default();
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(dir) = ahead.pop() {
        if cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let path = root.join(&dir);
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).at("stat", &path)?;
        walked.entries.insert(dir.clone(), entry(&path, &stat, Kind::Directory)?);
        let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
        for item in std::fs::read_dir(&path).at("read", &path)? {
            let name = item.at("read", &path)?.file_name();
            // An import that goes on beside this.
            if dir.as_os_str().is_empty() && name.as_bytes().starts_with(STAGED_INSIDE.as_bytes()) {
                continue;
            }
            found.push((dir.join(&name), path.join(&name)));
        }
        // Of a file with several names the first by path is the file.
        found.sort();
        for (relative, path) in found {
            let stat = match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
                // Somebody who does not know of the lock took it away.
                Err(Errno::NOENT) => continue,
                stat => stat.at("stat", &path)?,
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    ahead.push(relative);
                    continue;
                }
                FileType::RegularFile => {
                    walked.identities.insert(relative.clone(), Identity::of(&stat));
                    if stat.st_nlink > 1 {
                        names
                            .entry((stat.st_dev, stat.st_ino))
                            .and_modify(|first| {
                                if relative < *first {
                                    first.clone_from(&relative)
                                }
                            })
                            .or_insert_with(|| relative.clone());
                    }
                    Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0), chunks: Vec::new() }
                }
                FileType::Symlink => {
                    let target = std::fs::read_link(&path).at("read", &path)?;
                    Kind::Link { target }
                }
                FileType::Fifo => Kind::Fifo,
                kind => {
                    let what = if kind == FileType::Socket { "a socket" } else { "a device" };
                    walked.left.push(format!("{}: {what} does not travel", relative.display()));
                    continue;
                }
            };
            let entry = match entry(&path, &stat, kind) {
                Ok(entry) => entry,
                Err(error) if error.errno == Some(Errno::NOENT.raw_os_error()) => continue,
                Err(error) => {
                    walked.left.push(format!("{}: {error}", relative.display()));
                    continue;
                }
            };
            if entry.mode & !0o7777 != 0 {
                walked.left.push(format!("{}: a device does not travel", relative.display()));
                continue;
            }
            walked.entries.insert(relative, entry);
        }
    }
    hard_links(&mut walked, &names);
    Ok(walked)
}

/// Makes links of the further names of files that have several.
fn hard_links(walked: &mut Walked, names: &HashMap<(u64, u64), PathBuf>) {
    let by_inode: HashMap<u64, &PathBuf> = names.iter().map(|((_, ino), path)| (*ino, path)).collect();
    for (path, identity) in &walked.identities {
        let Some(first) = by_inode.get(&identity.ino).filter(|first| **first != path) else { continue };
        if let Some(entry) = walked.entries.get_mut(path) {
            entry.kind = Kind::Hard { to: (*first).clone() };
        }
    }
    walked.identities.retain(|path, identity| by_inode.get(&identity.ino).is_none_or(|first| *first == path));
}

fn entry(path: &Path, stat: &Stat, kind: Kind) -> Result<Entry, IoError> {
    let mut owner = Owner::of_stat(stat);
    let mut xattrs = BTreeMap::new();
    if matches!(kind, Kind::Directory | Kind::File { .. }) {
        // Nearly no file has any, and asking by name needs no descriptor.
        let any = match rustix::fs::llistxattr_query(path) {
            Ok(0) | Err(Errno::OPNOTSUPP) => false,
            Ok(_) | Err(Errno::RANGE) => true,
            Err(error) => return Err(error).at("list the attributes of", path),
        };
        if any {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
            owner = owner::of(&file, stat).at("read the owner of", path)?;
            xattrs = owner::xattrs(&file).at("read the attributes of", path)?;
        }
    }
    let mut mode = owner.mode & 0o7777;
    if matches!(owner.file_type(), FileType::CharacterDevice | FileType::BlockDevice) {
        // Said by the caller.
        mode |= 0o200_000;
    }
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let used = Some(stat.st_atime).filter(|used| *used > stat.st_mtime);
    let used = used.filter(|_| matches!(kind, Kind::File { .. }));
    Ok(Entry { kind, mode, uid: owner.uid, gid: owner.gid, mtime: (stat.st_mtime, nanos), used, xattrs })
}

/// Whether a directory has nothing in it.
pub(super) fn is_empty(dir: &Path) -> Result<bool, IoError> {
    Ok(std::fs::read_dir(dir).at("read", dir)?.next().is_none())
}

/// Bytes of those files that were read since their last access was set to these times; none if the file system does not say.
pub(super) fn read_since(dir: &Path, files: &[(PathBuf, i64)]) -> Option<u64> {
    let flags = rustix::fs::statvfs(dir).ok()?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::NOATIME) {
        return None;
    }
    let read = |(path, set): &(PathBuf, i64)| {
        let stat = rustix::fs::statat(CWD, dir.join(path), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        (is_file && (stat.st_atime, stat.st_atime_nsec) > (*set, 0)).then_some(stat.st_size.cast_unsigned())
    };
    Some(files.iter().filter_map(read).sum())
}
