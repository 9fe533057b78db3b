//! The walk.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_dockerfile::{Command, Dockerfile, Instruction, Located, Run, expand};
use kiln_frontend::LowerOptions;

use super::user::{self, MadeUsers};
use super::{Base, Copied, Env, Images, Mount, Setting, Stage, Step, Survey, User, Value};
use crate::managers::{Surroundings, Usage};
use crate::path;
use crate::shell::{self, Outside, SHELLS, Script};

/// What the last instruction of a stage leaves, variables aside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    user: Option<String>,
    dir: Option<String>,
    shell: Option<Vec<String>>,
    made: Arc<MadeUsers>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
}

struct Walk<'a, 'o> {
    text: &'a str,
    escape: char,
    options: &'o LowerOptions,
    globals: Env,
    names: HashMap<&'a str, usize>,
    stages: Vec<Stage<'a>>,
}

/// Walks over a file.
pub(super) fn survey<'a>(
    text: &'a str,
    file: &'a Dockerfile,
    options: &LowerOptions,
    images: &Images<'_>,
) -> Survey<'a> {
    let escape = file.directives.escape;
    let mut walk = Walk {
        text,
        escape,
        options,
        globals: globals(file, options),
        names: HashMap::new(),
        stages: Vec::with_capacity(file.stages.len()),
    };
    for (number, stage) in file.stages.iter().enumerate() {
        let read = walk.stage(number, stage, images);
        walk.stages.push(read);
        if let Some(name) = &stage.from.value.name {
            walk.names.insert(&name.value, number);
        }
    }
    let target = match &options.target {
        Some(name) => walk.find(name),
        None => None,
    };
    let target = target.unwrap_or(walk.stages.len().saturating_sub(1));
    Survey { text, stages: walk.stages, target }
}

/// ARGs before the first FROM. What depends on the platform is not known here, for there may be several.
fn globals(file: &Dockerfile, options: &LowerOptions) -> Env {
    let mut env = Env::default();
    for prefix in ["BUILD", "TARGET"] {
        for part in ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"] {
            env.set(&format!("{prefix}{part}"), Value::Unknown);
        }
    }
    env.set("TARGETSTAGE", Value::Unknown);
    for arg in file.global_args.iter().flat_map(|line| &line.value) {
        let default = arg.default.as_ref().map(|default| default.value.as_str());
        let value = match (options.build_args.get(&arg.name.value), default) {
            (Some(given), _) => Value::Set(given.clone()),
            (None, Some(default)) => known(expanded(default, file.directives.escape, &env)),
            (None, None) => continue,
        };
        env.set(&arg.name.value, value);
    }
    env
}

fn known(text: Option<String>) -> Value {
    text.map_or(Value::Unknown, Value::Set)
}

/// Expands a word; none if it cannot be, or uses a variable that nobody knows.
fn expanded(word: &str, escape: char, env: &Env) -> Option<String> {
    if !word.contains(['$', '\'', '"', escape]) {
        return Some(word.to_owned());
    }
    let unknown = std::cell::Cell::new(false);
    let lookup = |name: &str| match env.get(name) {
        Value::Set(value) => Some(value),
        Value::Unset => None,
        Value::Unknown => {
            unknown.set(true);
            None
        }
    };
    let text = expand::word(word, escape, &lookup).ok()?.text;
    (!unknown.get()).then_some(text)
}

impl<'a> Walk<'a, '_> {
    fn find(&self, name: &str) -> Option<usize> {
        if self.options.contexts.contains_key(name) {
            return None;
        }
        let named = self.names.get(name.to_lowercase().as_str()).copied();
        named.or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }

    fn stage(&self, number: usize, stage: &'a kiln_dockerfile::Stage, images: &Images<'_>) -> Stage<'a> {
        let from = expanded(&stage.from.value.image.value, self.escape, &self.globals);
        let is_context = |name: &str| self.options.contexts.contains_key(name);
        let parent = from
            .as_deref()
            .filter(|name| !is_context(name))
            .and_then(|name| self.names.get(name.to_lowercase().as_str()).copied());
        let (base, env, last) = match parent {
            Some(parent) => {
                let parent = &self.stages[parent];
                (parent.base.clone(), Env::upon(&parent.env), parent.last.clone())
            }
            None => {
                let base = match from.as_deref() {
                    Some(name) if !is_context(name) => images.base(name),
                    _ => Base::default(),
                };
                let last = Last {
                    user: base.user.clone(),
                    dir: base.dir.clone().or(base.official.then(|| "/".to_owned())),
                    shell: None,
                    made: Arc::default(),
                    entrypoint: Vec::new(),
                    cmd: base.command.clone(),
                };
                let env = Env::new(base.env.iter().cloned(), !base.closed);
                (base, env, last)
            }
        };
        let mut fold =
            Fold { walk: self, env, last, base, steps: Vec::new(), copies: Vec::new(), settings: Vec::new() };
        for (index, located) in stage.instructions.iter().enumerate() {
            fold.instruction(index, located);
        }
        let path = match fold.env.get("PATH") {
            Value::Set(path) => Some(path.split(':').map(str::to_owned).collect()),
            _ => None,
        };
        let command = [&fold.last.entrypoint[..], &fold.last.cmd[..]].concat();
        Stage {
            number,
            parent,
            base: fold.base,
            steps: fold.steps,
            copies: fold.copies,
            settings: fold.settings,
            path,
            command,
            env: Arc::new(fold.env),
            last: fold.last,
        }
    }
}

/// A stage while it is read.
struct Fold<'a, 'w, 'o> {
    walk: &'w Walk<'a, 'o>,
    env: Env,
    last: Last,
    base: Base,
    steps: Vec<Step<'a>>,
    copies: Vec<Copied<'a>>,
    settings: Vec<Setting<'a>>,
}

