//! Images that a build starts from, found under their names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Digest, ImageRef, Platform};
use kiln_oci::{Layout, LoadedImage};
use kiln_registry::{Attempt, RegistryClient};
use kiln_store::Store;

use super::patience::Patience;
use super::transfer::Origin;
use crate::Error;
use crate::request::NamedSource;

/// What is known of images in one build.
pub(crate) struct Bases<'a> {
    pub(super) store: &'a Store,
    pub(super) registry: &'a RegistryClient,
    found: Mutex<HashMap<Digest, Arc<Base>>>,
    layouts: Mutex<HashMap<PathBuf, Arc<Layout>>>,
    meant: Mutex<Vec<Meant>>,
    pub(super) patience: Patience,
}

/// What a name meant in this build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Meant {
    /// As the Dockerfile has it, or `docker-image://`.
    pub(crate) name: String,
    /// For which platform.
    pub(crate) platform: Platform,
    /// Whether it is an image of a layout on this machine, which has no name elsewhere.
    pub(crate) layout: bool,
    /// What the name points to: a manifest or an index.
    pub(crate) root: Digest,
    /// The platform's manifest.
    pub(crate) manifest: Digest,
}

/// One image, resolved.
pub(crate) struct Base {
    /// All of it but its layers' bytes.
    pub(crate) image: LoadedImage,
    pub(super) origin: Origin,
}

/// An image, and the full name that it was found by.
pub(crate) struct Named {
    pub(crate) base: Arc<Base>,
    pub(crate) name: ImageRef,
    /// The registries that were asked for a short name before, and do not have it.
    passed: Vec<Attempt>,
}

impl Named {
    fn new(base: Arc<Base>, name: ImageRef) -> Self {
        Self { base, name, passed: Vec::new() }
    }

    /// Returns what to say of a short name that not the first registry had.
    pub(crate) fn warning(&self, written: &ImageRef) -> Option<String> {
        warning(written, &self.name, &self.passed)
    }
}

/// The next one may have it tomorrow, which would be another image.
pub(crate) fn warning(written: &ImageRef, found: &ImageRef, passed: &[Attempt]) -> Option<String> {
    let why: Vec<String> = passed.iter().map(|attempt| attempt.error.to_string()).collect();
    let why = (!why.is_empty()).then(|| why.join("; "))?;
    Some(format!("{} is {found} here: {why}", written.familiar()))
}

impl<'a> Bases<'a> {
    /// Knows nothing yet.
    pub(crate) fn new(store: &'a Store, registry: &'a RegistryClient) -> Self {
        let (found, layouts, meant) = Default::default();
        Self { store, registry, found, layouts, meant, patience: Patience::default() }
    }

