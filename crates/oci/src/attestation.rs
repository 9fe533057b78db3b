//! Attestations beside an image: a manifest of their own in the image's index, as BuildKit writes it.
//! <https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md>

use std::collections::HashMap;

use kiln_core::{ContainerConfig, Digest, ImageConfig, RootFs};
use oci_spec::image::{Descriptor, ImageManifestBuilder};
use serde::{Deserialize, Serialize};

use crate::{Document, Image, json, media};

/// The media type of a statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION_MANIFEST: &str = "attestation-manifest";
const UNKNOWN: &str = "unknown";

/// What is said of one image, as documents that are written beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The manifest of the image that it is about.
    pub target: Digest,
    /// The manifest that holds the statements as layers.
    pub manifest: Document,
    /// A configuration without a program, which old registries want to see.
    pub config: Document,
    /// The statements.
    pub statements: Vec<Document>,
}

impl Attestation {
    /// Attaches in-toto statements, each with its predicate type, to an image. Media types are of the image's family.
    pub fn new(image: &Image, statements: Vec<(String, Vec<u8>)>) -> Self {
        let docker = image.manifest.media_type == media::DOCKER_MANIFEST;
        let (manifest_type, config_type) = match docker {
            false => (media::OCI_MANIFEST, media::OCI_CONFIG),
            true => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
        };
        let mut documents = Vec::new();
        let mut layers = Vec::new();
        for (predicate_type, bytes) in statements {
            let document = Document::new(IN_TOTO, bytes);
            let mut layer = document.info().descriptor();
            layer.set_annotations(Some(HashMap::from([(PREDICATE_TYPE.to_owned(), predicate_type)])));
            layers.push(layer);
            documents.push(document);
        }
        // A statement is not packed: its digest is its diff id.
        let diff_ids = documents.iter().map(|document| document.digest).collect();
        let config = ImageConfig {
            created: None,
            author: None,
            architecture: UNKNOWN.to_owned(),
            variant: None,
            os: UNKNOWN.to_owned(),
            config: ContainerConfig::default(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            history: Vec::new(),
            extra: serde_json::Map::new(),
        };
        let config = Document::new(config_type, json::config(&config));
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(manifest_type)
            .config(config.info().descriptor())
            .layers(layers)
            .build()
            .expect("all that is required is set");
        let manifest = Document::new(manifest_type, json::manifest(&manifest));
        Self { target: image.manifest.digest, manifest, config, statements: documents }
    }

    /// Returns all that has to be written.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        [&self.manifest, &self.config].into_iter().chain(&self.statements)
    }

    /// Returns its entry in the image's index.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let mut descriptor = self.manifest.info().descriptor();
        descriptor.set_annotations(Some(HashMap::from([
            (REFERENCE_TYPE.to_owned(), ATTESTATION_MANIFEST.to_owned()),
            (REFERENCE_DIGEST.to_owned(), self.target.to_string()),
        ])));
        // No machine is of this platform, so none takes it for an image.
        let mut platform = oci_spec::image::Platform::default();
        platform.set_os(UNKNOWN.into());
        platform.set_architecture(UNKNOWN.into());
        descriptor.set_platform(Some(platform));
        descriptor
    }
}
