//! Where a result goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use kiln_core::{Cancel, Digest, Event, ImageRef, IoError, IoResultExt as _, Snapshot};
use kiln_frontend::BuildPlan;
use kiln_oci::{BlobSource, Document, Documents, Root};
use kiln_runtime::IdMode;
use kiln_solver::Solved;
use kiln_store::copy::export_tree;
use kiln_store::owner::LinkOwners;
use kiln_store::{Store, WholeTree};

use super::Engine;
use super::attest::{Claims, write_beside};
use super::build::Build;
use super::finished::{Finished, Packed};
use super::reporter::Task;
use super::to_file::to_file;
use super::trees::View;
use crate::request::{BuildRequest, ImageForm, Output};
use crate::{Error, Export};

/// What outputs made.
pub(super) struct Exports {
    /// In the form of the first output that holds an image.
    pub(super) first: Option<Finished>,
    pub(super) exports: Vec<Export>,
    /// The predicate of each platform's provenance.
    pub(super) provenance: BTreeMap<String, serde_json::Value>,
}

impl Build<'_> {
    /// Writes every output asked for. Images are put together once for each form.
    pub(super) fn export(&self, solved: &Solved, packed: &Packed, claims: &Claims) -> Result<Exports, Error> {
        let Self { engine, request, cancel, .. } = self;
        let default = [Output::image()];
        let outputs = if request.outputs.is_empty() { &default[..] } else { &request.outputs };
        let forms = self.forms(outputs, solved, packed, claims)?;
        // What the store keeps comes first; then it is synced while the rest is written, which nothing waits for.
        let (kept, rest): (Vec<_>, Vec<_>) = outputs
            .iter()
            .enumerate()
            .partition(|(_, output)| matches!(output, Output::Image { store: true, .. }));
        let mut exports = BTreeMap::new();
        for (number, output) in kept {
            exports.insert(number, self.export_one(output, &forms, solved, claims)?);
        }
        std::thread::scope(|scope| {
            let sync = || engine.store.finish_build();
            let syncing = (!rest.is_empty() && !cancel.is_cancelled()).then(|| scope.spawn(sync));
            for (number, output) in rest {
                exports.insert(number, self.export_one(output, &forms, solved, claims)?);
            }
            match syncing.map(ScopedJoinHandle::join) {
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                Some(Ok(synced)) => Ok(synced?),
                None => Ok::<_, Error>(()),
            }
        })?;
        let first = forms.into_iter().next().map(|(_, finished)| finished);
        self.write_claims(claims, solved, first.as_ref().map_or(&[], |first| &first.images))?;
        let exports = exports.into_values().collect();
        Ok(Exports { first, exports, provenance: claims.provenance() })
    }

    /// Puts the images together in each form that outputs ask for, in their order. What is written out of the store is there then.
    fn forms(
        &self,
        outputs: &[Output],
        solved: &Solved,
        packed: &Packed,
        claims: &Claims,
    ) -> Result<Vec<(ImageForm, Finished)>, Error> {
        // Before anything is fetched, if there are limits.
        let mut forms = self.within_limits(outputs, solved, packed, claims)?;
        if outputs.iter().any(needs_blobs) {
            self.fetch_bases()?;
        }
        for form in outputs.iter().filter_map(form_of) {
            if !forms.iter().any(|(known, _)| *known == form) {
                let task =
                    form.force_compression.then(|| self.reporter.task("packing layers of base images again"));
                let finished = self.finish(solved, packed, &form, claims)?;
                if let Some(task) = task {
                    task.done();
                }
                forms.push((form, finished));
            }
        }
        self.fetch_cached(outputs, &forms)?;
        Ok(forms)
    }

    /// Layers of results that came from elsewhere may be there still.
    fn fetch_cached(&self, outputs: &[Output], forms: &[(ImageForm, Finished)]) -> Result<(), Error> {
        let wanted = |form: &ImageForm| {
            let mut outputs = outputs.iter().filter(|output| needs_blobs(output));
            outputs.any(|output| form_of(output).as_ref() == Some(form))
        };
        let finished = forms.iter().filter(|(form, _)| wanted(form)).map(|(_, finished)| finished);
        let layers: Vec<_> =
            finished.flat_map(|finished| &finished.images).flat_map(|image| &image.layers).collect();
        if !self.cache.lacks_blobs(layers.iter().copied())? {
            return Ok(());
        }
        let task = self.reporter.task("fetching cached layers");
        let fetched = self.cache.fetch_blobs(layers, &task, self.cancel);
        // Without it all is done again, so that it is no failure of the build.
        if !self.cache.is_lost() {
            task.end_with(&fetched);
        }
        fetched
    }

    /// Layers of bases may have been found unpacked, or not have been needed at all.
    fn fetch_bases(&self) -> Result<(), Error> {
        let Self { engine, plan, bases, reporter, cancel, .. } = self;
        let all: Vec<_> = plan.images.iter().filter_map(|planned| self.base_of(planned)).collect();
        let mut layers = all.iter().flat_map(|base| &base.image.layers);
        if layers.all(|layer| engine.store.has_blob(&layer.digest)) {
            return Ok(());
        }
        let task = reporter.task("fetching layers of base images");
        for base in all {
            bases.fetch(&base, &task, cancel)?;
        }
        task.done();
        Ok(())
    }

    fn export_one(
        &self,
        output: &Output,
        forms: &[(ImageForm, Finished)],
        solved: &Solved,
        claims: &Claims,
    ) -> Result<Export, Error> {
        let Self { request, reporter, .. } = self;
        let task = reporter.task(&title(output));
        let form = form_of(output);
        let finished = forms.iter().find(|(known, _)| form.as_ref() == Some(known));
        let finished = finished.map(|(_, finished)| finished);
        let names = finished.map_or_else(Vec::new, |_| names(request, output));
        self.write(output, finished, &names, solved, claims, &task)?;
        task.done();
        let root = finished.and_then(Finished::root);
        let digest = root.map(|root| root.digest);
        reporter.emit(Event::Exported {
            output: describe(output),
            digest,
            names: names.iter().map(ImageRef::familiar).collect(),
        });
        Ok(Export {
            output: describe(output),
            digest,
            media_type: root.map(|root| root.media_type.clone()),
            size: root.map(|root| root.bytes.len() as u64),
            annotations: finished.and_then(Finished::annotations).cloned().unwrap_or_default(),
            names,
        })
    }

    fn write(
        &self,
        output: &Output,
        finished: Option<&Finished>,
        names: &[ImageRef],
        solved: &Solved,
        claims: &Claims,
        task: &Task<'_>,
    ) -> Result<(), Error> {
        let Self { engine, plan, cancel, .. } = self;
        let below = StoreBlobs(&engine.store);
        let blobs = Documents::over(finished.into_iter().flat_map(Finished::documents), &below);
        let root = finished.and_then(|finished| {
            let (platform, annotations) = (finished.platform(), finished.annotations());
            Some(Root { document: finished.root()?, platform, names, annotations, tag: None })
        });
        let roots: Vec<Root<'_>> = root.into_iter().collect();
        match output {
            Output::CacheOnly => {}
            Output::Image { push, store, .. } => {
                let Some((finished, root)) = finished.and_then(|one| Some((one, one.root()?))) else {
                    return Ok(());
                };
                if *store {
                    engine.keep(finished.documents(), root, names)?;
                    let configs: Vec<Digest> =
                        finished.images.iter().map(|image| image.config.digest).collect();
                    super::ids::remember(&engine.store, &root.digest, &configs)?;
                }
                if *push {
                    self.push(finished, names, task)?;
                }
            }
            Output::Oci { dest: Some(dest), tar: false, .. } => {
                kiln_oci::write_layout_dir(dest, &roots, &blobs)?;
            }
            Output::Oci { dest, .. } => {
                let dest = dest.as_deref();
                if !self.finish_archive(dest, &roots, &blobs, false)? {
                    to_file(dest, |out| Ok(kiln_oci::write_layout_tar(out, &roots, &blobs)?))?;
                }
            }
            Output::Docker { dest, .. } => {
                let dest = dest.as_deref();
                if !self.finish_archive(dest, &roots, &blobs, true)? {
                    to_file(dest, |out| Ok(kiln_oci::write_docker_archive(out, &roots, &blobs)?))?;
                }
            }
            Output::Daemon { daemon, .. } => {
                let image = finished.and_then(|finished| finished.images.first());
                if let (Some(root), Some(image)) = (roots.first(), image) {
                    super::transfer::daemon::load(daemon, root, &image.config.digest, &blobs, cancel)?;
                }
            }
            Output::Local { dest } => {
                engine.files(plan, solved, dest, cancel)?;
                for (which, (below, snapshot)) in parts(plan, solved).enumerate() {
                    write_beside(&dest.join(below), &self.beside(claims, which, &snapshot)?)?;
                }
            }
            Output::Tar { dest } => {
                let views = engine.views(plan, solved, self.cancel)?;
                let trees = views.iter().map(|(below, view, links)| {
                    Ok(WholeTree { view: view.root()?, links: links.clone(), below: below.clone() })
                });
                let trees = trees.collect::<Result<Vec<_>, Error>>()?;
                let mut beside = Vec::new();
                for (which, (below, snapshot)) in parts(plan, solved).enumerate() {
                    let files = self.beside(claims, which, &snapshot)?.into_iter();
                    beside.extend(files.map(|(name, bytes)| (Path::new(&below).join(name), bytes)));
                }
                to_file(dest.as_deref(), |out| {
                    Ok(engine.store.write_tar(trees, &beside, self.epoch, out, self.cancel)?)
                })?;
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Keeps an image in the local image store under its tags.
    fn keep<'d>(
        &self,
        documents: impl Iterator<Item = &'d Document>,
        root: &Document,
        tags: &[ImageRef],
    ) -> Result<(), Error> {
        for document in documents {
            if !self.store.has_blob(&document.digest) {
                self.store.put_blob(&document.bytes)?;
            }
        }
        for tag in tags {
            self.store.tag(tag, &root.digest)?;
        }
        Ok(())
    }

    /// `type=local`: the files.
    fn files(&self, plan: &BuildPlan, solved: &Solved, dest: &Path, cancel: &Cancel) -> Result<(), Error> {
        for (below, snapshot) in parts(plan, solved) {
            let dest = dest.join(below);
            std::fs::create_dir_all(&dest).at("create", &dest)?;
            let view = self.view_of(&snapshot, cancel)?;
            // Only real root can give files away; a user's ids inside would be strangers' outside.
            let keep_owners = *self.entered.ids() == IdMode::Root;
            export_tree(view.root()?, Path::new(""), &dest, keep_owners, cancel)?;
        }
        Ok(())
    }

    /// `type=tar`: the same for a tar.
    fn views(
        &self,
        plan: &BuildPlan,
        solved: &Solved,
        cancel: &Cancel,
    ) -> Result<Vec<(String, View<'_>, LinkOwners)>, Error> {
        let view = |(below, snapshot): (String, Snapshot)| {
            Ok((below, self.view_of(&snapshot, cancel)?, self.store.link_owners(&snapshot)?))
        };
        parts(plan, solved).map(view).collect()
    }

    /// Returns the merged view of a snapshot.
    pub(super) fn view_of(&self, snapshot: &Snapshot, cancel: &Cancel) -> Result<View<'_>, Error> {
        self.trees.view(&self.entered, snapshot, cancel)
    }
}