    /// Waits for others as a build does.
    pub(crate) fn patient(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Finds the image that a name means: one of the local image store, else one of a registry, as docker does.
    pub(crate) fn by_name(&self, name: &ImageRef, platform: &Platform) -> Result<Named, Error> {
        if let Some(base) = self.local(name, platform)? {
            return Ok(Named::new(base, name.clone()));
        }
        if super::ids::is_id(name) {
            return Err(Error::NoSuchImage { name: name.clone() });
        }
        // What was pulled by this name has its full one.
        if name.short.0 {
            for full in self.registry.meaning(name)?.candidates {
                if let Some(base) = self.local(&full, platform)? {
                    return Ok(Named::new(base, full));
                }
            }
        }
        self.by_registry(name, platform).map_err(|error| match error {
            Error::Registry(error) => Error::NotHad { name: name.clone(), error },
            other => other,
        })
    }

    /// Finds the image that a name means at its registry.
    pub(crate) fn by_registry(&self, name: &ImageRef, platform: &Platform) -> Result<Named, Error> {
        let cached = |digest: &Digest| self.read_blob(digest);
        let had = self.registry.first(name, |full| self.registry.resolve(full, platform, &cached))?;
        let image = had.what;
        for document in [&image.root, &image.manifest, &image.config] {
            if !self.store.has_blob(&document.digest) {
                self.store.put_blob(&document.bytes)?;
            }
        }
        let base = self.keep(Base { image, origin: Origin::Registry(had.image.clone()) });
        Ok(Named { passed: had.passed, ..Named::new(base, had.image) })
    }

    /// Returns how looking for an image is called. No file is read for a name that has a registry, or that the local image
    /// store has.
    pub(crate) fn describe(&self, name: &ImageRef, asked: bool) -> String {
        if !asked && self.store.image(name).is_ok_and(|known| known.is_some()) {
            return name.to_string();
        }
        // What is wrong with a file is told by who asks.
        self.registry.meaning(name).map_or_else(|_| name.to_string(), |meaning| meaning.describe(name))
    }

    /// Finds the image that a named build context means.
    pub(crate) fn by_context(&self, source: &NamedSource, platform: &Platform) -> Result<Arc<Base>, Error> {
        match source {
            NamedSource::Image(name) => Ok(self.by_name(name, platform)?.base),
            NamedSource::OciLayout { path, tag, digest } => {
                let layout = self.layout(path)?;
                let image = layout.load(tag.as_deref(), *digest, platform)?;
                Ok(self.keep(Base { image, origin: Origin::Layout(layout) }))
            }
            NamedSource::Files(source) => Err(Error::NotAnImage { context: source.to_string() }),
        }
    }

    /// Finds an image of the local image store; none if the name is unknown or has no such platform.
    pub(crate) fn local(&self, name: &ImageRef, platform: &Platform) -> Result<Option<Arc<Base>>, Error> {
        let Some(digest) = super::ids::digest_of(self.store, name)? else { return Ok(None) };
        // It is used now: what a running build found is not taken away from it, nor counts it as old.
        if !self.store.has_blob(&digest) {
            return Ok(None);
        }
        let Some(bytes) = self.read_blob(&digest) else { return Ok(None) };
        let root = kiln_oci::Document::new("", bytes);
        let mut fetch = |info: &kiln_oci::BlobInfo| -> Result<Vec<u8>, Error> {
            self.read_blob(&info.digest)
                .ok_or(Error::Store(kiln_store::StoreError::NoBlob { digest: info.digest }))
        };
        match kiln_oci::load(root, platform, &mut fetch) {
            Ok(image) => {
                // A single manifest is loaded whatever its platform is; another one's is no answer here.
                if image.image.platform() != *platform {
                    return Ok(None);
                }
                Ok(Some(self.keep(Base { image, origin: Origin::Store })))
            }
            Err(Error::Oci(kiln_oci::OciError::NoPlatform { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes what a name means.
    pub(crate) fn note(&self, name: &str, source: Option<&NamedSource>, platform: &Platform, base: &Base) {
        let name = match source {
            Some(NamedSource::Image(name)) => name.to_string(),
            _ => name.to_owned(),
        };
        let meant = Meant {
            name,
            platform: platform.clone(),
            layout: matches!(source, Some(NamedSource::OciLayout { .. })),
            root: base.image.root.digest,
            manifest: base.image.digest(),
        };
        self.meant.lock().unwrap_or_else(PoisonError::into_inner).push(meant);
    }

    /// Returns what names meant, sorted, each once.
    pub(crate) fn meant(&self) -> Vec<Meant> {
        let mut meant = self.meant.lock().unwrap_or_else(PoisonError::into_inner).clone();
        meant.sort();
        meant.dedup();
        meant
    }

    /// Returns a resolved image by its manifest's digest.
    pub(crate) fn get(&self, manifest: &Digest) -> Option<Arc<Base>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(manifest).cloned()
    }

    fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.store.blob_path(digest)).ok()?;
        // Manifests and configurations are small: a look at the bytes is cheaper than trust.
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    fn layout(&self, path: &std::path::Path) -> Result<Arc<Layout>, Error> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = layouts.get(path) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::open(path)?);
        layouts.insert(path.to_owned(), Arc::clone(&layout));
        Ok(layout)
    }

    fn keep(&self, base: Base) -> Arc<Base> {
        let base = Arc::new(base);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(found.entry(base.image.manifest.digest).or_insert(base))
    }
}
