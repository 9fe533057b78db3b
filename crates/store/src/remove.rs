//! Removes trees that steps made: with any modes, and of any depth.
//!
//! A step can nest directories a hundred thousand deep. So neither one stack frame nor one open file a level, and no
//! paths: what is deep down is moved to the top first.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::fixed::{loosen, loosen_open};
use crate::layer::DIRECTORY;
use crate::scratch::random_name;

/// So many levels are gone down before the next one is moved up.
const DEEP: usize = 64;

/// Removes a tree whatever its modes are; what cannot be removed stays for the next sweep.
pub(crate) fn remove_tree(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| CString::new(name.as_encoded_bytes()).ok()) else {
        return;
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(parent) = openat(CWD, parent, DIRECTORY, Mode::empty()) else { return };
    let Ok(top) = open(parent.as_fd(), &name) else {
        // A file, or nothing.
        let _ = unlinkat(&parent, &name, AtFlags::empty());
        return;
    };
    // Each round takes away what is not deep; what was, is at the top then.
    while empty(&top, &top, 0) {}
    let _ = unlinkat(&parent, &name, AtFlags::REMOVEDIR);
}

/// Empties a directory as far as it can be done. Returns whether something was moved to `top` for another round.
fn empty(top: &OwnedFd, dir: &OwnedFd, depth: usize) -> bool {
    let mut moved = false;
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).into_iter().flatten() {
        let Ok(entry) = entry else { break };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        if kind != FileType::Directory && unlink(dir, &name, AtFlags::empty()) != Err(Errno::ISDIR) {
            continue;
        }
        // Most often it is empty, or becomes so.
        if depth >= DEEP {
            if unlink(dir, &name, AtFlags::REMOVEDIR).is_err() {
                let _ = chmodat(dir, &name, Mode::RWXU, AtFlags::empty());
                moved |= renameat(dir, &name, top, format!(".deep-{}", random_name())).is_ok();
            }
            continue;
        }
        if let Ok(child) = open(dir.as_fd(), &name) {
            moved |= empty(top, &child, depth + 1);
        }
        let _ = unlink(dir, &name, AtFlags::REMOVEDIR);
    }
    moved
}

/// Opens a directory; one without permissions (overlay's work/work has mode 0) is given them, for who is not root.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// Takes a name away, from a directory without permissions too.
fn unlink(dir: &OwnedFd, name: &CStr, how: AtFlags) -> Result<(), Errno> {
    match unlinkat(dir, name, how) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            unlinkat(dir, name, how)
        }
        Err(Errno::PERM) => {
            // Either may be what is marked, and a link cannot be.
            let _ = (loosen_open(dir), loosen(dir, name));
            unlinkat(dir, name, how)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::fs::{OFlags, mkdirat};

    use super::*;

    #[test]
    fn trees_of_any_depth_and_mode_are_removed() {
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut at = openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        for level in 0..20_000 {
            mkdirat(&at, c"d", Mode::RWXU).unwrap();
            if level % 100 == 0 {
                let flags = OFlags::CREATE | OFlags::WRONLY;
                openat(&at, c"f", flags, Mode::empty()).unwrap();
                mkdirat(&at, c"closed", Mode::RWXU).unwrap();
                rustix::fs::symlinkat(outside.path(), &at, c"link").unwrap();
            }
            at = openat(&at, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
        for closed in ["closed", "d/d"] {
            let mode = std::fs::Permissions::from_mode(0o0);
            std::fs::set_permissions(tree.join(closed), mode).unwrap();
        }
        std::fs::write(outside.path().join("kept"), "").unwrap();
        remove_tree(&tree);
        let left: Vec<_> =
            std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        remove_tree(&outside.path().join("kept"));
        remove_tree(&outside.path().join("nothing"));
        assert!(!outside.path().join("kept").exists());
    }
}