impl<'a> Fold<'a, '_, '_> {
    fn expand(&self, word: &str) -> Option<String> {
        expanded(word, self.walk.escape, &self.env)
    }

    fn instruction(&mut self, index: usize, located: &'a Located<Instruction>) {
        match &located.value {
            Instruction::Arg(args) => {
                for arg in args {
                    let default = arg.default.as_ref().map(|default| default.value.as_str());
                    let value = match (self.walk.options.build_args.get(&arg.name.value), default) {
                        (Some(given), _) => Value::Set(given.clone()),
                        (None, Some(default)) => known(self.expand(default)),
                        (None, None) => self.walk.globals.get(&arg.name.value),
                    };
                    if value != Value::Unset {
                        self.env.set(&arg.name.value, value.clone());
                    }
                    self.settings.push(Setting {
                        index,
                        is_env: false,
                        name: &arg.name.value,
                        written: default,
                        value,
                        span: arg.name.span,
                    });
                }
            }
            Instruction::Env(pairs) => {
                let values: Vec<_> = pairs.iter().map(|pair| known(self.expand(&pair.value.value))).collect();
                for (pair, value) in pairs.iter().zip(values) {
                    self.env.set(&pair.name.value, value.clone());
                    self.settings.push(Setting {
                        index,
                        is_env: true,
                        name: &pair.name.value,
                        written: Some(&pair.value.value),
                        value,
                        span: pair.name.span,
                    });
                }
            }
            Instruction::User(user) => self.last.user = self.expand(&user.value),
            Instruction::Workdir(dir) => {
                let dir = self.expand(&dir.value);
                self.last.dir = match (dir, &self.last.dir) {
                    (Some(dir), _) if dir.starts_with('/') => Some(path::resolve("/", &dir)),
                    (Some(dir), Some(base)) => Some(path::resolve(base, &dir)),
                    _ => None,
                };
            }
            Instruction::Shell(words) => self.last.shell = Some(words.clone()),
            Instruction::Cmd(command) => self.last.cmd = words(command),
            Instruction::Entrypoint(command) => {
                self.last.entrypoint = words(command);
                self.last.cmd.clear();
            }
            Instruction::Copy(copy) | Instruction::Add(copy) => self.copy(index, located, copy),
            Instruction::Run(run) => self.run(index, located, run),
            _ => {}
        }
    }

    fn copy(&mut self, index: usize, located: &'a Located<Instruction>, copy: &'a kiln_dockerfile::Copy) {
        let from = copy.from.as_ref().map(|from| from.value.as_str());
        let stage = from.and_then(|from| self.walk.find(from));
        let sources = copy.sources.iter().filter_map(|source| self.expand(&source.value));
        let dest = self.expand(&copy.dest.value).and_then(|dest| match &self.last.dir {
            _ if dest.starts_with('/') => Some(path::resolve("/", &dest)),
            Some(dir) => Some(path::resolve(dir, &dest)),
            None => None,
        });
        let sources = sources.map(|source| path::resolve("/", &source)).collect();
        self.copies.push(Copied { index, located, copy, stage, sources, dest });
    }

    fn run(&mut self, index: usize, located: &'a Located<Instruction>, run: &'a Run) {
        let user = User::of(self.last.user.as_deref(), &self.base, &self.last.made);
        let dir = self.last.dir.clone();
        let mounts = run.mounts.iter().map(|flag| Mount::of(flag, dir.as_deref(), &|text| self.expand(text)));
        let mounts = mounts.collect();
        let home = match self.env.get("HOME") {
            Value::Set(home) => Some(home),
            _ => user.home.clone(),
        };
        let lookup = |name: &str| match name {
            "HOME" => home.clone(),
            _ => self.env.text(name),
        };
        let outside = Outside { lookup: &lookup, home: home.as_deref() };
        let (script, commands, calls) = match &run.command {
            Command::Exec(words) => (None, Vec::new(), shell::exec(words, &outside)),
            Command::Shell(_) if !is_posix(self.last.shell.as_deref()) => (None, Vec::new(), Vec::new()),
            Command::Shell(_) => match Script::of(self.walk.text, located, run, self.walk.escape) {
                Some(script) => {
                    let commands = shell::commands(&script.text);
                    let calls = shell::calls(&commands, &outside);
                    (Some(script), commands, calls)
                }
                None => (None, Vec::new(), Vec::new()),
            },
        };
        let around = |call: &shell::Call| {
            let cwd = call.dir.as_deref().map(|moved| (moved.starts_with('/'), moved));
            match (cwd, &dir) {
                (Some((true, moved)), _) => Some(path::resolve("/", moved)),
                (Some((false, moved)), Some(dir)) => Some(path::resolve(dir, moved)),
                _ => None,
            }
        };
        let mut usages = Vec::new();
        for call in &calls {
            user::note(call, Arc::make_mut(&mut self.last.made));
            let dir = around(call);
            let around = Surroundings { env: &self.env, user: &user, dir: dir.as_deref(), base: &self.base };
            let around = Surroundings { user: &User { home: home.clone(), ..user.clone() }, ..around };
            usages.extend(Usage::of(call, around));
        }
        self.steps.push(Step {
            index,
            located,
            run,
            mounts,
            script,
            commands,
            calls,
            usages,
            user,
            dir,
            home,
        });
    }
}

/// Without SHELL it is /bin/sh; powershell and cmd are none.
fn is_posix(shell: Option<&[String]>) -> bool {
    let Some(program) = shell.map(|words| words.first().map_or("", String::as_str)) else { return true };
    SHELLS.contains(&program.rsplit('/').next().unwrap_or(""))
}

fn words(command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
        }
    }
}
