//! Finds the files that a caller means, from its own root and working directory.
//!
//! The supervisor's thread has the step's root as its root and the machine's /proc as its working directory. So a path of
//! the caller's is resolved by the kernel as the caller's would be, `..` and absolute links included, and what belongs to
//! the caller is reached as `TID/cwd` and `TID/fd/N`. Links of the step's own /proc are not followed: they mean somebody
//! else here. Those of /proc/self are looked up as the caller's own.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::sys::notify as sys;

/// Room before a path for what makes it relative to this thread.
const ROOM: usize = 32;
/// PATH_MAX.
const LONGEST: usize = 4096;
/// What is read at once: few paths are longer.
const PIECE: usize = 256;
/// As the kernel's.
const MOST_LINKS: usize = 40;
/// Of statfs(2).
const PROC_MAGIC: i128 = 0x9fa0;
/// The number of /proc's own directory.
const PROC_ROOT: u64 = 1;

/// Where a path begins: `AT_FDCWD`, or a descriptor of the caller's.
pub(crate) const CALLERS_CWD: i32 = libc::AT_FDCWD;

/// How to open something to look at it, and nothing more.
pub(crate) const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A path of a caller's, and where it begins.
pub(crate) struct Place {
    buffer: Box<[u8; ROOM + LONGEST + 1]>,
    /// Past the path's last byte.
    end: usize,
    tid: u32,
    dir: i32,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { buffer: Box::new([0; ROOM + LONGEST + 1]), end: ROOM, tid: 0, dir: 0 }
    }

    /// Takes a path from the caller's memory. With address 0 it is empty, where that is allowed.
    pub(crate) fn read(&mut self, tid: u32, dir: i32, address: u64, may_be_empty: bool) -> Result<(), Errno> {
        (self.tid, self.dir) = (tid, dir);
        self.end = ROOM;
        if address == 0 && may_be_empty {
            self.buffer[ROOM] = 0;
            return Ok(());
        }
        loop {
            let (from, to) = (self.end, (self.end + PIECE).min(self.buffer.len()));
            let into = &mut self.buffer[from..to];
            let length =
                sys::read_memory(tid, address.wrapping_add((from - ROOM) as u64), into).map_err(errno)?;
            match into[..length].iter().position(|&byte| byte == 0) {
                Some(at) => {
                    self.end = from + at;
                    break;
                }
                None if to == self.buffer.len() => return Err(Errno::NAMETOOLONG),
                // The next piece tells whether there is more.
                None => self.end = from + length,
            }
        }
        if self.end == ROOM && !may_be_empty { Err(Errno::NOENT) } else { Ok(()) }
    }

    /// Takes a descriptor of the caller's for a place.
    pub(crate) fn descriptor(&mut self, tid: u32, descriptor: i32) {
        (self.tid, self.dir, self.end) = (tid, descriptor, ROOM);
        self.buffer[ROOM] = 0;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[ROOM..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == ROOM
    }

    /// The thread and the descriptor, if that is all there is.
    pub(crate) fn open_file(&self) -> Option<(u32, i32)> {
        (self.is_empty() && self.dir >= 0).then_some((self.tid, self.dir))
    }

    fn is_absolute(&self) -> bool {
        self.buffer[ROOM] == b'/'
    }

    /// Returns one path by which this thread finds the same file. Only to look whether a file has a record: it may be
    /// another file the next time, and it follows links of /proc.
    pub(crate) fn whole(&mut self) -> Result<&CStr, Errno> {
        if self.is_absolute() {
            return self.text(ROOM, self.end);
        }
        self.prefixed(self.end)
    }

    /// The same for the directory that the path's last name is in.
    pub(crate) fn whole_parent(&mut self) -> Result<CString, Errno> {
        let (end, _) = split(self.bytes());
        let cut = ROOM + end;
        if self.is_absolute() {
            return CString::new(&self.buffer[ROOM..cut.max(ROOM + 1)]).map_err(|_| Errno::INVAL);
        }
        let mut path = self.base()?.into_bytes();
        path.push(b'/');
        path.extend_from_slice(&self.buffer[ROOM..cut]);
        CString::new(path).map_err(|_| Errno::INVAL)
    }

    fn prefixed(&mut self, end: usize) -> Result<&CStr, Errno> {
        let mut prefix = [0; ROOM];
        let mut rest = &mut prefix[..];
        match self.dir {
            CALLERS_CWD => write!(rest, "{}/cwd", self.tid),
            dir => write!(rest, "{}/fd/{dir}", self.tid),
        }
        .and_then(|()| if end == ROOM { Ok(()) } else { rest.write_all(b"/") })
        .map_err(|_| Errno::NAMETOOLONG)?;
        let length = ROOM - rest.len();
        self.buffer[ROOM - length..ROOM].copy_from_slice(&prefix[..length]);
        self.text(ROOM - length, end)
    }

    fn text(&self, start: usize, end: usize) -> Result<&CStr, Errno> {
        CStr::from_bytes_with_nul(&self.buffer[start..=end]).map_err(|_| Errno::INVAL)
    }

    /// The link of /proc that stands for where the path begins.
    fn base(&self) -> Result<CString, Errno> {
        let path = match self.dir {
            CALLERS_CWD => format!("{}/cwd", self.tid),
            dir if dir < 0 => return Err(Errno::BADF),
            dir => format!("{}/fd/{dir}", self.tid),
        };
        CString::new(path).map_err(|_| Errno::INVAL)
    }

    /// Opens where the path begins.
    pub(crate) fn open_base(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::open(self.base()?, LOOK, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => Errno::BADF,
            other => other,
        })
    }

    /// Opens the file itself, to look at it.
    pub(crate) fn open(&self, follow: bool) -> Result<OwnedFd, Errno> {
        if self.is_empty() {
            return self.open_base();
        }
        let base = if self.is_absolute() { None } else { Some(self.open_base()?) };
        self.open_from(base.as_ref(), self.bytes(), follow)
    }

    /// Opens the directory that the path's last name is in; returns it with the name.
    pub(crate) fn open_parent(&self) -> Result<(OwnedFd, CString), Errno> {
        let (end, name) = split(self.bytes());
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::EXIST);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let parent = &self.bytes()[..end];
        if self.is_absolute() {
            let parent = if parent.is_empty() { b"/" } else { parent };
            return Ok((self.open_from(None, parent, true)?, name));
        }
        let base = self.open_base()?;
        if parent.is_empty() {
            return Ok((base, name));
        }
        Ok((self.open_from(Some(&base), parent, true)?, name))
    }

    /// Opens what a link in `dir` to `target` means the directory of; returns that with the last name.
    pub(crate) fn open_parent_of_target(
        &self,
        dir: &OwnedFd,
        target: &CStr,
    ) -> Result<(OwnedFd, CString), Errno> {
        let (end, name) = split(target.to_bytes());
        if matches!(name, b"" | b"." | b"..") || target.to_bytes().ends_with(b"/") {
            return Err(Errno::ISDIR);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let parent = &target.to_bytes()[..end];
        let parent: &[u8] = match parent {
            b"" if target.to_bytes().starts_with(b"/") => b"/",
            b"" => b".",
            other => other,
        };
        Ok((self.open_from(Some(dir), parent, true)?, name))
    }

    fn open_from(&self, base: Option<&OwnedFd>, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        let flags = if follow { LOOK } else { LOOK | OFlags::NOFOLLOW };
        let from = base.map_or(CWD, |base| base.as_fd());
        match rustix::fs::openat2(from, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            // Through /proc/self, maybe.
            Err(Errno::NOENT) if is_missing(from, path) => Err(Errno::NOENT),
            Err(Errno::LOOP | Errno::NOENT) => self.walk(base, path, follow),
            other => other,
        }
    }

    /// Resolves a path name by name, with /proc/self and /proc/thread-self as the caller's.
    fn walk(&self, base: Option<&OwnedFd>, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        let root = || rustix::fs::open("/", LOOK, Mode::empty());
        let mut names: VecDeque<Vec<u8>> = VecDeque::new();
        let mut dir = match base {
            Some(base) if !path.starts_with(b"/") => rustix::io::fcntl_dupfd_cloexec(base, 0)?,
            _ => root()?,
        };
        prepend(&mut names, path);
        // Whether `dir` is in the caller's own part of the machine's /proc, whose links are the caller's to follow.
        let mut own = false;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let last = names.is_empty();
            if own && name == b".." {
                return Err(Errno::ACCESS);
            }
            if !own && matches!(&name[..], b"self" | b"thread-self") && is_proc(&dir)? {
                let path = if name == b"self" { thread_group(self.tid)? } else { self.tid };
                dir = rustix::fs::open(path.to_string(), LOOK, Mode::empty())?;
                own = true;
                continue;
            }
            let next = rustix::fs::openat(&dir, &name[..], LOOK | OFlags::NOFOLLOW, Mode::empty())?;
            let is_link = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink;
            if !is_link || (last && !follow) {
                dir = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            if own {
                dir = rustix::fs::openat(&dir, &name[..], LOOK, Mode::empty())?;
                own = false;
                continue;
            }
            // Of another process's: this thread may follow it where the caller may not.
            let plain =
                rustix::fs::openat2(&dir, &name[..], LOOK, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
            if plain.is_err_and(|error| error == Errno::LOOP) && on_proc(&dir)? {
                return Err(Errno::ACCESS);
            }
            let target = rustix::fs::readlinkat(&dir, &name[..], Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                dir = root()?;
            }
            prepend(&mut names, &target);
        }
        Ok(dir)
    }
}

/// Whether a path leads to a directory, the same for everybody, that lacks its last name: programs are looked for in many
/// directories (execvp(3)).
fn is_missing(from: BorrowedFd<'_>, path: &[u8]) -> bool {
    let (end, name) = split(path);
    let parent: &[u8] = match &path[..end] {
        b"" if path.starts_with(b"/") => b"/",
        b"" => b".",
        parent => parent,
    };
    let flags = LOOK | OFlags::DIRECTORY;
    let found = rustix::fs::openat2(from, parent, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    let missing = |dir: OwnedFd| {
        let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_err_and(|error| error == Errno::NOENT)
    };
    !matches!(name, b"" | b"self" | b"thread-self") && found.is_ok_and(missing)
}

/// Splits a path at its last name: where the directory's part ends, and the name.
fn split(path: &[u8]) -> (usize, &[u8]) {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    match path[..end].iter().rposition(|&byte| byte == b'/') {
        Some(at) => (at, &path[at + 1..end]),
        None => (0, &path[..end]),
    }
}

fn prepend(names: &mut VecDeque<Vec<u8>>, path: &[u8]) {
    for name in path.split(|&byte| byte == b'/').rev().filter(|name| !name.is_empty() && *name != b".") {
        names.push_front(name.to_vec());
    }
}

pub(super) fn on_proc(dir: &OwnedFd) -> Result<bool, Errno> {
    Ok(i128::from(rustix::fs::fstatfs(dir)?.f_type) == PROC_MAGIC)
}

fn is_proc(dir: &OwnedFd) -> Result<bool, Errno> {
    Ok(on_proc(dir)? && rustix::fs::fstat(dir)?.st_ino == PROC_ROOT)
}

fn thread_group(tid: u32) -> Result<u32, Errno> {
    status_line(tid, "Tgid:").and_then(|value| value.parse().map_err(|_| Errno::SRCH))
}

/// Reads a value of a thread's /proc/PID/status.
pub(crate) fn status_line(tid: u32, name: &str) -> Result<String, Errno> {
    let file = rustix::fs::open(format!("{tid}/status"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = vec![0; 4096];
    let length = rustix::io::read(&file, &mut text)?;
    let text = String::from_utf8_lossy(&text[..length]);
    let value = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(Errno::SRCH)?;
    Ok(value.trim().to_owned())
}

/// The name by which this thread reaches an open file of its own process, to act on it where only a path will do.
pub(crate) struct Own([u8; 24]);

impl Own {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Self {
        let mut name = [0; 24];
        // The longest number fits.
        let _ = write!(&mut name[..23], "self/fd/{}", fd.as_raw_fd());
        Self(name)
    }

    pub(crate) fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Looks at an open file.
pub(crate) const EMPTY: AtFlags = AtFlags::EMPTY_PATH;

pub(crate) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
