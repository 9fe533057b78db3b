//! Reading an image: from its place to a tree of documents, and where its blobs are.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use kiln_core::{Cancel, Digest, ImageRef, IoError, IoResultExt as _, Layer, Platform};
use kiln_oci::{
    Archive, ArchivedImage, BlobInfo, DockerArchive, Document, Layout, LayoutEntry, MAX_DOCUMENT, OciError,
};
use kiln_registry::{DaemonOptions, RegistryClient, RegistryError};
use kiln_store::{Spooled, Store, begins_archive};

use super::blobs::{Origin, of_archive};
use super::tree::Tree;
use crate::Error;
use crate::engine::bases::warning;
use crate::engine::ids;
use crate::engine::layers::is_contents;
use crate::engine::reporter::Reporter;
use crate::request::{ImagePlace, Platforms};

/// What reading needs.
pub(crate) struct Reader<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a RegistryClient,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) daemon: &'a DaemonOptions,
}

/// An image that was found.
pub(crate) struct Found {
    pub(crate) tree: Tree,
    pub(crate) origin: Origin,
    /// The full name that it was found by, in a registry or in the local image store.
    pub(crate) name: Option<ImageRef>,
    /// Keeps what a pipe held for as long as it is read.
    pub(crate) spooled: Option<Arc<Spooled>>,
}

