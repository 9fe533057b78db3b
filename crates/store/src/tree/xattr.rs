//! Extended attributes: which of them belong to a file's content.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::owner::{STAT_XATTR, is_trusted};

/// Names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Which attributes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that travel with a file: `user.*` and file capabilities, but not what overlay and kiln keep there.
    Portable,
    /// Those, and the owner that a store of a single id records there.
    Recorded,
    /// All that can be set again in this store: kiln's own too, overlay's not.
    Stored,
    /// All that a step sees: those, access control lists, and what only root sees.
    Seen,
}

impl Which {
    pub(crate) fn wants(self, name: &[u8]) -> bool {
        let portable = (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || name == b"security.capability";
        portable
            && match self {
                Self::Portable => !name.starts_with(b"user.kiln."),
                Self::Recorded => !name.starts_with(b"user.kiln.") || name == STAT_XATTR.as_bytes(),
                Self::Stored | Self::Seen => true,
            }
            || self == Self::Seen
                && (name.starts_with(b"system.posix_acl_")
                    || name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay."))
    }
}

/// Reads the attributes of an open file. A file system without any has none.
pub(crate) fn read(fd: impl AsFd, which: Which) -> rustix::io::Result<Xattrs> {
    // Most files have none: one call with a small buffer answers for them.
    let mut small = [0_u8; 256];
    let list = match rustix::fs::flistxattr(&fd, &mut small) {
        Ok(0) => return Ok(Vec::new()),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => whole(|buffer| rustix::fs::flistxattr(&fd, buffer))?,
        Err(Errno::NOTSUP | Errno::PERM) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list.split(|&b| b == 0).filter(|name| which.wants(name)) {
        if which == Which::Recorded
            && name == STAT_XATTR.as_bytes()
            && !is_trusted(rustix::fs::fstat(&fd)?.st_uid)
        {
            continue;
        }
        match whole(|buffer| rustix::fs::fgetxattr(&fd, name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Taken away since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Sets attributes on an open file.
pub(crate) fn write(fd: impl AsFd, xattrs: &Xattrs) -> rustix::io::Result<()> {
    for (name, value) in xattrs {
        rustix::fs::fsetxattr(&fd, name.as_slice(), value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// Calls until the buffer is large enough; 64 KiB is the kernel's limit for a value and for a list (xattr(7)).
fn whole(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer = vec![0; buffer.len() * 4],
            Err(error) => return Err(error),
        }
    }
}
