//! What a Dockerfile's steps do, as far as it can be known without running them: one walk over the file that every
//! check looks at. All stages count, also those that the target does not need.

mod base;
mod env;
mod mount;
mod stage;
mod user;

pub(crate) use base::{Base, Images};
pub(crate) use env::{Env, Value};
pub(crate) use mount::{Kind, Mount};
pub(crate) use user::User;

use kiln_dockerfile::{Dockerfile, Instruction, Located, Run, Span};
use kiln_frontend::{ImageTable, LowerOptions};

use crate::managers::Usage;
use crate::shell::{Call, Command, Script};

/// A whole file.
pub(crate) struct Survey<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// Its stages, in order.
    pub(crate) stages: Vec<Stage<'a>>,
    /// The stage that becomes the image.
    pub(crate) target: usize,
}

/// A stage.
pub(crate) struct Stage<'a> {
    /// Its number.
    pub(crate) number: usize,
    /// The stage that it builds on.
    pub(crate) parent: Option<usize>,
    /// The image below it and the stages it builds on.
    pub(crate) base: Base,
    /// Its RUNs that a POSIX shell reads, or that are in exec form.
    pub(crate) steps: Vec<Step<'a>>,
    /// Its COPYs and ADDs.
    pub(crate) copies: Vec<Copied<'a>>,
    /// ARG and ENV, in order.
    pub(crate) settings: Vec<Setting<'a>>,
    /// The directories on PATH at the end; none if not known.
    pub(crate) path: Option<Vec<String>>,
    /// Words of CMD and ENTRYPOINT at the end.
    pub(crate) command: Vec<String>,
    /// Variables at the end.
    env: std::sync::Arc<Env>,
    /// User, directory and shell at the end.
    last: stage::Last,
}

/// A RUN.
pub(crate) struct Step<'a> {
    /// Its place among the stage's instructions.
    pub(crate) index: usize,
    /// The instruction.
    pub(crate) located: &'a Located<Instruction>,
    /// The same, typed.
    pub(crate) run: &'a Run,
    /// Its mounts.
    pub(crate) mounts: Vec<Mount>,
    /// What the shell reads; none in exec form.
    pub(crate) script: Option<Script<'a>>,
    /// The simple commands of the script.
    pub(crate) commands: Vec<Command>,
    /// The programs that run.
    pub(crate) calls: Vec<Call>,
    /// Those of them that are package managers.
    pub(crate) usages: Vec<Usage>,
    /// Who runs it.
    pub(crate) user: User,
    /// Where; none if not known.
    pub(crate) dir: Option<String>,
    /// The home directory's variable and others that `rm -rf ~/.cache` needs.
    pub(crate) home: Option<String>,
}

/// A COPY or ADD.
pub(crate) struct Copied<'a> {
    /// Its place among the stage's instructions.
    pub(crate) index: usize,
    /// The instruction.
    pub(crate) located: &'a Located<Instruction>,
    /// The same, typed.
    pub(crate) copy: &'a kiln_dockerfile::Copy,
    /// The stage it takes files from; none for the context and images.
    pub(crate) stage: Option<usize>,
    /// Absolute sources, those that are known.
    pub(crate) sources: Vec<String>,
    /// Absolute destination, if known.
    pub(crate) dest: Option<String>,
}

/// ARG or ENV of one name.
pub(crate) struct Setting<'a> {
    /// Its place among the stage's instructions.
    pub(crate) index: usize,
    /// Whether it is ENV.
    pub(crate) is_env: bool,
    /// The name.
    pub(crate) name: &'a str,
    /// The value, unexpanded.
    pub(crate) written: Option<&'a str>,
    /// What it is after the line.
    pub(crate) value: Value,
    /// Where the name stands.
    pub(crate) span: Span,
}

impl<'a> Survey<'a> {
    /// Walks over a file.
    pub(crate) fn of(
        text: &'a str,
        file: &'a Dockerfile,
        options: &LowerOptions,
        images: &ImageTable,
    ) -> Self {
        stage::survey(text, file, options, &Images::new(images))
    }

    /// Returns a stage and those that it builds on, nearest first.
    pub(crate) fn chain(&self, number: usize) -> impl Iterator<Item = &Stage<'a>> {
        let mut next = Some(number);
        std::iter::from_fn(move || {
            let stage = &self.stages[next?];
            next = stage.parent;
            Some(stage)
        })
    }

    /// Goes through all steps with their stages.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&Stage<'a>, &Step<'a>)> {
        self.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| (stage, step)))
    }
}

impl Step<'_> {
    /// Goes through the cache mounts.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| mount.kind == Kind::Cache)
    }

    /// Whether the step has no network.
    pub(crate) fn is_offline(&self) -> bool {
        self.run.network.as_ref().is_some_and(|network| network.value == "none")
    }

    /// Returns where a mount is put in: behind RUN.
    pub(crate) fn behind_run(&self, text: &str) -> usize {
        let start = self.located.span.start;
        let rest = &text[start..];
        start + rest.find(|ch: char| !ch.is_ascii_alphabetic()).unwrap_or(rest.len())
    }
}
