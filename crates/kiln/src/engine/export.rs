//! Where a result goes.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, Digest, Event, ImageRef, IoError, IoResultExt as _, Snapshot};
use kiln_frontend::BuildPlan;
use kiln_oci::{BlobSource, Document, Documents, Image, Root};
use kiln_runtime::IdMode;
use kiln_solver::Solved;
use kiln_store::copy::export_tree;
use kiln_store::owner::LinkOwners;
use kiln_store::{Store, WholeTree};

use super::Engine;
use super::build::Build;
use super::trees::View;
use crate::Error;
use crate::request::{BuildRequest, ImageForm, Output};

impl Build<'_> {
    /// Writes every output asked for; returns what the image's name points to.
    pub(super) fn export(&self, solved: &Solved, images: &[Image]) -> Result<Option<Digest>, Error> {
        let Self { engine, request, plan, bases, reporter, cancel, .. } = self;
        let index = (plan.index || images.len() > 1).then(|| {
            let all: Vec<&Image> = images.iter().collect();
            kiln_oci::index(&all, &Default::default())
        });
        let documents =
            || images.iter().flat_map(|image| [&image.manifest, &image.config]).chain(index.as_ref());
        let root = index.as_ref().or_else(|| images.first().map(|image| &image.manifest));
        let default = [Output::image()];
        let outputs = if request.outputs.is_empty() { &default[..] } else { &request.outputs };
        let below = StoreBlobs(&engine.store);
        let blobs = Documents::over(documents(), &below);
        let platform = images.first().filter(|_| index.is_none()).map(|image| &image.platform);
        let mut fetched = false;
        for output in outputs {
            let task = reporter.task(&title(output));
            if is_image(output) && !std::mem::replace(&mut fetched, true) {
                // Layers of bases may have been found unpacked, or not have been needed at all.
                for base in plan.images.iter().filter_map(|planned| self.base_of(planned)) {
                    bases.fetch(&base, &task, cancel)?;
                }
            }
            let names = &names(request, output)[..];
            let roots: Vec<Root<'_>> =
                root.map(|document| Root { document, platform, names }).into_iter().collect();
            match output {
                Output::CacheOnly => {}
                Output::Image { .. } => {
                    let Some(root) = root else { continue };
                    engine.keep(documents(), root, names)?;
                    let configs: Vec<Digest> = images.iter().map(|image| image.config.digest).collect();
                    super::ids::remember(&engine.store, &root.digest, &configs)?;
                }
                Output::Oci { dest: Some(dest), tar: false, .. } => {
                    kiln_oci::write_layout_dir(dest, &roots, &blobs)?;
                }
                Output::Oci { dest, .. } => {
                    to_file(dest.as_deref(), |out| Ok(kiln_oci::write_layout_tar(out, &roots, &blobs)?))?;
                }
                Output::Docker { dest, .. } => {
                    to_file(dest.as_deref(), |out| Ok(kiln_oci::write_docker_archive(out, &roots, &blobs)?))?;
                }
                Output::Local { dest } => engine.files(plan, solved, dest, cancel)?,
                Output::Tar { dest } => {
                    let views = engine.views(plan, solved, self.cancel)?;
                    let trees = views.iter().map(|(below, view, links)| {
                        Ok(WholeTree { view: view.root()?, links: links.clone(), below: below.clone() })
                    });
                    let trees = trees.collect::<Result<Vec<_>, Error>>()?;
                    to_file(dest.as_deref(), |out| {
                        Ok(engine.store.write_tar(trees, self.epoch, out, self.cancel)?)
                    })?;
                }
            }
            task.done();
            reporter.emit(Event::Exported {
                output: describe(output),
                digest: root.map(|root| root.digest).filter(|_| is_image(output)),
                names: names.iter().map(ImageRef::familiar).collect(),
            });
        }
        Ok(root.map(|root| root.digest))
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

/// Whether an output holds images, and not files alone.
pub(super) fn is_image(output: &Output) -> bool {
    output.form().is_some()
}

/// Refuses what there is not yet.
pub(super) fn can(output: &Output) -> Result<(), Error> {
    let Some(form) = output.form() else { return Ok(()) };
    let refuse = |reason: &str| Err(Error::Output { output: describe(output), reason: reason.to_owned() });
    if matches!(output, Output::Image { push: true, .. }) {
        return refuse(
            "pushing is not supported yet; write type=oci,dest=image.tar and push that with skopeo",
        );
    }
    form.check().or_else(|reason| refuse(&reason))?;
    if *form != (ImageForm { names: form.names.clone(), ..ImageForm::default() }) {
        return refuse("compression, media types and annotations cannot be chosen yet");
    }
    Ok(())
}

/// Returns the names that an output gets, each once.
fn names(request: &BuildRequest, output: &Output) -> Vec<ImageRef> {
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
        Output::Oci { .. } => "oci image format",
        Output::Docker { .. } => "docker image format",
        Output::Local { .. } => "client directory",
        Output::Tar { .. } => "client tarball",
    };
    format!("exporting to {what}")
}

/// Returns each image's files and the directory that they go into: of several platforms each has one of its own, as
/// buildx has it.
fn parts<'a>(plan: &'a BuildPlan, solved: &'a Solved) -> impl Iterator<Item = (String, Snapshot)> + use<'a> {
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

/// Writes a file that appears whole or not at all; or standard output, or into what is there and is no file: a pipe, a
/// device. A link stays one.
fn to_file(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(dest) = dest else {
        let mut out = BufWriter::with_capacity(256 * 1024, std::io::stdout().lock());
        write(&mut out)?;
        return Ok(out.flush().at("write to", "standard output")?);
    };
    let there = std::fs::metadata(dest).ok().map(|meta| meta.file_type());
    if there.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
        // Never renamed over: /dev/null would be gone.
        let pipe = File::options().write(true).open(dest).at("open", dest)?;
        let mut out = BufWriter::with_capacity(256 * 1024, pipe);
        write(&mut out)?;
        return Ok(out.flush().at("write to", dest)?);
    }
    let real = if there.is_some() { std::fs::canonicalize(dest).at("find", dest)? } else { dest.to_owned() };
    let dest = real.as_path();
    let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let half = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir).at("create a file in", dir)?;
    let mut out = BufWriter::with_capacity(256 * 1024, half);
    write(&mut out)?;
    out.flush().at("write", dest)?;
    let half = out.into_inner().map_err(|error| error.into_error()).at("write", dest)?;
    // As any program's output: by the umask, not a temporary file's 0600.
    let mode = 0o666 & !umask();
    rustix::fs::fchmod(half.as_file(), rustix::fs::Mode::from_raw_mode(mode)).at("set mode of", dest)?;
    half.persist(dest).map_err(|error| error.error).at("create", dest)?;
    Ok(())
}

/// The umask can only be read by setting it; from /proc it can be read without a race.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

fn describe(output: &Output) -> String {
    let to = |dest: &Option<PathBuf>| {
        dest.as_ref().map_or_else(|| "-".to_owned(), |dest| dest.display().to_string())
    };
    match output {
        Output::Oci { dest, tar: true, .. } => format!("type=oci,dest={}", to(dest)),
        Output::Oci { dest, tar: false, .. } => format!("type=oci,dest={},tar=false", to(dest)),
        Output::Docker { dest, .. } => format!("type=docker,dest={}", to(dest)),
        Output::Local { dest } => format!("type=local,dest={}", dest.display()),
        Output::Tar { dest } => format!("type=tar,dest={}", to(dest)),
        Output::Image { .. } => "image".to_owned(),
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
