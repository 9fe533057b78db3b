//! The small JSON files of an image, and what is said of a blob before one has it.

use kiln_core::Digest;
use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

use crate::OciError;

/// A manifest, an index or a configuration: bytes that know their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its media type.
    pub media_type: String,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The JSON, exactly as hashed.
    pub bytes: Vec<u8>,
}

/// A descriptor: what a blob must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// Its media type.
    pub media_type: String,
    /// The digest its bytes must have.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

impl Document {
    /// Names bytes by their digest.
    pub fn new(media_type: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.into(), digest: Digest::of(&bytes), bytes }
    }

    /// Takes bytes that came from elsewhere, if they are those that `info` describes.
    ///
    /// # Errors
    /// [`OciError::SizeMismatch`], [`OciError::DigestMismatch`].
    pub fn verified(info: &BlobInfo, bytes: Vec<u8>) -> Result<Self, OciError> {
        let actual = bytes.len() as u64;
        if actual != info.size {
            return Err(OciError::SizeMismatch { digest: info.digest, wanted: info.size, actual });
        }
        let document = Self::new(info.media_type.clone(), bytes);
        if document.digest != info.digest {
            return Err(OciError::DigestMismatch { wanted: info.digest, actual: document.digest });
        }
        Ok(document)
    }

    /// Describes it.
    pub fn info(&self) -> BlobInfo {
        BlobInfo { media_type: self.media_type.clone(), digest: self.digest, size: self.bytes.len() as u64 }
    }
}

impl BlobInfo {
    pub(crate) fn of(descriptor: &Descriptor) -> Result<Self, OciError> {
        let text = descriptor.digest().to_string();
        let digest = text.parse().map_err(|error: kiln_core::DigestError| OciError::Malformed {
            what: "descriptor".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self { media_type: descriptor.media_type().to_string(), digest, size: descriptor.size() })
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        let hex = self.digest.hex().parse::<oci_spec::image::Sha256Digest>();
        // Unreachable: a core digest always has 64 lower-case digits.
        let hex = hex.expect("64 hexadecimal digits");
        Descriptor::new(self.media_type.as_str().into(), self.size, hex)
    }
}
