//! Files that nobody may change: `chattr +i` and `+a`, which root can set in a step with `--security=insecure`.
//!
//! They are no part of a layer. Where overlay keeps such marks apart, a copied tree has them on its files; so they are taken off
//! there, and from what is to be removed.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};

/// Takes the marks off a file or directory.
pub(crate) fn loosen(dir: impl AsFd, name: &CStr) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    loosen_open(openat(dir, name, flags, Mode::empty())?)
}

/// The same for an open one.
pub(crate) fn loosen_open(file: impl AsFd) -> rustix::io::Result<()> {
    let flags = ioctl_getflags(&file)?;
    ioctl_setflags(&file, flags - (IFlags::IMMUTABLE | IFlags::APPEND))
}
