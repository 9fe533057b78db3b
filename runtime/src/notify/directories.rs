//! getdents(2): directories of ordinary file systems, in another order than the kernel's.
//!
//! What is told stands in the open file itself, which the thread shares with its caller (pidfd_getfd(2)): the position, as ever, so
//! that copies of the descriptor, forks, seekdir(3) and rewinddir(3) need nothing from here. What is listed is the directory as it
//! was when it was read from its beginning; that is kept here as long as there is room.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use kiln_core::{DirectoryOrder, IoError};
use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use super::Answerer;
use super::listing::{Dirent, END, Listing};
use crate::sys::notify::{self as sys, Answer, Notification};

/// Of statfs(2): overlay, ext4, XFS, btrfs, tmpfs. All others have lists that are the kernel's or a program's to order.
const ORDINARY: [u64; 5] = [0x794c_7630, 0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// Bytes of listings that are kept, and how many: those of directories that are being read are the newest, and whoever finds
/// his gone has it made again.
const MOST: usize = 16 << 20;
const MOST_LISTINGS: usize = 1024;

/// Read at once.
const PIECE: usize = 64 << 10;

/// Listings of the directories that the step reads.
#[derive(Debug)]
pub(super) struct Directories {
    order: DirectoryOrder,
    /// With the directory's device and number; the oldest first.
    kept: VecDeque<((u64, u64), Listing)>,
    size: usize,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Directories {
    pub(super) fn new(order: DirectoryOrder) -> Self {
        Self { order, kept: VecDeque::new(), size: 0, buffer: Box::new_uninit_slice(PIECE) }
    }

    /// Finds what follows a position: a listing, and the number of its next entry.
    ///
    /// The newest listing that knows the position is at least as new as the one that the caller began with. None knows it if that one had
    /// to go and the entry before was removed since; then all that is still there is told again, so that none is missed.
    fn find(
        &mut self,
        dir: &OwnedFd,
        identity: (u64, u64),
        position: u64,
    ) -> Result<(&Listing, usize), Errno> {
        let known = (0..self.kept.len()).rev().filter(|_| position != 0).find_map(|at| {
            let (directory, listing) = &self.kept[at];
            (*directory == identity).then(|| listing.after(position)).flatten().map(|next| (at, next))
        });
        let (at, next) = match known {
            Some(known) => known,
            None => {
                let listing = self.read(dir)?;
                let next = listing.after(position).unwrap_or(0);
                (self.keep(identity, listing), next)
            }
        };
        Ok((&self.kept[at].1, next))
    }

    /// Reads all of a directory. Where its caller reads it is lost.
    fn read(&mut self, dir: &OwnedFd) -> Result<Listing, Errno> {
        seek(dir, SeekFrom::Start(0))?;
        let mut listing = Listing::default();
        let mut entries = RawDir::new(dir, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let kind = match entry.file_type() {
                FileType::Unknown => 0,
                known => (known.as_raw_mode() >> 12 & 0xf) as u8,
            };
            listing.push(entry.file_name().to_bytes(), entry.ino(), kind);
        }
        listing.arrange(self.order);
        Ok(listing)
    }

    /// Keeps a listing, and others as far as there is room; returns its place.
    fn keep(&mut self, identity: (u64, u64), listing: Listing) -> usize {
        self.size += listing.size();
        self.kept.push_back((identity, listing));
        while self.kept.len() > MOST_LISTINGS || (self.size > MOST && self.kept.len() > 1) {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.size -= oldest.size();
        }
        self.kept.len() - 1
    }
}

impl Answerer {
    /// Lists the open directory `descriptor` to the address `to`, where there are `size` bytes.
    pub(super) fn list(
        &mut self,
        call: &Notification,
        descriptor: i32,
        to: u64,
        size: u32,
        form: Dirent,
    ) -> Result<Answer, Errno> {
        let dir = match self.opened.take(call.tid, descriptor) {
            Ok(dir) => dir,
            // The kernel says so, or nobody is there to be told.
            Err(Errno::BADF | Errno::SRCH) => return Ok(Answer::Continue),
            Err(error) => {
                // To let the kernel answer would make the order that of the first build, and nobody would know.
                self.trouble = Some(IoError::new("reorder", "a directory of the step's", &error.into()));
                return Err(error);
            }
        };
        // It was the caller's, and not that of another with its number.
        self.check(call)?;
        let stat = rustix::fs::fstat(&dir)?;
        let kind = rustix::fs::fstatfs(&dir)?.f_type;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || !ORDINARY.contains(&(kind as u64))
        {
            return Ok(Answer::Continue);
        }
        // Opened only to be looked at (O_PATH), it cannot be read.
        let Ok(position) = seek(&dir, SeekFrom::Current(0)) else { return Ok(Answer::Continue) };
        let Some(directories) = self.directories.as_mut().filter(|_| position != u64::from(END)) else {
            return Ok(Answer::Value(0));
        };
        let laid = directories
            .find(&dir, (stat.st_dev, stat.st_ino), position)
            .and_then(|(listing, next)| listing.lay_out(next, size as usize, form))
            .and_then(|laid| {
                self.check(call)?;
                sys::write_memory(call.tid, to, &laid.0).map_err(|_| Errno::FAULT)?;
                Ok(laid)
            });
        let (length, position) = match &laid {
            Ok((bytes, position)) => (bytes.len(), u64::from(*position)),
            Err(_) => (0, position),
        };
        seek(&dir, SeekFrom::Start(position))?;
        laid.map(|_| Answer::Value(length as i64))
    }
}
