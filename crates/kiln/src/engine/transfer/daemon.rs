//! Into and out of a running docker or podman.

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::{BlobSource, Root};
use kiln_registry::{Daemon, DaemonOptions};

use super::{CopyOutcome, Found, Reader, Transfer};
use crate::Error;
use crate::engine::to_file::buffered;
use crate::request::Platforms;

/// Makes an engine have an image under these names. One that it has is not sent, only named: its id is the digest of its
/// configuration, which names all layers.
pub(crate) fn load(
    options: &DaemonOptions,
    root: &Root<'_>,
    config: &Digest,
    blobs: &dyn BlobSource,
    cancel: &Cancel,
) -> Result<(), Error> {
    let daemon = Daemon::find(options, cancel)?;
    if daemon.image(&config.to_string())?.is_some() {
        for name in root.names {
            let repository = ImageRef { tag: None, digest: None, ..name.clone() }.familiar();
            daemon.tag(&config.to_string(), &repository, name.tag.as_deref().unwrap_or("latest"))?;
        }
        return Ok(());
    }
    daemon.load(|out| {
        buffered(out, |out| Ok(kiln_oci::write_docker_archive(out, std::slice::from_ref(root), blobs)?))
    })?
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
