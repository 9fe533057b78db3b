//! Sub-requests' answers as buildx's JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln::{Checked, MountName, Outline, PlanRequest, Target};
use kiln_dockerfile::{Position, Severity};
use serde::Serialize;

use super::detail;

#[derive(Serialize)]
struct Line {
    line: usize,
}

#[derive(Serialize)]
struct Range {
    start: Line,
    end: Line,
}

#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

/// A range a line, as the program has it.
fn location((first, last): (usize, usize)) -> Location {
    let range = |line| Range { start: Line { line }, end: Line { line } };
    Location { ranges: (first..=last).map(range).collect() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings<'a> {
    warnings: Vec<Warning>,
    sources: Vec<Source<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    rule_name: &'static str,
    description: &'static str,
    url: String,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// What a check finds, and the first reason why it cannot be built.
pub(super) fn findings(checked: &Checked, plan: &PlanRequest) -> String {
    let warning = |finding: &kiln_dockerfile::check::Finding| Warning {
        rule_name: finding.rule.name(),
        description: finding.rule.description(),
        url: finding.rule.url(),
        detail: detail(&finding.diagnostic),
        location: location(finding.lines),
    };
    let error = checked.diagnostics.iter().find(|one| one.severity == Severity::Error);
    let build_error = match error {
        Some(error) => {
            let line = Position::of(&plan.text, error.span.start).line;
            Some(BuildError { message: detail(error), location: location((line, line)) })
        }
        None => checked.fails().then(|| BuildError {
            message: format!("`error=true` makes findings a failure: {}", checked.rules().join(", ")),
            location: location(checked.findings.first().map_or((1, 1), |finding| finding.lines)),
        }),
    };
    let source = Source { filename: &plan.file, data: STANDARD.encode(&plan.text), language: "Dockerfile" };
    print(&Findings {
        warnings: checked.findings.iter().map(warning).collect(),
        sources: vec![source],
        build_error,
    })
}

#[derive(Serialize)]
struct Listing<'a> {
    targets: Vec<Listed<'a>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

/// The stages.
pub(super) fn targets(targets: &[Target], plan: &PlanRequest) -> String {
    print(&Listing {
        targets: targets.iter().map(Listed::of).collect(),
        sources: vec![STANDARD.encode(&plan.text)],
    })
}

impl<'a> Listed<'a> {
    fn of(target: &'a Target) -> Self {
        Self {
            name: target.name.as_deref(),
            default: target.is_default,
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: location(target.lines),
        }
    }
}

#[derive(Serialize)]
struct Outlined<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<Cache<'a>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct Cache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: Location,
}

/// What a target takes.
pub(super) fn outline(outline: &Outline, plan: &PlanRequest) -> String {
    print(&Outlined {
        name: outline.name.as_deref(),
        description: outline.description.as_deref(),
        args: outline
            .args
            .iter()
            .map(|arg| Arg {
                name: &arg.name,
                description: arg.description.as_deref(),
                value: &arg.value,
                location: location(arg.lines),
            })
            .collect(),
        secrets: outline.secrets.iter().map(Named::of).collect(),
        ssh: outline.ssh.iter().map(Named::of).collect(),
        cache: outline
            .caches
            .iter()
            .map(|cache| Cache { id: &cache.id, location: location(cache.lines) })
            .collect(),
        sources: vec![STANDARD.encode(&plan.text)],
    })
}

impl<'a> Named<'a> {
    fn of(mount: &'a MountName) -> Self {
        Self { name: &mount.id, required: mount.required, location: location(mount.lines) }
    }
}

fn print(answer: &impl Serialize) -> String {
    serde_json::to_string_pretty(answer).unwrap_or_default()
}
