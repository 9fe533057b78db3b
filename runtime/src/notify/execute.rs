//! execve(2): a set-user-ID file gives its recorded owner's id, and the saved id becomes the effective one.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;

use super::layout::Status;
use super::place::{Own, errno, status_line};
use super::{Answerer, owners};
use crate::sys::notify::{Answer, Notification};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_MAY_EXECUTE: u32 = 0o10;
const ANY_MAY_EXECUTE: u32 = 0o111;

impl Answerer {
    /// What the kernel will refuse is left to it, and changes nothing. What it accepts changes the credentials a moment
    /// too early, which nobody but another thread of the same process, about to end, could see.
    pub(super) fn execute(
        &mut self,
        call: &Notification,
        dir: i32,
        path: u64,
        flags: u32,
    ) -> Result<Answer, Errno> {
        const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
        const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();
        if self.place.read(call.tid, dir, path, flags & EMPTY_PATH != 0).is_err() {
            return Ok(Answer::Continue);
        }
        let old = self.sets.of(call.tid).map_err(errno)?;
        if old.executed(None, None) == old {
            // It stays who it is, but by a set-id file.
            let mode = rustix::fs::statx(CWD, self.place.whole()?, AtFlags::empty(), StatxFlags::MODE);
            if mode.is_ok_and(|status| u32::from(status.stx_mode) & (SET_USER_ID | SET_GROUP_ID) == 0) {
                return Ok(Answer::Continue);
            }
        }
        let Ok(file) = self.place.open(flags & NOFOLLOW == 0) else { return Ok(Answer::Continue) };
        let status = Status::of(&file)?;
        let mode = status.mode();
        if FileType::from_raw_mode(mode) != FileType::RegularFile || mode & ANY_MAY_EXECUTE == 0 {
            return Ok(Answer::Continue);
        }
        let owner = owners::shown(&file, &status, &self.table).owner;
        let mut gives_user = mode & SET_USER_ID != 0;
        let mut gives_group = mode & SET_GROUP_ID != 0 && mode & GROUP_MAY_EXECUTE != 0;
        if (gives_user || gives_group) && !may_give(call.tid, &file)? {
            (gives_user, gives_group) = (false, false);
        }
        let new = old.executed(gives_user.then_some(owner.0), gives_group.then_some(owner.1));
        self.become_(call, &old, &new)?;
        Ok(Answer::Continue)
    }
}

/// Whether set-id bits count: not on every mount, for every process, nor for scripts.
fn may_give(tid: u32, file: &std::os::fd::OwnedFd) -> Result<bool, Errno> {
    if rustix::fs::fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::NOSUID) {
        return Ok(false);
    }
    if status_line(tid, "NoNewPrivs:")? != "0" {
        return Ok(false);
    }
    // Known to be a regular file, so that opening it does nothing.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = rustix::fs::open(Own::of(file.as_fd()).path(), flags, Mode::empty())?;
    let mut start = [0; 2];
    Ok(rustix::io::pread(&open, &mut start, 0)? == 2 && &start != b"#!")
}
