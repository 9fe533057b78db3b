//! `kiln build --check`, `--call=check|outline|targets`: what buildx's sub-requests answer, in its forms.
//! <https://docs.docker.com/reference/cli/docker/buildx/build/#call>

mod json;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use kiln::{
    CheckRequest, Checked, ContextSource, DockerfileSource, NamedContext, NamedSource, PlanRequest, Recipe,
};

use super::{cancel_on_signal, context_source, fix, start};
use crate::args::{BuildArgs, Global, ProgressMode};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// What `--call` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    format: Format,
}

/// How it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

impl Call {
    /// `--check`.
    pub(crate) const fn check() -> Self {
        Self { method: Method::Check, format: Format::Text }
    }

    /// Whether it asks for the checks.
    pub(crate) fn is_check(self) -> bool {
        self.method == Method::Check
    }

    /// Whether it asks for a build after all.
    pub(crate) fn is_build(self) -> bool {
        self.method == Method::Build
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let method = match parts.next().unwrap_or_default() {
            "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => return Err(format!("`{other}` is none of build, check, outline, targets")),
        };
        let mut call = Self { method, format: Format::Text };
        for part in parts {
            match part.split_once('=') {
                Some(("format", "json")) => call.format = Format::Json,
                Some(("format", "text")) => call.format = Format::Text,
                Some(("format", "sarif")) if method == Method::Check => call.format = Format::Sarif,
                Some(("format", "sarif")) => return Err("format=sarif is for check alone".to_owned()),
                _ => return Err(format!("`{part}` is none of format=text, format=json, format=sarif")),
            }
        }
        Ok(call)
    }
}

/// Answers.
pub(crate) fn call(global: Global, args: &BuildArgs, call: Call) -> Result<ExitCode, Failure> {
    let (mut request, path) = request(global, args)?;
    if args.fix {
        match &path {
            Origin::File(path) => fix::fix(&mut request, Some(path))?,
            Origin::Stdin => {
                fix::fix(&mut request, None)?;
                return Ok(ExitCode::SUCCESS);
            }
            Origin::Elsewhere => {
                return Err(Failure::usage(
                    "--fix rewrites a file of this machine, and this Dockerfile is none",
                ));
            }
        }
    }
    let as_json = call.format == Format::Json;
    let answer = match call.method {
        Method::Build | Method::Check => return check(&request, call.format),
        Method::Outline => {
            let outline = kiln::outline(&request)?;
            if as_json { json::outline(&outline, &request.plan) } else { text::outline(&outline) }
        }
        Method::Targets => {
            let targets = kiln::targets(&request)?;
            if as_json { json::targets(&targets, &request.plan) } else { text::targets(&targets) }
        }
    };
    ui::print(answer.trim_end_matches('\n'));
    Ok(ExitCode::SUCCESS)
}

/// Findings alone are no failure, unless `error=true` says so; buildx ends with 1 for any.
fn check(request: &CheckRequest, format: Format) -> Result<ExitCode, Failure> {
    let checked = kiln::check(request);
    let is_broken = checked.is_broken();
    match format {
        Format::Json => ui::print(json::findings(&checked, &request.plan)),
        Format::Sarif => ui::print(kiln::sarif(&checked, &request.plan).trim_end_matches('\n')),
        Format::Text if is_broken && checked.findings.is_empty() => {}
        Format::Text => ui::print(text::findings(&checked, &request.plan).trim_end_matches('\n')),
    }
    let fails = checked.fails();
    let rules = checked.rules().join(", ");
    let PlanRequest { file, text, .. } = &request.plan;
    let Checked { diagnostics, .. } = checked;
    if is_broken {
        let (file, text) = (file.clone(), text.clone());
        return Err(kiln::Error::Dockerfile { file, text, diagnostics }.into());
    }
    ui::show_diagnostics(file, text, &diagnostics);
    if fails {
        ui::note(format_args!("error: `error=true` makes findings a failure: {rules}"));
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a Dockerfile's text comes from.
enum Origin {
    File(PathBuf),
    Stdin,
    /// A tar, a repository, a URL.
    Elsewhere,
}

fn request(global: Global, args: &BuildArgs) -> Result<(CheckRequest, Origin), Failure> {
    // As in buildx, without a context it is the directory that one is in: nothing is written into it.
    let context = args.context.as_deref().unwrap_or(Path::new("."));
    let (source, dockerfile) = context_source::main(context, args.file.as_deref())?;
    let is_local = matches!(source, ContextSource::Directory(_));
    let is_stdin = matches!(dockerfile, DockerfileSource::Text(_));
    let Recipe { file, text, ignore } = match source {
        // Needs neither namespaces nor a store.
        ContextSource::Directory(dir) => Recipe::of_directory(&dir, &dockerfile)?,
        source => {
            let given = (source, dockerfile);
            let request = context_source::only(&global, given, &args.secret, &args.registry)?;
            let engine = start(global)?;
            engine.recipe(&request, &Progress::new(ProgressMode::Quiet), &cancel_on_signal()?)?
        }
    };
    let origin = match (is_local, is_stdin) {
        (true, false) => Origin::File(PathBuf::from(&file)),
        (_, true) => Origin::Stdin,
        (false, false) => Origin::Elsewhere,
    };
    let mut contexts = std::collections::BTreeMap::new();
    for text in &args.build_context {
        let (name, source) = context_source::named(text)?;
        let kind = match source {
            NamedSource::Files(_) => NamedContext::Files,
            NamedSource::OciLayout { .. } | NamedSource::Image(_) => NamedContext::Image,
        };
        contexts.insert(name, kind);
    }
    let plan = PlanRequest {
        file,
        text,
        target: args.target.clone(),
        build_args: config::assignments("--build-arg", &args.build_arg)?,
        platforms: config::platforms(&args.platform)?,
    };
    Ok((CheckRequest { plan, ignore, contexts }, origin))
}

/// What a finding says, with what to write instead.
fn detail(diagnostic: &kiln_dockerfile::Diagnostic) -> String {
    let help = diagnostic.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}{help}", diagnostic.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_formats() {
        let rows = [
            ("check", Ok(Call::check())),
            ("lint,format=json", Ok(Call { method: Method::Check, format: Format::Json })),
            ("outline,format=text", Ok(Call { method: Method::Outline, format: Format::Text })),
            ("targets", Ok(Call { method: Method::Targets, format: Format::Text })),
            ("build", Ok(Call { method: Method::Build, format: Format::Text })),
            ("target", Err("`target` is none of build, check, outline, targets")),
            ("check,format=sarif", Ok(Call { method: Method::Check, format: Format::Sarif })),
            ("targets,format=sarif", Err("format=sarif is for check alone")),
            ("check,format=xml", Err("`format=xml` is none of format=text, format=json, format=sarif")),
        ];
        for (text, call) in rows {
            assert_eq!(text.parse::<Call>(), call.map_err(str::to_owned), "{text}");
        }
    }
}
