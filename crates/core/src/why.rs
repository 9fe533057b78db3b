//! Why a step ran: what of its key is not what it was in the nearest earlier run of the same line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Paths of one source that are named; of more there is the number.
pub const MOST_PATHS: usize = 10;
/// Characters of a value that are shown in one line.
const LONGEST: usize = 60;

/// Why one step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepWhy {
    /// As in the events.
    pub step: u32,
    /// `[build 2/4] RUN make`.
    pub title: String,
    /// First and last line in the Dockerfile.
    pub lines: Option<(usize, usize)>,
    /// The reason.
    pub reason: Reason,
    /// The earlier run that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// What would help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<Advice>,
}

/// An earlier run of the same line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The build's id; empty if it was one of another machine.
    pub build: String,
    /// When that began, seconds since 1970; of another machine when the step ran.
    pub time: u64,
    /// The shared cache that has it, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
}

/// Why a step's result was not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// `--no-cache` or `--no-cache-filter` asked for it.
    NoCache,
    /// No build that is remembered had this line.
    NeverBuilt,
    /// Its key differs, in each of these; at least one.
    Changed {
        /// What a person can do something about first.
        changes: Vec<KeyChange>,
    },
    /// It had a result, which is not in the store any more.
    Removed {
        /// How long before this build it was removed, seconds, if that is known.
        ago_s: Option<u64>,
        /// By what: `pruned`, `kept within --max-store`.
        how: Option<String>,
    },
    /// It had the same key before, and did not come to its end.
    NotEnded,
    /// It has a result, over another one of the steps below it: they ran again.
    Outdated {
        /// The step below; none if it is a stage that files are taken from.
        below: Option<String>,
    },
    /// A remote cache has its record, and its files could not be had from there.
    NotHad {
        /// Which cache, as it was given.
        source: String,
    },
    /// A remote cache has it, but fetching would take longer than running.
    NotFetched {
        /// Which cache, as it was given.
        source: String,
        /// What fetching would take, milliseconds.
        fetch_ms: u64,
        /// What running took there, milliseconds.
        run_ms: u64,
    },
}

/// One part of a key that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum KeyChange {
    /// The image that the stage starts from is another one.
    Base {
        /// What it was called.
        was: String,
        /// What it is called.
        is: String,
        /// Manifest digest before; none for no image.
        from: Option<String>,
        /// Manifest digest now; none for no image.
        to: Option<String>,
    },
    /// An ARG.
    Argument {
        /// Its name.
        name: String,
        /// Before; none if it was not set.
        from: Option<String>,
        /// Now; none if it is not set.
        to: Option<String>,
        /// Whether no step before this one sees it.
        first: bool,
    },
    /// A variable of the image.
    Variable {
        /// Its name.
        name: String,
        /// Before; none if it was not set.
        from: Option<String>,
        /// Now; none if it is not set.
        to: Option<String>,
    },
    /// Variables are set in another order, which a program sees.
    VariableOrder,
    /// What the instruction says.
    Instruction {
        /// `command`, `directory`, `user`, `mount 2`, `destination`.
        what: String,
        /// Before.
        from: Option<String>,
        /// Now.
        to: Option<String>,
    },
    /// Files that the step takes or sees.
    Files {
        /// Which, as the instruction has them.
        source: String,
        /// The stage, image or URL that they are from; none for the build context.
        of: Option<String>,
        /// The first [`MOST_PATHS`] that differ, by path; none if it is not known which.
        paths: Vec<PathChange>,
        /// How many differ; 0 if that is not known.
        count: usize,
        /// Whether nothing but permission bits differs that git does not keep.
        modes_only: bool,
    },
    /// The step below has another key.
    Below {
        /// Its title.
        title: String,
    },
}

/// A file that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    /// Relative to the source's root.
    pub path: String,
    /// In what; at least one.
    pub what: Vec<PathPart>,
}

