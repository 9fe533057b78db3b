//! One build, from the request to the outputs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_core::{Cancel, Event, EventSink, ImageRef, Platform};
use kiln_dockerfile::{Diagnostic, Dockerfile, Severity};
use kiln_frontend::{
    BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, NamedContext, ResolvedImage,
};
use kiln_oci::Image;
use kiln_registry::RegistryClient;
use kiln_solver::{SolveError, Solved};
use kiln_store::LayerOptions;

use super::Engine;
use super::bases::{Base, Bases};
use super::contexts::Contexts;
use super::index::StoreIndex;
use super::packer::{self, Packer};
use super::reporter::Reporter;
use super::worker::{StepProgress, StepWorker};
use crate::request::{ContextSource, Output};
use crate::{BuildOutcome, BuildRequest, BuiltImage, DockerfileSource, Error};

/// A Dockerfile's text and how messages call it.
struct Source {
    file: String,
    text: String,
}

impl Engine {
    /// Builds.
    ///
    /// # Errors
    /// What is wrong with the request, the Dockerfile, a step, a registry, the store or the machine. Steps that ended
    /// well stay recorded: the next build goes on from them.
    pub fn build(
        &self,
        request: &BuildRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<BuildOutcome, Error> {
        let started = Instant::now();
        let reporter = Reporter::new(events);
        let _pin = self.store.pin()?;
        let result = self.build_with(request, &reporter, cancel, started);
        // Also after a failure: what was finished is worth keeping.
        self.store.finish_build()?;
        let outcome = result?;
        Ok(BuildOutcome { steps: reporter.into_reports(), ..outcome })
    }

    fn build_with(
        &self,
        request: &BuildRequest,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
        started: Instant,
    ) -> Result<BuildOutcome, Error> {
        let registry =
            RegistryClient::new(super::manage::registry_config(&request.registry), cancel.clone())?;
        let bases = Bases::new(&self.store, &registry);
        let task =
            reporter.task(&format!("[internal] load build definition from {}", name_of(&request.dockerfile)));
        let source = read_dockerfile(&request.dockerfile)?;
        let (file, diagnostics) = kiln_dockerfile::parse(&source.text);
        refuse(&source, diagnostics)?;
        let contexts = Contexts::open(request, &self.store)?;
        task.done();

        let plan = plan(request, &source, &file, &bases, reporter)?;
        for diagnostic in &plan.diagnostics {
            let line = |offset| kiln_dockerfile::Position::of(&source.text, offset).line;
            let lines = (line(diagnostic.span.start), line(diagnostic.span.end));
            reporter.warn(diagnostic.message.clone(), Some(lines));
        }
        let epoch =
            request.source_date_epoch.or_else(|| request.build_args.get("SOURCE_DATE_EPOCH")?.parse().ok());
        let (solved, images) =
            self.solve(request, &source, &plan, &contexts, &bases, reporter, cancel, epoch)?;
        let digest = self.export(request, &plan, &solved, &images, &bases, reporter, cancel)?;
        Ok(BuildOutcome {
            digest,
            images: images.iter().map(built).collect(),
            tags: if digest.is_some() { request.tags.clone() } else { Vec::new() },
            steps: Vec::new(),
            duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one build, each used here alone")]
    fn solve(
        &self,
        request: &BuildRequest,
        source: &Source,
        plan: &BuildPlan,
        contexts: &Contexts,
        bases: &Bases<'_>,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
        epoch: Option<u64>,
    ) -> Result<(Solved, Vec<Image>), Error> {
        let index = StoreIndex::new(&self.store, now());
        let wanted: Vec<_> = plan.images.iter().filter_map(|image| image.rootfs).collect();
        reporter.emit(Event::PlanReady { steps: plan.graph.len() });
        // Steps get their numbers in the order of the Dockerfile, whatever order they end in.
        for (id, step) in plan.graph.iter() {
            if !matches!(step.op, kiln_core::Op::Context(_)) {
                reporter.number(id, &step.info.title, step.info.lines);
            }
        }
        let worker = StepWorker {
            entered: &self.entered,
            store: &self.store,
            caches: &self.caches,
            graph: &plan.graph,
            contexts,
            bases,
            reporter,
            run_env: &plan.run_env,
            views: Default::default(),
            usages: Default::default(),
        };
        let jobs = request
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(4));
        let wants_images = wants_images(request);
        let depth =
            |manifest: &kiln_core::Digest| bases.get(manifest).map_or(0, |base| base.image.layers.len());
        let (packer, queue) = Packer::new(&plan.graph, &wanted, depth);
        let options = LayerOptions { epoch, ..LayerOptions::default() };
        let (solved, packed) = std::thread::scope(|scope| {
            let packing = scope.spawn(move || packer::pack(&self.store, &options, &queue));
            let progress = StepProgress { worker: &worker, packer: wants_images.then_some(&packer) };
            let solved = kiln_solver::solve(&plan.graph, &wanted, &worker, &index, &progress, jobs, cancel);
            packer.close();
            let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (solved, packed)
        });
        contexts.save()?;
        let solved = solved.map_err(|error| blame(error, source, plan))?;
        if !wants_images {
            return Ok((solved, Vec::new()));
        }
        let packed = packed?;
        let mut pack = |layer: &kiln_core::LayerId| match packed.get(layer) {
            Some(packed) => Ok(packed.clone()),
            None => Ok(self.store.layer_blob(layer, &options)?),
        };
        let mut images = Vec::new();
        for planned in &plan.images {
            let base = base_of(plan, planned, bases);
            let layers = base.map_or_else(Vec::new, |base| base.image.layers.clone());
            images.push(super::image::assemble(planned, &layers, &solved, &mut pack, epoch)?);
        }
        if epoch.is_none() {
            self.remember_layers(&packed)?;
        }
        Ok((solved, images))
    }
}

/// Returns the image that a planned one starts from.
pub(crate) fn base_of(
    plan: &BuildPlan,
    planned: &kiln_frontend::PlannedImage,
    bases: &Bases<'_>,
) -> Option<std::sync::Arc<Base>> {
    let mut next = planned.rootfs;
    while let Some(id) = next {
        let step = plan.graph.get(id)?;
        if let kiln_core::Op::Image(op) = &step.op {
            return bases.get(&op.manifest);
        }
        next = step.op.root();
    }
    None
}

fn wants_images(request: &BuildRequest) -> bool {
    request.outputs.is_empty()
        || request.outputs.iter().any(|output| !matches!(output, Output::Local { .. } | Output::Tar { .. }))
}

fn plan(
    request: &BuildRequest,
    source: &Source,
    file: &Dockerfile,
    bases: &Bases<'_>,
    reporter: &Reporter<'_>,
) -> Result<BuildPlan, Error> {
    let contexts = request.build_contexts.iter().map(|(name, source)| {
        let kind = match source {
            ContextSource::Directory(_) => NamedContext::Files,
            ContextSource::OciLayout { .. } | ContextSource::Image(_) => NamedContext::Image,
        };
        (name.clone(), kind)
    });
    let options = LowerOptions {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        platforms: request.platforms.clone(),
        build_platform: Some(Platform::host()),
        labels: request.labels.clone(),
        contexts: contexts.collect(),
        no_cache: request.no_cache,
        no_cache_filter: Vec::new(),
    };
    let mut table = ImageTable::new();
    loop {
        let lowered = kiln_frontend::lower(file, &options, &table)
            .map_err(|diagnostics| source.refused(diagnostics))?;
        match lowered {
            Lowered::Ready(plan) => return Ok(*plan),
            Lowered::NeedImages(requests) => {
                let resolved: Vec<Result<ResolvedImage, Error>> = std::thread::scope(|scope| {
                    let threads: Vec<_> = requests
                        .iter()
                        .map(|wanted| scope.spawn(|| resolve(request, wanted, bases, reporter)))
                        .collect();
                    let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    };
                    threads.into_iter().map(join).collect()
                });
                for (wanted, resolved) in requests.into_iter().zip(resolved) {
                    table.insert(wanted, resolved?);
                }
            }
        }
    }
}

fn resolve(
    request: &BuildRequest,
    wanted: &ImageRequest,
    bases: &Bases<'_>,
    reporter: &Reporter<'_>,
) -> Result<ResolvedImage, Error> {
    let named = request.build_contexts.get(&wanted.name);
    let title = match (named, wanted.name.parse::<ImageRef>()) {
        (None, Ok(name)) => format!("[internal] load metadata for {name}"),
        _ => format!("[internal] load metadata for {}", wanted.name),
    };
    let task = reporter.task(&title);
    let found = match named {
        Some(source) => bases.by_context(source, &wanted.platform),
        None => match wanted.name.parse::<ImageRef>() {
            Ok(name) => bases.by_name(&name, &wanted.platform),
            Err(error) => Err(Error::Reference(error)),
        },
    };
    task.end_with(&found);
    let base = found?;
    if base.image.image.platform() != wanted.platform {
        reporter.warn(
            format!("{} is for {}, not for {}", wanted.name, base.image.image.platform(), wanted.platform),
            None,
        );
    }
    Ok(ResolvedImage { manifest: base.image.digest(), config: base.image.image.clone() })
}

/// Names the step that failed, with its place in the Dockerfile.
fn blame(error: SolveError<Error>, source: &Source, plan: &BuildPlan) -> Error {
    let (id, error) = match error {
        SolveError::Step { id, error } | SolveError::Index { id, error } => (id, error),
        SolveError::Thread { id, error } => (id, Error::Io(error)),
        SolveError::Cancelled => return Error::Interrupted,
    };
    let Some(step) = plan.graph.get(id) else { return error };
    let (file, text) = (source.file.clone(), source.text.clone());
    let (title, lines) = (step.info.title.clone(), step.info.lines);
    match error {
        Error::Interrupted => Error::Interrupted,
        Error::Exited { status, tail } => Error::StepFailed { file, text, title, lines, status, tail },
        error => Error::Step { file, text, title, lines, error: Box::new(error) },
    }
}

fn built(image: &Image) -> BuiltImage {
    BuiltImage {
        platform: image.platform.clone(),
        manifest: image.manifest.digest,
        config: image.config.digest,
        size: image.layers.iter().map(|layer| layer.size).sum(),
    }
}

fn refuse(source: &Source, diagnostics: Vec<Diagnostic>) -> Result<(), Error> {
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(source.refused(diagnostics));
    }
    Ok(())
}

impl Source {
    fn refused(&self, diagnostics: Vec<Diagnostic>) -> Error {
        Error::Dockerfile { file: self.file.clone(), text: self.text.clone(), diagnostics }
    }
}

fn name_of(source: &DockerfileSource) -> String {
    match source {
        DockerfileSource::Path(path) => path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
        DockerfileSource::Text(_) => "standard input".to_owned(),
    }
}

fn read_dockerfile(source: &DockerfileSource) -> Result<Source, Error> {
    match source {
        DockerfileSource::Text(text) => Ok(Source { file: "Dockerfile".to_owned(), text: text.clone() }),
        DockerfileSource::Path(path) => {
            let bytes = std::fs::read(path).map_err(|error| no_dockerfile(path, &error))?;
            let text = String::from_utf8(bytes).map_err(|_| Error::NotUtf8 { path: path.clone() })?;
            Ok(Source { file: path.display().to_string(), text })
        }
    }
}

fn no_dockerfile(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return kiln_core::IoError::new("read", path, error).into();
    }
    // People call it all sorts of things: say what is there.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut nearby: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().to_ascii_lowercase().ends_with("file"))
        .collect();
    nearby.sort();
    Error::NoDockerfile { path: path.to_owned(), nearby }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
