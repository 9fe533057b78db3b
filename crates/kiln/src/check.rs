//! Everything that can be said of a Dockerfile without building it, and without any network.

use kiln_core::{IgnoreList, Platform};
use kiln_dockerfile::check::{self, Finding, Options};
use kiln_dockerfile::{Diagnostic, Dockerfile, Severity};
use kiln_frontend::{ImageTable, LowerOptions, NamedContext, Outline, Target};

use std::collections::BTreeMap;

use crate::{Error, PlanRequest};

/// The build argument that stands for `# check=`.
const OPTIONS_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckRequest {
    /// The Dockerfile and what is asked of it. Without a target all its stages are checked, as in BuildKit.
    pub plan: PlanRequest,
    /// What .dockerignore leaves out of the build context.
    pub ignore: IgnoreList,
    /// Named contexts: a name given here stands for no stage or image of the Dockerfile.
    pub contexts: BTreeMap<String, NamedContext>,
}

/// Writes what was found as SARIF 2.1.0, for code hosts and editors.
pub fn sarif(checked: &Checked, plan: &PlanRequest) -> String {
    let found = checked.findings.iter().map(|one| &one.diagnostic).chain(&checked.diagnostics);
    let findings: Vec<Diagnostic> = found.cloned().collect();
    let file = kiln_checks::CheckedFile {
        path: &plan.file,
        text: &plan.text,
        findings: &findings,
        error: checked.error,
    };
    kiln_checks::sarif(env!("CARGO_PKG_VERSION"), &[file])
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is reported, in the order of the lines.
    pub findings: Vec<Finding>,
    /// What belongs to no rule: errors, so that nothing can be built, and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether findings are a failure (`error=true`).
    pub error: bool,
}

impl Checked {
    /// Whether something keeps the Dockerfile from being built.
    pub fn is_broken(&self) -> bool {
        is_broken(&self.diagnostics)
    }

    /// Whether there are findings, and `error=true` makes them a failure.
    pub fn fails(&self) -> bool {
        self.error && !self.findings.is_empty()
    }

    /// Returns all there is to say, for somebody who reads it beside the Dockerfile.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics.into_iter().chain(self.findings.into_iter().map(|one| one.diagnostic)).collect()
    }

    /// Returns the names of the rules that found something, once each.
    pub fn rules(&self) -> Vec<&'static str> {
        let rules: std::collections::BTreeSet<_> = self.findings.iter().map(|one| one.rule.name()).collect();
        rules.into_iter().collect()
    }
}

/// Checks a Dockerfile. Images are not asked for: an unknown one counts as one with an empty configuration, so that
/// variables, SHELL and WORKDIR of a base image are not known to be there.
pub fn check(request: &CheckRequest) -> Checked {
    let plan = &request.plan;
    let (file, mut found) = kiln_dockerfile::parse(&plan.text);
    if is_broken(&found) {
        // The program stops at the first mistake and tells what it found above.
        let end = found.iter().filter(|one| one.severity == Severity::Error).map(|one| one.span.start).min();
        let above = check::of_instructions(&file).into_iter().filter(|one| Some(one.span.start) < end);
        found.extend(above);
        return judge(&file, &plan.text, &plan.build_args, found);
    }
    let options = LowerOptions { all_stages: plan.target.is_none(), ..request.options() };
    found.extend(of_text(&plan.text, &file, &options, &ImageTable::new()));
    match kiln_frontend::lower_offline(&file, &options) {
        Ok(plan) => found.extend(plan.diagnostics),
        Err(diagnostics) => found.extend(diagnostics),
    }
    judge(&file, &plan.text, &plan.build_args, found)
}

/// Says what building the target takes. Needs no network, like [`check`].
///
/// # Errors
/// [`Error::Dockerfile`].
pub fn outline(request: &CheckRequest) -> Result<Outline, Error> {
    let file = request.plan.parse()?;
    kiln_frontend::outline(&file, &request.options()).map_err(|diagnostics| request.plan.refused(diagnostics))
}

/// Lists the stages of a Dockerfile.
///
/// # Errors
/// [`Error::Dockerfile`].
pub fn targets(request: &CheckRequest) -> Result<Vec<Target>, Error> {
    Ok(kiln_frontend::targets(&request.plan.parse()?))
}

impl CheckRequest {
    fn options(&self) -> LowerOptions {
        LowerOptions {
            build_args: self.plan.build_args.clone(),
            target: self.plan.target.clone(),
            platforms: self.plan.platforms.clone(),
            build_platform: Some(Platform::host()),
            contexts: self.contexts.clone(),
            ignore: self.ignore.clone(),
            ..LowerOptions::default()
        }
    }
}

/// Returns what rules find that look at the text and know the base images: BuildKit's and kiln's own.
pub(crate) fn of_text(
    text: &str,
    file: &Dockerfile,
    options: &LowerOptions,
    images: &ImageTable,
) -> Vec<Diagnostic> {
    let mut found = check::of_instructions(file);
    found.extend(check::of_whole(file));
    found.extend(kiln_checks::findings(text, file, options, images));
    found
}

/// Leaves out what is not wanted.
pub(crate) fn judge(
    file: &Dockerfile,
    text: &str,
    build_args: &BTreeMap<String, String>,
    mut found: Vec<Diagnostic>,
) -> Checked {
    kiln_checks::add_fixes(text, file, &mut found);
    let (named, mut diagnostics): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.rule.is_some());
    let options = match Options::of(file, build_args.get(OPTIONS_ARG).map(String::as_str)) {
        Ok(options) => options,
        Err(error) => {
            diagnostics.push(error);
            return Checked { diagnostics, ..Checked::default() };
        }
    };
    diagnostics.extend(options.unknown(file));
    let findings = check::report(file, text, &options, named);
    Checked { findings, diagnostics, error: options.error }
}

fn is_broken(found: &[Diagnostic]) -> bool {
    found.iter().any(|one| one.severity == Severity::Error)
}
