//! Into and out of a running docker or podman.

use std::collections::HashSet;
use std::io::Read as _;

use kiln_core::{Cancel, Digest, ImageConfig, ImageRef, IoResultExt as _, Layer};
use kiln_oci::{BlobSource, Children, Document, MAX_DOCUMENT, Root, media};
use kiln_registry::{Daemon, DaemonError, DaemonOptions, Held};

use super::{CopyOutcome, Found, Reader, Transfer};
use crate::Error;
use crate::engine::to_file::buffered;
use crate::request::Platforms;

/// Makes an engine have an image under these names. One that it has is not sent, only named: its id is the digest of its
/// configuration, which names all layers. Of others the layers that it has are not sent.
pub(crate) fn load(
    options: &DaemonOptions,
    root: &Root<'_>,
    config: &Digest,
    blobs: &dyn BlobSource,
    cancel: &Cancel,
) -> Result<(), Error> {
    let daemon = Daemon::find(options, cancel)?;
    if daemon.image(&config.to_string())?.is_some() {
        named(&daemon, config, root.names)?;
        return Ok(());
    }
    let partial = Partial::of(&daemon, root, config, blobs)?;
    if let Some(partial) = &partial {
        match partial.load(&daemon, root, blobs) {
            // One went meanwhile, or this engine is another than one thinks.
            Err(Error::Daemon(DaemonError::Refused { .. })) => {}
            Ok(()) => return Ok(partial.name(&daemon, config, root.names)?),
            Err(error) => return Err(error),
        }
    }
    daemon.load(|out| {
        buffered(out, |out| Ok(kiln_oci::write_docker_archive(out, std::slice::from_ref(root), blobs)?))
    })?
}

/// An archive without the layers that the engine has.
struct Partial {
    absent: HashSet<Digest>,
    /// For podman: names what is absent as its storage knows it.
    manifest: Option<Document>,
}

impl Partial {
    /// None if the engine needs everything.
    fn of(
        daemon: &Daemon,
        root: &Root<'_>,
        config: &Digest,
        blobs: &dyn BlobSource,
    ) -> Result<Option<Self>, Error> {
        let Children::Manifest { config: info, layers } = kiln_oci::children(root.document)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = blobs.open(config)?.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.at("read", config.to_string())?;
        let document = Document::verified(&info, bytes)?;
        let Ok(image) = serde_json::from_slice::<ImageConfig>(&document.bytes) else { return Ok(None) };
        let diff_ids = &image.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Ok(None);
        }
        let held = daemon.held(diff_ids)?;
        let there = |at: usize| match &held {
            Held::Nothing => false,
            Held::Lowest(count) => at < *count,
            Held::These(these) => diff_ids.get(at).is_some_and(|diff_id| these.contains(diff_id)),
        };
        // One blob may be several layers; it is sent if any of them is needed.
        let needed: HashSet<Digest> =
            layers.iter().enumerate().filter(|(at, _)| !there(*at)).map(|(_, layer)| layer.digest).collect();
        let mut absent: HashSet<Digest> =
            layers.iter().map(|layer| layer.digest).filter(|layer| !needed.contains(layer)).collect();
        if absent.is_empty() {
            return Ok(None);
        }
        if !matches!(held, Held::These(_)) {
            return Ok(Some(Self { absent, manifest: None }));
        }
        let described: Vec<Layer> = layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| match absent.contains(&layer.digest) {
                // Nobody reads it, so nobody knows its size here.
                true => Layer {
                    media_type: media::OCI_LAYER.to_owned(),
                    digest: *diff_id,
                    size: 1024,
                    diff_id: *diff_id,
                    annotations: Default::default(),
                },
                false => Layer {
                    media_type: media::oci_layer(&layer.media_type).to_owned(),
                    digest: layer.digest,
                    size: layer.size,
                    diff_id: *diff_id,
                    annotations: Default::default(),
                },
            })
            .collect();
        let named = layers.iter().zip(diff_ids).filter(|(layer, _)| !needed.contains(&layer.digest));
        absent.extend(named.map(|(_, diff_id)| *diff_id));
        let config = Document::new(media::OCI_CONFIG, document.bytes);
        Ok(Some(Self { absent, manifest: Some(kiln_oci::manifest(&config, &described)) }))
    }

    fn load(&self, daemon: &Daemon, root: &Root<'_>, blobs: &dyn BlobSource) -> Result<(), Error> {
        let document = self.manifest.as_ref().unwrap_or(root.document);
        // podman takes an OCI archive with one entry only.
        let names = if self.manifest.is_some() { &root.names[..root.names.len().min(1)] } else { root.names };
        let root = Root { document, names, ..root.clone() };
        let docker = self.manifest.is_none();
        daemon.load(|out| {
            buffered(out, |out| Ok(kiln_oci::write_partial_archive(out, &root, blobs, &self.absent, docker)?))
        })?
    }

    /// Gives the names that the archive could not.
    fn name(&self, daemon: &Daemon, config: &Digest, names: &[ImageRef]) -> Result<(), DaemonError> {
        let missing = if self.manifest.is_some() { names.get(1..).unwrap_or_default() } else { &[] };
        named(daemon, config, missing)
    }
}

fn named(daemon: &Daemon, config: &Digest, names: &[ImageRef]) -> Result<(), DaemonError> {
    for name in names {
        let repository = ImageRef { tag: None, digest: None, ..name.clone() }.familiar();
        daemon.tag(&config.to_string(), &repository, name.tag.as_deref().unwrap_or("latest"))?;
    }
    Ok(())
}

impl Transfer<'_> {
    /// Writes an image to an engine.
    pub(super) fn to_daemon(&self, found: &Found, name: &ImageRef) -> Result<CopyOutcome, Error> {
        let names = [name.clone()];
        let task = self.reporter.task(&format!("loading {} into the engine", name.familiar()));
        let mut blobs = super::Blobs::new(&self.engine.store, self.registry, &task, self.cancel);
        blobs.add(&found.tree, &found.origin);
        let root =
            Root { document: found.tree.root(), platform: None, names: &names, annotations: None, tag: None };
        let config = found.tree.configs.first().copied().unwrap_or(found.tree.root().digest);
        let loaded = load(self.daemon, &root, &config, &blobs, self.cancel);
        let loaded = loaded.map_err(|error| blobs.failure().unwrap_or(error));
        task.end_with(&loaded);
        loaded?;
        Ok(self.written(&format!("docker-daemon:{}", name.familiar()), &found.tree, names.to_vec(), 0))
    }
}

impl Reader<'_> {
    /// Reads an image out of an engine.
    pub(super) fn of_daemon(&self, name: &ImageRef, platforms: &Platforms) -> Result<Found, Error> {
        let daemon = Daemon::find(self.daemon, self.cancel)?;
        let (archive, spooled) =
            self.spooled(&format!("docker-daemon:{}", name.familiar()), daemon.save(&name.familiar())?)?;
        self.named(archive, None, None, platforms, spooled)
    }
}
