//! Commands without what is wrapped around them: `sudo env A=b python3 -m pip install x` is `pip install x`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::script::SHELLS;
use super::{Command, Word, commands};

/// How deep `sh -c` may nest.
const MAX_NESTING: usize = 4;

/// A program that a script runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its name without directories.
    pub(crate) program: String,
    /// As written, directories included.
    pub(crate) path: String,
    /// What follows it.
    pub(crate) args: Vec<Arg>,
    /// Variables set for it in the script; none if the value is not known.
    pub(crate) variables: BTreeMap<String, Option<String>>,
    /// Whether it runs as somebody else than the step.
    pub(crate) other_user: bool,
    /// Whether `sudo` stands before it.
    pub(crate) sudo: bool,
    /// Where it runs, relative to the step's directory; none if not known.
    pub(crate) dir: Option<String>,
    /// The command in the list of the script's commands; none inside `sh -c`.
    pub(crate) command: Option<usize>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arg {
    /// Its value, if it can be known.
    pub(crate) value: Option<String>,
    /// Where it stands in the script; none inside `sh -c`.
    pub(crate) range: Option<Range<usize>>,
}

/// What a script knows of its variables and its home.
pub(crate) struct Outside<'a> {
    /// The step's environment.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The home directory.
    pub(crate) home: Option<&'a str>,
}

/// Returns the calls of a script, in order.
pub(crate) fn calls(list: &[Command], outside: &Outside<'_>) -> Vec<Call> {
    let mut reader = Reader { outside, calls: Vec::new() };
    let mut scope = Scope { variables: BTreeMap::new(), dir: Some(String::new()), other_user: false };
    for (number, command) in list.iter().enumerate() {
        reader.command(command, Some(number), &mut scope, 0);
    }
    reader.calls
}

/// Returns the call of an exec form.
pub(crate) fn exec(words: &[String], outside: &Outside<'_>) -> Vec<Call> {
    let mut reader = Reader { outside, calls: Vec::new() };
    let scope = Scope { variables: BTreeMap::new(), dir: Some(String::new()), other_user: false };
    let args = words.iter().map(|word| Arg { value: Some(word.clone()), range: None }).collect();
    reader.unwrap(args, scope, None, false, 0);
    reader.calls
}

#[derive(Clone)]
struct Scope {
    variables: BTreeMap<String, Option<String>>,
    dir: Option<String>,
    other_user: bool,
}

struct Reader<'a> {
    outside: &'a Outside<'a>,
    calls: Vec<Call>,
}

