//! Fetched sources: a file behind a URL, or a checkout, each in a directory of its own that appears whole.
//!
//! A source is named by what it is, so one that is there never changes and need not be asked for. What a URL meant the last
//! time is a record beside it ([`RecordKind::Source`](crate::RecordKind::Source)) that names the source.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Canonical, Digest, DigestHasher, IoError, IoResultExt as _};
use rustix::fs::{Timespec, Timestamps, futimens};
use serde::{Deserialize, Serialize};

use crate::durable::children;
use crate::error::StoreError;
use crate::layout::TREE;
use crate::scratch::remove_tree;
use crate::store::Store;

/// Whoever fetched it may read it, and nobody else: what BuildKit gives the file behind a URL.
const FILE_MODE: u32 = 0o600;

const FILE: &str = "file-";
const CHECKOUT: &str = "checkout-";

/// Names a fetched source: its directory in `sources`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceId(String);

impl SourceId {
    /// A directory with one file.
    pub fn file(name: &str, digest: &Digest) -> Self {
        let mut out = Canonical::new("source file");
        out.str(name).digest(digest);
        Self(format!("{FILE}{}", out.finish().hex()))
    }

    /// A directory whose content follows from `key`: commit and options of a checkout.
    pub fn checkout(key: &Digest) -> Self {
        Self(format!("{CHECKOUT}{}", key.hex()))
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Returns whether a source is there, and notes the use.
    pub fn has_source(&self, id: &SourceId) -> bool {
        self.note_use(&self.0.layout.source(id)).unwrap_or(false)
    }

    /// Returns the directory with a source's files. It need not be there.
    pub fn source_dir(&self, id: &SourceId) -> PathBuf {
        self.0.layout.source(id).join(TREE)
    }

    /// Starts a source.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn begin_source(&self) -> Result<NewSource, StoreError> {
        let source = NewSource { store: self.clone(), path: self.scratch_path()? };
        let files = source.files();
        std::fs::create_dir_all(&files).at("create", &files)?;
        std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o755)).at("set mode of", &files)?;
        Ok(source)
    }

    /// Starts a source that is one file.
    ///
    /// # Errors
    /// It cannot be made; or the name is none that a file can have.
    pub fn begin_file(&self, name: &str) -> Result<NewFile, StoreError> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(StoreError::FileName { name: name.to_owned() });
        }
        let source = self.begin_source()?;
        let path = source.files().join(name);
        let file = File::create_new(&path).at("create", &path)?;
        Ok(NewFile { source, file, path, name: name.to_owned(), hasher: DigestHasher::new(), size: 0 })
    }
}

/// A source that is being made; dropped, it vanishes.
#[derive(Debug)]
pub struct NewSource {
    store: Store,
    path: PathBuf,
}

impl NewSource {
    /// Returns the directory for its files; empty at first.
    pub fn files(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// Moves it to its place, unless the same is there already.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn publish(self, id: &SourceId) -> Result<(), StoreError> {
        let to = self.store.0.layout.source(id);
        let dir = to.parent().unwrap_or(&to);
        std::fs::create_dir_all(dir).at("create", dir)?;
        // What is there may be in use, and is the same. Somebody may also be faster in between.
        if self.store.has_source(id) {
            return Ok(());
        }
        match self.store.publish(&self.path, &to) {
            Err(_) if self.store.has_source(id) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl Drop for NewSource {
    fn drop(&mut self) {
        // Not there if it was published.
        remove_tree(&self.path);
    }
}

/// A file that is being fetched; dropped, it vanishes.
#[derive(Debug)]
pub struct NewFile {
    source: NewSource,
    file: File,
    path: PathBuf,
    name: String,
    hasher: DigestHasher,
    size: u64,
}

impl NewFile {
    /// Adds bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).at("write", &self.path)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Forgets the bytes so far.
    ///
    /// # Errors
    /// The file cannot be cut.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        if self.size > 0 {
            self.file.set_len(0).at("truncate", &self.path)?;
            std::io::Seek::rewind(&mut self.file).at("rewind", &self.path)?;
        }
        (self.hasher, self.size) = (DigestHasher::new(), 0);
        Ok(())
    }

    /// Returns how many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns what the bytes so far have.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Keeps the file, which was last changed so many seconds after 1970.
    ///
    /// # Errors
    /// It cannot be moved to its place.
    pub fn finish(self, modified: i64) -> Result<SourceId, StoreError> {
        let id = SourceId::file(&self.name, &self.digest());
        let Self { source, file, path, .. } = self;
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE)).at("set mode of", &path)?;
        let files = source.files();
        let dir = File::open(&files).at("open", &files)?;
        for (fd, path) in [(&file, &path), (&dir, &files)] {
            let time = Timespec { tv_sec: modified, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            futimens(fd, &times).at("set times of", path)?;
        }
        source.publish(&id)?;
        Ok(id)
    }
}

/// Returns whether a source is as its name says, as far as that can be seen.
pub(crate) fn is_whole(path: &Path) -> Result<bool, IoError> {
    let files = path.join(TREE);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(FILE) {
        return Ok(name.starts_with(CHECKOUT) && files.is_dir());
    }
    let [file] = children(&files)?.try_into().unwrap_or_default();
    let Some(file_name) = file.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
    Ok(file.is_file() && SourceId::file(file_name, &crate::durable::digest_of(&file)?).0 == name)
}
