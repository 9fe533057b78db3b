//! A walk over all of a build context, what is left out included: what `kiln context ls` counts.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IgnoreList, IoError, IoResultExt as _, Verdict};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::selected::open_dir;
use super::stat::{FileStat, Kind};
use super::walk::list;

/// What [`survey`] shows of one file that is no directory.
#[derive(Debug)]
pub struct Surveyed<'a> {
    /// Relative to the root.
    pub path: &'a Path,
    /// Its type.
    pub kind: Kind,
    /// Bytes of a regular file; 0 for all else.
    pub size: u64,
    /// What the ignore file says of it.
    pub verdict: Verdict,
}

/// Shows each file below a directory; links are not followed. Returns the directories that cannot be read although
/// they are left out, and so do not matter to a build.
///
/// # Errors
/// A directory or file that a build would see cannot be read.
pub fn survey(
    root: BorrowedFd<'_>,
    label: &Path,
    ignore: &IgnoreList,
    see: &mut dyn FnMut(&Surveyed<'_>),
) -> Result<Vec<PathBuf>, IoError> {
    let mut unreadable = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    let mut todo = vec![Directory { path: PathBuf::new(), pruned: None }];
    while let Some(dir) = todo.pop() {
        let fd = match open_dir(root, &dir.path) {
            Err(Errno::ACCESS) if dir.pruned.is_some() => {
                unreadable.push(dir.path);
                continue;
            }
            // Gone since it was listed.
            Err(Errno::NOENT) if !dir.path.as_os_str().is_empty() => continue,
            opened => opened.at("open", label.join(&dir.path))?,
        };
        list(&fd, &mut buffer, &mut |name, file_type| {
            let path = dir.path.join(OsStr::from_bytes(name.to_bytes()));
            // Below what is pruned every path has the same answer.
            let verdict = dir.pruned.unwrap_or_else(|| ignore.verdict(&path.to_string_lossy()));
            let stat = match file_type {
                // Its own stat says nothing that counts.
                FileType::Directory => None,
                _ => match FileStat::at(&fd, name) {
                    Err(Errno::NOENT) => return Ok(()),
                    stat => Some(stat?),
                },
            };
            match stat.as_ref().map_or(Kind::Dir, FileStat::kind) {
                Kind::Dir => {
                    let prunes = || ignore.prunes(&path.to_string_lossy()).then_some(verdict);
                    let pruned = dir.pruned.or_else(prunes);
                    todo.push(Directory { path, pruned });
                }
                kind => {
                    let size = stat.filter(|_| kind == Kind::File).map_or(0, |stat| stat.size);
                    see(&Surveyed { path: &path, kind, size, verdict });
                }
            }
            Ok(())
        })
        .at("read", label.join(&dir.path))?;
    }
    Ok(unreadable)
}

/// A directory still to be read.
struct Directory {
    path: PathBuf,
    /// The verdict on it, if all below shares it.
    pruned: Option<Verdict>,
}
