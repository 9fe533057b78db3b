//! Docker's own archive: what `docker save`, `podman save` and skopeo's docker-archive write.
//! <https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format>
//!
//! `manifest.json` lists images, each with its configuration and the tars of its layers, which are mostly not
//! compressed. There are no digests of those, but the configuration has their diff ids.

use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, ImageConfig, IoError};
use serde::Deserialize;

use crate::layout::Files;
use crate::{Document, Layout, OciError, media};

/// An archive of images, of either kind, read where it lies.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a program has one or two of them, and they are not moved about"
)]
pub enum Archive {
    /// An OCI layout. Docker's archives since 25 and kiln's are such, with a `manifest.json` beside.
    Layout(Layout),
    /// Docker's own.
    Docker(DockerArchive),
}

/// Docker's archive, opened.
#[derive(Debug)]
pub struct DockerArchive {
    files: Files,
    list: Vec<Listed>,
}

/// One image of it, without its layers' bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedImage {
    /// The configuration, as docker named it: its digest is docker's image id.
    pub config: Document,
    /// The configuration, read.
    pub image: ImageConfig,
    /// The names it was saved under (`RepoTags`), as they stand there.
    pub names: Vec<String>,
    /// The layers, lowest first.
    pub layers: Vec<ArchivedLayer>,
}

/// A layer of an archived image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedLayer {
    /// Digest that its tar must have, uncompressed.
    pub diff_id: Digest,
    /// Its name in the archive.
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    /// Null where the image was saved by its id.
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Archive {
    /// Opens an uncompressed archive, or a directory with the same files.
    ///
    /// # Errors
    /// [`OciError::NotALayout`], or the files cannot be read.
    pub fn open(path: &Path) -> Result<Self, OciError> {
        Self::open_as(path, path)
    }

    /// The same for a copy: messages, and [`Layout::location`], call it by the `name` of what it is a copy of.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(path: &Path, name: &Path) -> Result<Self, OciError> {
        let files = Files::open_as(path, name)?;
        if files.get("oci-layout")?.is_some() && files.get("index.json")?.is_some() {
            return Ok(Self::Layout(Layout::of(files)?));
        }
        let Some(list) = files.small("manifest.json")? else {
            let reason = "it has neither oci-layout and index.json nor docker's manifest.json".to_owned();
            return Err(OciError::NotALayout { path: name.to_owned(), reason });
        };
        let list = serde_json::from_slice(&list).map_err(|error| OciError::Malformed {
            what: "manifest.json".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self::Docker(DockerArchive { files, list }))
    }
}

impl DockerArchive {
    /// Reads the list of images with their configurations.
    ///
    /// # Errors
    /// A configuration is missing, has other bytes than its name says, or does not go with the layers.
    pub fn images(&self) -> Result<Vec<ArchivedImage>, OciError> {
        self.list.iter().map(|listed| self.image(listed)).collect()
    }

    /// Opens a layer's tar, which may be compressed. What is read is not verified: the diff id does that in the end.
    ///
    /// # Errors
    /// It is not there.
    pub fn layer(&self, layer: &ArchivedLayer) -> Result<impl Read + Send + '_, OciError> {
        match self.files.follow(&layer.name)? {
            Some((reader, size)) => Ok(Whole { reader, left: size }),
            None => Err(self.missing(&layer.name)),
        }
    }

    fn image(&self, listed: &Listed) -> Result<ArchivedImage, OciError> {
        let bytes = self.files.small(&listed.config)?.ok_or_else(|| self.missing(&listed.config))?;
        let config = Document::new(media::OCI_CONFIG, bytes);
        // `HEX.json` in docker's, `blobs/sha256/HEX` in newer ones; others call it what they like.
        let name = listed.config.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".json").unwrap_or(name);
        if let Ok(wanted) = format!("sha256:{name}").parse::<Digest>()
            && wanted != config.digest
        {
            return Err(OciError::DigestMismatch { wanted, actual: config.digest });
        }
        let image: ImageConfig =
            serde_json::from_slice(&config.bytes).map_err(|error| OciError::Malformed {
                what: format!("configuration {}", listed.config),
                reason: error.to_string(),
            })?;
        let diff_ids = &image.rootfs.diff_ids;
        if diff_ids.len() != listed.layers.len() {
            let (layers, diff_ids) = (listed.layers.len(), diff_ids.len());
            return Err(OciError::LayerCount { layers, diff_ids });
        }
        let layers = listed.layers.iter().zip(diff_ids);
        let layers = layers.map(|(name, diff_id)| ArchivedLayer { diff_id: *diff_id, name: name.clone() });
        let layers: Vec<ArchivedLayer> = layers.collect();
        for layer in &layers {
            // Before anything is taken in.
            drop(self.layer(layer)?);
        }
        let names = listed.repo_tags.clone().unwrap_or_default();
        Ok(ArchivedImage { config, image, names, layers })
    }

    fn missing(&self, name: &str) -> OciError {
        OciError::NoFile { path: self.files.path().to_owned(), name: PathBuf::from(name) }
    }
}

/// Fails where the archive ends before its entry does.
struct Whole<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left -= count as u64;
        if count == 0 && !buffer.is_empty() && self.left > 0 {
            let missing = IoError::new("read", "the archive", &std::io::ErrorKind::UnexpectedEof.into());
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, missing));
        }
        Ok(count)
    }
}
