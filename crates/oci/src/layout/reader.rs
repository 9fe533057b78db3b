//! Finding and reading the images of a layout.

use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, IoError, Platform};
use oci_spec::image::{Descriptor, ImageIndex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::Files;
use super::{IMAGE_NAME, LAYOUT_VERSION, REF_NAME, blob_path, index};
use crate::platform::{from_spec, is_image, select};
use crate::{BlobInfo, BlobSource, Document, LoadedImage, MAX_DOCUMENT, OciError, Verify, load, media};

/// A layout that is there: a directory, or a tar of one, read in place.
#[derive(Debug)]
pub struct Layout {
    files: Files,
    index: ImageIndex,
}

/// What `index.json` says of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutEntry {
    /// The manifest or index.
    pub info: BlobInfo,
    /// The tag (`org.opencontainers.image.ref.name`).
    pub tag: Option<String>,
    /// The whole name (`io.containerd.image.name`).
    pub name: Option<String>,
    /// For which platform, if that is said.
    pub platform: Option<Platform>,
}

impl Layout {
    /// Returns where it is.
    pub fn location(&self) -> &Path {
        self.files.path()
    }

    /// Opens a layout directory or an uncompressed archive and reads its index; blobs are read when asked for.
    ///
    /// # Errors
    /// [`OciError::NotALayout`], or the files cannot be read.
    pub fn open(path: &Path) -> Result<Self, OciError> {
        Self::of(Files::open(path)?)
    }

