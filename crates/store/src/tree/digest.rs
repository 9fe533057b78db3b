//! The content digest of a selection: the part of a key that says what a step was given.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Canonical, Digest, DigestHasher, IoError, IoResultExt};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::selected::{Identity, Selected};
use super::stat::{FileStat, Kind};
use super::stat_index::file_clock;
use super::xattr;

/// Files that one thread takes at a time.
const CHUNK: usize = 128;

/// What of the files decides a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestRule {
    /// Whether the matched file or directory itself is seen (a bind mount), not only its content put somewhere.
    pub whole: bool,
    /// Whether owners are seen: in a bind mount of a stage, and in a copy from one without `--chown`.
    pub owners: bool,
    /// Whether permission bits are seen: not under an octal `--chmod`.
    pub modes: bool,
}

impl DigestRule {
    /// For COPY of a build context's files.
    pub const COPY: Self = Self { whole: false, owners: false, modes: true };
    /// For a bind mount of a build context, whose owners are those of whoever checked it out.
    pub const BIND_CONTEXT: Self = Self { whole: true, owners: false, modes: true };
    /// For a bind mount of a stage.
    pub const BIND_STAGE: Self = Self { whole: true, owners: true, modes: true };
}

impl Selected {
    /// Returns the digest of path, type, mode, owner, link target, attributes and content of the selected files; not
    /// of their times. Paths are relative to what was matched: renaming a parent directory changes nothing. Reads
    /// the files whose digest the index does not know.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digest(&self, rule: DigestRule) -> Result<Digest, IoError> {
        self.hash_contents()?;
        let mut out = Canonical::new("tree");
        out.bool(rule.whole).bool(rule.owners).bool(rule.modes).u64(self.matches.len() as u64);
        for m in &self.matches {
            let is_dir = self.entry(m.entry).kind() == Kind::Dir;
            out.bool(is_dir);
            match (is_dir, rule.whole) {
                // COPY takes a directory's content; its own name and mode are not seen.
                (true, false) => self.encode_children(m.entry, rule, &mut out),
                (_, true) => self.encode_entry(m.entry, rule, &mut out),
                (false, false) => {
                    out.bytes(&m.name);
                    self.encode_entry(m.entry, rule, &mut out);
                }
            }
        }
        Ok(out.finish())
    }

    fn encode_entry(&self, id: u32, rule: DigestRule, out: &mut Canonical) {
        let entry = self.entry(id);
        let kind = entry.kind();
        // A directory on the way is not copied with all that it is.
        out.u64(u64::from(entry.mode & 0o170_000 | u32::from(entry.on_the_way)));
        if rule.modes && kind != Kind::Symlink {
            out.u64(u64::from(entry.mode & 0o7777));
        }
        if rule.owners {
            out.u64(u64::from(entry.uid)).u64(u64::from(entry.gid));
        }
        let xattrs = self.xattrs_of(id).unwrap_or_default();
        let seen: Vec<_> =
            xattrs.iter().filter(|(name, _)| rule.owners || xattr::Which::Portable.wants(name)).collect();
        out.list(&seen, |(name, value), out| {
            out.bytes(name).bytes(value);
        });
        match kind {
            Kind::File | Kind::Symlink => {
                out.bytes(entry.digest.get().expect("hash_contents came before"));
            }
            Kind::Dir => self.encode_children(id, rule, out),
            Kind::CharDevice | Kind::BlockDevice => {
                out.u64(entry.stat.size);
            }
            Kind::Fifo | Kind::Socket => {}
        }
    }

    fn encode_children(&self, id: u32, rule: DigestRule, out: &mut Canonical) {
        out.u64(self.live_children(id).count() as u64);
        for child in self.live_children(id) {
            out.bytes(self.name(child).as_encoded_bytes());
            self.encode_entry(child, rule, out);
        }
    }

    /// Makes every file's and link's content digest known.
    pub(super) fn hash_contents(&self) -> Result<(), IoError> {
        let mut jobs = Vec::new();
        for m in &self.matches {
            let dir = m.path.parent().unwrap_or(Path::new("")).to_owned();
            self.collect_unknown(&dir, std::iter::once(m.entry), &mut jobs);
        }
        let bytes: u64 = jobs.iter().flat_map(|job| &job.files).map(|id| self.entry(*id).stat.size).sum();
        // A thread costs some 50 us; hashing 64 KiB costs about as much.
        let useful = jobs.len().min(usize::try_from(bytes >> 16).unwrap_or(usize::MAX)).max(1);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(useful);
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            let mut buffer = vec![0; 128 << 10];
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.hash_job(job, &mut buffer) {
                    next.store(jobs.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Takes what the index knows and collects the rest.
    fn collect_unknown(&self, dir: &Path, ids: impl Iterator<Item = u32>, jobs: &mut Vec<Job>) {
        let mut files = Vec::new();
        for id in ids {
            let entry = self.entry(id);
            match entry.kind() {
                Kind::Dir => {
                    let path = dir.join(self.name(id));
                    self.collect_unknown(&path, self.live_children(id), jobs);
                }
                Kind::File | Kind::Symlink if entry.digest.get().is_none() => {
                    match self.index.as_ref().and_then(|index| index.get(&entry.stat)) {
                        Some(known) => {
                            let _ = entry.digest.set(known);
                        }
                        None => files.push(id),
                    }
                }
                _ => {}
            }
        }
        jobs.extend(files.chunks(CHUNK).map(|files| Job { dir: dir.to_owned(), files: files.to_vec() }));
    }

    fn hash_job(&self, job: &Job, buffer: &mut [u8]) -> Result<(), IoError> {
        let dir = self.open_dir(&job.dir).at("open", self.full(&job.dir))?;
        for id in &job.files {
            let path = || self.full(&job.dir.join(self.name(*id)));
            self.hash_entry(*id, &dir, buffer).map_err(|(op, error)| IoError::new(op, path(), &error))?;
        }
        Ok(())
    }

    fn hash_entry(
        &self,
        id: u32,
        dir: &OwnedFd,
        buffer: &mut [u8],
    ) -> Result<(), (&'static str, std::io::Error)> {
        let (entry, name) = (self.entry(id), self.name(id));
        let opened = file_clock();
        let (digest, identity, plain) = if entry.kind() == Kind::Symlink {
            let target =
                rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|error| ("read link", error.into()))?;
            (Digest::of(target.as_bytes()), entry.stat, true)
        } else {
            let (digest, identity, xattrs) = hash_file(dir, name, entry.stat.size, self.which, buffer)?;
            let plain = xattrs.is_empty();
            if !plain {
                self.xattrs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(xattrs));
            }
            (digest, identity, plain)
        };
        let _ = entry.digest.set(*digest.as_bytes());
        // Files with attributes are rare and are read each time: the index holds content only. A file that changed
        // since the walk is not remembered, its times are not those of what was read.
        if let Some(index) = &self.index
            && plain
            && identity == entry.stat
        {
            index.put(identity, *digest.as_bytes(), opened);
        }
        Ok(())
    }
}

