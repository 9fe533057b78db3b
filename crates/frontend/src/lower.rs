//! From a file to a plan: per platform the needed stages in order, each a fold of its instructions.

use std::collections::BTreeSet;

use kiln_core::{ImageConfig, Platform, StepGraph};
use kiln_dockerfile::{Diagnostic, Dockerfile};

use crate::check::from_lines;
use crate::globals::{defaults, globals, proxies};
use crate::instruction::instruction;
use crate::lowering::Lowering;
use crate::place::{Naming, Place};
use crate::settings::{Settings, without_effect};
use crate::source::Source;
use crate::stages::{Needed, Stages};
use crate::state::StageState;
use crate::variables::Variables;
use crate::words::Words;
use crate::{BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, PlannedImage};

/// Turns a Dockerfile into a plan.
///
/// Only the stages that the target needs are looked at. What is wrong without any image being known is said first; then
/// every image is asked for at once. What they turn out to have left to do (ONBUILD) may need more.
///
/// # Errors
/// What is wrong or not supported, with its place; at least one is an error. Of each stage the first mistake that
/// depends on what is above it.
pub fn lower(
    file: &Dockerfile,
    options: &LowerOptions,
    images: &ImageTable,
) -> Result<Lowered, Vec<Diagnostic>> {
    let mut words = Words::new(file.directives.escape);
    let platforms = match &options.platforms[..] {
        [] => vec![options.build_platform.clone().unwrap_or_else(Platform::host)],
        platforms => platforms.to_vec(),
    };
    let settings = Settings::read(options).map_err(|error| vec![error])?;
    words.warnings.extend(without_effect(file, options));
    let mut builds = Vec::with_capacity(platforms.len());
    for platform in &platforms {
        match Build::prepare(file, options, &settings, platform, images, &mut words) {
            Ok(build) => builds.push(build),
            Err(errors) => return Err(once_each(errors.into_iter().chain(words.warnings))),
        }
    }
    let missing = missing_images(&builds, images);
    if !missing.is_empty() {
        return Ok(Lowered::NeedImages(missing));
    }
    let mut graph = StepGraph::new();
    let mut planned = Vec::with_capacity(builds.len());
    let mut errors = Vec::new();
    for build in &builds {
        match build.lower(images, &mut words, &mut graph) {
            Ok(image) => planned.push(image),
            Err(more) => errors.extend(more),
        }
    }
    let diagnostics = once_each(words.warnings);
    if !errors.is_empty() {
        return Err(once_each(errors.into_iter().chain(diagnostics)));
    }
    Ok(Lowered::Ready(Box::new(BuildPlan {
        graph,
        images: planned,
        run_env: proxies(&options.build_args),
        index: settings.multi_platform,
        source_date_epoch: builds.first().and_then(Build::source_date_epoch),
        diagnostics,
    })))
}

/// One platform's build, before any image is known.
pub(crate) struct Build<'a> {
    pub(crate) options: &'a LowerOptions,
    settings: &'a Settings,
    platform: Platform,
    pub(crate) globals: Variables,
    pub(crate) stages: Stages<'a>,
    pub(crate) target: usize,
    pub(crate) needed: Vec<Needed>,
}

impl<'a> Build<'a> {
    pub(crate) fn prepare(
        file: &'a Dockerfile,
        options: &'a LowerOptions,
        settings: &'a Settings,
        platform: &Platform,
        images: &ImageTable,
        words: &mut Words,
    ) -> Result<Self, Vec<Diagnostic>> {
        let globals = globals(file, options, platform, words)?;
        if let Ok(defaults) = defaults(file, options, platform, words) {
            words.warnings.extend(from_lines(file, &globals, &defaults, words));
        }
        let stages = Stages::new(file, options, platform);
        let target = stages.target().map_err(|error| vec![error])?;
        let needed = stages.needed(target, &globals, images, words)?;
        Ok(Self { options, settings, platform: platform.clone(), globals, stages, target, needed })
    }