/// Whether an output holds the bytes of a base's layers. A registry may have them.
pub(super) fn needs_blobs(output: &Output) -> bool {
    match output {
        Output::Image { store: false, form, .. } => form.force_compression,
        output => is_image(output),
    }
}

/// Whether an output holds images, and not files alone.
pub(super) fn is_image(output: &Output) -> bool {
    output.form().is_some()
}

/// Returns the form that an output wants its images in.
pub(super) fn form_of(output: &Output) -> Option<ImageForm> {
    output.form().map(|form| ImageForm { names: Vec::new(), ..form.clone() })
}

/// Returns the names that an output gets, each once.
pub(super) fn names(request: &BuildRequest, output: &Output) -> Vec<ImageRef> {
    let own = output.form().map_or(&[][..], |form| &form.names);
    let mut names = request.tags.clone();
    names.extend(own.iter().filter(|name| !request.tags.contains(name)).cloned());
    names
}

/// What the progress display calls it, in BuildKit's words.
fn title(output: &Output) -> String {
    let what = match output {
        Output::CacheOnly => return "exporting nothing".to_owned(),
        Output::Image { .. } => "image",
        Output::Daemon { .. } => "the engine",
        Output::Oci { .. } => "oci image format",
        Output::Docker { .. } => "docker image format",
        Output::Local { .. } => "client directory",
        Output::Tar { .. } => "client tarball",
    };
    format!("exporting to {what}")
}

