//! Names of images: tags that point to the digest of an index or a manifest.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_core::{Digest, ImageRef, IoResultExt as _};
use serde::{Deserialize, Serialize};

use crate::durable::children;
use crate::error::StoreError;
use crate::layout::{self, Layout};
use crate::lock::{FileLock, Hold};
use crate::record::remove_file;
use crate::store::Store;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedImage {
    /// With its tag.
    pub name: ImageRef,
    /// Of an index or a manifest.
    pub digest: Digest,
    /// When the name was given.
    pub tagged: SystemTime,
}

/// Holds tags, in the directory of a repository. No path component of a repository starts with it.
const TAGS: &str = "_tags";

#[derive(Serialize, Deserialize)]
struct Tag {
    name: ImageRef,
    digest: Digest,
}

impl Store {
    /// Gives an image a name; the name no longer means what it meant before. A collection under way, which may not have
    /// seen the name, leaves the image where it is.
    ///
    /// # Errors
    /// The name has no tag, or cannot be written; or the image is not there, perhaps no longer: then the name is not either.
    pub fn tag(&self, name: &ImageRef, digest: &Digest) -> Result<(), StoreError> {
        let path = self.tag_path(name)?;
        let _naming = self.naming()?;
        let tag = Tag { name: ImageRef { digest: None, ..name.clone() }, digest: *digest };
        let text = serde_json::to_vec(&tag)
            .map_err(|error| StoreError::Encode { key: name.to_string(), reason: error.to_string() })?;
        self.put_file(&path, &text)?;
        if self.touch(&self.blob_path(digest))? {
            return Ok(());
        }
        remove_file(&path)?;
        Err(StoreError::NoBlob { digest: *digest })
    }

    /// Takes a name away; returns whether it was there. The image stays until it is collected.
    ///
    /// # Errors
    /// The name has no tag, or cannot be removed.
    pub fn untag(&self, name: &ImageRef) -> Result<bool, StoreError> {
        Ok(remove_file(&self.tag_path(name)?)?)
    }

    /// Takes a name away if it still means this image; returns whether it did.
    ///
    /// # Errors
    /// As [`untag`](Self::untag).
    pub fn untag_if(&self, name: &ImageRef, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.tag_path(name)?;
        let _naming = self.naming()?;
        let same = read(&path)?.is_some_and(|tagged| tagged.digest == *digest);
        Ok(same && remove_file(&path)?)
    }

    /// Held while a name is given, so that nobody takes away what it means by then.
    fn naming(&self) -> Result<FileLock, StoreError> {
        Ok(FileLock::wait(&self.0.layout.at(layout::LOCKS).join("names"), Hold::Exclusive)?)
    }

    /// Returns what a name means.
    ///
    /// # Errors
    /// The name has no tag, or cannot be read.
    pub fn image(&self, name: &ImageRef) -> Result<Option<TaggedImage>, StoreError> {
        read(&self.tag_path(name)?)
    }

    /// Lists all names, sorted.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn images(&self) -> Result<Vec<TaggedImage>, StoreError> {
        let mut found = Vec::new();
        for path in files(&self.0.layout)? {
            found.extend(read(&path)?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(crate) fn tag_path(&self, name: &ImageRef) -> Result<PathBuf, StoreError> {
        let Some(tag) = &name.tag else { return Err(StoreError::NoTag { name: name.to_string() }) };
        let repository = self.0.layout.at(layout::IMAGES).join(&name.registry).join(&name.repository);
        Ok(repository.join(TAGS).join(format!("{tag}.json")))
    }
}

/// The files of all names.
pub(crate) fn files(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut dirs = vec![layout.at(layout::IMAGES)];
    while let Some(dir) = dirs.pop() {
        let tags = dir.file_name().is_some_and(|name| name == TAGS);
        if tags { &mut found } else { &mut dirs }.extend(children(&dir)?);
    }
    Ok(found)
}

/// Reads one; none if it is gone or damaged.
fn read(path: &Path) -> Result<Option<TaggedImage>, StoreError> {
    let (text, metadata) = match std::fs::read(path).and_then(|text| Ok((text, std::fs::metadata(path)?))) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", path)?,
    };
    let Ok(Tag { name, digest }) = serde_json::from_slice(&text) else { return Ok(None) };
    Ok(Some(TaggedImage { name, digest, tagged: metadata.modified().at("stat", path)? }))
}
