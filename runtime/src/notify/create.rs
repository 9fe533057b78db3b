//! Making files: for whom the kernel's owner would be wrong, kiln makes them.
//!
//! That is who has another id for files than 0, and whoever makes something in a set-group-ID directory of another group.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};

use kiln_core::StatRecord;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::credentials::Credentials;
use super::layout::Status;
use super::owners::{self, Shown};
use super::place::{CALLERS_CWD, LOOK, Place, errno, on_proc, status_line};
use super::{Answerer, int, word};
use crate::sys::notify::{self as sys, Answer, Notification};

const SET_GROUP_ID: u32 = 0o2000;
const TYPE: u32 = 0o170_000;
/// As the kernel's.
const MOST_LINKS: usize = 40;

/// Where something is to be made, and whose it will be.
struct Making {
    parent: OwnedFd,
    name: CString,
    owner: (u32, u32),
    /// Whether its maker may write to that directory.
    allowed: bool,
}

impl Making {
    /// Refuses as the kernel does, for which what is there already comes first.
    fn check(self) -> Result<Self, Errno> {
        match self.exists() {
            _ if self.allowed => Ok(self),
            true => Err(Errno::EXIST),
            false => Err(Errno::ACCESS),
        }
    }

    fn exists(&self) -> bool {
        rustix::fs::statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

impl Answerer {
    /// mknod(2): devices are regular files that say what they stand for.
    pub(super) fn mknod(
        &mut self,
        call: &Notification,
        dir: i32,
        path: u64,
        mode: u32,
        device: u64,
    ) -> Result<Answer, Errno> {
        self.place.read(call.tid, dir, path, false)?;
        let credentials = self.sets.of(call.tid).map_err(errno)?;
        let kind = FileType::from_raw_mode(mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let device = (word(device) >> 8 & 0xfff, word(device) & 0xff | word(device) >> 12 & 0xf_ff00);
        let recordable = is_device || kind == FileType::RegularFile || mode & TYPE == 0;
        if is_device {
            // Overlay's mark for what is deleted is refused by overlay itself.
            if !credentials.owns_all_files() || (kind == FileType::CharacterDevice && device == (0, 0)) {
                return Err(Errno::PERM);
            }
        } else if (recordable || self.table.is_empty()) && self.is_plain(&credentials)? {
            return Ok(Answer::Continue);
        }
        if self.place.bytes().ends_with(b"/") {
            return Err(Errno::NOENT);
        }
        let making = self.prepare(call, &credentials)?;
        if !recordable {
            rustix::fs::mknodat(&making.parent, &*making.name, kind, Mode::from_raw_mode(mode & 0o7777), 0)?;
            return self.note(&making);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            rustix::fs::openat(&making.parent, &*making.name, flags, Mode::from_raw_mode(mode & 0o7777))?;
        let mode = if is_device { mode } else { mode & !TYPE | FileType::RegularFile.as_raw_mode() };
        let (uid, gid) = making.owner;
        let device = if is_device { device } else { (0, 0) };
        owners::write(&made, &StatRecord { uid, gid, mode, device }, false)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn mkdir(
        &mut self,
        call: &Notification,
        dir: i32,
        path: u64,
        mode: u32,
    ) -> Result<Answer, Errno> {
        self.place.read(call.tid, dir, path, false)?;
        let credentials = self.sets.of(call.tid).map_err(errno)?;
        if self.is_plain(&credentials)? {
            return Ok(Answer::Continue);
        }
        let making = self.prepare(call, &credentials)?;
        rustix::fs::mkdirat(&making.parent, &*making.name, Mode::from_raw_mode(mode & 0o7777))?;
        self.note(&making)
    }

    pub(super) fn symlink(
        &mut self,
        call: &Notification,
        target: u64,
        dir: i32,
        path: u64,
    ) -> Result<Answer, Errno> {
        self.place.read(call.tid, dir, path, false)?;
        let credentials = self.sets.of(call.tid).map_err(errno)?;
        // With a table, a new link's number may be that of one that is gone.
        if self.place.bytes().ends_with(b"/") || (self.table.is_empty() && self.is_plain(&credentials)?) {
            return Ok(Answer::Continue);
        }
        let mut text = Place::new();
        text.read(call.tid, CALLERS_CWD, target, false)?;
        let making = self.prepare(call, &credentials)?;
        rustix::fs::symlinkat(text.bytes(), &making.parent, &*making.name)?;
        self.note(&making)
    }

    /// `openat2(dir, path, how)`.
    pub(super) fn open_how(
        &mut self,
        call: &Notification,
        [dir, path, how, size]: [u64; 4],
    ) -> Result<Option<Answer>, Errno> {
        let mut text = [0; 24];
        if size < 24 || sys::read_memory(call.tid, how, &mut text).map_err(errno)? < text.len() {
            return Ok(Some(Answer::Continue));
        }
        let long = |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| text[at + byte]));
        let (flags, mode, resolve) = (long(0), long(8), long(16));
        // Who restricts the way to a file wants the kernel's own care.
        if resolve != 0 || u32::try_from(flags).is_err() {
            return Ok(Some(Answer::Continue));
        }
        self.open(call, int(dir), path, word(flags), word(mode))
    }

    /// open(2) of a file that it may make; answers with the descriptor if it did.
    pub(super) fn open(
        &mut self,
        call: &Notification,
        dir: i32,
        path: u64,
        flags: u32,
        mode: u32,
    ) -> Result<Option<Answer>, Errno> {
        const GO_ON: Result<Option<Answer>, Errno> = Ok(Some(Answer::Continue));
        let wanted = OFlags::from_bits_retain(flags);
        if wanted.contains(OFlags::PATH) || self.place.read(call.tid, dir, path, false).is_err() {
            return GO_ON;
        }
        let credentials = self.sets.of(call.tid).map_err(errno)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let flags = wanted | OFlags::CLOEXEC;
        if wanted.contains(OFlags::TMPFILE) {
            if self.is_plain(&credentials)? && !self.may_differ(true)? {
                return GO_ON;
            }
            let Ok(parent) = self.place.open(true) else { return GO_ON };
            let making = self.making(call, &credentials, parent, c".".to_owned())?;
            if !making.allowed {
                return Err(Errno::ACCESS);
            }
            let made = rustix::fs::openat(&making.parent, c".", flags, mode)?;
            return self.hand_over(call, &made, making.owner, wanted);
        }
        let makes = wanted.contains(OFlags::CREATE) && !wanted.contains(OFlags::DIRECTORY);
        if !makes || self.place.bytes().ends_with(b"/") || self.is_plain(&credentials)? {
            return GO_ON;
        }
        let Ok((mut parent, mut name)) = self.place.open_parent() else { return GO_ON };
        for _ in 0..MOST_LINKS {
            let making = self.making(call, &credentials, parent, name)?;
            if !making.allowed && !making.exists() {
                return Err(Errno::ACCESS);
            }
            let alone = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            match rustix::fs::openat(&making.parent, &*making.name, alone, mode) {
                Err(Errno::EXIST) if !wanted.intersects(OFlags::EXCL | OFlags::NOFOLLOW) => {}
                // The kernel opens what is there, or has the right error.
                Err(_) => return GO_ON,
                Ok(made) => return self.hand_over(call, &made, making.owner, wanted),
            }
            // Those of /proc lead to what is there.
            if on_proc(&making.parent)? {
                return GO_ON;
            }
            // A link that leads to nothing has it made there.
            let Ok(target) = rustix::fs::readlinkat(&making.parent, &*making.name, Vec::new()) else {
                return GO_ON;
            };
            match self.place.open_parent_of_target(&making.parent, &target) {
                Ok(next) => (parent, name) = next,
                Err(_) => return GO_ON,
            }
        }
        GO_ON
    }

    fn hand_over(
        &self,
        call: &Notification,
        made: &OwnedFd,
        (uid, gid): (u32, u32),
        wanted: OFlags,
    ) -> Result<Option<Answer>, Errno> {
        let record = StatRecord { uid, gid, mode: rustix::fs::fstat(made)?.st_mode, device: (0, 0) };
        owners::write(made, &record, false)?;
        let close_on_exec = wanted.contains(OFlags::CLOEXEC);
        sys::answer_with_descriptor(self.listener.as_fd(), call.id, made.as_fd(), close_on_exec)
            .map_err(errno)?;
        Ok(None)
    }

    /// Whether the kernel makes a new file at `place` for the right owner: root's, in a directory without a group to give.
    fn is_plain(&mut self, credentials: &Credentials) -> Result<bool, Errno> {
        if (credentials.user.files, credentials.group.files) != (0, 0) {
            return Ok(false);
        }
        Ok(owners::record_at(&self.place.whole_parent()?, true).is_none_or(|record| record.gid == 0))
    }

    fn prepare(&mut self, call: &Notification, credentials: &Credentials) -> Result<Making, Errno> {
        let (parent, name) = self.place.open_parent()?;
        self.making(call, credentials, parent, name)?.check()
    }

    /// Finds out whose a new file will be, and takes the caller's umask.
    fn making(
        &self,
        call: &Notification,
        credentials: &Credentials,
        parent: OwnedFd,
        name: CString,
    ) -> Result<Making, Errno> {
        let umask = status_line(call.tid, "Umask:")?;
        let umask = u32::from_str_radix(&umask, 8).map_err(|_| Errno::SRCH)?;
        let status = Status::of(&parent)?;
        let mut owner = (credentials.user.files, credentials.group.files);
        let of = owners::shown(&parent, &status, &self.table).owner;
        if status.mode() & SET_GROUP_ID != 0 {
            owner.1 = of.1;
        }
        let allowed = credentials.may_write(of, status.mode());
        self.check(call)?;
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        Ok(Making { parent, name, owner, allowed })
    }

    /// Records the owner of what was made just now and is not open.
    fn note(&mut self, making: &Making) -> Result<Answer, Errno> {
        let name: &CStr = &making.name;
        let made = rustix::fs::openat(&making.parent, name, LOOK | OFlags::NOFOLLOW, Mode::empty())?;
        let status = Status::of(&made)?;
        let new = Shown::of(&status);
        owners::give(&made, &status, &new, making.owner, &mut self.table, true)?;
        Ok(Answer::Value(0))
    }
}