impl Reader<'_> {
    fn command(&mut self, command: &Command, number: Option<usize>, scope: &mut Scope, depth: usize) {
        let value = |word: &Word, scope: &Scope| {
            let lookup = |name: &str| match scope.variables.get(name) {
                Some(value) => value.clone(),
                None => (self.outside.lookup)(name),
            };
            word.resolve(&lookup, self.outside.home)
        };
        let mut own = scope.clone();
        for (name, word) in &command.assignments {
            own.variables.insert(name.clone(), value(word, scope));
        }
        let range = |word: &Word| number.map(|_| word.range.clone());
        let args: Vec<Arg> =
            command.words.iter().map(|word| Arg { value: value(word, scope), range: range(word) }).collect();
        let Some(first) = args.first() else {
            // `A=b` alone lasts
            scope.variables = own.variables;
            return;
        };
        match first.value.as_deref() {
            Some("export") => {
                for arg in &args[1..] {
                    if let Some((name, value)) = arg.value.as_deref().and_then(|text| text.split_once('=')) {
                        scope.variables.insert(name.to_owned(), Some(value.to_owned()));
                    }
                }
                // `export A=$(x)`: the name is known, the value is not
                for word in command.words.iter().skip(1) {
                    if let (None, Some(super::Part::Text(text))) = (value(word, scope), word.parts.first())
                        && let Some((name, _)) = text.split_once('=')
                    {
                        scope.variables.insert(name.to_owned(), None);
                    }
                }
            }
            Some("unset") => {
                for name in args[1..].iter().filter_map(|arg| arg.value.clone()) {
                    scope.variables.insert(name, Some(String::new()));
                }
            }
            Some("cd" | "pushd") => {
                let target = args.get(1).and_then(|arg| arg.value.clone());
                scope.dir = match (&scope.dir, target) {
                    _ if command.depth > 0 => None,
                    (_, Some(to)) if to.starts_with('/') => Some(to),
                    (Some(dir), Some(to)) if dir.is_empty() => Some(to),
                    (Some(dir), Some(to)) => Some(format!("{dir}/{to}")),
                    _ => None,
                };
            }
            _ => {}
        }
        self.unwrap(args, own, number, false, depth);
    }

    /// Takes off what is wrapped around a program.
    fn unwrap(
        &mut self,
        mut args: Vec<Arg>,
        mut scope: Scope,
        number: Option<usize>,
        mut sudo: bool,
        depth: usize,
    ) {
        loop {
            let Some(path) = args.first().and_then(|arg| arg.value.clone()) else { return };
            let program = path.rsplit('/').next().unwrap_or("").to_owned();
            match program.as_str() {
                "sudo" | "doas" => {
                    let flags = skip_flags(&args, &["-u", "-g", "-C", "--user", "--group"]);
                    scope.other_user = true;
                    sudo = true;
                    args.drain(..flags);
                }
                "env" => {
                    let flags = skip_flags(&args, &["-u", "-C", "-S", "--unset", "--chdir"]);
                    args.drain(..flags);
                    while let Some((name, value)) = args
                        .first()
                        .and_then(|arg| arg.value.as_deref())
                        .and_then(|text| text.split_once('='))
                    {
                        scope.variables.insert(name.to_owned(), Some(value.to_owned()));
                        args.remove(0);
                    }
                }
                "exec" | "command" | "time" | "nohup" | "eatmydata" | "xargs" | "nice" | "ionice"
                | "stdbuf" | "builtin" | "corepack" | "fakeroot" | "chronic" => {
                    let flags = skip_flags(&args, &["-n", "-I", "-L", "-P", "-d", "-a", "-c", "-s"]);
                    let wrapped = args.get(flags);
                    let is_wrapper =
                        wrapped.is_some() && (program != "corepack" || is_javascript_manager(wrapped));
                    if !is_wrapper {
                        break;
                    }
                    args.drain(..flags);
                }
                "timeout" => {
                    let flags = skip_flags(&args, &["-k", "-s", "--kill-after", "--signal"]);
                    args.drain(..(flags + 1).min(args.len()));
                }
                "su" | "gosu" | "su-exec" | "runuser" | "setpriv" | "chroot" => return,
                name if is_python(name) => {
                    let module = args.get(1).and_then(|arg| arg.value.as_deref()) == Some("-m");
                    if !module {
                        break;
                    }
                    args.drain(..2);
                    if let Some(arg) = args.first_mut() {
                        // what runs is that interpreter's own module
                        let value = arg.value.take();
                        arg.value = value.map(|name| match path.rsplit_once('/') {
                            Some((dir, _)) => format!("{dir}/{name}"),
                            None => name,
                        });
                    }
                }
                name if SHELLS.contains(&name) => {
                    self.shell(&args, &scope, depth);
                    return;
                }
                _ => break,
            }
        }
        let Some(path) = args.first().and_then(|arg| arg.value.clone()) else { return };
        let program = path.rsplit('/').next().unwrap_or("").to_owned();
        args.remove(0);
        self.calls.push(Call {
            program,
            path,
            args,
            variables: scope.variables,
            other_user: scope.other_user,
            sudo,
            dir: scope.dir,
            command: number,
        });
    }

    /// `sh -c "..."`.
    fn shell(&mut self, args: &[Arg], scope: &Scope, depth: usize) {
        let is_c = |arg: &Arg| {
            let value = arg.value.as_deref().unwrap_or("");
            value.starts_with('-') && !value.starts_with("--") && value.ends_with('c')
        };
        let Some(at) = args.iter().position(is_c) else { return };
        let Some(text) = args.get(at + 1).and_then(|arg| arg.value.as_deref()) else { return };
        if depth >= MAX_NESTING {
            return;
        }
        let mut inner = scope.clone();
        for command in commands(text) {
            self.command(&command, None, &mut inner, depth + 1);
        }
    }
}

/// Returns the index behind a program and its flags; `valued` flags take the next word along.
fn skip_flags(args: &[Arg], valued: &[&str]) -> usize {
    let mut at = 1;
    while let Some(value) = args.get(at).and_then(|arg| arg.value.as_deref())
        && value.starts_with('-')
    {
        at += if valued.contains(&value) { 2 } else { 1 };
        if value == "--" {
            break;
        }
    }
    at.min(args.len())
}

fn is_javascript_manager(arg: Option<&Arg>) -> bool {
    let name = arg.and_then(|arg| arg.value.as_deref()).unwrap_or("");
    ["yarn", "pnpm", "npm", "yarnpkg"].contains(&name)
}

/// `python`, `python3`, `python3.11`.
fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}
