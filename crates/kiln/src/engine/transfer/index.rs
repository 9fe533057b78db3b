//! One index of images that were made apart.

use std::collections::HashMap;

use kiln_core::{Cancel, Digest, EventSink};
use kiln_oci::{Document, JoinOptions, Part};
use kiln_registry::RegistryError;

use super::request::IndexRequest;
use super::{CopyOutcome, Found, Origin, Transfer, Tree};
use crate::Error;
use crate::engine::Engine;
use crate::request::{ImagePlace, Platforms};

impl Engine {
    /// Makes an index of images, or adds images to one. In a registry only what it has not is sent there.
    ///
    /// # Errors
    /// An image is not there, two are for one platform, or the index cannot be written.
    pub fn index(
        &self,
        request: &IndexRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<CopyOutcome, Error> {
        if !matches!(request.to, ImagePlace::Store(_) | ImagePlace::Registry(_)) {
            return Err(Error::NoIndexThere { place: request.to.to_string() });
        }
        self.transfer(&request.registry, events, cancel, |transfer| {
            let base = if request.join { transfer.there(&request.to)? } else { None };
            let mut parts = Vec::new();
            for place in &request.images {
                parts.push(transfer.part(place)?);
            }
            let platforms = parts
                .iter()
                .map(|found| transfer.platform(&found.tree, &found.origin))
                .collect::<Result<Vec<_>, Error>>()?;
            let new: Vec<Part<'_>> = parts
                .iter()
                .zip(platforms)
                .map(|(found, platform)| Part { document: found.tree.root(), platform })
                .collect();
            let options = JoinOptions {
                annotations: request.annotations.clone(),
                entry_annotations: request.entry_annotations.clone(),
                replace: request.amend,
            };
            let index = kiln_oci::join(base.as_ref().map(|found| found.tree.root()), &new, &options)?;
            transfer.joined(index, base.into_iter().chain(parts), &request.to)
        })
    }
}

impl Transfer<'_> {
    /// Finds an image of the store, else of its registry: as FROM does.
    fn part(&self, place: &ImagePlace) -> Result<Found, Error> {
        match (self.reader().one(place, &Platforms::All), place) {
            (Err(Error::NoSuchImage { .. }), ImagePlace::Store(name)) => {
                let place = ImagePlace::Registry(name.clone());
                self.reader().one(&place, &Platforms::All).map_err(|error| match error {
                    Error::Registry(error) => Error::NotHad { name: name.clone(), error },
                    other => other,
                })
            }
            (found, _) => found,
        }
    }

    /// What the index's name means now, if anything.
    fn there(&self, to: &ImagePlace) -> Result<Option<Found>, Error> {
        match self.reader().one(to, &Platforms::All) {
            Ok(found) => Ok(Some(found)),
            Err(Error::NoSuchImage { .. } | Error::Registry(RegistryError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the index with all that hangs on it, each blob from where its image is.
    fn joined(
        &self,
        index: Document,
        parts: impl Iterator<Item = Found>,
        to: &ImagePlace,
    ) -> Result<CopyOutcome, Error> {
        let parts: Vec<Found> = parts.collect();
        let documents: HashMap<Digest, &Document> = parts
            .iter()
            .flat_map(|found| &found.tree.documents)
            .map(|document| (document.digest, document))
            .collect();
        let tree = Tree::read(index, &mut |info| {
            let known = documents.get(&info.digest).copied().cloned();
            known.ok_or(Error::NotResolved { manifest: info.digest })
        })?;
        self.write_joined(to, tree, &parts)
    }

    fn write_joined(&self, to: &ImagePlace, mut tree: Tree, parts: &[Found]) -> Result<CopyOutcome, Error> {
        match to {
            ImagePlace::Registry(name) => self.push_tree(&tree, parts, name),
            ImagePlace::Store(name) => {
                // Each image with its blobs first, without a name.
                for part in parts {
                    let unnamed = Tree { names: Vec::new(), ..part.tree.clone() };
                    let (origin, spooled) = (part.origin.clone(), part.spooled.clone());
                    self.bring(&Found { tree: unnamed, origin, name: None, spooled })?;
                }
                tree.names = vec![name.clone()];
                self.keep(Found { tree, origin: Origin::Store, name: None, spooled: None })
            }
            other => Err(Error::NoIndexThere { place: other.to_string() }),
        }
    }
}