    /// Opens a directory for the blobs in it alone: a cache of steps may have no `oci-layout` and no index.
    ///
    /// # Errors
    /// It is not there.
    pub fn of_blobs(path: &Path) -> Result<Self, OciError> {
        let files = Files::open(path)?;
        Ok(Self { index: index::parse(br#"{"schemaVersion":2,"manifests":[]}"#)?, files })
    }

    pub(crate) fn of(files: Files) -> Result<Self, OciError> {
        let not_a_layout = |reason: String| OciError::NotALayout { path: files.path().to_owned(), reason };
        let version =
            files.small("oci-layout")?.ok_or_else(|| not_a_layout("it has no file oci-layout".to_owned()))?;
        let version: Value = serde_json::from_slice(&version)
            .map_err(|error| not_a_layout(format!("its file oci-layout is not JSON: {error}")))?;
        match version.get("imageLayoutVersion").and_then(Value::as_str) {
            Some(LAYOUT_VERSION) => {}
            other => {
                let reason = format!("its version is {}", other.unwrap_or("not given"));
                return Err(not_a_layout(reason));
            }
        }
        let index =
            files.small("index.json")?.ok_or_else(|| not_a_layout("it has no file index.json".to_owned()))?;
        Ok(Self { index: index::parse(&index)?, files })
    }

    /// Returns what is in it, in the order of `index.json`.
    ///
    /// # Errors
    /// A descriptor with a digest that kiln does not read.
    pub fn entries(&self) -> Result<Vec<LayoutEntry>, OciError> {
        self.described(&is_image)
    }

    /// Returns what is in it besides images: attestations, signatures, whatever else is about them.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn artifacts(&self) -> Result<Vec<LayoutEntry>, OciError> {
        let known = |entry: &Descriptor| {
            let media_type = entry.media_type().as_ref();
            media::is_manifest(media_type) || media::is_index(media_type)
        };
        self.described(&|entry| known(entry) && !is_image(entry))
    }

    fn described(&self, wanted: &dyn Fn(&Descriptor) -> bool) -> Result<Vec<LayoutEntry>, OciError> {
        let entries = self.index.manifests().iter().filter(|entry| wanted(entry));
        entries
            .map(|entry| {
                let annotation = |name: &str| entry.annotations().as_ref().and_then(|a| a.get(name)).cloned();
                Ok(LayoutEntry {
                    info: BlobInfo::of(entry)?,
                    tag: annotation(REF_NAME),
                    name: annotation(IMAGE_NAME),
                    platform: entry.platform().as_ref().map(from_spec),
                })
            })
            .collect()
    }

    /// Finds an image: by tag or whole name, by digest, by both; without either the only one, the one for the
    /// platform, or the one tagged `latest`. Every byte read is verified.
    ///
    /// # Errors
    /// No such image, several to choose from, none for the platform, or it is damaged.
    pub fn load(
        &self,
        tag: Option<&str>,
        digest: Option<Digest>,
        platform: &Platform,
    ) -> Result<LoadedImage, OciError> {
        let root = self.root(tag, digest, platform)?;
        let root = Document::verified(&root, self.document(&root)?)?;
        load(root, platform, &mut |info| self.document(info))
    }

    /// Opens a blob; its digest and size are checked as it is read to its end.
    ///
    /// # Errors
    /// It is not there, or has another size.
    pub fn blob(&self, info: &BlobInfo) -> Result<impl Read + Send + '_, OciError> {
        let digest = info.digest;
        let (reader, actual) = self
            .files
            .get(&blob_path(&digest))?
            .ok_or_else(|| OciError::NoBlob { path: self.files.path().to_owned(), digest })?;
        if actual != info.size {
            return Err(OciError::SizeMismatch { digest, wanted: info.size, actual });
        }
        Ok(Verify::new(reader, info.clone()))
    }

    /// Finds what an image's name points to, as [`load`](Self::load) does; of several platforms' indexes beside each other
    /// the one for `platform`. The media type is empty if the digest of something inside an index was given.
    ///
    /// # Errors
    /// No such image, or several to choose from.
    pub fn root(
        &self,
        tag: Option<&str>,
        digest: Option<Digest>,
        platform: &Platform,
    ) -> Result<BlobInfo, OciError> {
        let entries = self.entries()?;
        let named = |entry: &&LayoutEntry| match tag {
            None => true,
            Some(tag) => entry.tag.as_deref() == Some(tag) || entry.name.as_deref() == Some(tag),
        };
        let same = |entry: &&LayoutEntry| digest.is_none_or(|digest| entry.info.digest == digest);
        let found: Vec<&LayoutEntry> = entries.iter().filter(named).filter(same).collect();
        let path = || self.files.path().to_owned();
        let available = || entries.iter().map(describe).collect();
        match (&found[..], digest) {
            ([first, rest @ ..], _) if rest.iter().all(|other| other.info.digest == first.info.digest) => {
                Ok(first.info.clone())
            }
            // A digest inside one of its indexes.
            ([], Some(digest)) if tag.is_none() => match self.files.get(&blob_path(&digest))? {
                Some((_, size)) => Ok(BlobInfo { media_type: String::new(), digest, size }),
                None => Err(OciError::NoImage {
                    path: path(),
                    wanted: digest.to_string(),
                    available: available(),
                }),
            },
            ([], _) => {
                let digest = digest.map(|digest| digest.to_string());
                let wanted = [tag.map(str::to_owned), digest].into_iter().flatten().collect::<Vec<_>>();
                Err(OciError::NoImage { path: path(), wanted: wanted.join("@"), available: available() })
            }
            (several, _) => {
                if several.iter().all(|entry| entry.platform.is_some()) && tag.is_none() {
                    // An index.json that is itself the index of one image's platforms.
                    let mut platforms: Vec<_> = several.iter().map(|entry| &entry.platform).collect();
                    platforms.sort();
                    platforms.dedup();
                    if platforms.len() == several.len() {
                        return BlobInfo::of(select(&self.index, platform)?);
                    }
                }
                let latest = several.iter().filter(|entry| entry.tag.as_deref() == Some("latest"));
                match latest.collect::<Vec<_>>()[..] {
                    [only] if tag.is_none() => Ok(only.info.clone()),
                    _ => Err(OciError::SeveralImages { path: path(), available: available() }),
                }
            }
        }
    }

    fn document(&self, info: &BlobInfo) -> Result<Vec<u8>, OciError> {
        let BlobInfo { digest, size, .. } = *info;
        if size > MAX_DOCUMENT {
            return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT });
        }
        self.files
            .small(&blob_path(&digest))?
            .ok_or_else(|| OciError::NoBlob { path: self.files.path().to_owned(), digest })
    }
}

impl BlobSource for Layout {
    /// Unverified, as the trait says: for a copy of what was verified before. [`Layout::blob`] verifies.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        let name = blob_path(digest);
        match self.files.get(&name)? {
            Some((reader, _)) => Ok(reader),
            None => {
                let error = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(IoError::new("open", self.files.path().join(name), &error))
            }
        }
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        match &self.files {
            Files::Directory(path) => Some(path.join(blob_path(digest))),
            Files::Archive { .. } => None,
        }
    }
}

fn describe(entry: &LayoutEntry) -> String {
    entry.name.clone().or_else(|| entry.tag.clone()).unwrap_or_else(|| entry.info.digest.to_string())
}
