//! What is the same for all instructions of one platform's build, and what they add to.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_core::{
    ContextOp, CopyFrom, CopyOp, CopySource, Digest, IgnoreList, ImageConfig, ImageOp, ImageRef, Op,
    Platform, Selection, StepGraph, StepId, StepInfo, Unpack,
};
use kiln_dockerfile::{Diagnostic, Rule, Span};

use crate::check;
use crate::diagnose::error;
use crate::place::Place;
use crate::settings::Settings;
use crate::source::Source;
use crate::stages::{Stages, Start};
use crate::state::StageState;
use crate::variables::Variables;
use crate::words::Words;
use crate::{ImageRequest, ImageTable, ResolvedImage};

/// The path that `RUN` looks for programs in when the image says nothing; BuildKit writes it into the image too.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One platform's build while it is lowered.
pub(crate) struct Lowering<'a> {
    /// Every stage.
    pub(crate) stages: &'a Stages<'a>,
    /// `--build-arg`s.
    pub(crate) build_args: &'a BTreeMap<String, String>,
    /// Settings of the program among them.
    pub(crate) settings: &'a Settings,
    /// What .dockerignore leaves out of the main context.
    pub(crate) ignore: &'a IgnoreList,
    /// Global scope.
    pub(crate) globals: &'a Variables,
    /// What is known of images.
    pub(crate) images: &'a ImageTable,
    /// Expands words and gathers warnings.
    pub(crate) words: &'a mut Words,
    /// Receives the steps; shared with other platforms' builds.
    pub(crate) graph: &'a mut StepGraph,
    /// Stages that are done, by number.
    pub(crate) done: Vec<Option<StageState>>,
}

impl<'a> Lowering<'a> {
    /// Returns the step that stands for the main build context.
    pub(crate) fn main_context(&mut self) -> StepId {
        self.context("", "[internal] load build context".to_owned())
    }

    /// Returns a step without files: what is mounted of an image or stage that has none.
    pub(crate) fn nothing(&mut self) -> StepId {
        let title = "[internal] an empty directory".to_owned();
        self.graph.add(Op::Copy(copy_to_root(Vec::new())), StepInfo { title, ..StepInfo::default() })
    }

    /// Returns the step with a source's files; none if it has no files.
    pub(crate) fn files(&mut self, source: &Source, span: Span) -> Result<Option<StepId>, Diagnostic> {
        match source {
            Source::Scratch => Ok(None),
            Source::Files(name) => Ok(Some(self.named_context(name))),
            Source::Stage(number) => Ok(self.stage(*number).rootfs),
            Source::Image(request) => {
                let image = self.image(request, span)?;
                let title = format!("FROM {}", full_name(&request.name, &image.manifest));
                Ok(self.image_step(image, StepInfo { title, ..StepInfo::default() }))
            }
        }
    }

    /// Returns what a stage is before its first instruction.
    pub(crate) fn start(&mut self, start: &Start, at: &Place<'_>) -> Result<StageState, Diagnostic> {
        let platform = start.platform.clone();
        let span = self.stages.get(at.stage).from.value.image.span;
        let mut state = match &start.source {
            Source::Scratch => StageState::new(nothing(&platform), None, platform, None),
            Source::Stage(number) => self.stage(*number).inherit(),
            Source::Image(request) => {
                let image = self.image(request, span)?;
                self.warn_of_platform(image, start, span);
                let title = format!("FROM {}", full_name(&request.name, &image.manifest));
                let rootfs = self.image_step(image, at.info_of_base(&platform, &title));
                let base = Some(Arc::new(image.config.clone()));
                StageState::new(image.config.clone(), rootfs, platform, base)
            }
            Source::Files(name) => {
                let from = self.named_context(name);
                let info = at.info_of_base(&platform, &format!("FROM {name}"));
                let rootfs = self.graph.add(Op::Copy(everything(from)), info);
                StageState::new(nothing(&platform), None, platform, None)
                    .with_step(rootfs, format!("FROM {name} # buildkit"))
            }
        };
        if start.replaced {
            return Ok(state);
        }
        // Triggers of the base run now, and are not handed on.
        state.config.config.on_build.clear();
        Ok(with_path(state))
    }

    fn stage(&self, number: usize) -> &StageState {
        self.done[number].as_ref().expect("a stage is lowered after those it needs")
    }

    fn image(&self, request: &ImageRequest, span: Span) -> Result<&'a ResolvedImage, Diagnostic> {
        self.images
            .get(request)
            .ok_or_else(|| error(span, format!("image `{}` is not resolved", request.name)))
    }

    /// An image without layers is like scratch.
    fn image_step(&mut self, image: &ResolvedImage, info: StepInfo) -> Option<StepId> {
        let config = &image.config;
        let has_layers =
            !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|line| !line.empty_layer);
        has_layers.then(|| self.graph.add(Op::Image(ImageOp { manifest: image.manifest }), info))
    }

    fn named_context(&mut self, name: &str) -> StepId {
        self.context(name, format!("[context {name}] load from client"))
    }

    fn context(&mut self, name: &str, title: String) -> StepId {
        let info = StepInfo { title, ..StepInfo::default() };
        self.graph.add(Op::Context(ContextOp { name: name.to_owned() }), info)
    }

    fn warn_of_platform(&mut self, image: &ResolvedImage, start: &Start, span: Span) {
        let config = &image.config;
        if config.architecture.is_empty() || config.os.is_empty() {
            return;
        }
        let (is, wanted) = (config.platform(), &start.platform);
        if is.os != wanted.os || is.architecture != wanted.architecture {
            let message = format!("base image `{}` is for {is}, but {wanted} is expected", start.written);
            self.words.warnings.push(check::finding(Rule::InvalidBaseImagePlatform, span, message));
        }
    }
}

/// What a stage begins with that begins with no image. The program says where its processes start, and `PATH`.
fn nothing(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::scratch(platform);
    config.config.working_dir = "/".to_owned();
    config
}

fn with_path(mut state: StageState) -> StageState {
    if state.image_env.get("PATH").is_none() {
        state.set_env("PATH", DEFAULT_PATH);
    }
    state
}

/// `docker.io/library/python:3.10@sha256:...`; a named context has no such name.
fn full_name(name: &str, manifest: &Digest) -> String {
    match name.parse::<ImageRef>() {
        Ok(image) => ImageRef { digest: image.digest.or(Some(*manifest)), ..image }.to_string(),
        Err(_) => format!("{name}@{manifest}"),
    }
}

/// A stage that starts from files has them as its first layer.
fn everything(step: StepId) -> CopyOp {
    copy_to_root(vec![CopySource::From(CopyFrom { step, selection: Selection::all() })])
}

fn copy_to_root(sources: Vec<CopySource>) -> CopyOp {
    CopyOp {
        root: None,
        sources,
        dest: "/".to_owned(),
        dest_is_dir: true,
        chown: None,
        chmod: None,
        unpack: Unpack::Never,
    }
}
