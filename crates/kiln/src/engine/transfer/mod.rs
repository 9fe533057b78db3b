//! Moving images: every command here reads images from one place and writes them to another.
//!
//! A place that is read gives a [`tree::Tree`] (the documents) and says where the blobs are ([`Origin`]); a place that is
//! written takes trees and a source of blobs ([`Blobs`]), which fetches what the store has not only if it is asked for it.
//! So what the other side has already is never moved.

mod blobs;
mod built;
mod check;
pub(crate) mod daemon;
mod early;
mod import;
mod index;
pub(crate) mod origin;
mod push;
mod referrers;
mod request;
mod sink;
mod source;
mod tree;

use kiln_core::{Cancel, Digest, EventSink, ImageRef};
use kiln_registry::{DaemonOptions, RegistryClient};

pub(crate) use blobs::{Blobs, Origin};
pub(super) use early::Early;
pub(crate) use push::Push;
pub use request::{
    CopyOutcome, CopyRequest, ImportRequest, IndexRequest, LoadRequest, SaveFormat, SaveRequest, TagRequest,
};
pub(crate) use source::{Found, Reader};
pub(crate) use tree::Tree;

use super::reporter::Reporter;
use super::{Engine, ids};
use crate::Error;
use crate::request::{ImagePlace, Platforms, RegistryOptions};

/// One command's work under way.
pub(super) struct Transfer<'a> {
    engine: &'a Engine,
    registry: &'a RegistryClient,
    reporter: &'a Reporter<'a>,
    cancel: &'a Cancel,
    daemon: &'a DaemonOptions,
}

impl Engine {
    /// Copies an image from one place to another. What was fetched whole is kept in the store for the next try.
    ///
    /// # Errors
    /// It is not there, cannot be read, or cannot be written; the message names registry, repository and digest.
    pub fn copy(
        &self,
        request: &CopyRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<CopyOutcome, Error> {
        if request.preserve_digests
            && matches!(request.to, ImagePlace::DockerArchive { .. } | ImagePlace::Engine(_))
        {
            return Err(Error::NotPreserved { place: request.to.to_string() });
        }
        if request.referrers {
            referrers::check(&request.from, &request.to)?;
        }
        self.transfer_with(&request.registry, &request.daemon, events, cancel, |transfer| {
            let platforms = match (&request.platforms, &request.to) {
                // What these hold has no platforms.
                (Platforms::All, ImagePlace::DockerArchive { .. } | ImagePlace::Engine(_)) => {
                    return Err(Error::OnePlatformOnly { output: request.to.to_string(), platforms: 0 });
                }
                (platforms, _) => platforms,
            };
            let found = transfer.reader().one(&request.from, platforms)?;
            let to = renamed(request, &found);
            if request.referrers {
                return transfer.write_with_referrers(&to, found);
            }
            let mut written = transfer.write(&to, vec![found])?;
            Ok(written.remove(0))
        })
    }

    /// Writes images of the local image store to one archive or layout.
    ///
    /// # Errors
    /// One is not there, or the file cannot be written.
    pub fn save(
        &self,
        request: &SaveRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<Vec<CopyOutcome>, Error> {
        self.transfer(&request.registry, events, cancel, |transfer| {
            let mut all: Vec<Found> = Vec::new();
            for name in &request.images {
                let name = &ids::full(&self.store, name)?;
                let place = ImagePlace::Store(name.clone());
                let mut found = transfer.reader().one(&place, &request.platforms)?;
                // An id names nothing.
                if self.store.image(name).is_ok_and(|known| known.is_some()) {
                    found.tree.names.push(ImageRef { digest: None, ..name.clone() });
                }
                let root = found.tree.root().digest;
                match all.iter_mut().find(|other| other.tree.root().digest == root) {
                    Some(same) => same.tree.names.append(&mut found.tree.names),
                    None => all.push(found),
                }
            }
            transfer.write(&request.place(), all)
        })
    }

    /// Takes all images of an archive into the local image store, under their names.
    ///
    /// # Errors
    /// The archive cannot be read, or is not what it says. Names are given last, when everything is there.
    pub fn load(
        &self,
        request: &LoadRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<Vec<CopyOutcome>, Error> {
        self.transfer(&RegistryOptions::default(), events, cancel, |transfer| {
            let mut all = transfer.reader().all(request.path.as_deref())?;
            if let Some(platform) = &request.platform {
                for found in &mut all {
                    transfer.reader().narrow(found, &Platforms::One(platform.clone()))?;
                }
            }
            all.into_iter().map(|found| transfer.keep(found)).collect()
        })
    }

    /// Gives an image of the local image store further names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or a name has no tag.
    pub fn tag(&self, request: &TagRequest) -> Result<Digest, Error> {
        // What a collection may take meanwhile is found again or missed, not half there.
        let _pin = self.store.pin()?;
        let name = &ids::full(&self.store, &request.image)?;
        let digest = ids::digest_of(&self.store, name)?;
        let digest = digest.filter(|digest| self.store.has_blob(digest));
        let digest = digest.ok_or_else(|| Error::NoSuchImage { name: name.clone() })?;
        for name in &request.names {
            self.store.tag(name, &digest)?;
        }
        Ok(digest)
    }

    /// [`transfer_with`](Self::transfer_with) where no engine takes part.
    fn transfer<T>(
        &self,
        options: &RegistryOptions,
        events: &dyn EventSink,
        cancel: &Cancel,
        work: impl FnOnce(&Transfer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.transfer_with(options, &DaemonOptions::default(), events, cancel, work)
    }

    /// Does one command's work beside others: what it makes is pinned until its end, and then survives power loss.
    fn transfer_with<T>(
        &self,
        options: &RegistryOptions,
        daemon: &DaemonOptions,
        events: &dyn EventSink,
        cancel: &Cancel,
        work: impl FnOnce(&Transfer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let reporter = Reporter::new(events);
        let _pin = self.store.pin()?;
        let registry = RegistryClient::new(self.registry_config(options), cancel.clone())?;
        let result =
            work(&Transfer { engine: self, registry: &registry, reporter: &reporter, cancel, daemon });
        if cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        // Also after a failure: what came whole is worth keeping.
        self.store.finish_build()?;
        result
    }
}

/// Returns where an image goes. One that is pulled by a short name is kept by its full name, and one that is pushed by a
/// short name goes where its full name says.
fn renamed(request: &CopyRequest, found: &Found) -> ImagePlace {
    match (&request.from, &request.to, &found.name) {
        (ImagePlace::Registry(from), ImagePlace::Store(to), Some(full)) if from == to && to.short.0 => {
            ImagePlace::Store(full.clone())
        }
        (ImagePlace::Store(from), ImagePlace::Registry(to), Some(full)) if from == to && to.short.0 => {
            ImagePlace::Registry(full.clone())
        }
        (_, to, _) => to.clone(),
    }
}

impl<'a> Transfer<'a> {
    fn reader(&self) -> Reader<'a> {
        let (store, registry) = (&self.engine.store, self.registry);
        Reader { store, registry, reporter: self.reporter, cancel: self.cancel, daemon: self.daemon }
    }
}