impl Reader<'_> {
    /// Finds the image that a place names.
    pub(crate) fn one(&self, place: &ImagePlace, platforms: &Platforms) -> Result<Found, Error> {
        match place {
            ImagePlace::Store(name) => {
                let full = ids::full(self.store, name)?;
                let digest = ids::digest_of(self.store, &full)?;
                let digest = digest.ok_or_else(|| Error::NoSuchImage { name: name.clone() })?;
                let root = Document::typed(self.read_blob(&digest)?)?;
                Ok(Found { name: Some(full), ..self.found(root, Origin::Store, platforms)? })
            }
            ImagePlace::Registry(name) => {
                let meaning = self.registry.meaning(name)?;
                let title = format!("[internal] load metadata for {}", meaning.describe(name));
                let task = self.reporter.task(&title);
                let found = self.of_registry(name, platforms);
                task.end_with(&found);
                found
            }
            ImagePlace::Layout { path, tag } => {
                let found = Layout::open(path).map_err(Error::from);
                let found = found.and_then(|layout| self.of_layout(layout, tag.as_deref(), platforms, None));
                found.map_err(|error| of_file(error, Some(path)))
            }
            ImagePlace::OciArchive { path, tag } => {
                let (archive, spooled) = self.archive(path.as_deref())?;
                match archive {
                    Archive::Layout(layout) => {
                        let found = self.of_layout(layout, tag.as_deref(), platforms, spooled);
                        found.map_err(|error| of_file(error, path.as_deref()))
                    }
                    Archive::Docker(_) => {
                        let reason = "it is docker's archive: write docker-archive:".to_owned();
                        let path = path.clone().unwrap_or_else(|| STDIN.into());
                        Err(OciError::NotALayout { path, reason }.into())
                    }
                }
            }
            ImagePlace::DockerArchive { path, name } => {
                let (archive, spooled) = self.archive(path.as_deref())?;
                let found = self.named(archive, name.as_ref(), path.as_deref(), platforms, spooled);
                found.map_err(|error| of_file(error, path.as_deref()))
            }
            ImagePlace::Engine(name) => self.of_daemon(name, platforms),
        }
    }

    /// Reads all images of an archive of either kind: a file's, or standard input's.
    pub(crate) fn all(&self, path: Option<&Path>) -> Result<Vec<Found>, Error> {
        let (archive, spooled) = self.archive(path)?;
        self.all_of(archive, spooled).map_err(|error| of_file(error, path))
    }

    fn all_of(&self, archive: Archive, spooled: Option<Arc<Spooled>>) -> Result<Vec<Found>, Error> {
        match archive {
            Archive::Layout(layout) => {
                let layout = Arc::new(layout);
                let mut images: Vec<(Digest, Found)> = Vec::new();
                for entry in layout.entries()? {
                    let name = name_of(&entry)?;
                    // An image has an entry for each of its names.
                    if let Some((_, found)) =
                        images.iter_mut().find(|(digest, _)| *digest == entry.info.digest)
                    {
                        found.tree.names.extend(name);
                        continue;
                    }
                    let origin = Origin::Layout(Arc::clone(&layout));
                    let root = self.document(&origin, &entry.info)?;
                    let digest = root.digest;
                    let mut found = self.found(root, origin, &Platforms::All)?;
                    found.tree.names.extend(name);
                    found.spooled = spooled.clone();
                    images.push((digest, found));
                }
                Ok(images.into_iter().map(|(_, found)| found).collect())
            }
            Archive::Docker(archive) => {
                let mut taken = HashMap::new();
                let images = archive.images()?;
                images.iter().map(|image| self.of_docker(&archive, image, &mut taken)).collect()
            }
        }
    }

    /// Opens an archive. What is compressed, or comes from a pipe, is written to the store first: its list of contents
    /// may be anywhere in it.
    fn archive(&self, path: Option<&Path>) -> Result<(Archive, Option<Arc<Spooled>>), Error> {
        let Some(path) = path else {
            return self.spooled(STDIN, std::io::stdin().lock());
        };
        let mut file = File::open(path).at("open", path)?;
        let meta = file.metadata().at("stat", path)?;
        if meta.is_dir() {
            return Ok((Archive::open(path)?, None));
        }
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).at("read", path)?;
        if !begins_archive(&start) {
            let reason = "it is no tar archive".to_owned();
            return Err(OciError::NotALayout { path: path.to_owned(), reason }.into());
        }
        // A plain tar does not begin like a compressed one.
        if meta.is_file() && start.get(257..262) == Some(b"ustar") {
            let archive = Archive::open(path).map_err(|error| of_archive(error.into(), path))?;
            return Ok((archive, None));
        }
        self.spooled(&path.display().to_string(), std::io::Cursor::new(start).chain(file))
    }

    /// Writes an archive to the store for as long as it is read.
    pub(crate) fn spooled(
        &self,
        name: &str,
        reader: impl Read,
    ) -> Result<(Archive, Option<Arc<Spooled>>), Error> {
        let task = self.reporter.task(&format!("[internal] read {name}"));
        let spooled = self.store.spool(name, reader, self.cancel);
        task.end_with(&spooled);
        let spooled = spooled?;
        let archive = Archive::open_as(spooled.path(), Path::new(name));
        let archive = archive.map_err(|error| of_archive(error.into(), Path::new(name)))?;
        Ok((archive, Some(Arc::new(spooled))))
    }

    fn of_registry(&self, name: &ImageRef, platforms: &Platforms) -> Result<Found, Error> {
        let had = self.registry.first(name, |full| self.registry.resolve_digest(full))?;
        if let Some(warning) = warning(name, &had.image, &had.passed) {
            self.reporter.warn(warning, None);
        }
        let (digest, name) = (had.what, &had.image);
        let found = self.of_manifest(name, digest, platforms).map_err(|error| match error {
            Error::Oci(error) => {
                let image = ImageRef { digest: Some(digest), ..name.clone() }.familiar();
                RegistryError::Image { image, error }.into()
            }
            other => other,
        })?;
        Ok(Found { name: Some(name.clone()), ..found })
    }

    fn of_manifest(&self, name: &ImageRef, digest: Digest, platforms: &Platforms) -> Result<Found, Error> {
        let root = match self.cached(&digest).and_then(|bytes| Document::typed(bytes).ok()) {
            Some(root) => root,
            None => Document::typed(self.registry.manifest(name, digest)?.bytes)?,
        };
        self.found(root, Origin::Registry(name.clone()), platforms)
    }

    fn of_layout(
        &self,
        layout: Layout,
        tag: Option<&str>,
        platforms: &Platforms,
        spooled: Option<Arc<Spooled>>,
    ) -> Result<Found, Error> {
        let digest = tag.and_then(|tag| tag.strip_prefix('@')?.parse().ok());
        let tag = tag.filter(|_| digest.is_none());
        let info = layout.root(tag, digest, &wanted(platforms))?;
        let origin = Origin::Layout(Arc::new(layout));
        let mut found = self.found(self.document(&origin, &info)?, origin, platforms)?;
        found.spooled = spooled;
        Ok(found)
    }

    /// Picks one image of an archive by its name.
    pub(crate) fn named(
        &self,
        archive: Archive,
        name: Option<&ImageRef>,
        path: Option<&Path>,
        platforms: &Platforms,
        spooled: Option<Arc<Spooled>>,
    ) -> Result<Found, Error> {
        let path = path.map_or_else(|| STDIN.into(), Path::to_owned);
        if let Archive::Docker(archive) = &archive {
            // Only the layers of the one that is wanted are taken in.
            let images = archive.images()?;
            let has = |image: &&ArchivedImage| {
                let mut names = image.names.iter().filter_map(|name| name.parse::<ImageRef>().ok());
                name.is_none_or(|wanted| names.any(|name| name == *wanted))
            };
            let all: Vec<String> = images.iter().flat_map(|image| image.names.clone()).collect();
            let fits: Vec<&ArchivedImage> = images.iter().filter(has).collect();
            return match (&fits[..], name) {
                ([image], _) => self.of_docker(archive, image, &mut HashMap::new()),
                ([], name) => Err(no_image(path, name, all)),
                _ => Err(OciError::SeveralImages { path, available: all }.into()),
            };
        }
        let mut all = self.all_of(archive, spooled)?;
        let names = all.iter().flat_map(|found| found.tree.names.iter().map(ImageRef::familiar)).collect();
        if let Some(wanted) = name {
            all.retain(|found| found.tree.names.contains(wanted));
        }
        match all.len() {
            0 => Err(no_image(path, name, names)),
            1 => {
                let mut found = all.remove(0);
                self.narrow(&mut found, platforms)?;
                Ok(found)
            }
            _ => Err(OciError::SeveralImages { path, available: names }.into()),
        }
    }

    /// Leaves of an index only what is wanted.
    pub(crate) fn narrow(&self, found: &mut Found, platforms: &Platforms) -> Result<(), Error> {
        let root = self.select(found.tree.root().clone(), &found.origin, platforms)?;
        let names = std::mem::take(&mut found.tree.names);
        found.tree = Tree::read(root, &mut |info| self.document(&found.origin, info))?;
        found.tree.names = names;
        Ok(())
    }

    /// Makes an image of docker's archive one of the store's; `taken` knows layers that were seen before.
    fn of_docker(
        &self,
        archive: &DockerArchive,
        image: &ArchivedImage,
        taken: &mut HashMap<Digest, Layer>,
    ) -> Result<Found, Error> {
        let mut names = Vec::new();
        for name in &image.names {
            names.push(name.parse::<ImageRef>()?);
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            if let Some(layer) = taken.get(&layer.diff_id) {
                layers.push(layer.clone());
                continue;
            }
            let task = self.reporter.task(&format!("loading layer {}", layer.diff_id.short()));
            let layer = archive.layer(layer).map_err(Error::from).and_then(|reader| {
                Ok(self.store.take_layer(&layer.name, reader, Some(layer.diff_id), self.cancel)?)
            });
            task.end_with(&layer);
            let layer = layer?;
            taken.insert(layer.diff_id, layer.clone());
            layers.push(layer);
        }
        self.store.put_blob(&image.config.bytes)?;
        let manifest = kiln_oci::manifest(&image.config, &layers);
        let mut found = self.found(manifest, Origin::Store, &Platforms::All)?;
        found.tree.names = names;
        Ok(found)
    }

    fn found(&self, root: Document, origin: Origin, platforms: &Platforms) -> Result<Found, Error> {
        let root = self.select(root, &origin, platforms)?;
        let tree = Tree::read(root, &mut |info| self.document(&origin, info))?;
        Ok(Found { tree, origin, name: None, spooled: None })
    }

    /// Goes down to the manifest that is wanted, if one is.
    fn select(&self, root: Document, origin: &Origin, platforms: &Platforms) -> Result<Document, Error> {
        let index = kiln_oci::media::is_index(&root.media_type);
        match platforms {
            Platforms::All => return Ok(root),
            Platforms::Host if !index => return Ok(root),
            _ => {}
        }
        let wanted = wanted(platforms);
        let loaded = kiln_oci::load(root, &wanted, &mut |info| self.small(origin, info))?;
        let offered = loaded.image.platform();
        if !index && kiln_oci::matches(&wanted, &offered).is_none() {
            let available = vec![offered.to_string()];
            return Err(OciError::NoPlatform { wanted: wanted.to_string(), available }.into());
        }
        let BlobInfo { digest, .. } = loaded.manifest.info();
        let typed = Document::typed(loaded.manifest.bytes)?;
        debug_assert_eq!(typed.digest, digest);
        Ok(typed)
    }

    /// Brings a manifest or index.
    pub(super) fn document(&self, origin: &Origin, info: &BlobInfo) -> Result<Document, Error> {
        let bytes = match origin {
            Origin::Registry(name) => match self.cached(&info.digest) {
                Some(bytes) => bytes,
                None => self.registry.manifest(name, info.digest)?.bytes,
            },
            _ => self.small(origin, info)?,
        };
        Ok(Document::typed(bytes)?)
    }

    /// Brings a small blob, verified.
    pub(crate) fn small(&self, origin: &Origin, info: &BlobInfo) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.cached(&info.digest) {
            return Ok(bytes);
        }
        let BlobInfo { digest, size, .. } = *info;
        if size > MAX_DOCUMENT {
            return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
        }
        let mut bytes = Vec::new();
        let mut read = |reader: &mut dyn Read| {
            let read = reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
            read.map_err(|error| {
                let known = crate::engine::arrival::of_source(&error);
                known.unwrap_or_else(|| IoError::new("read", digest.to_string(), &error).into())
            })
        };
        match origin {
            Origin::Store => return Err(kiln_store::StoreError::NoBlob { digest }.into()),
            Origin::Layout(layout) => read(&mut layout.blob(info)?)?,
            Origin::Registry(name)
                if kiln_oci::media::is_manifest(&info.media_type)
                    || kiln_oci::media::is_index(&info.media_type) =>
            {
                bytes = self.registry.manifest(name, digest)?.bytes;
                bytes.len()
            }
            Origin::Registry(name) => read(&mut self.registry.blob(name, info, None)?)?,
        };
        Ok(Document::verified(info, bytes)?.bytes)
    }

    fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        self.cached(digest).ok_or_else(|| kiln_store::StoreError::NoBlob { digest: *digest }.into())
    }

    /// A small blob of the store, if it has it and it is whole.
    fn cached(&self, digest: &Digest) -> Option<Vec<u8>> {
        let size = self.store.blob_size(digest).ok()?;
        let bytes = (size <= MAX_DOCUMENT).then(|| std::fs::read(self.store.blob_path(digest)).ok())??;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }
}

const STDIN: &str = "standard input";

/// Says which archive is not what it says, or has a layer that is not what its image says.
fn of_file(error: Error, path: Option<&Path>) -> Error {
    let path = path.unwrap_or(Path::new(STDIN));
    match error {
        Error::Store(error) if is_contents(&error) => {
            Error::Layer { place: path.display().to_string(), file: true, error: Box::new(error) }
        }
        other => of_archive(other, path),
    }
}

fn wanted(platforms: &Platforms) -> Platform {
    match platforms {
        Platforms::One(platform) => platform.clone(),
        Platforms::Host | Platforms::All => Platform::host(),
    }
}

/// The whole name, or a tag that is one: podman and skopeo write names there, others only tags.
fn name_of(entry: &LayoutEntry) -> Result<Option<ImageRef>, Error> {
    let tag = entry.tag.as_ref().filter(|tag| tag.contains([':', '/']));
    Ok(entry.name.as_ref().or(tag).map(|name| name.parse()).transpose()?)
}

fn no_image(path: std::path::PathBuf, name: Option<&ImageRef>, available: Vec<String>) -> Error {
    let wanted = name.map_or_else(|| "at all".to_owned(), ImageRef::familiar);
    OciError::NoImage { path, wanted, available }.into()
}
