//! Locks between steps of any process, and who holds them.
//!
//! All are flock(2) locks on descriptors of their own, so threads exclude each other like processes do, and a dead
//! process holds none.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_core::{Cancel, IoError, IoResultExt};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::CacheError;
use crate::scratch::random_name;
use crate::tree::FileStat;

/// A wait asks again this often: nobody feels 5 ms beside a step's own time, and 200 system calls a second cost
/// nothing. A thread that blocks in flock(2) instead could not be called back.
const POLL: Duration = Duration::from_millis(5);
/// So many polls after which a wait without a known holder is shown anyway; later, how often it is looked up again.
const UNKNOWN_AFTER: u32 = 10;

/// What became of a wait.
pub(super) enum Waited {
    /// The lock is held.
    Held(OwnedFd),
    /// The file is gone, or was replaced meanwhile.
    Gone,
    /// Others still have it.
    TooLong,
}

/// Takes the lock on a file, waiting while others hold it, so long and no longer.
/// `blocked` is called now and then while it waits, first at once, then with false.
pub(super) fn wait(
    path: &Path,
    exclusive: bool,
    timeout: Option<Duration>,
    cancel: &Cancel,
    blocked: &mut dyn FnMut(u32),
) -> Result<Waited, CacheError> {
    let Some(file) = open(path)? else { return Ok(Waited::Gone) };
    let began = Instant::now();
    let operation = match exclusive {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    let mut polls = 0;
    let waiter = std::thread::current();
    let mut guard = None;
    loop {
        if cancel.is_cancelled() {
            return Err(CacheError::Cancelled);
        }
        match flock(&file, operation) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {
                let waiter = waiter.clone();
                guard.get_or_insert_with(|| cancel.on_cancel(move || waiter.unpark()));
                if polls % UNKNOWN_AFTER == 0 || polls < UNKNOWN_AFTER {
                    blocked(polls);
                }
                if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                    return Ok(Waited::TooLong);
                }
                polls += 1;
                std::thread::park_timeout(POLL);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).at("lock", path)?,
        }
    }
    Ok(if is_at(&file, path)? { Waited::Held(file) } else { Waited::Gone })
}

/// Takes the lock on a file or directory if nobody is in the way; none if somebody is, or if it is gone.
pub(super) fn attempt(path: &Path, operation: FlockOperation) -> Result<Option<OwnedFd>, IoError> {
    let Some(file) = open(path)? else { return Ok(None) };
    match flock(&file, operation) {
        Ok(()) => Ok(is_at(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).at("lock", path),
    }
}

/// Says which process has a lock on a file or directory, as the kernel knows it: proc_locks(5). For those who leave no note
/// here, because they are another store's, or another tool.
pub(super) fn locker(path: &Path) -> Option<String> {
    let stat = rustix::fs::stat(path).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`; one who waits has `->` behind the number.
        let [_, "FLOCK", _, _, pid, at, ..] = fields[..] else { return None };
        (at == file).then(|| pid.to_owned())
    })?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(match name.trim_end() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({name})"),
    })
}

/// Takes the lock of a directory that is only ever held for a moment. None if it is gone.
pub(super) fn guard(path: &Path) -> Result<Option<OwnedFd>, IoError> {
    loop {
        let Some(file) = open(path)? else { return Ok(None) };
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) if is_at(&file, path)? => return Ok(Some(file)),
            Ok(()) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at("lock", path),
        }
    }
}

fn open(path: &Path) -> Result<Option<OwnedFd>, IoError> {
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).at("open", path),
    }
}

/// Whether the open file is what the path names: it may have been replaced while we waited.
fn is_at(file: &OwnedFd, path: &Path) -> Result<bool, IoError> {
    let held = FileStat::of(file).at("stat", path)?;
    match FileStat::at(rustix::fs::CWD, path) {
        Ok(named) => Ok((held.dev, held.ino) == (named.dev, named.ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("stat", path),
    }
}

/// Says who holds a cache, for as long as it lives: a locked file with a sentence in it.
#[derive(Debug)]
pub(super) struct HolderNote {
    path: PathBuf,
    _file: File,
}

impl HolderNote {
    /// Leaves a note in the directory of notes.
    pub(super) fn leave(dir: &Path, text: &str, in_place: bool) -> Result<Self, IoError> {
        let name = format!("{}{}", if in_place { "" } else { COPY }, random_name());
        let (new, path) = (dir.join(format!(".{name}")), dir.join(name));
        let mut file = File::create_new(&new).at("create", &new)?;
        // Locked before it can be seen, so that a note without a lock is always that of a dead process.
        flock(&file, FlockOperation::LockExclusive).at("lock", &new)?;
        file.write_all(text.as_bytes()).at("write", &new)?;
        std::fs::rename(&new, &path).at("rename", &new)?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for HolderNote {
    fn drop(&mut self) {
        // If it stays, the lock still goes, and it counts as stale.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Begins the names of notes of those who work on a copy.
const COPY: &str = "copy-";

/// The notes in a directory.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// What living holders say.
    pub(super) alive: Vec<String>,
    /// Those of them that use the cache itself and not a copy.
    pub(super) in_place: Vec<String>,
    /// Whether a process died while it held the cache. Its note is taken away.
    pub(super) died: bool,
}

/// Reads the notes.
pub(super) fn holders(dir: &Path) -> Holders {
    let mut found = Holders::default();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(mut file) = File::open(&path) else { continue };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) if entry.file_name().as_encoded_bytes().starts_with(b".") => {
                // Perhaps about to be locked; never seen by anyone, so no matter.
            }
            Ok(()) => {
                found.died = true;
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {
                let mut text = String::new();
                if file.read_to_string(&mut text).is_ok() && !text.is_empty() {
                    if !entry.file_name().as_encoded_bytes().starts_with(COPY.as_bytes()) {
                        found.in_place.push(text.clone());
                    }
                    found.alive.push(text);
                }
            }
        }
    }
    found.alive.sort();
    found.in_place.sort();
    found
}
