//! `kiln pull`, `kiln push`, `kiln copy`.

use std::process::ExitCode;

use kiln::{CopyRequest, Engine, Error, EventSink, ImagePlace, Platforms};

use super::{cancel_on_signal, start};
use crate::args::{CopyArgs, Global, PullArgs, PushArgs, ShowArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// Brings an image into the local image store.
pub(crate) fn pull(global: Global, args: &PullArgs) -> Result<ExitCode, Failure> {
    let from = match place(&args.image)? {
        ImagePlace::Store(name) => ImagePlace::Registry(name),
        place => place,
    };
    let to = match &from {
        ImagePlace::Registry(name) | ImagePlace::Engine(name) => ImagePlace::Store(name.clone()),
        ImagePlace::DockerArchive { name: Some(name), .. } => ImagePlace::Store(name.clone()),
        other => return Err(Failure::usage(format!("{other} has no name: write `kiln copy {other} NAME`"))),
    };
    let platforms = platforms(args.which.platform.as_deref(), args.which.all_platforms)?.unwrap_or_default();
    let registry = config::registry(&args.registry)?;
    copied(global, &args.show, &request(from, to, platforms, registry))
}

/// Sends an image of the local image store to a registry.
pub(crate) fn push(global: Global, args: &PushArgs) -> Result<ExitCode, Failure> {
    let from = ImagePlace::Store(args.image.parse().map_err(Failure::from_usage)?);
    let to = match place(args.destination.as_deref().unwrap_or(&args.image))? {
        ImagePlace::Store(name) => ImagePlace::Registry(name),
        place => place,
    };
    let platforms =
        platforms(args.which.platform.as_deref(), args.which.all_platforms)?.unwrap_or(Platforms::All);
    let registry = config::registry(&args.registry)?;
    copied(global, &args.show, &request(from, to, platforms, registry))
}

/// An image alone, under whatever digest its new place gives it.
fn request(
    from: ImagePlace,
    to: ImagePlace,
    platforms: Platforms,
    registry: kiln::RegistryOptions,
) -> CopyRequest {
    let daemon = config::daemon();
    CopyRequest { from, to, platforms, preserve_digests: false, referrers: false, registry, daemon }
}

/// Copies an image from one place to another.
pub(crate) fn copy(global: Global, args: &CopyArgs) -> Result<ExitCode, Failure> {
    let (from, to) = (place(&args.source)?, place(&args.destination)?);
    let platforms = platforms(args.platform.as_deref(), args.all)?.unwrap_or_default();
    let registry = config::registry(&args.registry)?;
    let (preserve_digests, referrers) = (args.preserve_digests, args.referrers);
    copied(
        global,
        &args.show,
        &CopyRequest { preserve_digests, referrers, ..request(from, to, platforms, registry) },
    )
}

fn copied(global: Global, show: &ShowArgs, request: &CopyRequest) -> Result<ExitCode, Failure> {
    let to_stdout = matches!(
        request.to,
        ImagePlace::OciArchive { path: None, .. } | ImagePlace::DockerArchive { path: None, .. }
    );
    if to_stdout && config::results_on_terminal() {
        return Err(Failure::usage("the archive would go to the terminal: name a file, or write to a pipe"));
    }
    let outcome = shown(global, show, |engine, events, cancel| engine.copy(request, events, cancel))?;
    if !to_stdout {
        ui::print(outcome.digest);
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the engine and does something that takes its time, with a display.
pub(super) fn shown<T>(
    global: Global,
    show: &ShowArgs,
    work: impl FnOnce(&Engine, &dyn EventSink, &kiln::Cancel) -> Result<T, Error>,
) -> Result<T, Failure> {
    let engine = start(global)?;
    let cancel = cancel_on_signal()?;
    let progress = Progress::new(show.mode());
    let result = work(&engine, &progress, &cancel);
    progress.finish();
    Ok(result?)
}

/// Reads a place.
pub(super) fn place(text: &str) -> Result<ImagePlace, Failure> {
    text.parse().map_err(Failure::from_usage)
}

/// Reads `--platform` and its opposite; none if neither was given.
pub(super) fn platforms(one: Option<&str>, all: bool) -> Result<Option<Platforms>, Failure> {
    match one {
        Some(text) => Ok(Some(Platforms::One(text.parse().map_err(Failure::from_usage)?))),
        None => Ok(all.then_some(Platforms::All)),
    }
}
