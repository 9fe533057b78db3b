//! The steps of one build as they are remembered: what each line says, and what it came to.

use std::collections::HashMap;

use kiln_core::{CopySource, Digest, Env, Op, StepGraph, StepId, StepInfo};
use kiln_solver::{KeyPart, KeyParts};
use serde::{Deserialize, Serialize};

use crate::engine::redact::Redactor;
use crate::engine::remote;

/// Changes with the form of what is kept: what another version wrote is not read.
const VERSION: u32 = 1;
/// Stands before what is kept of a value that looks like a secret: enough to say that it changed.
pub(super) const HIDDEN: &str = "hidden:";

/// What does not depend on how the build went.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Line {
    /// The stage, and the platform that it is for: lines of two stages are never the same line.
    pub(crate) stage: String,
    /// `run`, `copy`: of one line there may be two steps of different kinds.
    pub(crate) kind: String,
    /// What the Dockerfile says, without its variables replaced; a title where nothing is written.
    pub(crate) text: String,
    pub(crate) title: String,
    pub(crate) lines: Option<(usize, usize)>,
    /// Position of the step that it stands on.
    pub(crate) root: Option<usize>,
    /// Position of the step whose layers go over that.
    pub(crate) layers: Option<usize>,
    pub(crate) sources: Vec<LineSource>,
    /// Those of the instruction itself.
    pub(crate) parts: Vec<KeyPart>,
    pub(crate) env: Env,
}

/// Files that a line takes or sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineSource {
    /// As the instruction has them.
    pub(crate) shown: String,
    /// The stage, image or URL; none for the main build context.
    pub(crate) of: Option<String>,
}

/// What a line came to in one build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Its content key, if something needed it.
    pub(crate) key: Option<Digest>,
    /// The digest of each source's files, as far as they were looked at.
    pub(crate) contents: Vec<Option<Digest>>,
    /// Whether there is a result.
    pub(crate) ended: bool,
}

/// The lines of one build.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lines {
    pub(crate) fixed: Vec<Line>,
    /// As many.
    pub(crate) found: Vec<Found>,
}

/// What is hidden in what is kept.
pub(crate) struct Secrets<'a> {
    pub(crate) redactor: &'a Redactor,
}

impl Secrets<'_> {
    /// Returns a value without secrets that steps were given; of a variable whose name says that it is one, nothing.
    pub(super) fn value(&self, name: Option<&str>, value: &str) -> String {
        if name.is_some_and(kiln_frontend::is_secret) && !value.is_empty() {
            return format!("{HIDDEN}{}", &Digest::of(value.as_bytes()).hex()[..6]);
        }
        String::from_utf8_lossy(&self.redactor.redact(value.as_bytes())).into_owned()
    }
}

/// Returns a value as it is shown.
pub(crate) fn shown(value: &str) -> String {
    if value.starts_with(HIDDEN) { "(hidden)".to_owned() } else { value.to_owned() }
}

/// Describes the steps of a plan; `text` is the Dockerfile's. Sources outside of the graph are no lines.
pub(crate) fn lines(
    graph: &StepGraph,
    text: &str,
    secrets: &Secrets<'_>,
) -> (Vec<Line>, HashMap<StepId, usize>) {
    let written: Vec<&str> = text.lines().collect();
    let mut position: HashMap<StepId, usize> = HashMap::new();
    let mut lines: Vec<Line> = Vec::new();
    // The environment without secrets, kept beside the one that it was made of: most of it is shared with the last.
    let mut seen = (Env::new(), Env::new());
    for (id, step) in graph.iter() {
        if step.op.is_source() {
            continue;
        }
        let at = |id: Option<StepId>| id.and_then(|id| position.get(&id).copied());
        let (root, layers) = (at(step.op.root()), at(step.op.layers()));
        let mut parts = KeyParts::of_instruction(&step.op).0;
        for part in &mut parts {
            part.value = secrets.value(None, &part.value);
        }
        let mut env = Env::new();
        if let Op::Run(op) = &step.op {
            let (before, hidden) = &mut seen;
            for place in op.env.places_that_differ(before) {
                let Some((name, value)) = op.env.at(place) else { continue };
                hidden.put(place, name, secrets.value(Some(name), value));
            }
            hidden.truncate(op.env.len());
            *before = op.env.clone();
            env = hidden.clone();
        }
        position.insert(id, lines.len());
        lines.push(Line {
            stage: stage(&step.info),
            kind: parts.iter().find(|part| part.name == "op").map_or_else(String::new, |op| op.value.clone()),
            text: as_written(&step.info, &written),
            title: step.info.title.clone(),
            lines: step.info.lines,
            root,
            layers,
            sources: sources(graph, &step.op),
            parts,
            env,
        });
    }
    (lines, position)
}

