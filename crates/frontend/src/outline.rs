//! What a Dockerfile offers: its targets, and what building one of them takes.
//! <https://docs.docker.com/reference/cli/docker/buildx/build/#call>

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{MountKind, Op, Platform, StepGraph};
use kiln_dockerfile::{ArgDecl, Diagnostic, Dockerfile, Instruction, Located, Spanned};

use crate::lower::{Build, missing_images};
use crate::offline::made_up;
use crate::settings::Settings;
use crate::source::Source;
use crate::state::StageState;
use crate::words::Words;
use crate::{ImageTable, LowerOptions};

/// A stage that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: Option<String>,
    /// Whether it is built if nobody asks for another: it is the last.
    pub is_default: bool,
    /// The lines of its FROM.
    pub lines: (usize, usize),
}

/// What building a target takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// Arguments, in the order of their lines.
    pub args: Vec<Argument>,
    /// Secrets.
    pub secrets: Vec<MountName>,
    /// Ssh agents.
    pub ssh: Vec<MountName>,
    /// Cache mounts.
    pub caches: Vec<MountName>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name.
    pub name: String,
    /// The value that it has, or nothing.
    pub value: String,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// The lines of the ARG that counts.
    pub lines: (usize, usize),
}

/// Something that is mounted by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountName {
    /// The id.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The lines of the first RUN that mounts it.
    pub lines: (usize, usize),
}

/// Lists the stages.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len().saturating_sub(1);
    let target = |(number, from): (usize, &Located<kiln_dockerfile::From>)| Target {
        name: from.value.name.as_ref().map(|name| name.value.clone()),
        description: description(from, from.value.name.as_ref()),
        base: from.value.image.value.clone(),
        platform: from.value.platform.as_ref().map(|platform| platform.value.clone()),
        is_default: number == last,
        lines: from.lines,
    };
    file.stages.iter().map(|stage| &stage.from).enumerate().map(target).collect()
}

/// Says what building the target takes, for the first of the platforms. Images are not asked for: an unknown one counts
/// as one with an empty configuration.
///
/// # Errors
/// As for [`lower`](crate::lower).
pub fn outline(file: &Dockerfile, options: &LowerOptions) -> Result<Outline, Vec<Diagnostic>> {
    let mut words = Words::new(file.directives.escape);
    let settings = Settings::read(options).map_err(|error| vec![error])?;
    let platform = options.platforms.first().or(options.build_platform.as_ref());
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let mut images = ImageTable::new();
    let build = loop {
        let build = Build::prepare(file, options, &settings, &platform, &images, &mut words)?;
        let missing = missing_images(std::slice::from_ref(&build), &images);
        if missing.is_empty() {
            break build;
        }
        images.extend(missing.into_iter().map(|request| {
            let image = made_up(&request);
            (request, image)
        }));
    };
    let mut graph = StepGraph::new();
    let (states, errors) = build.states(&images, &mut words, &mut graph);
    if !errors.is_empty() {
        return Err(errors);
    }
    let from = &build.stages.get(build.target).from;
    let mut arguments = Arguments::of(file, &build, &states, &words);
    arguments.visit(build.target);
    let Arguments { mut found, .. } = arguments;
    found.sort_by_key(|arg| arg.lines.0);
    let mut outline = Outline {
        name: from.value.name.as_ref().map(|name| name.value.clone()),
        description: description(from, from.value.name.as_ref()),
        args: found,
        ..Outline::default()
    };
    mounts(&graph, &mut outline);
    Ok(outline)
}

fn description<T>(line: &Located<T>, name: Option<&Spanned<String>>) -> Option<String> {
    line.description(&name?.value).map(str::to_owned)
}

/// Goes through stages as the program does: what a stage says first, then its base, then what it takes files from.
struct Arguments<'a> {
    build: &'a Build<'a>,
    states: &'a [Option<StageState>],
    words: &'a Words,
    /// Global arguments by name, the last of a name.
    globals: BTreeMap<&'a str, (&'a Located<Vec<ArgDecl>>, &'a ArgDecl)>,
    seen: BTreeSet<String>,
    visited: BTreeSet<usize>,
    found: Vec<Argument>,
}

