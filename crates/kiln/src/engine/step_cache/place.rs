//! Where records are: in a repository, under a tag for each key, or in a directory, in a file for each.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use kiln_core::{Digest, ImageRef, IoResultExt as _};
use kiln_oci::{BlobInfo, BlobSource, Document, Layout, MAX_DOCUMENT, OciError};
use kiln_registry::RegistryClient;

use super::record::Entry;
use crate::Error;

/// The list of the last build that wrote to a directory.
const LIST: &str = "list.json";
/// Where a directory has its records.
const STEPS: &str = "steps";
/// And its blobs, as any OCI layout.
const BLOBS: &str = "blobs/sha256";

/// A repository or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Registry(ImageRef),
    Directory(PathBuf),
}

impl Place {
    /// Reads the document that is kept under a key; none if there is none.
    pub(super) fn get(&self, registry: &RegistryClient, key: &Digest) -> Result<Option<Document>, Error> {
        match self {
            Self::Registry(name) => Ok(registry.tagged(&tagged(name, key))?),
            Self::Directory(dir) => {
                let path = file(dir, key);
                match std::fs::metadata(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Ok(found) if found.len() > MAX_DOCUMENT => return Ok(None),
                    found => found.at("stat", &path)?,
                };
                let bytes = std::fs::read(&path).at("read", &path)?;
                Ok(Some(Document::new(kiln_oci::media::OCI_MANIFEST, bytes)))
            }
        }
    }

    /// The same repository or directory, whatever the tag.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Registry(one), Self::Registry(other)) => one.name() == other.name(),
            (Self::Directory(one), Self::Directory(other)) => one == other,
            _ => false,
        }
    }
}

/// The name of a record in a repository.
pub(super) fn tagged(repository: &ImageRef, key: &Digest) -> ImageRef {
    ImageRef { tag: Some(format!("kiln-{}", key.hex())), digest: None, ..repository.clone() }
}

fn file(dir: &Path, key: &Digest) -> PathBuf {
    let hex = key.hex();
    dir.join(STEPS).join(&hex[..2]).join(format!("{hex}.json"))
}

/// Writes a record and its blobs to a directory, the record last. All appear whole and by rename, so that several
/// processes may write and read at once. Returns the bytes that were copied.
pub(super) fn write(dir: &Path, entry: &Entry, source: &dyn BlobSource) -> Result<u64, Error> {
    let mut copied = 0;
    let blobs = dir.join(BLOBS);
    std::fs::create_dir_all(&blobs).at("create", &blobs)?;
    // It can be read as an OCI layout, by kiln too; its index names nothing.
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(&dir.join("index.json"), br#"{"schemaVersion":2,"manifests":[]}"#)?;
    for blob in entry.blobs() {
        copied += write_blob(dir, &blob, source)?;
    }
    if let Some(manifest) = &entry.manifest {
        put_over(&blobs.join(manifest.digest.hex()), &manifest.bytes)?;
        for name in entry.names() {
            put_over(&file(dir, name), &manifest.bytes)?;
        }
    }
    Ok(copied)
}

/// Writes one blob, if it is not there. Returns the bytes that were copied.
pub(super) fn write_blob(dir: &Path, blob: &BlobInfo, source: &dyn BlobSource) -> Result<u64, Error> {
    let blobs = dir.join(BLOBS);
    let to = blobs.join(blob.digest.hex());
    if std::fs::metadata(&to).is_ok_and(|there| there.len() == blob.size) {
        return Ok(0);
    }
    std::fs::create_dir_all(&blobs).at("create", &blobs)?;
    let mut file = tempfile::NamedTempFile::new_in(&blobs).at("create a file in", &blobs)?;
    let mut from = source.open(&blob.digest).map_err(Error::Io)?;
    let copied = std::io::copy(&mut from, &mut file).at("write", &to)?;
    readable(&file, &to)?;
    file.persist(&to).map_err(|error| error.error).at("rename to", &to)?;
    Ok(copied)
}

/// Writes the list of a build's records to a directory, with blobs that it speaks of.
pub(super) fn write_list(dir: &Path, list: &Document, blobs: &[&Document]) -> Result<(), Error> {
    for blob in blobs {
        put_over(&dir.join(BLOBS).join(blob.digest.hex()), &blob.bytes)?;
    }
    put_over(&dir.join(LIST), &list.bytes)
}

/// Reads it; none if there is none, or it cannot be read: nothing depends on it.
pub(super) fn list_of_directory(dir: &Path) -> Option<Document> {
    let path = dir.join(LIST);
    let small = std::fs::metadata(&path).is_ok_and(|found| found.len() <= MAX_DOCUMENT);
    let bytes = small.then(|| std::fs::read(&path).ok()).flatten()?;
    Some(Document::new(kiln_oci::media::OCI_INDEX, bytes))
}

/// Opens a directory of records. Who wrote it may have left nothing in it but those and their blobs.
///
/// # Errors
/// It is not there, or is something else.
pub(super) fn open(dir: &Path) -> Result<Layout, OciError> {
    match dir.join(STEPS).is_dir() {
        true => Layout::of_blobs(dir),
        false => Layout::open(dir),
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    match path.exists() {
        true => Ok(()),
        false => put_over(path, bytes),
    }
}

fn put_over(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).at("create", dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).at("create a file in", dir)?;
    file.write_all(bytes).at("write", path)?;
    readable(&file, path)?;
    file.persist(path).map_err(|error| error.error).at("rename to", path)?;
    Ok(())
}

/// A temporary file is its owner's alone; a cache is for whoever may read the directory.
fn readable(file: &tempfile::NamedTempFile, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o644);
    Ok(file.as_file().set_permissions(mode).at("chmod", path)?)
}
