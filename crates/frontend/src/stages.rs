//! The stages of a file for one platform: what each starts from, and which of them a target needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_core::Platform;
use kiln_dockerfile::{Diagnostic, Dockerfile, From, Instruction, Located, Span, Spanned, Stage};

use crate::diagnose::{did_you_mean, error, warning, with_help};
use crate::instruction::refusals;
use crate::source::Source;
use crate::trigger::Trigger;
use crate::variables::Variables;
use crate::words::Words;
use crate::{ImageTable, LowerOptions};

/// All stages of a file, for one platform.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    file: &'a Dockerfile,
    options: &'a LowerOptions,
    /// The platform that is built for.
    platform: Platform,
    /// Numbers of the stages of each name, ascending: a later one hides an earlier one.
    by_name: HashMap<&'a str, Vec<usize>>,
}

/// A stage that a target needs.
#[derive(Debug)]
pub(crate) struct Needed {
    /// Its number.
    pub(crate) number: usize,
    /// What it starts from.
    pub(crate) start: Start,
    /// What its base has left to do, as far as the base is known; it comes before the stage's own instructions.
    pub(crate) triggers: Vec<Trigger>,
    /// Everything it takes files from, what it starts from included.
    pub(crate) sources: Vec<Source>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// Where its files come from.
    pub(crate) source: Source,
    /// What was written after FROM, expanded.
    pub(crate) written: String,
    /// What it runs on; a stage that starts from another takes over that one's.
    pub(crate) platform: Platform,
    /// Whether a named context stands in for the whole stage, so that its instructions do not count.
    pub(crate) replaced: bool,
}