/// Returns each image's files and the directory that they go into: of several platforms each has one of its own, as
/// buildx has it.
pub(super) fn parts<'a>(
    plan: &'a BuildPlan,
    solved: &'a Solved,
) -> impl Iterator<Item = (String, Snapshot)> + use<'a> {
    plan.images.iter().map(|planned| {
        let finished = planned.rootfs.and_then(|id| solved.results.get(&id));
        let snapshot = finished.map_or_else(Snapshot::default, |finished| finished.snapshot.clone());
        let below = match plan.images.len() {
            1 => String::new(),
            _ => planned.platform.to_string().replace('/', "_"),
        };
        (below, snapshot)
    })
}

/// What it is called in events and messages.
pub(super) fn describe(output: &Output) -> String {
    let to = |dest: &Option<PathBuf>| {
        dest.as_ref().map_or_else(|| "-".to_owned(), |dest| dest.display().to_string())
    };
    match output {
        Output::Oci { dest, tar: true, .. } => format!("type=oci,dest={}", to(dest)),
        Output::Oci { dest, tar: false, .. } => format!("type=oci,dest={},tar=false", to(dest)),
        Output::Docker { dest, .. } => format!("type=docker,dest={}", to(dest)),
        Output::Local { dest } => format!("type=local,dest={}", dest.display()),
        Output::Tar { dest } => format!("type=tar,dest={}", to(dest)),
        Output::Image { push: true, store: false, .. } => "type=registry".to_owned(),
        Output::Image { push: true, .. } => "type=image,push=true".to_owned(),
        Output::Image { .. } => "image".to_owned(),
        Output::Daemon { .. } => "docker-daemon".to_owned(),
        Output::CacheOnly => "type=cacheonly".to_owned(),
    }
}

/// The store's blobs, for an export.
struct StoreBlobs<'a>(&'a Store);

impl BlobSource for StoreBlobs<'_> {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        let file: File = File::open(self.0.blob_path(digest)).at("open", self.0.blob_path(digest))?;
        Ok(Box::new(file))
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.0.blob_path(digest)).filter(|path| path.exists())
    }
}
