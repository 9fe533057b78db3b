//! Moving a file's bytes in the cheapest way that the file systems allow.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::early::{self, Early};
use crate::tree::FileStat;

/// Up to here a read and a write are cheaper than anything else.
pub(super) const SMALL: u64 = 32 << 10;

/// What was learned about the two file systems, shared by the threads of one copy.
#[derive(Debug)]
pub(crate) struct Mover {
    can_clone: AtomicBool,
    can_copy_range: AtomicBool,
    /// Bytes shared with their source.
    pub(crate) cloned: AtomicU64,
}

impl Default for Mover {
    fn default() -> Self {
        Self {
            can_clone: AtomicBool::new(true),
            can_copy_range: AtomicBool::new(true),
            cloned: AtomicU64::new(0),
        }
    }
}

/// Copies a file that is known to have so many bytes, at most [`SMALL`]; the caller sees to it that it has not changed.
pub(super) fn copy_small(mut from: &File, size: u64, mut to: &File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut done = 0;
    // A file of no size may have bytes all the same, in /proc and on some FUSE file systems.
    while done < size || size == 0 {
        match from.read(buffer) {
            Ok(0) => break,
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                done += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Mover {
    /// Copies all of `from` to the empty file `to`; returns the bytes it had.
    pub(crate) fn copy(&self, from: &File, stat: &FileStat, to: &File, buffer: &mut [u8]) -> io::Result<u64> {
        if stat.size > SMALL {
            if self.can_clone.load(Ordering::Relaxed) {
                match ioctl_ficlone(to, from) {
                    Ok(()) => {
                        self.cloned.fetch_add(stat.size, Ordering::Relaxed);
                        return Ok(stat.size);
                    }
                    // Every refusal means the same: another way works. The usual ones hold for all files.
                    Err(_) => self.can_clone.store(false, Ordering::Relaxed),
                }
            }
            if stat.allocated < stat.size {
                return self.copy_sparse(from, stat.size, to, buffer);
            }
        }
        self.copy_range(from, to, stat.size, buffer)
    }

    /// Copies from both files' positions on: `length` bytes at least, and what follows them if that is the end.
    fn copy_range(&self, from: &File, to: &File, length: u64, buffer: &mut [u8]) -> io::Result<u64> {
        let (mut done, mut early) = (0, Early::default());
        while length > SMALL && self.can_copy_range.load(Ordering::Relaxed) {
            match copy_file_range(from, None, to, None, early::COPY) {
                Ok(0) => break,
                Ok(moved) => {
                    done += moved as u64;
                    early.written(to, done);
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC | Errno::DQUOT | Errno::IO) => return self.rest(from, to, done, buffer),
                Err(_) => self.can_copy_range.store(false, Ordering::Relaxed),
            }
        }
        // Also after a copy_file_range that says it is done: some file systems say so too early (copy_file_range(2)).
        self.rest(from, to, done, buffer)
    }

    fn rest(&self, mut from: &File, mut to: &File, mut done: u64, buffer: &mut [u8]) -> io::Result<u64> {
        loop {
            match from.read(buffer) {
                Ok(0) => return Ok(done),
                Ok(length) => {
                    to.write_all(&buffer[..length])?;
                    done += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies the parts that hold data; the holes stay holes.
    fn copy_sparse(&self, from: &File, size: u64, to: &File, buffer: &mut [u8]) -> io::Result<u64> {
        ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let start = match seek(from.as_fd(), SeekFrom::Data(at)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = seek(from, SeekFrom::Hole(start))?.min(size);
            seek(from, SeekFrom::Start(start))?;
            seek(to, SeekFrom::Start(start))?;
            let mut part = from.take(end.saturating_sub(start));
            loop {
                match part.read(buffer) {
                    Ok(0) => break,
                    Ok(length) => {
                        let mut to = to;
                        to.write_all(&buffer[..length])?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            at = end.max(start + 1);
        }
        Ok(size)
    }
}