impl<'a> Stages<'a> {
    /// Knows the stages' names.
    pub(crate) fn new(file: &'a Dockerfile, options: &'a LowerOptions, platform: &Platform) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, stage) in file.stages.iter().enumerate() {
            if let Some(name) = &stage.from.value.name {
                by_name.entry(&name.value).or_default().push(number);
            }
        }
        Self { file, options, platform: platform.clone(), by_name }
    }

    /// Returns a stage.
    pub(crate) fn get(&self, number: usize) -> &'a Stage {
        &self.file.stages[number]
    }

    /// Returns the number of stages in the file.
    pub(crate) fn len(&self) -> usize {
        self.file.stages.len()
    }

    /// Returns a stage's name, or `stage-1` as progress calls it.
    pub(crate) fn label(&self, number: usize) -> String {
        let name = self.get(number).from.value.name.as_ref();
        name.map_or_else(|| format!("stage-{number}"), |name| name.value.clone())
    }

    /// Returns the number of the wanted stage.
    pub(crate) fn target(&self) -> Result<usize, Diagnostic> {
        let last = self.len().checked_sub(1);
        let Some(last) = last else {
            let message = "the Dockerfile has no stage: it needs a FROM instruction";
            return Err(error(Span::default(), message));
        };
        let Some(target) = &self.options.target else { return Ok(last) };
        if let Some(number) = self.by_name.get(target.to_lowercase().as_str()).and_then(|all| all.last()) {
            return Ok(*number);
        }
        if let Ok(number) = target.parse::<usize>()
            && number <= last
        {
            return Ok(number);
        }
        let span = self.get(last).from.span;
        let mut names: Vec<&str> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        let help = did_you_mean(target, names.iter().copied())
            .or_else(|| (!names.is_empty()).then(|| format!("there are `{}`", names.join("`, `"))));
        Err(with_help(error(span, format!("target stage `{target}` is not in this Dockerfile")), help))
    }

    /// Returns what a stage starts from.
    pub(crate) fn start(
        &self,
        number: usize,
        globals: &Variables,
        words: &mut Words,
    ) -> Result<Start, Diagnostic> {
        let line = &self.get(number).from;
        let written = words.look(&line.value.image, globals)?.text;
        if written.is_empty() {
            let message = format!("the base name `{}` is empty once expanded", line.value.image.value);
            let help = "give it a default: `ARG name=value` before the first FROM".to_owned();
            return Err(with_help(error(line.value.image.span, message), Some(help)));
        }
        let platform = self.start_platform(&line.value, globals, words)?;
        let own = line.value.name.as_ref();
        if let Some(source) = own.and_then(|name| Source::of_context(&name.value, &platform, self.options)) {
            return Ok(Start { source, written, platform, replaced: true });
        }
        let source = if let Some(stage) = self.earlier(&written, number) {
            Source::Stage(stage)
        } else if let Some(source) = Source::of_context(&written, &platform, self.options) {
            source
        } else {
            self.warn_of_later_stage(&written, number, line, words);
            Source::of_image(&written, &platform, line.value.image.span)?
        };
        Ok(Start { source, written, platform, replaced: false })
    }

    /// Returns what `--from=NAME` means in stage `number`: a context, an earlier stage by name or number, an image.
    pub(crate) fn find(&self, name: &Spanned<String>, number: usize) -> Result<Source, Diagnostic> {
        let Spanned { value: text, span } = name;
        if text.contains('$') {
            let help = "write `FROM $NAME AS base` with a global ARG, and `--from=base`".to_owned();
            return Err(with_help(error(*span, "variables are not expanded in `from`"), Some(help)));
        }
        if let Some(source) = Source::of_context(text, &self.platform, self.options) {
            return Ok(source);
        }
        if let Some(stage) = self.earlier(text, number) {
            return Ok(Source::Stage(stage));
        }
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return self.find_number(text, *span, number);
        }
        if let Some(all) = self.by_name.get(text.to_lowercase().as_str()) {
            let message = match all.contains(&number) {
                true => format!("stage `{text}` cannot take files from itself"),
                false => format!("stage `{text}` is defined below: only earlier stages can be used"),
            };
            return Err(error(*span, message));
        }
        Source::of_image(text, &self.platform, *span)
    }

    /// Returns the target and every stage it needs, ascending; all stages if that is wanted. An
    /// image that is not known yet may turn out to have triggers, which may need more.
    pub(crate) fn needed(
        &self,
        target: usize,
        globals: &Variables,
        images: &ImageTable,
        words: &mut Words,
    ) -> Result<Vec<Needed>, Vec<Diagnostic>> {
        let mut found = BTreeMap::new();
        let mut errors = Vec::new();
        let mut queue = vec![target];
        if self.options.all_stages {
            queue.extend((0..self.len()).filter(|stage| *stage != target));
        }
        let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
        while let Some(number) = queue.pop() {
            match self.look_at(number, globals, images, words) {
                Ok(needed) => {
                    let stages = needed.sources.iter().filter_map(|source| match source {
                        Source::Stage(stage) => Some(*stage),
                        _ => None,
                    });
                    queue.extend(stages.filter(|stage| seen.insert(*stage)));
                    found.insert(number, needed);
                }
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { Ok(found.into_values().collect()) } else { Err(errors) }
    }

    fn look_at(
        &self,
        number: usize,
        globals: &Variables,
        images: &ImageTable,
        words: &mut Words,
    ) -> Result<Needed, Vec<Diagnostic>> {
        let start = self.start(number, globals, words).map_err(|error| vec![error])?;
        let mut sources = vec![start.source.clone()];
        let mut errors = Vec::new();
        let stage = self.get(number);
        let from = stage.from.value.image.span;
        let mut triggers = Vec::new();
        for text in self.triggers(&start, images) {
            match Trigger::read(&text, &start.written, from) {
                Ok(trigger) => {
                    let mut found = Vec::new();
                    self.names(&trigger.instruction, number, &mut sources, &mut found);
                    errors.extend(found.into_iter().map(|error| trigger.tell(error, from)));
                    triggers.push(trigger);
                }
                Err(error) => errors.push(error),
            }
        }
        let instructions = if start.replaced { &[][..] } else { &stage.instructions };
        for located in instructions {
            self.names(located, number, &mut sources, &mut errors);
        }
        if errors.is_empty() { Ok(Needed { number, start, triggers, sources }) } else { Err(errors) }
    }

    /// Finds what an instruction takes files from.
    fn names(
        &self,
        located: &Located<Instruction>,
        number: usize,
        sources: &mut Vec<Source>,
        errors: &mut Vec<Diagnostic>,
    ) {
        errors.extend(refusals(&located.value, &self.options.allow));
        for name in names_in(&located.value) {
            match self.find(&name, number) {
                Ok(source) => sources.push(source),
                Err(error) => errors.push(error),
            }
        }
    }

    /// Returns the texts of the triggers of what a stage starts from. A stage's triggers are for those who start from
    /// it, not for those who start from them.
    fn triggers(&self, start: &Start, images: &ImageTable) -> Vec<String> {
        if start.replaced {
            return Vec::new();
        }
        match &start.source {
            Source::Image(request) => {
                images.get(request).map_or_else(Vec::new, |image| image.config.config.on_build.clone())
            }
            Source::Stage(number) if self.is_replaced(*number) => Vec::new(),
            Source::Stage(number) => {
                let instructions = self.get(*number).instructions.iter();
                let triggers = instructions.filter_map(|located| match &located.value {
                    Instruction::Onbuild(trigger) => Some(trigger.text.clone()),
                    _ => None,
                });
                triggers.collect()
            }
            Source::Scratch | Source::Files(_) => Vec::new(),
        }
    }

    /// Whether a named context stands in for a stage.
    fn is_replaced(&self, number: usize) -> bool {
        let name = self.get(number).from.value.name.as_ref();
        name.is_some_and(|name| Source::of_context(&name.value, &self.platform, self.options).is_some())
    }

    /// The nearest stage of this name above `number`.
    fn earlier(&self, name: &str, number: usize) -> Option<usize> {
        let all = self.by_name.get(name.to_lowercase().as_str())?;
        all[..all.partition_point(|&stage| stage < number)].last().copied()
    }

    fn find_number(&self, text: &str, span: Span, number: usize) -> Result<Source, Diagnostic> {
        let message = match text.parse::<usize>() {
            Ok(stage) if stage < number => return Ok(Source::Stage(stage)),
            Ok(stage) if stage == number => format!("stage {stage} cannot take files from itself"),
            Ok(stage) if stage < self.len() => {
                format!("stage {stage} is defined below: only earlier stages can be used")
            }
            _ => format!("there is no stage {text}: this Dockerfile has {}, counted from 0", self.len()),
        };
        Err(error(span, message))
    }

    fn start_platform(
        &self,
        from: &From,
        globals: &Variables,
        words: &Words,
    ) -> Result<Platform, Diagnostic> {
        let Some(written) = &from.platform else { return Ok(self.platform.clone()) };
        let text = words.look(written, globals)?.text;
        if text.is_empty() {
            let message = format!("the platform `{}` is empty once expanded", written.value);
            return Err(error(written.span, message));
        }
        text.parse().map_err(|problem: kiln_core::PlatformError| error(written.span, problem.to_string()))
    }

    /// The program takes such a name for an image; whoever wrote it hardly did.
    fn warn_of_later_stage(&self, name: &str, number: usize, line: &Located<From>, words: &mut Words) {
        let below = self.by_name.get(name.to_lowercase().as_str());
        if below.is_some_and(|all| all.iter().any(|&stage| stage > number)) {
            let message = format!("`{name}` is taken for an image: the stage of that name is defined below");
            words.warnings.push(warning(line.value.image.span, message));
        }
    }
}

/// Returns the names that an instruction takes files from.
fn names_in(instruction: &Instruction) -> Vec<Spanned<String>> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(crate::mount::source_name).collect(),
        _ => Vec::new(),
    }
}
