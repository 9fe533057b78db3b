//! Sending records to where they are left, and looking whether what is said to be there is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use kiln_core::Digest;
use kiln_oci::{BlobInfo, BlobSource, Document, Documents};

use super::StepCache;
use super::export::{Exporter, Ready, lock};
use super::far::info;
use super::place::{self, Place, tagged};
use super::record::{EMPTY, EMPTY_TYPE, Entry};
use crate::Error;
use crate::engine::arrival::Unseen;
use crate::engine::transfer::{Blobs, Origin, Push};

/// What one exporter knows of the place that it writes to.
#[derive(Default)]
struct There {
    /// Blobs that are there.
    known: HashSet<Digest>,
    /// Layers of records that are there, as far as this machine has them. A blob can be lost and its record stay; who has the
    /// blob can put it back.
    named: Vec<BlobInfo>,
}

impl There {
    /// A record is there.
    fn has(&mut self, entry: &Entry, origins: &[Origin]) {
        self.known.insert(Digest::of(EMPTY));
        for (layer, origin) in entry.layers.iter().zip(origins) {
            match origin {
                Origin::Store => self.named.push(info(&layer.layer)),
                Origin::Registry(_) | Origin::Layout(_) => {
                    self.known.insert(layer.layer.digest);
                }
            }
        }
    }
}

impl Exporter {
    pub(super) fn send(&self, cache: &StepCache<'_>, ready: Receiver<Ready>) {
        let mut there = There::default();
        let goes_on = || !self.has_failed() && !cache.cancel.is_cancelled();
        for (id, entry, origins) in ready {
            if !goes_on() {
                continue;
            }
            match self.send_one(cache, &entry, &origins, &mut there) {
                Ok(sent) => {
                    let mut state = lock(&self.state);
                    state.new += usize::from(sent.is_some());
                    state.bytes += sent.unwrap_or(0);
                    state.left.push((id, entry));
                }
                Err(error) => self.fail(error),
            }
        }
        if goes_on() {
            match self.put_back(cache, there) {
                Ok(sent) => lock(&self.state).bytes += sent,
                Err(error) => self.fail(error),
            }
        }
    }

    /// Returns the bytes that were sent; none if the record was there.
    fn send_one(
        &self,
        cache: &StepCache<'_>,
        entry: &Arc<Entry>,
        origins: &[Origin],
        there: &mut There,
    ) -> Result<Option<u64>, Error> {
        let Some(manifest) = &entry.manifest else { return Ok(None) };
        let itself = (!cache.sources.iter().any(|source| source.place == self.place)).then_some(&self.itself);
        let same = cache.sources.iter().filter(|source| source.place.is_same(&self.place));
        for source in same.chain(itself) {
            // Its list may still be on its way.
            source.look(&cache.asking());
            if source.has(entry) {
                there.has(entry, origins);
                return Ok(None);
            }
        }
        let mut blobs = Blobs::new(cache.store, cache.registry, &Unseen, cache.cancel);
        for (layer, origin) in entry.layers.iter().zip(origins) {
            blobs.add_blob(&info(&layer.layer), origin);
            if let (Origin::Registry(from), Place::Registry(to)) = (origin, &self.place)
                && from.name() == to.name()
            {
                there.known.insert(layer.layer.digest);
            }
        }
        let empty = Document::new(EMPTY_TYPE, EMPTY.to_vec());
        let source = Documents::over([&empty], &blobs);
        let sent = match &self.place {
            Place::Directory(dir) => place::write(dir, entry, &source),
            Place::Registry(repository) => {
                let wanted = entry.blobs().into_iter().filter(|blob| !there.known.contains(&blob.digest));
                let wanted: Vec<_> = wanted.collect();
                let names: Vec<_> = entry.names().map(|name| tagged(repository, name)).collect();
                pushing(cache, (&[manifest], &wanted), (&blobs, &source), &|push| push.to(&names))
            }
        };
        let sent = sent.map_err(|error| blobs.failure().unwrap_or(error))?;
        if sent == 0 && matches!(self.place, Place::Registry(_)) {
            // It was there, though no list said so, and nobody has asked for its layers.
            there.has(entry, origins);
            return Ok(None);
        }
        there.known.extend(entry.blobs().iter().map(|blob| blob.digest));
        Ok(Some(sent))
    }

    /// Looks, a few at a time, whether blobs are there that records there name, and sends those that are not. Returns the bytes.
    fn put_back(&self, cache: &StepCache<'_>, there: There) -> Result<u64, Error> {
        let There { mut known, named } = there;
        let doubtful: Vec<BlobInfo> = named.into_iter().filter(|blob| known.insert(blob.digest)).collect();
        let mut blobs = Blobs::new(cache.store, cache.registry, &Unseen, cache.cancel);
        for blob in &doubtful {
            blobs.add_blob(blob, &Origin::Store);
        }
        match &self.place {
            Place::Directory(dir) => {
                doubtful.iter().try_fold(0, |sent, blob| Ok(sent + place::write_blob(dir, blob, &blobs)?))
            }
            Place::Registry(repository) => {
                pushing(cache, (&[], &doubtful), (&blobs, &blobs), &|push| push.blobs(repository))
            }
        }
    }
}

fn pushing(
    cache: &StepCache<'_>,
    (documents, wanted): (&[&Document], &[BlobInfo]),
    (blobs, source): (&Blobs<'_>, &dyn BlobSource),
    work: &dyn Fn(&Push<'_>) -> Result<u64, Error>,
) -> Result<u64, Error> {
    work(&Push {
        store: cache.store,
        registry: cache.registry,
        task: &Unseen,
        cancel: cache.cancel,
        documents,
        blobs: wanted,
        source,
        from: &|digest| blobs.repository(digest),
        // What this exporter sent is not among the blobs.
        sent: &|_, _| false,
    })
}
