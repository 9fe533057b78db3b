//! An OCI layout directory: its `index.json` has an entry for the pointer.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_carry::{ARTIFACT_TYPE, Generation, MAX_PACK, POINTER_TYPE, Pack, Pointer};
use kiln_core::{Digest, IoError, IoResultExt as _};
use kiln_oci::OciError;
use serde_json::{Value, json};

use super::{Content, Depot, New, Published};
use crate::{CarryFailure, Error};

pub(crate) struct Directory {
    path: PathBuf,
    tag: String,
    /// Blobs that were not there before.
    made: Mutex<Vec<Digest>>,
}

/// The annotation with a name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What a blob is called that was found to be another one, until the next export has replaced it.
const DAMAGED: &str = ".kiln-damaged-";
pub(super) const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

impl Directory {
    pub(super) fn open(path: &Path, tag: &str) -> Result<Self, Error> {
        let directory = Self { path: path.to_owned(), tag: tag.to_owned(), made: Mutex::default() };
        if path.exists() && !path.join("oci-layout").exists() {
            let other = fs::read_dir(path).at("read", path)?.flatten().map(|entry| entry.file_name());
            let mut other =
                other.filter(|name| name != "blobs" && !name.as_encoded_bytes().starts_with(b".kiln-"));
            if let Some(name) = other.next() {
                let reason = format!("it is a directory with other files, such as {}", name.display());
                return Err(OciError::NotALayout { path: path.to_owned(), reason }.into());
            }
        }
        Ok(directory)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn index(&self) -> Result<Value, Error> {
        let path = self.path.join("index.json");
        let wrong = |reason: String| OciError::NotALayout { path: self.path.clone(), reason };
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)
                .map_err(|error| wrong(format!("its index.json is not JSON: {error}")))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(json!({ "schemaVersion": 2, "mediaType": POINTER_TYPE, "manifests": [] }))
            }
            Err(error) => Err(IoError::new("read", path, &error).into()),
        }
    }

    fn entries(index: &mut Value) -> Vec<Value> {
        index.get_mut("manifests").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default()
    }

    fn pointer_of(&self, entry: &Value) -> Result<Pointer, Error> {
        let digest: Option<Digest> = entry["digest"].as_str().and_then(|digest| digest.parse().ok());
        let Some(digest) = digest else { return Ok(Pointer::default()) };
        let size = entry["size"].as_u64().unwrap_or(0);
        let bytes = self.get(&digest, size, true)?;
        Pointer::read(&bytes).map_err(|error| self.carry(error))
    }

    fn carry(&self, error: kiln_carry::CarryError) -> Error {
        Error::Carry(CarryFailure::Place {
            place: format!("oci:{}:{}", self.path.display(), self.tag),
            error,
        })
    }

    fn is_ours(&self, entry: &Value) -> bool {
        entry["annotations"][REF_NAME] == self.tag.as_str()
    }

    fn write(&self, path: &Path, content: &Content<'_>) -> Result<(), Error> {
        let mut half = tempfile::Builder::new()
            .prefix(".kiln-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&self.path)
            .at("create a file in", &self.path)?;
        match content {
            Content::Memory(bytes) => half.write_all(bytes).at("write", path)?,
            content => drop(io::copy(&mut content.reader(), &mut half).at("write", path)?),
        }
        half.persist(path).map_err(|error| error.error).at("rename to", path)?;
        Ok(())
    }

    /// All blobs of a generation, its manifest and index included.
    fn blobs_of(&self, generation: &Generation) -> Vec<Digest> {
        let Ok(manifest) = self.get(&generation.digest, generation.size, true) else { return Vec::new() };
        let value: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let layers = value["layers"].as_array().into_iter().flatten();
        let layers = layers.filter_map(|layer| layer["digest"].as_str()?.parse().ok());
        layers.chain([generation.digest]).collect()
    }
}

impl Depot for Directory {
    fn pointer(&self) -> Result<Pointer, Error> {
        let mut index = self.index()?;
        match Self::entries(&mut index).iter().find(|entry| self.is_ours(entry)) {
            Some(entry) => self.pointer_of(entry),
            None => Ok(Pointer::default()),
        }
    }

    fn senders(&self) -> usize {
        0
    }

    fn read(&self, digest: &Digest, size: u64, _manifest: bool, into: &mut Vec<u8>) -> Result<(), Error> {
        let path = self.blob(digest);
        let file = File::open(&path).at("read", &path)?;
        let actual = file.metadata().at("read", &path)?.len();
        if actual != size {
            return Err(OciError::SizeMismatch { digest: *digest, wanted: size, actual }.into());
        }
        into.clear();
        into.reserve_exact(usize::try_from(size.min(MAX_PACK)).unwrap_or(0) + 1);
        file.take(size + 1).read_to_end(into).at("read", &path)?;
        let actual = Digest::of(into);
        if actual != *digest {
            // Under its name it would be taken for what it is not, and the next export would not write it again. It may be
            // that nothing can be written here.
            let _ = fs::rename(&path, self.path.join(format!("{DAMAGED}{}", digest.hex())));
            return Err(OciError::DigestMismatch { wanted: *digest, actual }.into());
        }
        Ok(())
    }

