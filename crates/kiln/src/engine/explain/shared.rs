//! Lines that travel with shared results: what a record says of its line, and how a list of records becomes a build to compare
//! with. Values of variables are not among it, so both sides are compared by a hash of them.

use std::collections::HashMap;

use kiln_core::{Digest, Env, Op, StepGraph, StepId};
use kiln_solver::{KeyPart, KeyParts};
use serde::{Deserialize, Serialize};

use super::line::{Found, HIDDEN, Line, LineSource, Lines, Secrets, lines};
use crate::engine::redact::Redactor;

/// Characters of what somebody else wrote that are looked at.
const LONGEST: usize = 1000;

/// What a record says of its line in the Dockerfile, besides the parts of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedLine {
    stage: String,
    text: String,
    /// The title of the image that it stands on, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<LineSource>,
}

/// A record of a list.
pub(crate) struct StepElsewhere<'a> {
    pub(crate) key: Digest,
    pub(crate) title: &'a str,
    /// When it ran, seconds since 1970.
    pub(crate) created: u64,
    pub(crate) line: &'a SharedLine,
    pub(crate) parts: &'a KeyParts,
}

/// The last build that wrote to a source of shared results, as its list has it.
pub(crate) struct BuildElsewhere {
    /// As the source was given.
    pub(crate) label: String,
    /// Its number among the sources.
    pub(crate) source: usize,
    pub(super) lines: Lines,
    /// Of each line, when it ran, seconds since 1970.
    pub(super) times: Vec<u64>,
}

/// Describes the lines of a plan for who reads their results elsewhere.
pub(crate) fn shared_lines(
    graph: &StepGraph,
    text: &str,
    redactor: &Redactor,
) -> HashMap<StepId, SharedLine> {
    let secrets = Secrets { redactor };
    let (lines, position) = lines(graph, text, &secrets);
    let shared = |at: usize| {
        let line: &Line = &lines[at];
        let root = line.root.map(|root| &lines[root]).filter(|root| root.kind == "image");
        SharedLine {
            stage: line.stage.clone(),
            text: secrets.value(None, &line.text),
            base: root.map(|root| root.title.clone()),
            sources: line.sources.clone(),
        }
    };
    position.into_iter().map(|(id, at)| (id, shared(at))).collect()
}

/// Returns the lines with hashes for the values of variables.
pub(super) fn hide(graph: &StepGraph, lines: &[Line]) -> Vec<Line> {
    let steps = graph.iter().filter(|(_, step)| !step.op.is_source());
    let hidden = lines.iter().zip(steps).map(|(line, (_, step))| {
        let mut env = Env::new();
        if let Op::Run(op) = &step.op {
            for (name, value) in &op.env {
                env.push(name, hash(&Digest::of(value.as_bytes())));
            }
        }
        Line { env, ..line.clone() }
    });
    hidden.collect()
}

fn hash(value: &Digest) -> String {
    format!("{HIDDEN}{}", &value.hex()[..6])
}

impl BuildElsewhere {
    /// Puts the records of a list, in the order of its Dockerfile, together. What is wrong with one is that it is compared with
    /// something else: nothing but words comes of it.
    pub(crate) fn of<'s>(
        (source, label): (usize, &str),
        steps: impl Iterator<Item = StepElsewhere<'s>>,
        redactor: &Redactor,
    ) -> Self {
        let secrets = Secrets { redactor };
        let mut build = Self { label: label.to_owned(), source, lines: Lines::default(), times: Vec::new() };
        let mut known: HashMap<Digest, usize> = HashMap::new();
        for StepElsewhere { key, title, created, line, parts } in steps {
            let below = |name: &str| parts.get(name).and_then(|value| value.parse::<Digest>().ok());
            let mut at = |key: Option<Digest>, image: Option<&String>, build: &mut Self| {
                let key = key?;
                Some(*known.entry(key).or_insert_with(|| {
                    // An image, or a step that is not in the list.
                    let (title, kind) = image.map_or(("", ""), |title| (title.as_str(), "image"));
                    let (title, kind) = (short(title), kind.to_owned());
                    build.push(Line { title, kind, ..Line::default() }, key, Vec::new(), 0)
                }))
            };
            let root = at(below("root"), line.base.as_ref(), &mut build);
            let layers = at(below("layers"), None, &mut build);
            let contents =
                (1..=line.sources.len()).map(|number| parts.get(&format!("source {number}"))?.parse().ok());
            let contents = contents.collect();
            let mut env = Env::new();
            let mut own = Vec::new();
            for KeyPart { name, value } in &parts.0 {
                match name.strip_prefix("env ") {
                    Some("order") => {}
                    Some(name) => {
                        let hidden = value.parse().map_or_else(|_| HIDDEN.to_owned(), |value| hash(&value));
                        env.push(name, hidden);
                    }
                    None if name == "root" || name == "layers" || name.starts_with("source ") => {}
                    None => own.push(KeyPart { name: name.clone(), value: secrets.value(None, value) }),
                }
            }
            let line = Line {
                stage: line.stage.clone(),
                kind: parts.get("op").unwrap_or_default().to_owned(),
                text: line.text.clone(),
                title: short(title),
                lines: None,
                root,
                layers,
                sources: line.sources.iter().map(LineSource::short).collect(),
                parts: own,
                env,
            };
            let number = build.push(line, key, contents, created);
            known.insert(key, number);
        }
        build
    }

    fn push(&mut self, line: Line, key: Digest, contents: Vec<Option<Digest>>, time: u64) -> usize {
        self.lines.fixed.push(line);
        self.lines.found.push(Found { key: Some(key), contents, ended: true });
        self.times.push(time);
        self.times.len() - 1
    }
}

impl LineSource {
    fn short(&self) -> Self {
        Self { shown: short(&self.shown), of: self.of.as_deref().map(short) }
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