    /// An empty one is none.
    fn source_date_epoch(&self) -> Option<String> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let given = self.options.build_args.get(NAME).map(String::as_str).or_else(|| self.globals.get(NAME));
        given.filter(|epoch| !epoch.is_empty()).map(str::to_owned)
    }

    fn lower(
        &self,
        images: &ImageTable,
        words: &mut Words,
        graph: &mut StepGraph,
    ) -> Result<PlannedImage, Vec<Diagnostic>> {
        let (mut states, errors) = self.states(images, words, graph);
        match states[self.target].take() {
            Some(state) if errors.is_empty() => Ok(self.image(state)),
            _ => Err(errors),
        }
    }

    /// Lowers the needed stages: what each is in the end, by number, and what is wrong.
    pub(crate) fn states(
        &self,
        images: &ImageTable,
        words: &mut Words,
        graph: &mut StepGraph,
    ) -> (Vec<Option<StageState>>, Vec<Diagnostic>) {
        let mut lowering = Lowering {
            stages: &self.stages,
            build_args: &self.options.build_args,
            settings: self.settings,
            ignore: &self.options.ignore,
            globals: &self.globals,
            images,
            words,
            graph,
            done: (0..self.stages.len()).map(|_| None).collect(),
        };
        let mut errors = Vec::new();
        for needed in &self.needed {
            // A stage that builds on a broken one has nothing of its own to say.
            let is_broken =
                |source: &Source| matches!(source, Source::Stage(n) if lowering.done[*n].is_none());
            if needed.sources.iter().any(is_broken) {
                continue;
            }
            match self.stage(needed, &mut lowering) {
                Ok(state) => lowering.done[needed.number] = Some(state),
                Err(error) => errors.push(error),
            }
        }
        (lowering.done, errors)
    }

    fn stage(&self, needed: &Needed, lowering: &mut Lowering<'_>) -> Result<StageState, Diagnostic> {
        let Needed { number, start, .. } = needed;
        let stage = self.stages.get(*number);
        let naming = Naming::of(needed, &self.stages, self.options, self.settings);
        let mut state = lowering.start(start, &naming.of_from(*number, stage))?;
        if start.replaced {
            return Ok(state);
        }
        lowering.words.enter_stage(state.args.names());
        let from = stage.from.value.image.span;
        for (place, trigger) in Place::of_triggers(needed, stage, &naming) {
            let warned = lowering.words.warnings.len();
            let done = instruction(state, &trigger.instruction.value, &place, lowering);
            let warnings = lowering.words.warnings.split_off(warned);
            lowering.words.warnings.extend(warnings.into_iter().map(|warning| trigger.tell(warning, from)));
            state = done.map_err(|error| trigger.tell(error, from))?;
        }
        Place::of_instructions(needed, stage, &naming)
            .try_fold(state, |state, (place, what)| instruction(state, what, &place, lowering))
    }

    fn image(&self, state: StageState) -> PlannedImage {
        let mut config = state.config;
        config.config.env = state.image_env.to_config();
        let labels = self.options.labels.iter();
        config.config.labels.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
        if !self.options.platforms.is_empty() {
            set_platform(&mut config, &self.platform);
        }
        PlannedImage {
            platform: config.platform(),
            rootfs: state.rootfs,
            config,
            history: state.history.flatten(),
            base: state.base.map(|base| ImageConfig::clone(&base)),
        }
    }
}

/// An image is for the platform that was asked for, whatever its base says (a cross-compiling stage may be its
/// base).
fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    let same = config.os == platform.os && config.architecture == platform.architecture;
    if !same || platform.variant.is_some() {
        config.variant.clone_from(&platform.variant);
    }
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
}

pub(crate) fn missing_images(builds: &[Build<'_>], images: &ImageTable) -> Vec<ImageRequest> {
    let mut seen = BTreeSet::new();
    let sources = builds.iter().flat_map(|build| &build.needed).flat_map(|needed| &needed.sources);
    let requests = sources.filter_map(|source| match source {
        Source::Image(request) => Some(request),
        _ => None,
    });
    requests.filter(|request| !images.contains_key(request) && seen.insert(*request)).cloned().collect()
}

/// Several platforms say most things twice.
fn once_each(diagnostics: impl IntoIterator<Item = Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let mut all: Vec<Diagnostic> = diagnostics.into_iter().collect();
    all.retain(|one| seen.insert((one.span.start, one.span.end, one.message.clone())));
    all.sort_by_key(|one| (one.severity != kiln_dockerfile::Severity::Error, one.span.start));
    all
}
