//! `kiln build`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use kiln::{Advice, BuildRequest, Entitlement, ImageForm, OnError, Output};

use super::{
    Call, annotation_flag, attest_flag, cache_flag, cache_mount_flag, call, cancel_on_signal, carry,
    context_source, layers, machine_flags, metadata, output_flag, sandbox_flags, secret_flag, shell,
    ssh_flag, start, storage,
};
use crate::args::{BuildArgs, ContextModes, Global, NetworkFlag, OnErrorMode, ProgressMode};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// Builds.
pub(crate) fn build(global: Global, args: &BuildArgs) -> Result<ExitCode, Failure> {
    let call = if args.check { Call::check() } else { args.call };
    if args.fix && !call.is_check() {
        return Err(Failure::usage("--fix mends what --check finds: write `kiln build --check --fix`"));
    }
    if !call.is_build() {
        return call::call(global, args, call);
    }
    // Everything that may be wrong with what was typed comes before anything is made.
    let request = request(&global, args)?;
    if writes_to_stdout(&request) && config::results_on_terminal() {
        return Err(Failure::usage(
            "the result would go to the terminal: add dest=FILE to --output, or a pipe",
        ));
    }
    if args.on_error == OnErrorMode::Shell && !config::interactive() {
        return Err(Failure::usage(
            "--on-error=shell: there is no terminal for a shell; leave it out, and enter the step with `kiln debug shell`",
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
    let outcome = match result {
        Err(error) if args.on_error == OnErrorMode::Shell && error.kept().is_some() => {
            let kept = error.kept().unwrap_or_default().to_owned();
            let failure = Failure::from(error);
            ui::show_failure(&failure);
            shell::after_failure(&engine, &request, &kept)?;
            return Ok(failure.exit_code());
        }
        result => result?,
    };
    if mode.is_for_people() && !args.explain {
        // What costs most and shows least: another umask.
        for step in outcome.why.iter().filter(|step| step.is_modes_only()) {
            ui::note(format_args!(
                "hint: only permission bits differ in what {} takes, so it ran again: {}",
                ui::one_line(&step.title),
                crate::hints::advice(&Advice::ContextModes)
            ));
        }
    }
    if mode.is_for_people() {
        carry::report(&outcome.cache_mounts);
    }
    if let Some(path) = &args.iidfile {
        // As docker: the configuration's digest; of several platforms, the index's.
        let id = match &outcome.images[..] {
            [image] => Some(image.config),
            _ => outcome.digest,
        };
        write_file(path, &id.map_or(String::new(), |id| id.to_string()))?;
    }
    if let Some(path) = &args.metadata_file {
        write_file(path, &metadata::text(&outcome))?;
    }
    if let Some(digest) = outcome.digest
        && !writes_to_stdout(&request)
    {
        ui::print(digest);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn request(global: &Global, args: &BuildArgs) -> Result<BuildRequest, Failure> {
    let Some(context) = &args.context else {
        return Err(Failure::usage("which directory? `kiln build .` builds the one that you are in"));
    };
    let (context, dockerfile) = context_source::main(context, args.file.as_deref())?;
    let outputs = outputs(args)?;
    if args.iidfile.is_some() && !outputs.is_empty() && outputs.iter().all(|output| output.form().is_none()) {
        return Err(Failure::usage("--iidfile: no image is made, only files; drop it, or add -o type=image"));
    }
    let tags = args.tag.iter().map(|t| t.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)?;
    let mut allow: BTreeSet<Entitlement> =
        args.allow.iter().map(|a| a.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)?;
    if args.sandbox.network == NetworkFlag::Host {
        // As buildx: what all steps get, one may ask for.
        allow.insert(Entitlement::NetworkHost);
    }
    Ok(BuildRequest {
        root: config::store_root(global.root.clone())?,
        context,
        dockerfile,
        build_contexts: args
            .build_context
            .iter()
            .map(|text| context_source::named(text))
            .collect::<Result<BTreeMap<_, _>, _>>()?,
        context_modes: match args.context_modes {
            ContextModes::AsIs => kiln::ContextModes::AsIs,
            ContextModes::Git => kiln::ContextModes::Git,
        },
        build_args: config::assignments("--build-arg", &args.build_arg)?,
        secrets: secret_flag::read(&args.secret)?,
        ssh: ssh_flag::read(&args.ssh)?,
        on_error: match args.on_error {
            OnErrorMode::Keep | OnErrorMode::Shell => OnError::Keep,
            OnErrorMode::Discard => OnError::Discard,
        },
        allow_secret_leak: args.allow_secret_leak,
        network: sandbox_flags::network(&args.sandbox),
        sandbox: sandbox_flags::read(&args.sandbox)?,
        machine: machine_flags::read(&args.machine)?,
        labels: config::assignments("--label", &args.label)?,
        target: args.target.clone(),
        platforms: config::platforms(&args.platform)?,
        emulators: config::emulators(),
        tags,
        cache_from: cache_flag::sources(&args.cache_from)?,
        cache_to: cache_flag::targets(&args.cache_to)?,
        no_cache: args.no_cache,
        pull: args.pull,
        no_cache_filter: args.no_cache_filter.clone(),
        explain: args.explain,
        allow,
        outputs,
        attest: attest_flag::read(&args.attest)?,
        sbom_file: args.attest.sbom_file.clone(),
        provenance_file: args.attest.provenance_file.clone(),
        provenance_told: match args.metadata_file {
            Some(_) => config::metadata_provenance()?,
            None => None,
        },
        cache_mounts: cache_mount_flag::read(&args.cache_mount)?,
        jobs: args.jobs.map(usize::from),
        source_date_epoch: config::source_date(args.source_date_epoch.as_deref())?,
        lock_timeout: storage::lock_timeout(args.lock_timeout.as_deref())?,
        bound: storage::bound(&args.bound)?,
        size_limits: layers::limits(&args.size_limits)?,
        cache_mounts_from: args
            .carry
            .cache_mounts_from
            .iter()
            .map(|text| carry::source(text))
            .collect::<Result<_, _>>()?,
        cache_mounts_to: args
            .carry
            .cache_mounts_to
            .iter()
            .map(|text| carry::target(text))
            .collect::<Result<_, _>>()?,
        cache_mounts_required: args.carry.cache_mounts_required,
        registry: config::registry(&args.registry)?,
    })
}

/// `--output`, `--push`, `--load` and `--annotation` together.
fn outputs(args: &BuildArgs) -> Result<Vec<Output>, Failure> {
    let mut outputs: Vec<Output> =
        args.output.iter().map(|text| output_flag::parse(text)).collect::<Result<_, _>>()?;
    if args.push {
        // As buildx: what is an image already is pushed as well.
        let mut images = 0;
        for output in &mut outputs {
            if let Output::Image { push, .. } = output {
                *push = true;
                images += 1;
            }
        }
        if images == 0 {
            outputs.push(Output::Image { form: ImageForm::default(), push: true, store: true });
        }
    }
    if args.load {
        outputs.push(Output::Daemon { daemon: config::daemon(), form: ImageForm::default() });
    }
    let annotations = args.annotation.iter().map(|text| annotation_flag::parse(text));
    let annotations = annotations.collect::<Result<Vec<_>, _>>()?.concat();
    if annotations.is_empty() {
        return Ok(outputs);
    }
    if outputs.is_empty() {
        outputs.push(Output::image());
    }
    for form in outputs.iter_mut().filter_map(Output::form_mut) {
        form.annotations.extend(annotations.iter().cloned());
        form.check().map_err(|reason| Failure::usage(format!("--annotation: {reason}")))?;
    }
    Ok(outputs)
}

fn writes_to_stdout(request: &BuildRequest) -> bool {
    use kiln::Output::{Docker, Oci, Tar};
    request
        .outputs
        .iter()
        .any(|o| matches!(o, Oci { dest: None, .. } | Docker { dest: None, .. } | Tar { dest: None }))
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