impl<'a> Arguments<'a> {
    fn of(
        file: &'a Dockerfile,
        build: &'a Build<'a>,
        states: &'a [Option<StageState>],
        words: &'a Words,
    ) -> Self {
        let globals = file.global_args.iter().flat_map(|line| line.value.iter().map(move |arg| (line, arg)));
        Self {
            build,
            states,
            words,
            globals: globals.map(|(line, arg)| (arg.name.value.as_str(), (line, arg))).collect(),
            seen: BTreeSet::new(),
            visited: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn visit(&mut self, target: usize) {
        let build = self.build;
        let mut stack = vec![target];
        while let Some(number) = stack.pop() {
            if !self.visited.insert(number) {
                continue;
            }
            let Ok(at) = build.needed.binary_search_by_key(&number, |needed| needed.number) else { continue };
            self.stage(number);
            let stages = build.needed[at].sources.iter().rev().filter_map(|source| match source {
                Source::Stage(stage) => Some(*stage),
                _ => None,
            });
            stack.extend(stages);
        }
    }

    fn stage(&mut self, number: usize) {
        let stage = self.build.stages.get(number);
        for line in stage.instructions.iter().rev() {
            let Instruction::Arg(args) = &line.value else { continue };
            for arg in args.iter().rev() {
                self.declared(arg, line, number);
            }
        }
        let from = &stage.from.value;
        for word in std::iter::once(&from.image).chain(&from.platform) {
            let Ok(expanded) = self.words.look(word, &self.build.globals) else { continue };
            for name in &expanded.used {
                self.global(name);
            }
        }
    }

    /// An ARG of a stage: one without a value of its own is the global one of its name.
    fn declared<T>(&mut self, arg: &ArgDecl, line: &Located<T>, number: usize) {
        let name = &arg.name.value;
        let is_own = arg.default.is_some() || self.build.options.build_args.contains_key(name);
        if !is_own && self.build.globals.get(name).is_some() {
            self.global(name);
        } else if self.seen.insert(name.clone()) {
            let state = self.states[number].as_ref();
            let value = state.and_then(|state| state.args.get(name)).unwrap_or_default();
            self.found.push(Argument {
                name: name.clone(),
                value: value.to_owned(),
                description: line.description(name).map(str::to_owned),
                lines: line.lines,
            });
        }
    }

    /// A global argument, and those that its default is made of.
    fn global(&mut self, name: &str) {
        let mut names = vec![name.to_owned()];
        while let Some(name) = names.pop() {
            let Some((line, arg)) = self.globals.get(name.as_str()).copied() else { continue };
            if !self.seen.insert(name.clone()) {
                continue;
            }
            if let Some(default) = &arg.default
                && let Ok(expanded) = self.words.look(default, &self.build.globals)
            {
                names.extend(expanded.used);
            }
            self.found.push(Argument {
                value: self.build.globals.get(&name).unwrap_or_default().to_owned(),
                description: line.description(&name).map(str::to_owned),
                lines: line.lines,
                name,
            });
        }
    }
}

/// What steps mount by an id, the first of each.
fn mounts(graph: &StepGraph, outline: &mut Outline) {
    for (_, step) in graph.iter() {
        let (Op::Run(run), Some(lines)) = (&step.op, step.info.lines) else { continue };
        for mount in &run.mounts {
            let (list, id, required) = match &mount.kind {
                MountKind::Secret(secret) => (&mut outline.secrets, &secret.id, secret.required),
                MountKind::Ssh(ssh) => (&mut outline.ssh, &ssh.id, ssh.required),
                MountKind::Cache(cache) => (&mut outline.caches, &cache.id, false),
                MountKind::Bind(_) | MountKind::Tmpfs(_) => continue,
            };
            if !list.iter().any(|known| known.id == *id) {
                list.push(MountName { id: id.clone(), required, lines });
            }
        }
    }
    for list in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
        list.sort_by_key(|mount| mount.lines.0);
    }
}
