//! Whether the layers of an image are those that its configuration names by their diff ids.
//!
//! What costs nothing is looked at whenever an image comes into the local image store. The rest takes a decompressor: it is done
//! where one runs anyway, and for archives, which are whole when they are read (docs/decisions/0040-diff-ids.md).

use kiln_core::{Digest, ImageConfig, Layer};
use kiln_oci::media::{self, Compression};
use kiln_oci::{BlobInfo, Children, Document, OciError, children};
use kiln_registry::RegistryError;

use super::{Origin, Transfer, Tree};
use crate::Error;
use crate::engine::arrival::BlobReader;
use crate::engine::layers::{blob_info, each, of_layer};
use crate::engine::reporter::Task;

impl Transfer<'_> {
    /// Refuses an image of the store whose configuration is not the one of its layers; says where it is from.
    pub(super) fn check(&self, tree: &Tree, origin: &Origin, task: &Task<'_>) -> Result<(), Error> {
        let mut all: Vec<Layer> = Vec::new();
        for document in &tree.documents {
            let layers = self.layers(document).map_err(|error| of_image(origin, document, error))?;
            all.extend(layers);
        }
        all.sort_by(|a, b| a.digest.cmp(&b.digest).then(a.diff_id.cmp(&b.diff_id)));
        all.dedup_by(|a, b| (a.digest, a.diff_id) == (b.digest, b.diff_id));
        let store = &self.engine.store;
        each(&all, self.cancel, |layer| {
            let Layer { digest, diff_id, .. } = *layer;
            let plain = media::layer_compression(&layer.media_type) == Some(Compression::None);
            // Of a plain one that is all there is to know; one that is another one may still be compressed.
            if plain && digest == diff_id || !plain && !matches!(origin, Origin::Layout(_)) {
                return Ok(());
            }
            let blob = Box::new(store.open_blob(&digest)?);
            let mut reader = BlobReader::new(blob, None, &blob_info(layer), task, self.cancel);
            let checked = store.list_blob(layer, &mut reader, &mut |_, _| {});
            match reader.failed.take() {
                Some(error) => Err(error),
                None => checked.map_err(|error| of_layer(store, origin, &digest, error)),
            }
        })
    }

    /// Returns the layers of a manifest with their diff ids; none of what is no image.
    fn layers(&self, document: &Document) -> Result<Vec<Layer>, Error> {
        let Children::Manifest { config, layers } = children(document)? else { return Ok(Vec::new()) };
        let image = matches!(config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG);
        if !image || layers.iter().any(|layer| media::layer_compression(&layer.media_type).is_none()) {
            return Ok(Vec::new());
        }
        let bytes = self.reader().small(&Origin::Store, &config)?;
        let config = serde_json::from_slice::<ImageConfig>(&bytes).map_err(|error| {
            let what = format!("configuration {}", config.digest);
            OciError::Malformed { what, reason: error.to_string() }
        })?;
        let diff_ids = config.rootfs.diff_ids;
        // Some keep files as layers beside an empty configuration: that is no image, and nobody unpacks it.
        if diff_ids.is_empty() {
            return Ok(Vec::new());
        }
        if diff_ids.len() != layers.len() {
            return Err(OciError::LayerCount { layers: layers.len(), diff_ids: diff_ids.len() }.into());
        }
        Ok(layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| described(layer, diff_id)).collect())
    }
}

fn described(layer: BlobInfo, diff_id: Digest) -> Layer {
    let BlobInfo { media_type, digest, size } = layer;
    Layer { media_type, digest, size, diff_id, annotations: Default::default() }
}

/// Says of which image, and from where, a document is wrong.
fn of_image(origin: &Origin, document: &Document, error: Error) -> Error {
    match (origin, error) {
        (Origin::Registry(name), Error::Oci(error)) => {
            let image = format!("{}@{}", name.name(), document.digest);
            RegistryError::Image { image, error }.into()
        }
        (Origin::Layout(layout), Error::Oci(error)) => {
            let place = format!("{}, image {}", layout.location().display(), document.digest);
            Error::Archive { place, error }
        }
        (_, other) => other,
    }
}