/// The stage's name with the platform that its title speaks of.
fn stage(info: &StepInfo) -> String {
    let inner = info.title.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let platform = inner.and_then(|(inner, _)| inner.split(' ').find(|word| word.contains('/')));
    match platform.filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
        Some(platform) => format!("{} {platform}", info.stage),
        None => info.stage.clone(),
    }
}

fn as_written(info: &StepInfo, written: &[&str]) -> String {
    let title = info.title.split_once("] ").map_or(info.title.as_str(), |(_, text)| text);
    match info.lines {
        // Triggers of a base all stand in its FROM line.
        Some((first, last)) if !title.starts_with("ONBUILD ") => {
            let lines = written.get(first.saturating_sub(1)..last.min(written.len())).unwrap_or_default();
            lines.join("\n").split_whitespace().collect::<Vec<_>>().join(" ")
        }
        // An image's digest is its key.
        _ => title.split('@').next().unwrap_or(title).to_owned(),
    }
}

fn sources(graph: &StepGraph, op: &Op) -> Vec<LineSource> {
    let of = |id: StepId| {
        let step = graph.get(id)?;
        match &step.op {
            Op::Context(context) if context.name.is_empty() => None,
            Op::Context(context) => Some(format!("context {}", context.name)),
            op if op.is_remote() => remote::title(op),
            Op::Image(_) => Some(format!("image {}", image_name(&step.info.title))),
            _ => Some(format!("stage {}", step.info.stage)),
        }
    };
    let shown = |path: &str| match path.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    };
    let taken = op.sources().into_iter();
    let source = |(id, selection): (StepId, kiln_core::Selection)| LineSource {
        shown: shown(&selection.path),
        of: of(id),
    };
    let sources: Vec<LineSource> = taken.map(source).collect();
    debug_assert!(match op {
        Op::Copy(op) =>
            sources.len() == op.sources.iter().filter(|s| matches!(s, CopySource::From(_))).count(),
        _ => true,
    });
    sources
}

/// `python:3.12` of `[1/3] FROM docker.io/library/python:3.12@sha256:...`.
pub(crate) fn image_name(title: &str) -> &str {
    let name = title.rsplit_once("FROM ").map_or(title, |(_, name)| name);
    let name = name.split('@').next().unwrap_or(name);
    name.strip_prefix("docker.io/").map_or(name, |short| short.strip_prefix("library/").unwrap_or(short))
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    lines: Vec<KeptLine>,
}

#[derive(Serialize, Deserialize)]
struct KeptLine {
    stage: String,
    kind: String,
    text: String,
    title: String,
    lines: Option<(usize, usize)>,
    root: Option<usize>,
    layers: Option<usize>,
    sources: Vec<LineSource>,
    parts: Vec<(String, String)>,
    /// How many variables there are, and those that the last line with any had not at their places: a file with many
    /// ENV and many RUN takes no more than the file itself.
    env: (usize, Vec<(usize, String, String)>),
    found: Found,
}

