//! Takes back the opaque marks that overlay sets for its own speed.
//!
//! A directory made where a merged directory is the parent gets the mark although nothing lies below it
//! (`ovl_create_upper`, <https://elixir.bootlin.com/linux/latest/source/fs/overlayfs/dir.c>). In a layer's tar it
//! would be noise that other ways to make the same tree do not have, so layers keep only marks that hide something.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{CWD, Dir, FileType, Mode, fremovexattr, openat};
use rustix::io::Errno;

use super::{DIRECTORY, OPAQUE, is_opaque};
use crate::tree::selected::open_dir;

/// Removes marks that hide nothing in `below` (trees, lowest first) from the tree `upper`.
pub(crate) fn normalise(upper: &Path, below: &[PathBuf]) -> Result<(), IoError> {
    let open = |path: &Path| openat(CWD, path, DIRECTORY, Mode::empty()).at("open", path);
    let root = open(upper)?;
    let lower = below.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    // Directories of the upper tree that are merged, with the numbers of the layers that they are merged with, topmost
    // first. Opened anew by their paths: a step's directories may be deep, and its layers many.
    let mut todo = vec![(PathBuf::new(), (0..lower.len()).collect::<Vec<_>>())];
    while let Some((path, merged)) = todo.pop() {
        let dir = open_dir(root.as_fd(), &path).at("open", upper.join(&path))?;
        let mut below = Vec::new();
        for number in merged {
            below.push((number, open_dir(lower[number].as_fd(), &path).at("open below", upper.join(&path))?));
        }
        for entry in Dir::read_from(&dir).at("read", upper.join(&path))? {
            let entry = entry.at("read", upper.join(&path))?;
            let name = entry.file_name();
            if name == c"."
                || name == c".."
                || !matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
            {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if let Some(merged) = child(&dir, name, &below, &upper.join(&path))? {
                todo.push((path, merged));
            }
        }
    }
    Ok(())
}

/// Looks at one name in a merged directory. Returns with which layers' directories it is merged in turn, if it is.
fn child(
    dir: &OwnedFd,
    name: &CStr,
    below: &[(usize, OwnedFd)],
    path: &Path,
) -> Result<Option<Vec<usize>>, IoError> {
    let dir = match openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut merged = Vec::new();
    for (number, above) in below {
        match openat(above, name, DIRECTORY, Mode::empty()) {
            Ok(found) => {
                merged.push(*number);
                if is_opaque(&found).at("read xattrs of", path)? {
                    break;
                }
            }
            Err(Errno::NOENT) => {}
            // A file or a whiteout: nothing further down is seen.
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(error) => return Err(error).at("open below", path),
        }
    }
    let opaque = is_opaque(&dir).at("read xattrs of", path)?;
    if merged.is_empty() {
        if opaque {
            fremovexattr(&dir, OPAQUE).at("remove xattr of", path)?;
        }
        // Nothing below it is merged, and overlay sets marks only where something is.
        return Ok(None);
    }
    Ok((!opaque).then_some(merged))
}
