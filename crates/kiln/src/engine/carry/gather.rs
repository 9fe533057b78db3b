//! Reading files into packs, on all processors, with bounded memory: each thread has a read buffer, a frame and a pack of its
//! own, and brings that to its place itself.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_carry::{Finished, MAX_CHUNK, Pack, PackWriter, cut};
use kiln_core::{Cancel, Digest, IoError, IoResultExt as _};
use rustix::fs::{CWD, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::tree::Identity;
use crate::Error;

/// A file is read in parts of this size, so that a single large one keeps all processors busy, too. Part of the format in so
/// far as other cuts would not be found again.
const PART: u64 = 64 << 20;
/// More would need more memory than they save time: some 20 MiB each.
const MAX_THREADS: usize = 6;
/// What is read at once: a whole chunk fits in twice, so that few bytes are moved to its front.
const BUFFER: usize = 2 * MAX_CHUNK;
/// So often a file that changes under our hands is read again.
const TRIES: usize = 3;

/// A file that is to be read.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The cache's directory.
    pub(super) root: PathBuf,
    /// Path in it.
    pub(super) path: PathBuf,
    /// What it was when it was looked at.
    pub(super) identity: Identity,
}

/// What became of a file.
#[derive(Debug, Clone)]
pub(super) enum Gathered {
    /// It is this, and has these chunks.
    Chunks(Identity, Vec<Digest>),
    /// It went away meanwhile.
    Gone,
    /// It cannot be read, or never stood still.
    Left(String),
}

/// Where finished packs go. Gives back memory that the next one may be written into.
pub(super) type Put<'a> = &'a (dyn Fn(&Pack, Vec<u8>) -> Result<Vec<u8>, Error> + Sync);

