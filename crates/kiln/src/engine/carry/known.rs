//! The memory of which file of a cache has which chunks: one file for each cache, in the store's `index/`.
//!
//! A cache in the strict sense: torn, foreign or gone, files are read again. An entry counts if inode, size and both times
//! are what they were, and the last change was over when it was looked at: git's racy entries
//! (<https://git-scm.com/docs/racy-git>).

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use kiln_core::{Canonical, Digest, IoError, IoResultExt as _};
use rustix::fs::{fstat, stat};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::tree::Identity;

const MAGIC: &[u8; 8] = b"kilncar1";
/// Two ticks of the slowest kernel clock.
const TICK: i128 = 20_000_000;

/// What is known of one cache.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When it was looked at the files, nanoseconds since 1970.
    looked: i128,
    /// Generations that the cache's content takes the place of.
    pub(super) parents: Vec<Digest>,
    files: HashMap<PathBuf, (Identity, Vec<Digest>)>,
}

/// Names the file of a cache.
pub(super) fn path(store: &Path, ids: &str, id: &str, scope: &str) -> PathBuf {
    let mut name = Canonical::new("chunks of a cache");
    name.bytes(ids.as_bytes()).bytes(scope.as_bytes()).bytes(id.as_bytes());
    store.join("index").join(name.finish().hex())
}

/// The time, as the kernel gives it to files.
pub(super) fn clock() -> Timespec {
    clock_gettime(ClockId::RealtimeCoarse)
}

impl Known {
    /// Reads one; what cannot be read is empty.
    pub(super) fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
    }

    /// Returns a file's chunks, if it cannot have changed.
    pub(super) fn get(&self, path: &Path, identity: &Identity) -> Option<&Vec<Digest>> {
        let (known, chunks) = self.files.get(path)?;
        let settled = [identity.ctime, identity.mtime].iter().all(|time| nanos(*time) + TICK < self.looked);
        (known == identity && settled).then_some(chunks)
    }

    /// Writes a memory of these files, as they were looked at from `since` on, by rename, not synced.
    pub(super) fn write<'a>(
        path: &Path,
        since: Timespec,
        parents: &[Digest],
        files: impl Iterator<Item = (&'a PathBuf, &'a Identity, &'a [Digest])>,
    ) -> Result<Identity, IoError> {
        let mut body = Vec::new();
        let number = |body: &mut Vec<u8>, number: u64| body.extend(number.to_le_bytes());
        number(&mut body, since.tv_sec.cast_unsigned());
        number(&mut body, since.tv_nsec.cast_unsigned());
        number(&mut body, parents.len() as u64);
        body.extend(parents.iter().flat_map(|parent| *parent.as_bytes()));
        for (path, identity, chunks) in files {
            let name = path.as_os_str().as_bytes();
            number(&mut body, name.len() as u64);
            body.extend_from_slice(name);
            let Identity { ino, size, mtime, ctime } = *identity;
            for value in [ino, size, mtime.0.cast_unsigned(), ctime.0.cast_unsigned()] {
                number(&mut body, value);
            }
            number(&mut body, u64::from(mtime.1) << 32 | u64::from(ctime.1));
            number(&mut body, chunks.len() as u64);
            body.extend(chunks.iter().flat_map(|chunk| *chunk.as_bytes()));
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).at("create", dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir).at("make a file in", dir)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(Digest::of(&body).as_bytes()))
            .and_then(|()| file.write_all(&body));
        written.at("write", path)?;
        let file = file.persist(path).map_err(|error| error.error).at("rename to", path)?;
        Ok(Identity::of(&fstat(&file).at("stat", path)?))
    }

    /// Whether this memory is the one that was written last.
    pub(super) fn is(path: &Path, written: &Identity) -> bool {
        stat(path).is_ok_and(|found| Identity::of(&found) == *written)
    }
}

fn parse(bytes: &[u8]) -> Option<Known> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, mut body) = rest.split_at_checked(32)?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    let mut known = Known::default();
    let (secs, fraction) = (number(&mut body)?, number(&mut body)?);
    known.looked = i128::from(secs.cast_signed()) * 1_000_000_000 + i128::from(fraction);
    known.parents = digests(&mut body)?;
    while !body.is_empty() {
        let length = usize::try_from(number(&mut body)?).ok()?;
        let (name, rest) = body.split_at_checked(length)?;
        body = rest;
        let (ino, size) = (number(&mut body)?, number(&mut body)?);
        let (mtime, ctime) = (number(&mut body)?.cast_signed(), number(&mut body)?.cast_signed());
        let fractions = number(&mut body)?;
        let identity = Identity {
            ino,
            size,
            mtime: (mtime, (fractions >> 32) as u32),
            ctime: (ctime, fractions as u32),
        };
        let chunks = digests(&mut body)?;
        known.files.insert(OsString::from_vec(name.to_vec()).into(), (identity, chunks));
    }
    Some(known)
}

fn number(body: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = body.split_first_chunk::<8>()?;
    *body = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn digests(body: &mut &[u8]) -> Option<Vec<Digest>> {
    let count = usize::try_from(number(body)?).ok()?;
    let (bytes, rest) = body.split_at_checked(count.checked_mul(32)?)?;
    *body = rest;
    Some(bytes.as_chunks::<32>().0.iter().map(|bytes| Digest::from_bytes(*bytes)).collect())
}

fn nanos((secs, fraction): (i64, u32)) -> i128 {
    i128::from(secs) * 1_000_000_000 + i128::from(fraction)
}
