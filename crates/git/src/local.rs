//! `file://`: a repository in a directory, read as it lies there.
//!
//! It plays the server: [`Repository::refs`] is its list, [`Repository::pack`] what it would send. So all that comes from it
//! goes the way of a pack from the network, checks included. Nothing in it is executed, and its configuration is read for
//! its format only.

mod objects;
mod refs;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::{CommitRefIter, Kind, TagRefIter, TreeRefIter};
use kiln_core::{Cancel, IoError, IoResultExt as _};

use crate::local::objects::Database;
use crate::location::Location;
use crate::refs::Ref;
use crate::{Access, GitError, Limits, config};

/// A repository on this machine.
pub(crate) struct Repository {
    database: Database,
    /// Where HEAD is.
    directory: PathBuf,
    /// Where objects and refs are: another place for a linked work tree.
    common: PathBuf,
    remote: String,
    cancel: Cancel,
}

/// What a server would send.
pub(crate) struct Pack {
    pub(crate) stream: File,
    pub(crate) shallow: Vec<ObjectId>,
}

impl Repository {
    pub(crate) fn open(access: &Access<'_>, location: &Location, path: &Path) -> Result<Self, GitError> {
        let remote = location.name.clone();
        if !access.files {
            let reason = "a directory of this machine is read only if it was named on the command line";
            return Err(GitError::Unsupported { remote, reason: reason.to_owned() });
        }
        let absent = || GitError::NoRepository { remote: remote.clone(), detail: String::new() };
        let directory = find(path).ok_or_else(absent)?;
        Self::at(directory, remote, access.limits.object, access.cancel.clone())
    }

    /// `directory` is what is called `.git` in a work tree.
    fn at(directory: PathBuf, remote: String, limit: usize, cancel: Cancel) -> Result<Self, GitError> {
        let unsupported =
            |reason: &str| GitError::Unsupported { remote: remote.clone(), reason: reason.to_owned() };
        let common = match read_line(&directory.join("commondir")) {
            Some(common) => directory.join(common),
            None => directory.clone(),
        };
        let settings = fs::read_to_string(common.join("config")).unwrap_or_default();
        for setting in config::parse(&settings).unwrap_or_default() {
            let value = setting.value.to_lowercase();
            match (setting.section.as_str(), setting.key.as_str()) {
                ("extensions", "objectformat") if value != "sha1" => {
                    return Err(unsupported("its objects are named by SHA-256, which kiln does not read"));
                }
                ("extensions", "refstorage") if value != "files" => {
                    return Err(unsupported("its refs are kept in a reftable, which kiln does not read"));
                }
                _ => {}
            }
        }
        let database = Database::open(&common.join("objects"), &remote, limit)?;
        Ok(Self { database, directory, common, remote, cancel })
    }

    /// Returns HEAD and everything under `refs/`.
    pub(crate) fn refs(&mut self) -> Result<Vec<Ref>, GitError> {
        let mut found = refs::read(&self.directory, &self.common)?;
        for one in found.iter_mut().filter(|one| one.name.starts_with("refs/tags/")) {
            let target = self.peel(one.id)?;
            one.peeled = Some(target).filter(|target| *target != one.id);
        }
        Ok(found)
    }

