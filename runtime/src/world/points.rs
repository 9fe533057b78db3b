//! The lowest layer of a step's root: the places where something will be mounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use kiln_core::{MountSpecKind, RunSpec};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, utimensat};
use rustix::io::Errno;

use super::{NOEXEC, NOSUID};
use crate::mounts::{self, NODEV};
use crate::stubs::MOUNT_POINT_TIMES;

/// A file system that holds nothing but the places where something will be mounted. As the lowest layer it spares the
/// upper directory the stubs, which would have to be written to disk and removed again. Where an image has something
/// else in the way (a link, a directory that hides what is below), [`Places`](super::place::Places) makes the stub after all.
pub(super) fn mount_points(spec: &RunSpec) -> io::Result<OwnedFd> {
    let points = mounts::tmpfs(&[("mode", "0755")], NOSUID | NODEV | NOEXEC)?;
    let mut made = Vec::new();
    for name in ["dev", "proc", "sys"] {
        make_point(&points, name, false, &mut made)?;
    }
    for name in ["etc/hosts", "etc/resolv.conf"] {
        make_point(&points, name, true, &mut made)?;
    }
    for mount in &spec.mounts {
        let is_file = match &mount.kind {
            MountSpecKind::Bind { source, .. } => !source.is_dir(),
            MountSpecKind::File { .. } | MountSpecKind::Secret { .. } => true,
            MountSpecKind::Tmpfs { .. } | MountSpecKind::Scratch { .. } => false,
            MountSpecKind::Layers { path, .. } if path == "/" => false,
            // Not known before the layers are merged.
            MountSpecKind::Layers { .. } => continue,
        };
        make_point(&points, &mount.target, is_file, &mut made)?;
    }
    // A copy of one of these in the upper directory is known by its time.
    for directory in made {
        utimensat(&points, directory, &MOUNT_POINT_TIMES, AtFlags::empty())?;
    }
    Ok(points)
}

/// Makes one place and the directories above it. A path with `..` is left to `Places`, which knows about links.
fn make_point<'a>(
    points: &OwnedFd,
    target: &'a str,
    is_file: bool,
    directories: &mut Vec<&'a Path>,
) -> io::Result<()> {
    let target = Path::new(target.trim_start_matches('/'));
    if !target.components().all(|component| matches!(component, Component::Normal(_))) {
        return Ok(());
    }
    let mut above: Vec<&'a Path> =
        target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    if !is_file {
        above.push(target);
    }
    for directory in above {
        match mkdirat(points, directory, Mode::from_raw_mode(0o755)) {
            // The targets of two mounts, one below the other's file: refused where it is mounted.
            Err(Errno::EXIST) => {}
            Err(Errno::NOTDIR) => return Ok(()),
            other => {
                other?;
                directories.push(directory);
            }
        }
    }
    match if is_file { make_file(points, target) } else { Ok(()) } {
        Err(Errno::EXIST | Errno::NOTDIR) => Ok(()),
        other => Ok(other?),
    }
}

fn make_file(dir: &OwnedFd, name: impl AsRef<Path>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dir, name.as_ref(), flags, Mode::from_raw_mode(0o644)).map(drop)
}
