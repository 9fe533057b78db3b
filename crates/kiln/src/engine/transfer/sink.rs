//! Writing images: to the local image store, a layout, an archive, a registry or an engine.

use kiln_core::{Event, ImageRef, Platform};
use kiln_oci::Root;

use super::{Blobs, CopyOutcome, Found, Origin, Transfer, Tree};
use crate::Error;
use crate::engine::ids;
use crate::engine::reporter::Task;
use crate::engine::to_file::to_file;
use crate::request::ImagePlace;

impl Transfer<'_> {
    /// Writes images to one place.
    pub(super) fn write(&self, to: &ImagePlace, found: Vec<Found>) -> Result<Vec<CopyOutcome>, Error> {
        match to {
            ImagePlace::Store(name) => found
                .into_iter()
                .map(|mut found| {
                    // What has a digest only is kept without a name.
                    found.tree.names =
                        name.tag.iter().map(|_| ImageRef { digest: None, ..name.clone() }).collect();
                    self.keep(found)
                })
                .collect(),
            ImagePlace::Registry(name) => found.iter().map(|found| self.push(found, name)).collect(),
            ImagePlace::Engine(name) => found.iter().map(|found| self.to_daemon(found, name)).collect(),
            file => self.to_files(file, &found),
        }
    }

    /// Takes an image into the local image store: blobs first, names last.
    pub(super) fn keep(&self, found: Found) -> Result<CopyOutcome, Error> {
        let Found { tree, origin, .. } = &found;
        let store = &self.engine.store;
        let root = tree.root();
        let title = match tree.names.first() {
            Some(name) => format!("storing {}", name.familiar()),
            None => format!("storing {}", root.digest),
        };
        let task = self.reporter.task(&title);
        let kept = self.bring_for(tree, origin, &task).and_then(|()| {
            ids::remember(store, &root.digest, &tree.configs)?;
            for name in &tree.names {
                store.tag(name, &root.digest)?;
            }
            Ok(())
        });
        task.end_with(&kept);
        kept?;
        Ok(self.written("image", tree, tree.names.clone(), 0))
    }

    /// Takes an image's blobs and documents in, and gives it no name.
    pub(super) fn bring(&self, found: &Found) -> Result<(), Error> {
        let task = self.reporter.task(&format!("storing {}", found.tree.root().digest));
        let brought = self.bring_for(&found.tree, &found.origin, &task);
        task.end_with(&brought);
        brought
    }

    fn bring_for(&self, tree: &Tree, origin: &Origin, task: &Task<'_>) -> Result<(), Error> {
        let store = &self.engine.store;
        let mut blobs = Blobs::new(store, self.registry, task, self.cancel);
        for blob in &tree.blobs {
            blobs.add_blob(blob, origin);
        }
        blobs.bring(&tree.blobs)?;
        self.check(tree, origin, task)?;
        for document in &tree.documents {
            store.put_blob(&document.bytes)?;
        }
        Ok(())
    }

    /// Writes a layout or an archive.
    fn to_files(&self, to: &ImagePlace, found: &[Found]) -> Result<Vec<CopyOutcome>, Error> {
        let task = self.reporter.task(&format!("writing {to}"));
        let mut blobs = Blobs::new(&self.engine.store, self.registry, &task, self.cancel);
        for found in found {
            blobs.add(&found.tree, &found.origin);
        }
        let done = self.write_files(to, found, &blobs);
        // The writer knows only that reading failed.
        let done = done.map_err(|error| blobs.failure().unwrap_or(error));
        task.end_with(&done);
        done?;
        Ok(found
            .iter()
            .map(|found| self.written(&to.to_string(), &found.tree, names(to, &found.tree), 0))
            .collect())
    }

    fn write_files(&self, to: &ImagePlace, found: &[Found], blobs: &Blobs<'_>) -> Result<(), Error> {
        for found in found {
            blobs.bring_remote(&found.tree.blobs)?;
        }
        let named: Vec<(Vec<ImageRef>, Option<Platform>)> = found
            .iter()
            .map(|found| Ok((names(to, &found.tree), self.platform(&found.tree, &found.origin)?)))
            .collect::<Result<_, Error>>()?;
        let tag = match to {
            ImagePlace::Layout { tag, .. } | ImagePlace::OciArchive { tag, .. } => tag.as_deref(),
            _ => None,
        };
        let roots: Vec<Root<'_>> = found
            .iter()
            .zip(&named)
            .enumerate()
            .map(|(at, (found, (names, platform)))| Root {
                document: found.tree.root(),
                platform: platform.as_ref(),
                names,
                annotations: None,
                // What is about the first has no name.
                tag: tag.filter(|_| at == 0),
            })
            .collect();
        match to {
            ImagePlace::Layout { path, .. } => Ok(kiln_oci::write_layout_dir(path, &roots, blobs)?),
            ImagePlace::OciArchive { path, .. } => {
                to_file(path.as_deref(), |out| Ok(kiln_oci::write_layout_tar(out, &roots, blobs)?))
            }
            ImagePlace::DockerArchive { path, .. } => {
                to_file(path.as_deref(), |out| Ok(kiln_oci::write_docker_archive(out, &roots, blobs)?))
            }
            ImagePlace::Store(_) | ImagePlace::Registry(_) | ImagePlace::Engine(_) => Ok(()),
        }
    }

    /// What a manifest is for; none for an index, and for what is no image.
    pub(super) fn platform(&self, tree: &Tree, origin: &Origin) -> Result<Option<Platform>, Error> {
        let root = tree.root();
        if kiln_oci::media::is_index(&root.media_type) {
            return Ok(None);
        }
        let kiln_oci::Children::Manifest { config, .. } = kiln_oci::children(root)? else { return Ok(None) };
        if !matches!(config.media_type.as_str(), kiln_oci::media::OCI_CONFIG | kiln_oci::media::DOCKER_CONFIG)
        {
            return Ok(None);
        }
        let bytes = self.reader().small(origin, &config)?;
        let config: Result<kiln_core::ImageConfig, _> = serde_json::from_slice(&bytes);
        Ok(config.ok().map(|config| config.platform()))
    }

    /// Tells of an image that is written, and reports it.
    pub(super) fn written(&self, output: &str, tree: &Tree, names: Vec<ImageRef>, sent: u64) -> CopyOutcome {
        let digest = tree.root().digest;
        self.reporter.emit(Event::Exported {
            output: output.to_owned(),
            digest: Some(digest),
            names: names.iter().map(ImageRef::familiar).collect(),
        });
        let (ids, size) = (tree.configs.clone(), tree.size());
        CopyOutcome { digest, ids, names, size, sent, referrers: Vec::new() }
    }
}

/// The names that an image gets there.
fn names(to: &ImagePlace, tree: &Tree) -> Vec<ImageRef> {
    match to {
        ImagePlace::DockerArchive { name: Some(name), .. } => vec![name.clone()],
        ImagePlace::Layout { tag: Some(_), .. } | ImagePlace::OciArchive { tag: Some(_), .. } => Vec::new(),
        _ => tree.names.clone(),
    }
}