/// One thing about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum PathPart {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its type: `file`, `directory`, `symbolic link`.
    Type {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// What it holds.
    Content,
    /// Its permission bits.
    Mode {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// Its user and group.
    Owner {
        /// Before.
        from: (u32, u32),
        /// Now.
        to: (u32, u32),
    },
    /// Its extended attributes.
    Attributes,
}

/// What would keep a step from running the next time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "advice", rename_all = "snake_case")]
pub enum Advice {
    /// Only permission bits differ that git does not keep: `--context-modes=git`.
    ContextModes,
    /// All changed paths are of a kind that builds hardly mean: `.dockerignore`.
    Ignore {
        /// What to write there.
        patterns: Vec<String>,
    },
    /// An ARG stands above steps that do not mention it.
    MoveArgument {
        /// Its name.
        name: String,
        /// Its line.
        line: usize,
        /// The first line that mentions it; none if no step does.
        used: Option<usize>,
    },
    /// A tag was moved.
    PinBase {
        /// The image with its digest.
        image: String,
    },
}

impl StepWhy {
    /// Says it in one line, without the title.
    pub fn summary(&self) -> String {
        let Reason::Changed { changes } = &self.reason else { return self.reason.to_string() };
        let rest = match changes.len() {
            0 | 1 => String::new(),
            more => format!(" (and {} more)", more - 1),
        };
        let cache = self.compared.as_ref().and_then(|compared| compared.cache.as_ref());
        let against = cache.map_or_else(String::new, |cache| format!(" (against the cache in {cache})"));
        changes.first().map_or_else(String::new, |first| format!("{first}{rest}{against}"))
    }

    /// Says what the summary leaves out, a line each: further changes, and paths.
    pub fn details(&self) -> Vec<String> {
        let Reason::Changed { changes } = &self.reason else { return Vec::new() };
        let mut lines = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            if number > 0 {
                lines.push(change.to_string());
            }
            let KeyChange::Files { paths, count, .. } = change else { continue };
            // One path stands in the line above.
            if *count > 1 {
                lines.extend(paths.iter().map(|path| format!("  {path}")));
                if *count > paths.len() {
                    lines.push(format!("  and {} more", count - paths.len()));
                }
            }
        }
        lines
    }

    /// Whether files are the only reason, and permission bits all that differs in them.
    pub fn is_modes_only(&self) -> bool {
        self.advice.contains(&Advice::ContextModes)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCache => f.write_str("--no-cache"),
            Self::NeverBuilt => f.write_str("never built here"),
            Self::Changed { changes } => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                f.write_str(&changes.join("; "))
            }
            Self::Removed { ago_s, how } => {
                f.write_str("earlier result ")?;
                f.write_str(how.as_deref().unwrap_or("is not in the store any more"))?;
                ago_s.map_or(Ok(()), |seconds| write!(f, " {} ago", span(seconds)))
            }
            Self::NotEnded => f.write_str("did not come to its end the last time"),
            Self::Outdated { below: Some(below) } => {
                write!(f, "step below ran again, and its result differs: {below}")
            }
            Self::Outdated { below: None } => f.write_str("a step below ran again, and its result differs"),
            Self::NotHad { source } => {
                write!(f, "{source} has it, and its files could not be had from there")
            }
            Self::NotFetched { source, fetch_ms, run_ms } => write!(
                f,
                "{source} has it, but fetching it would take {:.1} s, and running it took {:.1} s",
                *fetch_ms as f64 / 1000.0,
                *run_ms as f64 / 1000.0
            ),
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base { was, is, from: Some(from), to: Some(to) } if was == is => {
                write!(f, "base image {is} moved {} -> {}", short(from), short(to))
            }
            Self::Base { was, is, .. } => write!(f, "base image {was} -> {is}"),
            Self::Argument { name, from, to, first } => {
                let first = if *first { " (first used here)" } else { "" };
                write!(f, "ARG {name} {} -> {}{first}", value(from), value(to))
            }
            Self::Variable { name, from, to } => write!(f, "ENV {name} {} -> {}", value(from), value(to)),
            Self::VariableOrder => f.write_str("variables are set in another order"),
            Self::Instruction { what, from, to } => write!(f, "{what} {} -> {}", value(from), value(to)),
            Self::Below { title } => write!(f, "step below is another: {title}"),
            Self::Files { source, of, paths, count, .. } => {
                f.write_str(source)?;
                if let Some(of) = of {
                    write!(f, " of {of}")?;
                }
                match (count, &paths[..]) {
                    (1, [path]) => write!(f, ": {path}"),
                    (0, _) => f.write_str(": the files differ"),
                    (count, _) => write!(f, ": {count} paths differ"),
                }
            }
        }
    }
}