    fn lacks(&self, packs: &[Pack]) -> Result<HashSet<Digest>, Error> {
        let is_there =
            |pack: &&Pack| fs::metadata(self.blob(&pack.digest)).is_ok_and(|meta| meta.len() == pack.size);
        Ok(packs.iter().filter(|pack| !is_there(pack)).map(|pack| pack.digest).collect())
    }

    fn take_back(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let Ok(lock) = File::open(&self.path) else { return };
        // What cannot be removed only takes room.
        if !made.is_empty()
            && lock.lock().is_ok()
            && let Ok(mut index) = self.index()
        {
            self.remove_unused(made, &Self::entries(&mut index));
        }
    }

    fn put(&self, digest: &Digest, content: &Content<'_>) -> Result<u64, Error> {
        let path = self.blob(digest);
        let dir = self.path.join("blobs/sha256");
        fs::create_dir_all(&dir).at("create directory", &dir)?;
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == content.size()) {
            return Ok(0);
        }
        self.write(&path, content)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(*digest);
        Ok(content.size())
    }

    fn publish(&self, new: &New<'_>, keep: usize) -> Result<Published, Error> {
        self.put(&Digest::of(new.config), &Content::Memory(new.config))?;
        self.put(&new.generation.digest, &Content::Memory(new.manifest))?;
        let marker = self.path.join("oci-layout");
        if !marker.exists() {
            self.write(&marker, &Content::Memory(MARKER))?;
        }
        // The lock goes with the descriptor; a file of its own would stay behind in the user's directory.
        let lock = File::open(&self.path).at("open", &self.path)?;
        lock.lock().at("lock", &self.path)?;
        for (digest, size) in new.blobs {
            if !fs::metadata(self.blob(digest)).is_ok_and(|meta| meta.len() == *size) {
                return Err(self.carry(kiln_carry::CarryError::Damaged {
                    reason: format!("blob {digest}, which was there, is gone"),
                }));
            }
        }
        let mut index = self.index()?;
        let mut entries = Self::entries(&mut index);
        let at = entries.iter().position(|entry| self.is_ours(entry));
        let mut pointer = match at {
            Some(at) => self.pointer_of(&entries.remove(at))?,
            None => Pointer::default(),
        };
        pointer.add([new.generation.clone()]);
        let gone = pointer.trim(keep);
        let bytes = pointer.write();
        let digest = Digest::of(&bytes);
        self.put(&digest, &Content::Memory(&bytes))?;
        entries.push(entry(&digest, bytes.len(), &self.tag));
        index["manifests"] = Value::Array(entries.clone());
        self.write(&self.path.join("index.json"), &Content::Memory(index.to_string().as_bytes()))?;
        self.clean(&gone, &entries);
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(DAMAGED.as_bytes()) {
                // What it held was packed again.
                let _ = fs::remove_file(entry.path());
            }
        }
        drop(lock);
        Ok(Published::default())
    }
}

impl Directory {
    /// Removes what only these generations had. Blobs of nobody may be those of a writer that is not done yet: they stay.
    fn clean(&self, gone: &[Generation], entries: &[Value]) {
        if !gone.is_empty() {
            self.remove_unused(gone.iter().flat_map(|generation| self.blobs_of(generation)), entries);
        }
    }

    /// Removes those of some blobs that no generation has.
    fn remove_unused(&self, blobs: impl IntoIterator<Item = Digest>, entries: &[Value]) {
        let pointers = entries.iter().filter(|entry| entry["artifactType"] == ARTIFACT_TYPE);
        let own = entries.iter().filter_map(|entry| entry["digest"].as_str()?.parse().ok());
        let kept: HashSet<Digest> = pointers
            .filter_map(|entry| self.pointer_of(entry).ok())
            .flat_map(|pointer| pointer.generations)
            .flat_map(|generation| self.blobs_of(&generation))
            .chain(own)
            .collect();
        for digest in blobs {
            if !kept.contains(&digest) {
                // What stays only takes room.
                let _ = fs::remove_file(self.blob(&digest));
            }
        }
    }
}

/// The entry of a pointer in `index.json`.
pub(super) fn entry(digest: &Digest, size: usize, tag: &str) -> Value {
    json!({
        "mediaType": POINTER_TYPE,
        "digest": digest.to_string(),
        "size": size,
        "artifactType": ARTIFACT_TYPE,
        "annotations": { REF_NAME: tag },
    })
}