/// Reads files. Chunks in `there` are not packed again. `progress` is told of bytes read.
pub(super) fn gather(
    wanted: &[Wanted],
    there: HashSet<Digest>,
    level: i32,
    put: Put<'_>,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &Cancel,
) -> Result<(Vec<Gathered>, Vec<Pack>), Error> {
    let shared = Shared {
        there: Mutex::new(there),
        stop: AtomicBool::new(false),
        failed: Mutex::default(),
        read: AtomicU64::new(0),
        progress,
        cancel,
        level,
        put,
        packs: Mutex::default(),
    };
    let parts: Vec<(usize, u64)> = wanted
        .iter()
        .enumerate()
        .flat_map(|(file, wanted)| {
            (0..wanted.identity.size.div_ceil(PART).max(1)).map(move |part| (file, part * PART))
        })
        .collect();
    let found: Vec<Mutex<BTreeMap<u64, Part>>> = wanted.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(MAX_THREADS);
    let mut again: Vec<(usize, Gathered)> = Vec::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads.min(parts.len().max(1)))
            .map(|_| {
                let (shared, parts, next, found) = (&shared, &parts, &next, &found);
                scope.spawn(move || {
                    shared.until_failure(|| {
                        let mut reader = Reader::new(shared)?;
                        while let Some((file, start)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if shared.is_over() {
                                return Ok(());
                            }
                            let part = reader.part(&wanted[*file], *start)?;
                            lock(&found[*file]).insert(*start, part);
                        }
                        reader.finish()
                    });
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        // What changed while it was read is read again, whole and by one thread.
        shared.until_failure(|| {
            let mut reader = Reader::new(&shared)?;
            for (file, wanted) in wanted.iter().enumerate() {
                let moved = lock(&found[file]).values().any(|part| !matches!(part, Part::Chunks(_)));
                if moved && !shared.is_over() {
                    again.push((file, reader.again(wanted)?));
                }
            }
            reader.finish()
        });
    });
    if let Some(error) = lock(&shared.failed).take() {
        return Err(error);
    }
    if cancel.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let whole = |(wanted, parts): (&Wanted, Mutex<BTreeMap<u64, Part>>)| {
        let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner).into_values();
        let chunks = parts.flat_map(|part| match part {
            Part::Chunks(chunks) => chunks,
            Part::Moved => Vec::new(),
        });
        Gathered::Chunks(wanted.identity, chunks.collect())
    };
    let mut gathered: Vec<Gathered> = wanted.iter().zip(found).map(whole).collect();
    for (file, better) in again {
        gathered[file] = better;
    }
    Ok((gathered, shared.packs.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

enum Part {
    Chunks(Vec<Digest>),
    /// The file is not what it was.
    Moved,
}

struct Shared<'a> {
    there: Mutex<HashSet<Digest>>,
    stop: AtomicBool,
    failed: Mutex<Option<Error>>,
    read: AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
    cancel: &'a Cancel,
    level: i32,
    put: Put<'a>,
    packs: Mutex<Vec<Pack>>,
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    fn until_failure(&self, work: impl FnOnce() -> Result<(), Error>) {
        if let Err(error) = work() {
            self.stop.store(true, Ordering::Relaxed);
            lock(&self.failed).get_or_insert(error);
        }
    }
}

/// One thread's way from files to packs.
struct Reader<'a> {
    shared: &'a Shared<'a>,
    writer: PackWriter,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Shared<'a>) -> Result<Self, Error> {
        Ok(Self { shared, writer: PackWriter::new(shared.level)?, buffer: Vec::with_capacity(BUFFER) })
    }

    fn finish(mut self) -> Result<(), Error> {
        match self.writer.finish()? {
            Some(last) => self.put(last),
            None => Ok(()),
        }
    }

    fn put(&mut self, (pack, bytes): Finished) -> Result<(), Error> {
        let bytes = (self.shared.put)(&pack, bytes)?;
        self.writer.reuse(bytes);
        lock(&self.shared.packs).push(pack);
        Ok(())
    }

    /// Reads one part of a file.
    fn part(&mut self, wanted: &Wanted, start: u64) -> Result<Part, Error> {
        let length = PART.min(wanted.identity.size.saturating_sub(start));
        let read = self.read(&wanted.root.join(&wanted.path), start, Some(length));
        match read {
            Ok((identity, chunks)) if identity == wanted.identity => Ok(Part::Chunks(chunks)),
            Ok(_) | Err(Failure::File(_)) => Ok(Part::Moved),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Reads a whole file until it stands still.
    fn again(&mut self, wanted: &Wanted) -> Result<Gathered, Error> {
        let path = wanted.root.join(&wanted.path);
        for _ in 0..TRIES {
            let before = rustix::fs::statat(CWD, &path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
            let before = match before {
                Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => {
                    Identity::of(&stat)
                }
                Ok(_) | Err(Errno::NOENT) => return Ok(Gathered::Gone),
                Err(error) => return Ok(Gathered::Left(io::Error::from(error).to_string())),
            };
            let mut chunks = Vec::new();
            let mut still = true;
            for part in 0..before.size.div_ceil(PART).max(1) {
                match self.read(&path, part * PART, Some(PART.min(before.size - part * PART))) {
                    Ok((identity, found)) if identity == before => chunks.extend(found),
                    Ok(_) => still = false,
                    Err(Failure::File(error)) if error.errno == Some(Errno::NOENT.raw_os_error()) => {
                        return Ok(Gathered::Gone);
                    }
                    Err(Failure::File(error)) => return Ok(Gathered::Left(error.to_string())),
                    Err(Failure::Other(error)) => return Err(error),
                }
            }
            if still {
                return Ok(Gathered::Chunks(before, chunks));
            }
        }
        Ok(Gathered::Left("somebody writes to it all the time".to_owned()))
    }

    fn read(
        &mut self,
        path: &Path,
        start: u64,
        length: Option<u64>,
    ) -> Result<(Identity, Vec<Digest>), Failure> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // That kiln reads a file is no use of it. Only its owner may say so.
        let file = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
            opened => opened,
        };
        let mut file = std::fs::File::from(file.at("open", path)?);
        let before = Identity::of(&fstat(&file).at("stat", path)?);
        if start > 0 {
            io::Seek::seek(&mut file, io::SeekFrom::Start(start)).at("read", path)?;
        }
        let mut rest = length.unwrap_or(before.size);
        let mut chunks = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut done = 0;
        while rest > 0 || done < buffer.len() {
            if self.shared.is_over() {
                break;
            }
            // There must be a whole chunk, or all that is left.
            if buffer.len() - done < MAX_CHUNK && rest > 0 {
                buffer.drain(..done);
                done = 0;
                let room = (BUFFER - buffer.len()) as u64;
                let count =
                    (&mut file).take(rest.min(room)).read_to_end(&mut buffer).at("read", path)? as u64;
                rest = if count == 0 { 0 } else { rest - count };
                continue;
            }
            let size = cut(&buffer[done..]);
            let chunk = &buffer[done..done + size];
            let id = Digest::of(chunk);
            chunks.push(id);
            if lock(&self.shared.there).insert(id) {
                let full = self.writer.add(id, chunk).map_err(|error| Failure::Other(error.into()))?;
                if let Some(full) = full {
                    self.put(full).map_err(Failure::Other)?;
                }
            }
            done += size;
            let read = self.shared.read.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
            (self.shared.progress)(read);
        }
        self.buffer = buffer;
        // Short, grown or written to: the kernel's times tell.
        Ok((Identity::of(&fstat(&file).at("stat", path)?).unless_other(before), chunks))
    }
}

impl Identity {
    /// This one, or one that no file has if it is not the other.
    fn unless_other(self, other: Self) -> Self {
        if self == other { self } else { Self { ino: 0, size: u64::MAX, ..self } }
    }
}

enum Failure {
    /// Of this file.
    File(IoError),
    Other(Error),
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        Self::File(error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
