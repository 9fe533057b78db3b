//! stat(2) and its kin: what a file's record says in place of what the kernel does.
//!
//! This is the call that is made most. Nearly all files have no record: then one look at the attribute decides, and the
//! kernel answers.

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use super::layout::{Layout, Status};
use super::{Answerer, int, owners, word};
use crate::sys::notify::{self as sys, Answer, Notification};

const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();

impl Answerer {
    /// `fstatat(dir, path, flags)`, or with `mask` and no layout `statx`; the answer goes to the address `to`.
    pub(super) fn stat_at(
        &mut self,
        call: &Notification,
        [dir, path, flags]: [u64; 3],
        layout: Option<Layout>,
        to: u64,
        mask: u32,
    ) -> Result<Answer, Errno> {
        let flags = word(flags);
        let read = self.place.read(call.tid, int(dir), path, flags & EMPTY_PATH != 0);
        if read.is_err() {
            // The kernel knows the right error.
            return Ok(Answer::Continue);
        }
        self.show(call, flags, layout, to, mask)
    }

    pub(super) fn stat(
        &mut self,
        call: &Notification,
        dir: i32,
        path: u64,
        follow: bool,
        layout: Option<Layout>,
        to: u64,
    ) -> Result<Answer, Errno> {
        if self.place.read(call.tid, dir, path, false).is_err() {
            return Ok(Answer::Continue);
        }
        self.show(call, if follow { 0 } else { NOFOLLOW }, layout, to, 0)
    }

    pub(super) fn fstat(
        &mut self,
        call: &Notification,
        descriptor: i32,
        layout: Layout,
        to: u64,
    ) -> Result<Answer, Errno> {
        if descriptor < 0 {
            return Ok(Answer::Continue);
        }
        self.place.descriptor(call.tid, descriptor);
        self.show(call, EMPTY_PATH, Some(layout), to, 0)
    }

    fn show(
        &mut self,
        call: &Notification,
        flags: u32,
        layout: Option<Layout>,
        to: u64,
        mask: u32,
    ) -> Result<Answer, Errno> {
        let follow = flags & NOFOLLOW == 0;
        if !self.may_differ(follow)? {
            return Ok(Answer::Continue);
        }
        let Ok(file) = self.place.open(follow) else { return Ok(Answer::Continue) };
        let mut status = Status::read(&file, flags, mask)?;
        let shown = owners::shown(&file, &status, &self.table);
        if !shown.differs {
            return Ok(Answer::Continue);
        }
        status.set(shown.owner, shown.mode, shown.device);
        self.check(call)?;
        match layout {
            None => sys::write_memory(call.tid, to, &status.0),
            Some(layout) => match status.laid_out(layout) {
                Some(laid) => sys::write_memory(call.tid, to, laid.bytes()),
                None => return Ok(Answer::Continue),
            },
        }
        .map_err(|_| Errno::FAULT)?;
        Ok(Answer::Value(0))
    }

    /// Whether anything may have to be said about the file at `place` that the kernel does not say.
    pub(super) fn may_differ(&mut self, follow: bool) -> Result<bool, Errno> {
        let has_table = !self.table.is_empty();
        if !has_table && let Some(recorded) = self.open_file_has_record() {
            return Ok(recorded);
        }
        let follow = follow || self.place.is_empty();
        let path = self.place.whole()?;
        if owners::record_at(path, follow).is_some() {
            return Ok(true);
        }
        if !has_table {
            return Ok(false);
        }
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let Ok(stat) = rustix::fs::statx(CWD, path, flags, StatxFlags::INO | StatxFlags::TYPE) else {
            return Ok(false);
        };
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        Ok(self.table.has((device, stat.stx_ino)))
    }

    /// Whether the file at `place` has a record, where that is an open file of the caller's and can be told quickly.
    fn open_file_has_record(&mut self) -> Option<bool> {
        let (tid, descriptor) = self.place.open_file()?;
        owners::has_record(&self.opened.copy(tid, descriptor)?)
    }
}
