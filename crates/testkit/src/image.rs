//! Small images with their blobs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use kiln_core::{Digest, ImageConfig, IoError, Layer, Platform};
use kiln_oci::{AssembleOptions, BlobInfo, BlobSource, Document, Image, MediaTypes, assemble, media};

/// An image and the bytes of all its parts.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// The image.
    pub image: Image,
    /// Layers, configuration and manifest, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl TestImage {
    /// Describes what a push sends before the manifest: the layers, then the configuration.
    pub fn blob_infos(&self) -> Vec<BlobInfo> {
        let layers = self.image.layers.iter().map(|layer| BlobInfo {
            media_type: layer.media_type.clone(),
            digest: layer.digest,
            size: layer.size,
        });
        layers.chain([self.image.config.info()]).collect()
    }

    /// Makes an image of gzip layers, each a list of (path, content).
    ///
    /// # Panics
    /// Never for sensible paths.
    pub fn new(platform: &str, media_types: MediaTypes, layers: &[&[(&str, &str)]]) -> Self {
        let platform: Platform = platform.parse().expect("a platform");
        let mut config = ImageConfig::scratch(&platform);
        config.config.cmd = Some(vec!["/hello".to_owned()]);
        Self::with_config(config, media_types, layers)
    }

    /// The same with a configuration of one's own; its diff ids are filled in.
    ///
    /// # Panics
    /// Never for sensible paths.
    pub fn with_config(config: ImageConfig, media_types: MediaTypes, layers: &[&[(&str, &str)]]) -> Self {
        let tars: Vec<Vec<u8>> = layers.iter().map(|files| tar_of(files)).collect();
        Self::of_tars(config, media_types, &tars)
    }

    /// The same with layers of one's own, as tars.
    ///
    /// # Panics
    /// Never.
    pub fn of_tars(config: ImageConfig, media_types: MediaTypes, tars: &[Vec<u8>]) -> Self {
        let mut blobs = BTreeMap::new();
        let layers: Vec<Layer> = tars
            .iter()
            .map(|tar| {
                let blob = gzip(tar);
                let layer = Layer {
                    media_type: media::OCI_LAYER_GZIP.to_owned(),
                    digest: Digest::of(&blob),
                    size: blob.len() as u64,
                    diff_id: Digest::of(tar),
                    annotations: BTreeMap::new(),
                };
                blobs.insert(layer.digest, blob);
                layer
            })
            .collect();
        let options = AssembleOptions { media_types, ..AssembleOptions::default() };
        let image = assemble(config, &layers, &options).expect("gzip layers exist in both families");
        for document in [&image.config, &image.manifest] {
            blobs.insert(document.digest, document.bytes.clone());
        }
        Self { image, blobs }
    }

    /// Adds a document, such as an index, to the blobs.
    #[must_use]
    pub fn with(mut self, document: &Document) -> Self {
        self.blobs.insert(document.digest, document.bytes.clone());
        self
    }

    /// Adds another image's blobs.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.blobs.extend(other.blobs.iter().map(|(digest, bytes)| (*digest, bytes.clone())));
        self
    }
}

impl BlobSource for TestImage {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        match self.blobs.get(digest) {
            Some(bytes) => Ok(Box::new(bytes.as_slice())),
            None => Err(IoError::new("open", digest.to_string(), &io::ErrorKind::NotFound.into())),
        }
    }
}

/// Returns a tar of small files, owner root, times 0.
///
/// # Panics
/// A path does not fit a ustar header.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content.as_bytes()).expect("a short path");
    }
    tar.into_inner().expect("writing to memory")
}

/// Compresses with gzip.
///
/// # Panics
/// Never: it writes to memory.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory")
}
