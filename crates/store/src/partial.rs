//! Blobs that came in part: what a download had when it broke off, for the next one to go on with.
//!
//! A file per blob, named by the digest that it shall have, holds the blob's start and nothing else. Who writes to it holds a
//! lock on it; somebody else who wants the same blob at that time writes one of his own. Nothing is believed of it: the next
//! download hashes what is there before it goes on, and the whole is what its digest says, or is thrown away. There is no
//! fsync: after a reboot all of them go (docs/decisions/0032-blobs-in-part.md).

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_core::{Digest, DigestHasher, IoError, IoResultExt as _};

use crate::blob::BlobWriter;
use crate::collect::{PruneOptions, PruneReport, Removed, ThingKind};
use crate::durable::children;
use crate::error::StoreError;
use crate::layout::{self, Layout};
use crate::lock::FileLock;
use crate::store::Store;

/// Smaller blobs begin anew: they are there in a moment.
const LARGE: u64 = 16 << 20;
/// What is shorter is not worth a request of its own.
pub(crate) const WORTH: u64 = 1 << 20;
/// Bytes of all that nobody writes to; the oldest go first. Nobody may ever come back for them.
const MOST: u64 = 4 << 30;
/// And how long they stay.
const AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Store {
    /// Starts a blob that is being fetched, or goes on with what an earlier try has of it: then
    /// [`size`](BlobWriter::size) is not 0. What it has when it is dropped stays for the next try.
    ///
    /// # Errors
    /// The file cannot be made or read.
    pub fn blob_writer_for(&self, digest: &Digest, size: u64) -> Result<BlobWriter, StoreError> {
        if size < LARGE {
            return self.blob_writer();
        }
        let dir = self.0.layout.at(layout::PARTIAL);
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        self.bound_partials()?;
        let path = dir.join(digest.hex());
        let Some(lock) = FileLock::attempt_file(&path)? else { return self.blob_writer() };
        let mut file = lock.file().try_clone().at("open", &path)?;
        let (mut there, mut hasher) = hash(&mut file, size).at("read", &path)?;
        if there > size || there == size && hasher.clone().finish() != *digest {
            file.set_len(0).at("shorten", &path)?;
            (there, hasher) = (0, DigestHasher::new());
        }
        file.seek(SeekFrom::Start(there)).at("seek in", &path)?;
        Ok(BlobWriter::go_on(self, file, path, lock, there, hasher))
    }

    /// Removes parts that are old, and the oldest while there is too much of them. Those that are being written to stay.
    fn bound_partials(&self) -> Result<(), StoreError> {
        let mut parts = parts(&self.0.layout)?;
        parts.sort_by_key(|part| std::cmp::Reverse(part.changed));
        let mut kept = 0;
        for part in parts {
            kept += part.bytes;
            if kept > MOST || part.changed.elapsed().is_ok_and(|age| age > AGE) {
                part.remove()?;
            }
        }
        Ok(())
    }

    /// Removes what may go of them: first of all things, as nobody has anything of a part.
    pub(crate) fn prune_partials(
        &self,
        options: &PruneOptions,
        latest: Option<SystemTime>,
        total: &mut u64,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        if options.only.is_some() || !options.ids.is_empty() {
            return Ok(());
        }
        let mut parts = parts(&self.0.layout)?;
        parts.sort_by_key(|part| part.changed);
        for part in parts {
            if options.keep_bytes.is_some_and(|keep| *total <= keep) {
                break;
            }
            let young = latest.is_some_and(|latest| part.changed > latest);
            if young || !(if options.dry_run { part.is_free()? } else { part.remove()? }) {
                continue;
            }
            *total = total.saturating_sub(part.bytes);
            report.freed += part.bytes;
            let path = part.path.strip_prefix(self.root()).unwrap_or(&part.path).to_owned();
            report.removed.push(Removed {
                kind: ThingKind::Blob,
                path,
                bytes: part.bytes,
                used: part.changed,
            });
        }
        Ok(())
    }
}

/// Removes all: after a reboot nothing says which of their bytes reached the disk.
pub(crate) fn recover(layout: &Layout) -> Result<(), IoError> {
    for path in children(&layout.at(layout::PARTIAL))? {
        std::fs::remove_file(&path).at("remove", &path)?;
    }
    Ok(())
}

/// One file.
struct Part {
    path: PathBuf,
    /// On disk.
    bytes: u64,
    changed: SystemTime,
}

impl Part {
    fn is_free(&self) -> Result<bool, IoError> {
        Ok(FileLock::try_existing(&self.path)?.is_some())
    }

    /// Removes it, if nobody writes to it; says whether it did.
    fn remove(&self) -> Result<bool, IoError> {
        let lock = FileLock::try_existing(&self.path)?;
        Ok(lock.map(FileLock::remove).is_some())
    }
}

fn parts(layout: &Layout) -> Result<Vec<Part>, IoError> {
    let mut found = Vec::new();
    for path in children(&layout.at(layout::PARTIAL))? {
        // One that goes meanwhile has become a blob.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let changed = metadata.modified().at("stat", &path)?;
        found.push(Part { path, bytes: metadata.blocks() * 512, changed });
    }
    Ok(found)
}

/// Hashes a file from its start, but no more than one byte beyond what it may have; returns how much that is.
fn hash(file: &mut File, size: u64) -> std::io::Result<(u64, DigestHasher)> {
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut there = 0;
    let mut reader = file.take(size.saturating_add(1));
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((there, hasher)),
            count => {
                hasher.update(&buffer[..count]);
                there += count as u64;
            }
        }
    }
}

/// Opens a file to be read and written, with the mode that blobs have; makes it if needed.
pub(crate) fn open(path: &Path) -> Result<File, IoError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

#[cfg(test)]
mod tests;
