//! Reading manifests and indexes, from whoever made them.

use kiln_core::{Digest, Platform};
use oci_spec::image::{ImageIndex, ImageManifest};
use serde_json::Value;

use crate::{BlobInfo, Document, OciError, media, platform};

/// A parsed manifest or index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parsed {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

impl Parsed {
    /// What the document says it is; one that says nothing is OCI's.
    pub(crate) fn media_type(&self) -> String {
        let (own, usual) = match self {
            Self::Manifest(manifest) => (manifest.media_type(), media::OCI_MANIFEST),
            Self::Index(index) => (index.media_type(), media::OCI_INDEX),
        };
        own.as_ref().map_or_else(|| usual.to_owned(), ToString::to_string)
    }
}

/// What a manifest or index points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children {
    /// A manifest's.
    Manifest {
        /// The configuration.
        config: BlobInfo,
        /// The layers, lowest first.
        layers: Vec<BlobInfo>,
    },
    /// An index's: manifests and inner indexes, with their platforms.
    Index(Vec<(BlobInfo, Option<Platform>)>),
}

/// Returns what a manifest or index points at, everything in it included (attestations too): what a copy must copy.
///
/// # Errors
/// The document is none that kiln reads.
pub fn children(document: &Document) -> Result<Children, OciError> {
    Ok(match parse(&document.bytes, &document.media_type)? {
        Parsed::Manifest(manifest) => Children::Manifest {
            config: BlobInfo::of(manifest.config())?,
            layers: manifest.layers().iter().map(BlobInfo::of).collect::<Result<_, _>>()?,
        },
        Parsed::Index(index) => Children::Index(
            index
                .manifests()
                .iter()
                .map(|entry| {
                    let platform = entry.platform().as_ref().map(platform::from_spec);
                    Ok((BlobInfo::of(entry)?, platform))
                })
                .collect::<Result<_, OciError>>()?,
        ),
    })
}

/// Returns what a manifest or index is, by what it says of itself and what it looks like.
///
/// # Errors
/// The document is none that kiln reads.
pub fn media_type(document: &Document) -> Result<String, OciError> {
    Ok(parse(&document.bytes, &document.media_type)?.media_type())
}

impl Document {
    /// Takes bytes of which only the digest is known, and finds out what they are.
    ///
    /// # Errors
    /// They are no manifest and no index.
    pub fn typed(bytes: Vec<u8>) -> Result<Self, OciError> {
        let media_type = parse(&bytes, "")?.media_type();
        Ok(Self::new(media_type, bytes))
    }
}

/// Returns what a manifest or index says it is about (`subject`), if it says that.
///
/// # Errors
/// The document is none that kiln reads.
pub fn subject(document: &Document) -> Result<Option<Digest>, OciError> {
    let subject = match parse(&document.bytes, &document.media_type)? {
        Parsed::Manifest(manifest) => manifest.subject().as_ref().map(BlobInfo::of),
        Parsed::Index(index) => index.subject().as_ref().map(BlobInfo::of),
    };
    Ok(subject.transpose()?.map(|info| info.digest))
}

/// What a manifest is if it is no image: its `artifactType`, else the type of its configuration.
/// <https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage>
pub(crate) fn artifact_type(document: &Document) -> Option<String> {
    let value: Value = serde_json::from_slice(&document.bytes).ok()?;
    let config = value.get("config")?.get("mediaType")?.as_str()?;
    let said = value.get("artifactType").and_then(Value::as_str).unwrap_or_default();
    let is_image = matches!(config, media::OCI_CONFIG | media::DOCKER_CONFIG);
    match said {
        "" => Some(config.to_owned()).filter(|_| !is_image),
        said => Some(said.to_owned()),
    }
}

/// Reads a manifest or index. `media_type` is what its descriptor or its Content-Type says, empty if nothing is known.
///
/// What the document says of itself must agree with that, and a document that could be read as both is refused:
/// two readers would see two images behind one digest (CVE-2021-41190,
/// <https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh>).
pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<Parsed, OciError> {
    let malformed = |what: &str, reason: String| OciError::Malformed { what: what.to_owned(), reason };
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| malformed("manifest", error.to_string()))?;
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let outer = media_type.split(';').next().unwrap_or_default().trim();
    let schema1 = |text: &str| matches!(text, media::DOCKER_SCHEMA1 | media::DOCKER_SCHEMA1_SIGNED);
    if schema1(outer) || schema1(own) || value.get("schemaVersion") == Some(&Value::from(1)) {
        return Err(OciError::Schema1);
    }
    // Servers that know no better say `application/json` or `text/plain`.
    let known = |text: &&str| media::is_manifest(text) || media::is_index(text);
    let outer = if outer.is_empty() || outer == "application/json" || outer.starts_with("text/") {
        ""
    } else {
        outer
    };
    if !outer.is_empty() && !own.is_empty() && outer != own {
        return Err(malformed("manifest", format!("it is sent as {outer:?}, but says it is {own:?}")));
    }
    let named = if own.is_empty() { outer } else { own };
    if !named.is_empty() && !known(&named) {
        return Err(OciError::MediaType { what: "manifest".to_owned(), media_type: named.to_owned() });
    }
    let (has_manifests, has_image) =
        (value.get("manifests").is_some(), value.get("layers").is_some() || value.get("config").is_some());
    let is_index = match (has_manifests, has_image) {
        (true, true) => {
            return Err(malformed("manifest", "it is both a manifest and an index".to_owned()));
        }
        (true, false) if !media::is_manifest(named) => true,
        (false, true) if !media::is_index(named) => false,
        _ => return Err(malformed("manifest", format!("it does not look like {named:?}"))),
    };
    if is_index {
        let index = serde_json::from_value(value).map_err(|error| malformed("index", error.to_string()))?;
        Ok(Parsed::Index(Box::new(index)))
    } else {
        let manifest =
            serde_json::from_value(value).map_err(|error| malformed("manifest", error.to_string()))?;
        Ok(Parsed::Manifest(Box::new(manifest)))
    }
}
