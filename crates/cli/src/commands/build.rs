//! `kiln build`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln::{BuildOutcome, BuildRequest, ContextSource, DockerfileSource, Output};

use super::{cancel_on_signal, output_flag, secret_flag, start};
use crate::args::{BuildArgs, Global, ProgressMode};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// Builds.
pub(crate) fn build(global: Global, args: &BuildArgs) -> Result<ExitCode, Failure> {
    // Everything that may be wrong with what was typed comes before anything is made.
    let request = request(&global, args)?;
    if writes_to_stdout(&request) && config::results_on_terminal() {
        return Err(Failure::usage(
            "the result would go to the terminal: add dest=FILE to --output, or a pipe",
        ));
    }
    if let Some(path) = &args.iidfile {
        // As docker: after a failure there is no id, not an old one.
        remove_old(path)?;
    }
    let engine = start(global)?;
    let cancel = cancel_on_signal()?;
    let mode = if args.quiet { ProgressMode::Quiet } else { args.progress };
    let progress = Progress::new(mode);
    let result = engine.build(&request, &progress, &cancel);
    progress.finish();
    if result.is_err() && mode.is_for_people() {
        ui::note("");
    }
    let outcome = result?;
    if let Some(path) = &args.iidfile {
        // As docker: the configuration's digest; of several platforms, the index's.
        let id = match &outcome.images[..] {
            [image] => Some(image.config),
            _ => outcome.digest,
        };
        write_file(path, &id.map_or(String::new(), |id| id.to_string()))?;
    }
    if let Some(path) = &args.metadata_file {
        write_file(path, &metadata(&outcome))?;
    }
    if let Some(digest) = outcome.digest
        && !writes_to_stdout(&request)
    {
        ui::print(digest);
    }
    Ok(ExitCode::SUCCESS)
}

fn request(global: &Global, args: &BuildArgs) -> Result<BuildRequest, Failure> {
    let Some(context) = &args.context else {
        return Err(Failure::usage("which directory? `kiln build .` builds the one that you are in"));
    };
    if context == Path::new("-") {
        return Err(Failure::usage("a context on standard input is not supported yet; give a directory"));
    }
    if context.to_str().is_some_and(|text| text.contains("://")) {
        return Err(Failure::usage(format!("{}: a remote context is not supported yet", context.display())));
    }
    if !context.is_dir() {
        return Err(Failure::usage(format!("build context {} is not a directory", context.display())));
    }
    for (flag, value) in [("--provenance", &args.provenance), ("--sbom", &args.sbom)] {
        if value.as_ref().is_some_and(|value| value != "false") {
            return Err(Failure::usage(format!("{flag}: attestations are not supported yet")));
        }
    }
    let mut outputs: Vec<Output> =
        args.output.iter().map(|text| output_flag::parse(text)).collect::<Result<_, _>>()?;
    if args.load && !outputs.is_empty() && !outputs.contains(&Output::Image) {
        outputs.push(Output::Image);
    }
    let files = |output: &Output| matches!(output, Output::Local { .. } | Output::Tar { .. });
    if args.iidfile.is_some() && !outputs.is_empty() && outputs.iter().all(files) {
        return Err(Failure::usage("--iidfile: no image is made, only files; drop it, or add --load"));
    }
    let dockerfile = match &args.file {
        Some(file) if file == Path::new("-") => DockerfileSource::Text(read_stdin()?),
        Some(file) => DockerfileSource::Path(file.clone()),
        None => DockerfileSource::Path(context.join("Dockerfile")),
    };
    let platforms =
        args.platform.iter().map(|p| p.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)?;
    let tags = args.tag.iter().map(|t| t.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)?;
    let allow =
        args.allow.iter().map(|a| a.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)?;
    Ok(BuildRequest {
        root: config::store_root(global.root.clone())?,
        context: context.clone(),
        dockerfile,
        build_contexts: args
            .build_context
            .iter()
            .map(|text| build_context(text))
            .collect::<Result<BTreeMap<_, _>, _>>()?,
        build_args: config::assignments("--build-arg", &args.build_arg)?,
        secrets: secret_flag::read(&args.secret)?,
        labels: config::assignments("--label", &args.label)?,
        target: args.target.clone(),
        platforms,
        tags,
        no_cache: args.no_cache,
        pull: args.pull,
        no_cache_filter: args.no_cache_filter.clone(),
        allow,
        outputs,
        jobs: args.jobs.map(usize::from),
        source_date_epoch: config::source_date_epoch()?,
        registry: config::registry(&args.registry)?,
    })
}

fn build_context(text: &str) -> Result<(String, ContextSource), Failure> {
    let bad = |reason: &str| Failure::usage(format!("--build-context {text}: {reason}"));
    let (name, source) =
        text.split_once('=').filter(|(n, s)| !n.is_empty() && !s.is_empty()).ok_or_else(|| {
            bad("write NAME=SOURCE, where SOURCE is a directory, oci-layout://PATH or docker-image://REF")
        })?;
    let source = if let Some(image) = source.strip_prefix("docker-image://") {
        ContextSource::Image(image.parse().map_err(Failure::from_usage)?)
    } else if let Some(layout) = source.strip_prefix("oci-layout://") {
        let (path, digest) = match layout.split_once('@') {
            Some((path, digest)) => (path, Some(digest.parse().map_err(Failure::from_usage)?)),
            None => (layout, None),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (path, None),
        };
        ContextSource::OciLayout { path: PathBuf::from(path), tag, digest }
    } else if source.contains("://") {
        return Err(bad("this kind of source is not supported yet"));
    } else if Path::new(source).is_dir() {
        ContextSource::Directory(PathBuf::from(source))
    } else {
        return Err(bad("there is no such directory"));
    };
    Ok((name.to_owned(), source))
}

/// `--metadata-file`, with buildx's keys.
fn metadata(outcome: &BuildOutcome) -> String {
    let mut map = serde_json::Map::new();
    if let Some(digest) = outcome.digest {
        map.insert("containerimage.digest".to_owned(), digest.to_string().into());
    }
    if let Some(image) = outcome.images.first() {
        map.insert("containerimage.config.digest".to_owned(), image.config.to_string().into());
    }
    if !outcome.tags.is_empty() {
        let names: Vec<String> = outcome.tags.iter().map(ToString::to_string).collect();
        map.insert("image.name".to_owned(), names.join(",").into());
    }
    map.insert("kiln.outcome".to_owned(), serde_json::to_value(outcome).unwrap_or_default());
    format!("{:#}\n", serde_json::Value::Object(map))
}

fn writes_to_stdout(request: &BuildRequest) -> bool {
    use kiln::Output::{Docker, Oci, Tar};
    request
        .outputs
        .iter()
        .any(|o| matches!(o, Oci { dest: None, .. } | Docker { dest: None } | Tar { dest: None }))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::usage(format!("cannot read the Dockerfile from standard input: {error}"))
    })?;
    Ok(text)
}

fn remove_old(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::usage(format!("cannot write {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}