    /// Writes a commit, the tags that lead to it, and its files into a pack without a name in `scratch`; none if it is
    /// not there.
    pub(crate) fn pack(mut self, id: ObjectId, scratch: &Path) -> Result<Option<Pack>, GitError> {
        let mut ids = Vec::new();
        let mut seen = HashSet::new();
        let mut shallow = Vec::new();
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            if !seen.insert(id) {
                continue;
            }
            let Some((kind, data)) = self.database.find(id)? else {
                if ids.is_empty() {
                    return Ok(None);
                }
                return Err(self.missing(id));
            };
            let damaged = || self.damaged(id);
            match kind {
                Kind::Commit => {
                    let mut parts = CommitRefIter::from_bytes(&data, HashKind::Sha1);
                    waiting.push(parts.tree_id().map_err(|_| damaged())?);
                    if parts.parent_ids().next().is_some() {
                        shallow.push(id);
                    }
                }
                Kind::Tag => {
                    let target = TagRefIter::from_bytes(&data, HashKind::Sha1).target_id();
                    waiting.push(target.map_err(|_| damaged())?);
                }
                Kind::Tree => {
                    for entry in TreeRefIter::from_bytes(&data, HashKind::Sha1) {
                        let entry = entry.map_err(|_| damaged())?;
                        if entry.mode.is_tree() {
                            waiting.push(entry.oid.to_owned());
                        } else if !entry.mode.is_commit() && seen.insert(entry.oid.to_owned()) {
                            ids.push(entry.oid.to_owned());
                        }
                    }
                }
                Kind::Blob => {}
            }
            ids.push(id);
        }
        let mut stream = tempfile::tempfile_in(scratch).at("make a temporary file in", scratch)?;
        self.write(&ids, &mut stream)?;
        stream.seek(SeekFrom::Start(0)).at("rewind", "a temporary file")?;
        Ok(Some(Pack { stream, shallow }))
    }

    /// <https://git-scm.com/docs/pack-format>
    fn write(&mut self, ids: &[ObjectId], file: &mut File) -> Result<(), GitError> {
        let fail = |error: std::io::Error| IoError::new("write", "a temporary pack", &error);
        let mut out = Hashing { inner: BufWriter::new(file), hasher: gix_hash::hasher(HashKind::Sha1) };
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        out.write_all(b"PACK\0\0\0\x02").map_err(fail)?;
        out.write_all(&count.to_be_bytes()).map_err(fail)?;
        for id in ids {
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            let Some((kind, data)) = self.database.find(*id)? else { return Err(self.missing(*id)) };
            let kind: u8 = match kind {
                Kind::Commit => 1,
                Kind::Tree => 2,
                Kind::Blob => 3,
                Kind::Tag => 4,
            };
            let mut size = data.len();
            let mut byte = (kind << 4) | low(size, 0xf);
            size >>= 4;
            while size > 0 {
                out.write_all(&[byte | 0x80]).map_err(fail)?;
                byte = low(size, 0x7f);
                size >>= 7;
            }
            out.write_all(&[byte]).map_err(fail)?;
            // It is read again at once; it need not be small.
            let mut encoder = ZlibEncoder::new(&mut out, Compression::new(1));
            encoder.write_all(&data).map_err(fail)?;
            encoder.finish().map_err(fail)?;
        }
        let Hashing { mut inner, hasher } = out;
        let sum = hasher.try_finalize().map_err(|_| self.damaged(ids[0]))?;
        inner.write_all(sum.as_slice()).map_err(fail)?;
        inner.flush().map_err(fail)?;
        Ok(())
    }

    /// The time of a commit, by its committer's clock.
    fn time(&mut self, id: ObjectId) -> Result<u64, GitError> {
        let Some((Kind::Commit, data)) = self.database.find(id)? else { return Err(self.missing(id)) };
        let committer = CommitRefIter::from_bytes(&data, HashKind::Sha1).committer();
        let seconds = committer.map_err(|_| self.damaged(id))?.seconds();
        Ok(u64::try_from(seconds).unwrap_or(0))
    }

    fn peel(&mut self, mut id: ObjectId) -> Result<ObjectId, GitError> {
        for _ in 0..16 {
            match self.database.find(id)? {
                Some((Kind::Tag, data)) => {
                    let target = TagRefIter::from_bytes(&data, HashKind::Sha1).target_id();
                    id = target.map_err(|_| self.damaged(id))?;
                }
                _ => break,
            }
        }
        Ok(id)
    }

    fn missing(&self, id: ObjectId) -> GitError {
        GitError::Pack { remote: self.remote.clone(), reason: format!("object {id} is missing") }
    }

    fn damaged(&self, id: ObjectId) -> GitError {
        GitError::Pack { remote: self.remote.clone(), reason: format!("object {id} cannot be read") }
    }
}

/// Returns when the commit was made that is checked out in the work tree that `directory` is in: its committer's time, in
/// seconds since 1970, as `git log -1 --format=%ct` has it. Nothing of the repository is executed, and its configuration is
/// read for its format only.
///
/// # Errors
/// There is no repository in the directory or above it, it has no commit yet, or it cannot be read.
pub fn commit_time(directory: &Path) -> Result<u64, GitError> {
    let remote = directory.display().to_string();
    let absolute = fs::canonicalize(directory).at("find", directory)?;
    let found = absolute.ancestors().find_map(|directory| find_in(&[directory.join(".git")], directory));
    let Some(found) = found else {
        return Err(GitError::NoRepository { remote, detail: "nor is it in one".to_owned() });
    };
    let mut repository = Repository::at(found, remote.clone(), Limits::default().object, Cancel::new())?;
    let refs = refs::read(&repository.directory, &repository.common)?;
    let head = refs.iter().find(|one| one.name == "HEAD").ok_or(GitError::Empty { remote })?;
    repository.time(head.id)
}

fn low(size: usize, mask: usize) -> u8 {
    u8::try_from(size & mask).unwrap_or_default()
}

/// Where git looks: in a work tree, or a bare repository, with or without `.git` at the end of its name.
fn find(path: &Path) -> Option<PathBuf> {
    let mut bare = path.as_os_str().to_owned();
    bare.push(".git");
    find_in(&[path.join(".git"), path.to_owned(), PathBuf::from(bare)], path)
}

/// The first of some places that is a repository, or a file that says where one is.
fn find_in(candidates: &[PathBuf], path: &Path) -> Option<PathBuf> {
    for candidate in candidates {
        if candidate.is_file() {
            let line = read_line(candidate)?;
            return Some(path.join(line.strip_prefix("gitdir: ")?));
        }
        let is_one = candidate.join("HEAD").symlink_metadata().is_ok();
        if is_one && (candidate.join("objects").is_dir() || candidate.join("commondir").is_file()) {
            return Some(candidate.clone());
        }
    }
    None
}

/// The first line of a small file.
fn read_line(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(8192).read_to_string(&mut text).ok()?;
    text.lines().next().map(str::to_owned)
}

/// Hashes what passes.
struct Hashing<W> {
    inner: W,
    hasher: gix_hash::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
