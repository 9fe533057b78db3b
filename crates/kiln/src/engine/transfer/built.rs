//! Sending what a build made to registries. Nothing is fetched for it that the registry has, or can mount.

use kiln_core::ImageRef;
use kiln_oci::{BlobInfo, Document, Documents};

use super::{Blobs, Origin, Push};
use crate::Error;
use crate::engine::arrival::LayerProgress;
use crate::engine::build::Build;
use crate::engine::finished::Finished;

impl Build<'_> {
    /// Sends images to the repositories that these names say, once to each; every name is one manifest more.
    pub(in crate::engine) fn push(
        &self,
        finished: &Finished,
        names: &[ImageRef],
        task: &dyn LayerProgress,
    ) -> Result<(), Error> {
        let (store, registry) = (&self.engine.store, self.bases.registry);
        let mut known = Blobs::new(store, registry, task, self.cancel);
        // First what is known of the bases' layers: where they are.
        for base in self.plan.images.iter().filter_map(|planned| self.base_of(planned)) {
            for layer in &base.image.layers {
                known.add_blob(&info(layer), &base.origin);
            }
        }
        let mut blobs: Vec<BlobInfo> = Vec::new();
        for image in &finished.images {
            let all = image.layers.iter().map(info).chain([image.config.info()]);
            for blob in all {
                known.add_blob(&blob, &self.cache.origin(&blob.digest).unwrap_or(Origin::Store));
                if !blobs.iter().any(|other| other.digest == blob.digest) {
                    blobs.push(blob);
                }
            }
        }
        for attestation in &finished.attestations {
            // These bytes are no file anywhere.
            let all = attestation.statements.iter().chain([&attestation.config]);
            blobs.extend(all.map(Document::info));
        }
        let manifests = finished.images.iter().map(|image| &image.manifest);
        let manifests =
            manifests.chain(finished.attestations.iter().map(|attestation| &attestation.manifest));
        let documents: Vec<&Document> = manifests.chain(finished.index.as_ref()).collect();
        let source = Documents::over(finished.documents(), &known);
        let push = Push {
            store,
            registry,
            task,
            cancel: self.cancel,
            documents: &documents,
            blobs: &blobs,
            source: &source,
            from: &|digest| known.repository(digest),
            sent: &|name, digest| self.early.sent(name, digest),
        };
        push.to(names).map_err(|error| match known.failure() {
            Some(error) => self.cache.lose_blob(error),
            None => error,
        })?;
        Ok(())
    }
}

pub(super) fn info(layer: &kiln_core::Layer) -> BlobInfo {
    BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}
