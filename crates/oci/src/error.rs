//! What can be wrong with an image or a layout.

use std::path::PathBuf;

use kiln_core::{Digest, IoError};
use serde::{Deserialize, Serialize};

/// Why an image cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum OciError {
    /// Bytes that are not what their digest names.
    #[error("{wanted} has other bytes: their digest is {actual}")]
    DigestMismatch {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{digest} has {actual} bytes where its descriptor says {wanted}")]
    SizeMismatch {
        /// Of what.
        digest: Digest,
        /// What the descriptor says, bytes.
        wanted: u64,
        /// What came, bytes; where reading stopped early, those read until then.
        actual: u64,
    },
    /// A manifest, index or configuration beyond [`MAX_DOCUMENT`](crate::MAX_DOCUMENT).
    #[error("{digest} is said to have {size} bytes; a manifest or configuration has {limit} at most")]
    TooLarge {
        /// Of what.
        digest: Digest,
        /// What the descriptor says, bytes.
        size: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// Docker's first format, gone since 2019.
    #[error(
        "the image has a docker schema 1 manifest, which is not supported; push it again with a current docker"
    )]
    Schema1,
    /// A document of a type that kiln does not read.
    #[error("{what} has media type {media_type:?}, which is not supported")]
    MediaType {
        /// "layer sha256:...", "manifest".
        what: String,
        /// Its type.
        media_type: String,
    },
    /// JSON that is no such document.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// "manifest", "index.json".
        what: String,
        /// Why.
        reason: String,
    },
    /// No manifest for the platform.
    #[error("there is no image for {wanted}; there is {}", list(available))]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// The index's platforms.
        available: Vec<String>,
    },
    /// Indexes inside indexes, deeper than anybody makes them.
    #[error("indexes are nested more than {limit} deep")]
    Nesting {
        /// The limit.
        limit: usize,
    },
    /// The configuration's diff ids do not go with the manifest's layers.
    #[error("the manifest has {layers} layers, its configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// No such directory or archive of an OCI layout.
    #[error("{} is not an OCI layout: {reason}", path.display())]
    NotALayout {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A layout without what was asked for.
    #[error("{} has no image {wanted}; it has {}", path.display(), list(available))]
    NoImage {
        /// The layout.
        path: PathBuf,
        /// Tag or digest.
        wanted: String,
        /// Names or digests of what is there.
        available: Vec<String>,
    },
    /// A layout with several images, none of them named.
    #[error("{} has several images; name one of {}", path.display(), list(available))]
    SeveralImages {
        /// The layout.
        path: PathBuf,
        /// Names or digests of what is there.
        available: Vec<String>,
    },
    /// A document names a blob that is not there.
    #[error("{} has no blob {digest}", path.display())]
    NoBlob {
        /// The layout.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A file that an archive's list names is not in it.
    #[error("{} has no file {}, which its manifest.json names", path.display(), name.display())]
    NoFile {
        /// The archive.
        path: PathBuf,
        /// The file.
        name: PathBuf,
    },
    /// Two images for one platform in one index.
    #[error("the index would have two images for {platform}: {first} and {second}")]
    SamePlatform {
        /// The platform.
        platform: String,
        /// The one that is there.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// An image whose platform nothing tells.
    #[error("{digest} does not say which platform it is for")]
    PlatformUnknown {
        /// Of the manifest.
        digest: Digest,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl OciError {
    /// Whether its message says already which file or directory it is about.
    pub fn names_path(&self) -> bool {
        match self {
            Self::NotALayout { .. }
            | Self::NoImage { .. }
            | Self::SeveralImages { .. }
            | Self::NoBlob { .. }
            | Self::NoFile { .. }
            | Self::Io(_) => true,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::TooLarge { .. }
            | Self::Schema1
            | Self::MediaType { .. }
            | Self::Malformed { .. }
            | Self::NoPlatform { .. }
            | Self::Nesting { .. }
            | Self::LayerCount { .. }
            | Self::SamePlatform { .. }
            | Self::PlatformUnknown { .. } => false,
        }
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
