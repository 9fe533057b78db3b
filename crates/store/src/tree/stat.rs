//! What the kernel says of a file, in one layout on every architecture.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, makedev, statx};

/// A point in time since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub secs: i64,
    /// Nanoseconds after them.
    pub nanos: u32,
}

/// What statx(2) says of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Device that holds it.
    pub dev: u64,
    /// Device that it is, for device nodes.
    pub rdev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes of content, or of a link's target.
    pub size: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of content or metadata; cannot be set back.
    pub ctime: Time,
    /// Whether it is marked so that nobody may change it, or only at its end: `chattr +i`, `+a`.
    pub fixed: bool,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileStat {
    /// Asks for a file by name in a directory; the last component is not followed.
    pub(crate) fn at(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from(&statx(dir, name, flags, StatxFlags::BASIC_STATS)?))
    }

    /// Asks for an open file.
    pub(crate) fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        Ok(Self::from(&statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?))
    }

    /// Returns the type.
    pub fn kind(&self) -> Kind {
        kind_of(self.mode)
    }

    /// Returns the permission bits with setuid, setgid and sticky.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// Returns the type that a mode says.
pub(crate) const fn kind_of(mode: u32) -> Kind {
    match mode & 0o170_000 {
        0o040_000 => Kind::Dir,
        0o120_000 => Kind::Symlink,
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        0o020_000 => Kind::CharDevice,
        0o060_000 => Kind::BlockDevice,
        _ => Kind::File,
    }
}

impl From<&Statx> for FileStat {
    fn from(st: &Statx) -> Self {
        Self {
            mode: u32::from(st.stx_mode),
            uid: st.stx_uid,
            gid: st.stx_gid,
            nlink: st.stx_nlink,
            dev: makedev(st.stx_dev_major, st.stx_dev_minor),
            rdev: makedev(st.stx_rdev_major, st.stx_rdev_minor),
            ino: st.stx_ino,
            size: st.stx_size,
            allocated: st.stx_blocks * 512,
            mtime: Time { secs: st.stx_mtime.tv_sec, nanos: st.stx_mtime.tv_nsec },
            ctime: Time { secs: st.stx_ctime.tv_sec, nanos: st.stx_ctime.tv_nsec },
            fixed: st.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
        }
    }
}
