//! Takes back the opaque marks that overlay sets for its own speed.
//!
//! A directory made where a merged directory is the parent gets the mark although nothing lies below it
//! (`ovl_create_upper`, <https://elixir.bootlin.com/linux/latest/source/fs/overlayfs/dir.c>). In a layer's tar it
//! would be noise that other ways to make the same tree do not have, so layers keep only marks that hide something.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fremovexattr, openat};
use rustix::io::Errno;

use super::{OPAQUE, is_opaque};

/// Removes marks that hide nothing in `below` (trees, lowest first) from the tree `upper`.
pub(crate) fn normalise(upper: &Path, below: &[PathBuf]) -> Result<(), IoError> {
    let open = |path: &Path| openat(CWD, path, DIRECTORY, Mode::empty()).at("open", path);
    let lower = below.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    descend(open(upper)?, upper, &lower)
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `lower`: the directories that are merged with `upper`, topmost first; never empty but at the root.
fn descend(upper: OwnedFd, path: &Path, lower: &[OwnedFd]) -> Result<(), IoError> {
    for entry in Dir::read_from(&upper).at("read", path)? {
        let entry = entry.at("read", path)?;
        let name = entry.file_name();
        if name == c"."
            || name == c".."
            || !matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
        {
            continue;
        }
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let dir = match openat(&upper, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error).at("open", path),
        };
        let mut merged = Vec::new();
        for above in lower {
            match openat(above, name, DIRECTORY, Mode::empty()) {
                Ok(found) => {
                    let last = is_opaque(&found).at("read xattrs of", &path)?;
                    merged.push(found);
                    if last {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A file or a whiteout: nothing further down is seen.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error).at("open below", path),
            }
        }
        let opaque = is_opaque(&dir).at("read xattrs of", &path)?;
        if merged.is_empty() {
            if opaque {
                fremovexattr(&dir, OPAQUE).at("remove xattr of", path)?;
            }
            // Nothing below it is merged, and overlay sets marks only where something is.
        } else if !opaque {
            descend(dir, &path, &merged)?;
        }
    }
    Ok(())
}