impl fmt::Display for PathChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<String> = self.what.iter().map(ToString::to_string).collect();
        let path = if self.path.is_empty() { "." } else { &self.path };
        write!(f, "{path} {}", what.join(", "))
    }
}

impl fmt::Display for PathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Removed => f.write_str("removed"),
            Self::Type { from, to } => write!(f, "type {from} -> {to}"),
            Self::Content => f.write_str("content"),
            Self::Mode { from, to } => write!(f, "mode {from:04o} -> {to:04o}"),
            Self::Owner { from, to } => write!(f, "owner {}:{} -> {}:{}", from.0, from.1, to.0, to.1),
            Self::Attributes => f.write_str("extended attributes"),
        }
    }
}

/// `40 s`, `5 min`, `3 h`, `2 d`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `sha256:0123456789ab`.
fn short(digest: &str) -> &str {
    let end = digest.find(':').map_or(0, |colon| colon + 1) + 12;
    digest.get(..end).unwrap_or(digest)
}

/// A value on one line.
fn value(value: &Option<String>) -> String {
    let Some(value) = value else { return "(not set)".to_owned() };
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "(empty)".to_owned(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(reason: Reason) -> StepWhy {
        StepWhy { step: 1, title: String::new(), lines: None, reason, compared: None, advice: Vec::new() }
    }

    fn files(paths: &[(&str, PathPart)], count: usize) -> KeyChange {
        let paths = paths
            .iter()
            .map(|(path, part)| PathChange { path: (*path).to_owned(), what: vec![part.clone()] });
        KeyChange::Files {
            source: "src".to_owned(),
            of: None,
            paths: paths.collect(),
            count,
            modes_only: false,
        }
    }

    #[test]
    fn one_line_and_what_it_leaves_out() {
        let mode = PathPart::Mode { from: 0o664, to: 0o644 };
        let one = why(Reason::Changed { changes: vec![files(&[("src/a.py", mode.clone())], 1)] });
        assert_eq!((one.summary().as_str(), one.details().len()), ("src: src/a.py mode 0664 -> 0644", 0));
        let arg = KeyChange::Argument {
            name: "VERSION".to_owned(),
            from: Some("1".to_owned()),
            to: Some("2".to_owned()),
            first: true,
        };
        let two = files(&[("a", mode), ("b", PathPart::Added)], 12);
        let both = why(Reason::Changed { changes: vec![arg, two] });
        assert_eq!(both.summary(), "ARG VERSION 1 -> 2 (first used here) (and 1 more)");
        assert_eq!(
            both.details(),
            ["src: 12 paths differ", "  a mode 0664 -> 0644", "  b added", "  and 10 more"]
        );
        let (old, new) = ("sha256:".to_owned() + &"a".repeat(64), "sha256:".to_owned() + &"b".repeat(64));
        let base = KeyChange::Base {
            was: "python:3".to_owned(),
            is: "python:3".to_owned(),
            from: Some(old),
            to: Some(new),
        };
        let base = why(Reason::Changed { changes: vec![base] });
        assert_eq!(base.summary(), "base image python:3 moved sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb");
    }

    #[test]
    fn what_was_removed_says_when_and_how() {
        let removed =
            |ago_s, how: Option<&str>| why(Reason::Removed { ago_s, how: how.map(str::to_owned) }).summary();
        assert_eq!(removed(Some(3 * 3600 + 5), Some("pruned")), "earlier result pruned 3 h ago");
        assert_eq!(removed(Some(59), Some("pruned")), "earlier result pruned 59 s ago");
        assert_eq!(removed(None, None), "earlier result is not in the store any more");
    }

    #[test]
    fn values_are_shown_on_one_line() {
        let rows =
            [(None, "(not set)"), (Some(""), "(empty)"), (Some("a\n  b"), "a b"), (Some("äöü"), "äöü")];
        for (text, shown) in rows {
            assert_eq!(value(&text.map(str::to_owned)), shown);
        }
        assert_eq!(value(&Some("ä".repeat(100))).chars().count(), LONGEST + 1);
    }
}
