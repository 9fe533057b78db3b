//! The persistent memory of content digests: (device, inode, size, mtime, ctime) -> sha256.
//!
//! One file per context: a header, then records of 88 bytes sorted by device and inode. It is a cache in the strict
//! sense: if it is torn, foreign or gone, files are hashed again. Several processes may write it at once; each
//! replaces it whole, by rename, and the last one wins.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_core::{Canonical, IoError, IoResultExt};
use rustix::time::{ClockId, clock_gettime};

use super::Time;
use super::selected::Identity;
use super::stat::FileStat;

const MAGIC: &[u8; 8] = b"kilnidx1";
const HEADER: usize = 24;
const RECORD: usize = 88;

/// Digests remembered from earlier builds of one context, and those of this one.
#[derive(Debug)]
pub struct StatIndex {
    path: PathBuf,
    /// Records as read.
    old: Vec<u8>,
    /// Which of them were asked for.
    seen: Vec<AtomicBool>,
    fresh: Mutex<Fresh>,
}

/// By device and inode.
type Fresh = HashMap<(u64, u64), (Identity, [u8; 32])>;

impl StatIndex {
    /// Opens the index of a context in the directory of indexes. What cannot be read counts as empty.
    ///
    /// # Errors
    /// The context itself cannot be asked for its identity.
    pub fn open(indexes: &Path, context: impl AsFd, context_path: &Path) -> Result<Self, IoError> {
        let stat = FileStat::of(context).at("stat", context_path)?;
        let mut name = Canonical::new("stat index");
        name.u64(stat.dev).u64(stat.ino).bytes(context_path.as_os_str().as_bytes());
        let path = indexes.join(name.finish().hex());
        let old = std::fs::read(&path).ok().and_then(sound_records).unwrap_or_default();
        let seen = std::iter::repeat_with(AtomicBool::default).take(old.len() / RECORD).collect();
        Ok(Self { path, old, seen, fresh: Mutex::default() })
    }

    /// Writes what is new since [`open`](Self::open); nothing if nothing is.
    ///
    /// # Errors
    /// The file cannot be written. The next build then hashes again.
    pub fn save(&self) -> Result<(), IoError> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_empty() {
            return Ok(());
        }
        let seen = self.seen.iter().filter(|seen| seen.load(Ordering::Relaxed)).count() + fresh.len();
        // Entries of files that are gone are kept for a while: another branch may be checked out.
        let keep_unseen = self.seen.len() + fresh.len() <= 4 * seen + 4096;
        let mut records: Vec<[u8; RECORD]> = Vec::with_capacity(self.seen.len() + fresh.len());
        for (record, seen) in self.old.as_chunks::<RECORD>().0.iter().zip(&self.seen) {
            let keep = keep_unseen || seen.load(Ordering::Relaxed);
            if keep && !fresh.contains_key(&key_of(record)) {
                records.push(*record);
            }
        }
        records.extend(fresh.values().map(|(identity, digest)| encode(identity, digest)));
        records.sort_unstable_by_key(key_of);
        let body = records.as_flattened();
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).at("make a file in", dir)?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&(records.len() as u64).to_le_bytes());
        header[16..].copy_from_slice(&checksum(body).to_le_bytes());
        // Not synced: a torn file is recognised and ignored.
        file.write_all(&header).and_then(|()| file.write_all(body)).at("write", &self.path)?;
        file.persist(&self.path).map_err(|error| error.error).at("rename to", &self.path)?;
        Ok(())
    }

    /// Returns the digest of a file's content, if it is known and cannot have changed.
    pub(super) fn get(&self, identity: &Identity) -> Option<[u8; 32]> {
        let records = self.old.as_chunks::<RECORD>().0;
        let found = records.binary_search_by_key(&(identity.dev, identity.ino), key_of).ok()?;
        let record = &records[found];
        if encode(identity, &[0; 32])[..56] != record[..56] {
            return None;
        }
        self.seen[found].store(true, Ordering::Relaxed);
        record[56..].try_into().ok()
    }

    /// Remembers the digest of a file that was opened at `opened`, unless the file is so young that a later
    /// change could leave its times as they are.
    pub(super) fn put(&self, identity: Identity, digest: [u8; 32], opened: Time) {
        if is_settled(&identity, opened) {
            let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            fresh.insert((identity.dev, identity.ino), (identity, digest));
        }
    }
}

/// Returns the time on the clock that the kernel stamps files with. (It decides nothing about a result, only
/// whether a file is read once more.)
pub(super) fn file_clock() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or_default() }
}

/// Git's racy entries (<https://git-scm.com/docs/racy-git>): a change within the same tick of the clock leaves the
/// times equal, so a file counts as settled only if its last tick was over when it was read. 20 ms are two ticks
/// of the slowest kernel clock; a file system that stores whole seconds has ticks of one or two seconds.
fn is_settled(identity: &Identity, opened: Time) -> bool {
    [identity.mtime, identity.ctime].iter().all(|time| {
        let tick: i128 = if time.nanos == 0 { 2_000_000_000 } else { 20_000_000 };
        nanos(*time) + tick < nanos(opened)
    })
}

fn nanos(time: Time) -> i128 {
    i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)
}

fn encode(identity: &Identity, digest: &[u8; 32]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let words = [
        identity.dev,
        identity.ino,
        identity.size,
        identity.mtime.secs.cast_unsigned(),
        identity.ctime.secs.cast_unsigned(),
        u64::from(identity.mtime.nanos) << 32 | u64::from(identity.ctime.nanos),
    ];
    for (chunk, word) in record.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    record[56..].copy_from_slice(digest);
    record
}

fn key_of(record: &[u8; RECORD]) -> (u64, u64) {
    let words = record.as_chunks::<8>().0;
    (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
}

/// Returns the records of a file, if it is whole.
fn sound_records(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let header: &[u8; HEADER] = file.first_chunk()?;
    let words = header.as_chunks::<8>().0;
    let count = usize::try_from(u64::from_le_bytes(words[1])).ok()?;
    let sum = u64::from_le_bytes(words[2]);
    let body = &file[HEADER..];
    let sound = words[0] == *MAGIC && Some(body.len()) == count.checked_mul(RECORD) && checksum(body) == sum;
    file.drain(..HEADER);
    sound.then_some(file)
}

/// Finds torn writes, in a millisecond for 50,000 records; not made to resist anyone.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}
