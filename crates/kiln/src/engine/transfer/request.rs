//! What is asked of transfers, and what they answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_core::{Digest, ImageRef, Platform};
use kiln_registry::DaemonOptions;
use serde::{Deserialize, Serialize};

use crate::request::{ImagePlace, Platforms, RegistryOptions};

/// An image is copied: `kiln copy`, `kiln pull`, `kiln push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Where it is.
    pub from: ImagePlace,
    /// Where it shall be.
    pub to: ImagePlace,
    /// Which images, if it is an index.
    pub platforms: Platforms,
    /// Refuses a place that would give it another digest.
    pub preserve_digests: bool,
    /// Takes along what is about the image: manifests of which it is the `subject`, and those about them.
    #[serde(default)]
    pub referrers: bool,
    /// How registries are reached.
    pub registry: RegistryOptions,
    /// Where a running engine is looked for.
    #[serde(default)]
    pub daemon: DaemonOptions,
}

/// Images of the local image store are written to a file: `kiln save`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveRequest {
    /// Names or ids.
    pub images: Vec<ImageRef>,
    /// What is written.
    pub format: SaveFormat,
    /// The file or directory; none is standard output.
    pub path: Option<PathBuf>,
    /// Which images, where one is an index. Docker's archive holds none.
    pub platforms: Platforms,
    /// How registries are reached, from which what the store lacks is fetched.
    pub registry: RegistryOptions,
}

/// What `kiln save` writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaveFormat {
    /// What `docker load` and `podman load` take.
    #[default]
    DockerArchive,
    /// A tar of an OCI layout.
    OciArchive,
    /// An OCI layout directory.
    OciDir,
}

/// An archive's images are taken into the local image store: `kiln load`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The archive; none is standard input.
    pub path: Option<PathBuf>,
    /// Of an index only the image for this platform.
    pub platform: Option<Platform>,
}

/// A tar of files becomes an image of one layer: `kiln import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// The tar, compressed or not; none is standard input.
    pub path: Option<PathBuf>,
    /// The image's name.
    pub name: Option<ImageRef>,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// What the image's history says.
    pub message: Option<String>,
    /// What the image is for; this machine if none.
    pub platform: Option<Platform>,
    /// The time of the image, seconds since 1970; now if none.
    pub source_date_epoch: Option<u64>,
}

/// An image gets further names: `kiln tag`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    /// The image, by name or id.
    pub image: ImageRef,
    /// The names.
    pub names: Vec<ImageRef>,
}

/// Images become one index: `kiln index create`, `kiln index join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRequest {
    /// Where the index shall be: the local image store, or a registry.
    pub to: ImagePlace,
    /// What goes into it: images, or indexes of which all is taken.
    pub images: Vec<ImagePlace>,
    /// Whether they are added to the index that is there; else it is made anew.
    pub join: bool,
    /// An image takes the place of one that is there for its platform.
    pub amend: bool,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the entries of `images`.
    pub entry_annotations: BTreeMap<String, String>,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOutcome {
    /// The manifest or index.
    pub digest: Digest,
    /// Docker's ids of its images: the digests of their configurations.
    pub ids: Vec<Digest>,
    /// Names that it has there.
    pub names: Vec<ImageRef>,
    /// Bytes of all its blobs.
    pub size: u64,
    /// Bytes of blobs that went to a registry; 0 if it had all.
    pub sent: u64,
    /// Manifests about it that went along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Digest>,
}

impl SaveRequest {
    pub(super) fn place(&self) -> ImagePlace {
        let path = self.path.clone();
        match self.format {
            SaveFormat::DockerArchive => ImagePlace::DockerArchive { path, name: None },
            SaveFormat::OciArchive => ImagePlace::OciArchive { path, tag: None },
            SaveFormat::OciDir => ImagePlace::Layout { path: path.unwrap_or_else(|| ".".into()), tag: None },
        }
    }
}
