//! A registry: the pointer is a tag, a generation has a tag of its own.

use std::collections::HashSet;
use std::io::Read as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_carry::{
    Generation, MANIFEST_TYPE, MAX_PACK, PACK_TYPE, POINTER_TYPE, Pack, Pointer, is_generation_of,
};
use kiln_core::{Digest, ImageRef, IoError};
use kiln_oci::{BlobInfo, Document};
use kiln_registry::{Pushed, RegistryClient, RegistryError};

use super::{Content, Depot, New, Published};
use crate::{CarryFailure, Error};

/// A pack is three requests, one after the other: so several at once.
const SENDERS: usize = 4;
/// Questions at once whether a pack is there.
const ASKING: usize = 8;
/// Who writes a pointer looks so often whether somebody else wrote it at the same time.
const ROUNDS: usize = 6;
/// Writers at one time have begun to publish at most so long after one another, seconds: what is older than all that a pointer has was
/// removed from it on purpose.
const MOST_APART: i64 = 300;
/// So many generations that a pointer lacks are taken into it; more were left by a registry that deletes nothing.
const MOST_LOST: usize = 16;

pub(crate) struct Registry<'a> {
    client: &'a RegistryClient,
    name: ImageRef,
}

impl<'a> Registry<'a> {
    pub(super) fn new(client: &'a RegistryClient, name: ImageRef) -> Self {
        let tag = name.tag.clone().unwrap_or_else(|| "latest".to_owned());
        Self { client, name: ImageRef { tag: Some(tag), digest: None, ..name } }
    }

    fn tag(&self) -> &str {
        self.name.tag.as_deref().unwrap_or("latest")
    }

    fn untagged(&self) -> ImageRef {
        ImageRef { tag: None, digest: None, ..self.name.clone() }
    }

    fn carry(&self, error: kiln_carry::CarryError) -> Error {
        Error::Carry(CarryFailure::Place { place: format!("docker://{}", self.name), error })
    }

    /// Generations with a tag of this name that the pointer lacks: of writers whose pointer another one overwrote.
    fn lost(&self, pointer: &Pointer) -> Result<Vec<Generation>, Error> {
        let oldest = pointer.generations.iter().map(|known| known.time).min();
        let oldest = oldest.map(|time| super::super::stamp(time - MOST_APART)).unwrap_or_default();
        let mut tags = match self.client.tags(&self.name) {
            // Not every registry lists tags, or not for everybody.
            Err(RegistryError::Cancelled) => return Err(Error::Interrupted),
            Err(_) => return Ok(Vec::new()),
            Ok(tags) => tags,
        };
        tags.retain(|tag| {
            is_generation_of(tag, self.tag())
                && stamp(tag) >= oldest.as_str()
                && !pointer.generations.iter().any(|known| known.tag == *tag)
        });
        tags.sort_by(|a, b| stamp(b).cmp(stamp(a)));
        tags.truncate(MOST_LOST);
        let mut found = Vec::new();
        for tag in tags {
            let name = ImageRef { tag: Some(tag), digest: None, ..self.name.clone() };
            let document =
                self.client.resolve_digest(&name).and_then(|digest| self.client.manifest(&name, digest));
            match document {
                // Deleted meanwhile, or somebody else's.
                Ok(document) => found.extend(Generation::read(&document.bytes).map(|read| read.0)),
                Err(RegistryError::Cancelled) => return Err(Error::Interrupted),
                Err(_) => {}
            }
        }
        Ok(found)
    }
}

fn stamp(tag: &str) -> &str {
    tag.rsplit_once('.').map_or("", |(_, stamp)| stamp)
}

impl Depot for Registry<'_> {
    fn pointer(&self) -> Result<Pointer, Error> {
        let document = self
            .client
            .resolve_digest(&self.name)
            .and_then(|digest| self.client.manifest(&self.name, digest));
        match document {
            Ok(document) => Pointer::read(&document.bytes).map_err(|error| self.carry(error)),
            Err(error) if matches!(error.root(), RegistryError::NotFound { .. }) => Ok(Pointer::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn senders(&self) -> usize {
        SENDERS
    }

    fn read(&self, digest: &Digest, size: u64, manifest: bool, into: &mut Vec<u8>) -> Result<(), Error> {
        into.clear();
        if manifest {
            into.extend(self.client.manifest(&self.name, *digest)?.bytes);
            return Ok(());
        }
        let info = BlobInfo { media_type: PACK_TYPE.to_owned(), digest: *digest, size };
        let mut reader = self.client.blob(&self.name, &info, None)?;
        into.reserve_exact(usize::try_from(size.min(MAX_PACK)).unwrap_or(0) + 1);
        reader.by_ref().take(size + 1).read_to_end(into).map_err(|error| {
            let known = RegistryError::of(&error).cloned().map(Error::Registry);
            known.unwrap_or_else(|| IoError::new("read", digest.to_string(), &error).into())
        })?;
        reader.finish()?;
        Ok(())
    }

    /// Asks for each: registries collect what they take for garbage, and not all look at it when a manifest comes.
    fn lacks(&self, packs: &[Pack]) -> Result<HashSet<Digest>, Error> {
        let (next, lacking, name) = (AtomicUsize::new(0), Mutex::new(HashSet::new()), self.untagged());
        let ask = || -> Result<(), RegistryError> {
            while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.client.has_blob(&name, &pack.digest) {
                    Ok(true) => {}
                    Ok(false) => {
                        lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.digest);
                    }
                    // Not every registry lets one look where one may write.
                    Err(error) if matches!(error.root(), RegistryError::PushDenied { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..ASKING.min(packs.len())).map(|_| scope.spawn(ask)).collect();
            let asked = asking.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
            asked.collect::<Result<(), RegistryError>>()
        })?;
        Ok(lacking.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, digest: &Digest, content: &Content<'_>) -> Result<u64, Error> {
        let info = BlobInfo { media_type: PACK_TYPE.to_owned(), digest: *digest, size: content.size() };
        let pushed = self.client.push_blob(&self.untagged(), &info, content, &[], &|_| {})?;
        Ok(if let Pushed::Uploaded { bytes } = pushed { bytes } else { 0 })
    }

    fn publish(&self, new: &New<'_>, keep: usize) -> Result<Published, Error> {
        self.put(&Digest::of(new.config), &Content::Memory(new.config))?;
        let own = ImageRef { tag: Some(new.generation.tag.clone()), ..self.untagged() };
        self.client.push_manifest(&own, &Document::new(MANIFEST_TYPE, new.manifest.to_vec()))?;
        let mut gone = Vec::new();
        let mut done = Published::default();
        for _ in 0..ROUNDS {
            // What stands there is somebody's: an image is never overwritten.
            let before = self.pointer()?;
            let mut pointer = before.clone();
            pointer.add(self.lost(&before)?);
            pointer.add([new.generation.clone()]);
            gone = pointer.trim(keep);
            if pointer == before {
                break;
            }
            let document = Document::new(POINTER_TYPE, pointer.write());
            self.client.push_manifest(&self.name, &document)?;
        }
        for generation in gone {
            match self.client.delete_manifest(&self.untagged(), &generation.digest) {
                Err(RegistryError::Cancelled) => return Err(Error::Interrupted),
                Err(error) if done.notes.is_empty() => done.notes.push(format!(
                    "the registry keeps generations that the name no longer stands for ({error}): let it remove tags such as {}",
                    generation.tag
                )),
                _ => {}
            }
        }
        Ok(done)
    }
}