impl Lines {
    /// Returns them as bytes to be kept.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut before = Env::new();
        let lines = self.fixed.iter().zip(&self.found).map(|(line, found)| {
            let mut changed = Vec::new();
            if !line.env.is_empty() {
                let places = line.env.places_that_differ(&before).into_iter();
                let pair =
                    |place| line.env.at(place).map(|(name, value)| (place, name.clone(), value.clone()));
                changed = places.filter_map(pair).collect();
                before = line.env.clone();
            }
            KeptLine {
                stage: line.stage.clone(),
                kind: line.kind.clone(),
                text: line.text.clone(),
                title: line.title.clone(),
                lines: line.lines,
                root: line.root,
                layers: line.layers,
                sources: line.sources.clone(),
                parts: line.parts.iter().map(|part| (part.name.clone(), part.value.clone())).collect(),
                env: (line.env.len(), changed),
                found: found.clone(),
            }
        });
        let kept = Kept { version: VERSION, lines: lines.collect() };
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; none if it is damaged or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(bytes).ok()?;
        if kept.version != VERSION {
            return None;
        }
        let mut before = Env::new();
        let mut lines = Self::default();
        for (number, line) in kept.lines.into_iter().enumerate() {
            let KeptLine { stage, kind, text, title, lines: place, root, layers, sources, parts, env, found } =
                line;
            let mut own = Env::new();
            let (length, changed) = env;
            if length > 0 {
                for (place, name, value) in changed {
                    if place > before.len() {
                        return None;
                    }
                    before.put(place, name, value);
                }
                before.truncate(length);
                own = before.clone();
            }
            // Steps come after those that they name.
            let below = root.into_iter().chain(layers).all(|below| below < number);
            if own.len() != length || !below || found.contents.len() != sources.len() {
                return None;
            }
            let parts = parts.into_iter().map(|(name, value)| KeyPart { name, value }).collect();
            lines.fixed.push(Line {
                stage,
                kind,
                text,
                title,
                lines: place,
                root,
                layers,
                sources,
                parts,
                env: own,
            });
            lines.found.push(found);
        }
        Some(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_core::Secret;

    use super::*;

    fn info(title: &str, stage: &str, lines: Option<(usize, usize)>) -> StepInfo {
        StepInfo { title: title.to_owned(), stage: stage.to_owned(), lines, no_cache: false }
    }

    #[test]
    fn lines_are_those_of_a_stage_for_a_platform() {
        let rows = [
            ("[2/4] RUN a", "0", "0"),
            ("[build 2/4] RUN a", "build", "build"),
            ("[linux/arm64 build 2/4] RUN a", "build", "build linux/arm64"),
            ("[linux/amd64->arm64 2/4] RUN a", "0", "0 linux/amd64->arm64"),
            ("[internal] an empty directory", "", ""),
            ("FROM base@sha256:x", "", ""),
        ];
        for (title, name, expected) in rows {
            assert_eq!(stage(&info(title, name, None)), expected, "{title}");
        }
    }

    #[test]
    fn a_line_is_what_is_written_and_not_what_it_expands_to() {
        let written = ["FROM base", "RUN make \\", "   $TARGET", "COPY a /"];
        let rows = [
            ("[2/3] RUN make all", Some((2, 3)), "RUN make \\ $TARGET"),
            ("[3/3] COPY a /", Some((4, 4)), "COPY a /"),
            // A trigger stands in the base, and its line is FROM.
            ("[2/3] ONBUILD RUN a", Some((1, 1)), "ONBUILD RUN a"),
            ("FROM docker.io/library/a:1@sha256:x", None, "FROM docker.io/library/a:1"),
            // Nobody promises that the text has the line.
            ("[3/3] RUN x", Some((9, 12)), ""),
        ];
        for (title, lines, expected) in rows {
            assert_eq!(as_written(&info(title, "0", lines), &written), expected, "{title}");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_secret() {
        let secret = Secret::new(b"hunter2\n".to_vec()).expect("a small one");
        let redactor = Redactor::new(&BTreeMap::from([("pw".to_owned(), secret)]));
        let secrets = Secrets { redactor: &redactor };
        assert_eq!(secrets.value(None, "login hunter2 now"), "login *** now");
        assert_eq!(secrets.value(Some("URL"), "http://hunter2@x"), "http://***@x");
        let hidden = secrets.value(Some("NPM_TOKEN"), "abc");
        assert!(hidden.starts_with(HIDDEN) && !hidden.contains("abc") && hidden.len() == HIDDEN.len() + 6);
        assert_ne!(hidden, secrets.value(Some("NPM_TOKEN"), "abd"), "that it changed is seen");
        assert_eq!(shown(&hidden), "(hidden)");
        assert_eq!(secrets.value(Some("NPM_TOKEN"), ""), "");
        assert_eq!(secrets.value(Some("VERSION"), "1"), "1");
    }

    #[test]
    fn images_are_called_what_people_call_them() {
        let rows = [
            ("[1/3] FROM docker.io/library/python:3.12@sha256:x", "python:3.12"),
            ("FROM docker.io/team/app:1@sha256:x", "team/app:1"),
            ("FROM 127.0.0.1:5000/a:1@sha256:x", "127.0.0.1:5000/a:1"),
            ("base", "base"),
        ];
        for (title, expected) in rows {
            assert_eq!(image_name(title), expected);
        }
    }
}
