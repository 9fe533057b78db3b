//! A call of a manager, understood.

use std::ops::Range;

use super::{Located, Manager, Surroundings};
use crate::path;
use crate::shell::{Arg, Call};

/// What one call of a manager does.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// Who.
    pub(crate) manager: &'static Manager,
    /// The call.
    pub(crate) call: Call,
    /// The sub-command: `install`, `mod download`; empty if there is none.
    pub(crate) verb: String,
    /// Whether it downloads or compiles, so that a cache would help.
    pub(crate) downloads: bool,
    /// The directories that it keeps for this.
    pub(crate) caches: Vec<Kept>,
    /// What switches the cache off.
    pub(crate) off: Option<Off>,
    /// Whether it empties the cache.
    pub(crate) cleans: bool,
}

/// A directory that a call keeps.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Where; nothing if that cannot be known.
    pub(crate) at: Option<Located>,
    /// Other places that are as good.
    pub(crate) others: Vec<String>,
    /// Whether it matters most.
    pub(crate) essential: bool,
}

/// What switches a cache off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Off {
    /// A flag, and where it stands in the script.
    Flag(String, Option<Range<usize>>),
    /// A variable.
    Variable(String),
}

impl Usage {
    /// Understands a call, if it is one of a manager.
    pub(crate) fn of(call: &Call, around: Surroundings<'_>) -> Option<Self> {
        let manager = Manager::of_program(&call.program)?;
        let words = plain_words(&call.args, manager.valued);
        let first = words.first().copied().unwrap_or("");
        let two = words.get(1).map(|second| format!("{first} {second}")).unwrap_or_default();
        let is = |verb: &&&str| **verb == first || **verb == two;
        let verb = manager.downloads.iter().find(is).map_or(first, |verb| verb);
        let flags = || call.args.iter().filter_map(|arg| arg.value.as_deref());
        let downloads = match manager.downloads {
            [] => !call.args.is_empty() && !flags().any(|flag| manager.idle.contains(&flag)),
            all => all.contains(&verb) || manager.bare && first.is_empty() && call.args.iter().all(is_known),
        };
        let offline = flags().any(|flag| manager.offline.contains(&flag)) || is_local(manager, call, around);
        let cleans = manager.cleans.iter().any(|clean| {
            let all: Vec<&str> = flags().collect();
            if clean.len() == 1 && clean[0].starts_with('-') {
                return all.contains(&clean[0]);
            }
            all.iter()
                .filter(|word| !word.starts_with('-') || clean.contains(*word))
                .take(clean.len())
                .eq(clean.iter())
        });
        let mut usage = Self {
            manager,
            call: call.clone(),
            verb: verb.to_owned(),
            downloads: (downloads || manager.name == "uv" && call.program == "uvx") && !offline,
            caches: Vec::new(),
            off: off(manager, call, around),
            cleans,
        };
        usage.caches = usage.locate(around);
        Some(usage)
    }

    fn locate(&self, around: Surroundings<'_>) -> Vec<Kept> {
        if let Some(dir) = flag_value(&self.call.args, self.manager.dir_flags) {
            let at = dir
                .zip(around.dir)
                .map(|(dir, cwd)| Located { path: path::resolve(cwd, &dir), certain: true });
            return vec![Kept { at, others: Vec::new(), essential: true }];
        }
        let caches = self.manager.caches.iter();
        let vendored = self.manager.name == "go" && is_vendored(&self.call, around);
        let used = caches
            .filter(|cache| self.cleans || cache.only.is_empty() || cache.only.contains(&self.verb.as_str()))
            // a vendored tree needs no modules, only the compiler's results
            .filter(|cache| !vendored || !cache.only.is_empty());
        used.map(|cache| {
            let at = cache.locate(&self.call, around);
            let certain = at.as_ref().is_some_and(|at| at.certain);
            Kept { others: cache.others(&self.call, around, certain), at, essential: cache.essential }
        })
        .collect()
    }
}

fn is_known(arg: &Arg) -> bool {
    arg.value.is_some()
}

/// Words that are neither flags nor their values, up to the first that is not known.
fn plain_words<'a>(args: &'a [Arg], valued: &[&str]) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut skip = false;
    for arg in args {
        let Some(value) = arg.value.as_deref() else {
            if std::mem::take(&mut skip) {
                continue;
            }
            break;
        };
        if std::mem::take(&mut skip) {
            continue;
        }
        if value.starts_with('-') {
            skip = valued.contains(&value);
        } else if !value.starts_with('+') {
            words.push(value);
        }
    }
    words
}

/// Finds `--flag value` or `--flag=value`: nothing if it is not there, `Some(None)` if its value is not known.
pub(crate) fn flag_value(args: &[Arg], names: &[&str]) -> Option<Option<String>> {
    for (number, arg) in args.iter().enumerate() {
        let Some(value) = arg.value.as_deref() else { continue };
        if names.contains(&value) {
            return Some(args.get(number + 1).and_then(|next| next.value.clone()));
        }
        if let Some((name, value)) = value.split_once('=')
            && names.contains(&name)
        {
            return Some(Some(value.to_owned()));
        }
    }
    None
}

/// Whether a call only touches what is there already.
fn is_local(manager: &Manager, call: &Call, around: Surroundings<'_>) -> bool {
    let has = |flag: &str| call.args.iter().any(|arg| arg.value.as_deref() == Some(flag));
    let variable = |name: &str| match call.variables.get(name) {
        Some(value) => value.clone().unwrap_or_default(),
        None => around.env.text(name).unwrap_or_default(),
    };
    match manager.name {
        "pip" => has("--no-deps") && has("."),
        "uv" => variable("UV_OFFLINE") == "1",
        _ => false,
    }
}

/// `-mod=vendor`, as a flag or in GOFLAGS.
fn is_vendored(call: &Call, around: Surroundings<'_>) -> bool {
    let flags = match call.variables.get("GOFLAGS") {
        Some(value) => value.clone(),
        None => around.env.text("GOFLAGS"),
    };
    let flag = |text: &str| text.split_whitespace().any(|flag| flag.trim_start_matches('-') == "mod=vendor");
    flags.is_some_and(|flags| flag(&flags))
        || call.args.iter().filter_map(|arg| arg.value.as_deref()).any(flag)
}

fn off(manager: &Manager, call: &Call, around: Surroundings<'_>) -> Option<Off> {
    for arg in &call.args {
        let Some(value) = arg.value.as_deref() else { continue };
        if manager.off_flags.contains(&value) {
            return Some(Off::Flag(value.to_owned(), arg.range.clone()));
        }
    }
    let is_set = |name: &&&str| {
        let value = match call.variables.get(**name) {
            Some(value) => value.clone(),
            None => around.env.text(name),
        };
        value.is_some_and(|value| !value.is_empty())
    };
    manager.off_variables.iter().find(is_set).map(|name| Off::Variable((*name).to_owned()))
}