struct Job {
    dir: PathBuf,
    files: Vec<u32>,
}

type Hashed = (Digest, Identity, xattr::Xattrs);

/// `size`: what it had when it was walked over.
fn hash_file(
    dir: &OwnedFd,
    name: &std::ffi::OsStr,
    size: u64,
    which: xattr::Which,
    buffer: &mut [u8],
) -> Result<Hashed, (&'static str, std::io::Error)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|error| ("open", error.into()))?;
    let mut file = std::fs::File::from(fd);
    let read = |error| ("read", error);
    let (digest, stat, xattrs);
    if size >= LARGE {
        digest = hash_large(&file, size).map_err(read)?;
        xattrs = xattr::read(&file, which).map_err(|error| read(error.into()))?;
        stat = FileStat::of(&file).map_err(|error| ("stat", error.into()))?;
    } else {
        let mut hasher = DigestHasher::new();
        // A file of no size may have bytes all the same, in /proc and on some FUSE file systems.
        let wanted = if size == 0 { u64::MAX } else { size };
        let got = hash_up_to(&mut file, wanted, &mut hasher, buffer).map_err(read)?;
        xattrs = xattr::read(&file, which).map_err(|error| read(error.into()))?;
        // Asked after reading: a write during it moves the times on.
        stat = FileStat::of(&file).map_err(|error| ("stat", error.into()))?;
        if stat.size != got {
            hash_up_to(&mut file, u64::MAX, &mut hasher, buffer).map_err(read)?;
        }
        digest = hasher.finish();
    }
    Ok((digest, Identity::from(&stat), xattrs))
}

/// Hashes so many bytes, or those that there are; returns how many. The last of them says nothing about there being more, so
/// that a small file takes one read.
fn hash_up_to(
    file: &mut std::fs::File,
    wanted: u64,
    hasher: &mut DigestHasher,
    buffer: &mut [u8],
) -> std::io::Result<u64> {
    let mut done = 0;
    while done < wanted {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                done += length as u64;
            }
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Files of this many bytes and more are hashed without their zeros.
const LARGE: u64 = 1 << 30;

/// Hashes where data is and what it is, in blocks, and the size: a sparse file of 1 TB takes no longer than what it
/// holds. A block of zeros counts as a hole, so that it does not matter which of the two a file system keeps.
fn hash_large(file: &std::fs::File, size: u64) -> std::io::Result<Digest> {
    use std::os::unix::fs::FileExt as _;
    let mut block = vec![0; 1 << 20];
    let mut hasher = DigestHasher::new();
    hasher.update(b"large");
    hasher.update(&size.to_le_bytes());
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data - data % (block.len() as u64),
            Err(Errno::NXIO) => break,
            // A file system that does not know holes.
            Err(_) => at,
        };
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(block.len());
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut block[filled..wanted], at + filled as u64) {
                // It became shorter meanwhile: its times say so.
                Ok(0) => return Ok(hasher.finish()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block[..wanted].iter().any(|&byte| byte != 0) {
            hasher.update(&at.to_le_bytes());
            hasher.update(&block[..wanted]);
        }
        at += wanted as u64;
    }
    Ok(hasher.finish())
}
