//! `kiln images`, `kiln rmi`, `kiln image prune`.

use std::collections::HashSet;
use std::process::ExitCode;

use kiln::{Error, ImageFilter, ImagePruneRequest, ImageSummary, ImagesRequest, RemovedImage};
use serde_json::{Value, json};

use super::{format_flag, start, storage};
use crate::args::{Global, ImagePruneArgs, ImagesArgs, RmiArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Lists images, newest first.
pub(crate) fn list(global: Global, args: &ImagesArgs) -> Result<ExitCode, Failure> {
    let template = format_flag::read(args.format.as_deref())?;
    let mut filter = filter(&args.filter)?;
    filter.references.extend(args.name.clone());
    let request = ImagesRequest { all: args.all, rooms: !args.quiet, filter };
    let images = start(global)?.images(&request)?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&images).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        // A digest with two names is one image.
        let mut shown = HashSet::new();
        images.iter().filter(|image| shown.insert(image.digest)).for_each(|image| ui::print(image.digest));
        return Ok(ExitCode::SUCCESS);
    }
    let now = config::now();
    if let Some(template) = template {
        let rows: Vec<Value> = images.iter().map(|image| row(image, now, args.no_trunc)).collect();
        format_flag::print(&template, &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if images.is_empty()
        && request == (ImagesRequest { all: args.all, rooms: true, ..ImagesRequest::default() })
    {
        ui::note("no images yet; `kiln build -t NAME .` makes one");
    }
    let mut table = Table::new(["NAME", "IMAGE ID", "DIGEST", "PLATFORMS", "SIZE", "SHARED", "CREATED"]);
    for image in &images {
        let room = image.room.unwrap_or_default();
        table.row([
            image.name.as_ref().map_or_else(|| "<none>".to_owned(), |name| name.familiar()),
            if args.no_trunc { image.digest.to_string() } else { image.digest.short() },
            image.digest.to_string(),
            platforms(image),
            ui::bytes(room.size),
            ui::bytes(room.shared),
            created(image, now),
        ]);
    }
    ui::print(if args.digests { table } else { table.without("DIGEST") });
    Ok(ExitCode::SUCCESS)
}

/// What templates see: docker's names, and `Name` and `Platforms`.
fn row(image: &ImageSummary, now: u64, whole: bool) -> Value {
    let none = || "<none>".to_owned();
    let room = image.room.unwrap_or_default();
    let repository = image.name.as_ref().map_or_else(none, |name| {
        let familiar = name.familiar();
        let tag = name.tag.as_ref().map_or(0, |tag| tag.len() + 1);
        familiar[..familiar.len() - tag].to_owned()
    });
    json!({
        "ID": if whole { image.digest.to_string() } else { image.digest.short() },
        "Name": image.name.as_ref().map_or_else(none, |name| name.familiar()),
        "Repository": repository,
        "Tag": image.name.as_ref().and_then(|name| name.tag.clone()).unwrap_or_else(none),
        "Digest": image.digest.to_string(),
        "ConfigDigest": image.config.map(|config| config.to_string()),
        "Platforms": platforms(image),
        "CreatedAt": image.created,
        "CreatedSince": created(image, now),
        "Size": ui::bytes(room.size),
        "SharedSize": ui::bytes(room.shared),
        "UniqueSize": ui::bytes(room.unique()),
        "ContentSize": ui::bytes(image.compressed),
    })
}

fn platforms(image: &ImageSummary) -> String {
    image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn created(image: &ImageSummary, now: u64) -> String {
    image.created.as_deref().and_then(config::seconds).map_or_else(String::new, |then| ui::age(now, then))
}

/// Reads `kiln images --filter`.
fn filter(texts: &[String]) -> Result<ImageFilter, Failure> {
    let mut filter = ImageFilter::default();
    for text in texts {
        let wrong = |reason: &str| Failure::usage(format!("--filter {text}: {reason}"));
        let (what, how) =
            text.split_once('=').ok_or_else(|| wrong("write WHAT=HOW, such as dangling=true"))?;
        let image = || how.parse().map_err(Failure::from_usage);
        match what {
            "dangling" => {
                let value = match how {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(wrong("write true or false")),
                };
                filter.dangling = Some(value);
            }
            "reference" => filter.references.push(how.to_owned()),
            "label" => filter.labels.push(label(how)),
            "before" => filter.before = Some(image()?),
            "since" => filter.since = Some(image()?),
            _ => return Err(wrong("there are dangling, reference, label, before and since")),
        }
    }
    Ok(filter)
}

fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// Removes names, and images that have none left. One that cannot be removed does not keep the others.
pub(crate) fn remove(global: Global, args: &RmiArgs) -> Result<ExitCode, Failure> {
    let names = args
        .image
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::from_usage)?;
    let engine = start(global)?;
    let mut failed: Option<Failure> = None;
    for name in names {
        match engine.remove_image(&name, args.force) {
            Ok(removed) => show(&removed),
            Err(error @ Error::NoSuchImage { .. }) if args.force => ui::note(format_args!("{error}")),
            Err(error) => {
                if let Some(before) = failed.replace(error.into()) {
                    ui::show_failure(&before);
                }
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// In docker's words.
fn show(removed: &RemovedImage) {
    for name in &removed.untagged {
        ui::print(format_args!("Untagged: {}", name.familiar()));
    }
    if removed.deleted {
        ui::print(format_args!("Deleted: {}", removed.digest));
    }
}

/// Removes images that nobody needs.
pub(crate) fn prune(global: Global, args: &ImagePruneArgs) -> Result<ExitCode, Failure> {
    let mut request = ImagePruneRequest { all: args.all, ..ImagePruneRequest::default() };
    for text in &args.filter {
        match text.split_once('=') {
            Some(("until", _)) => request.unused_for = Some(storage::age(text)?),
            Some(("label", how)) => request.labels.push(label(how)),
            _ => {
                return Err(Failure::usage(format!(
                    "--filter {text}: there are until=AGE and label=NAME[=VALUE]"
                )));
            }
        }
    }
    if args.all && args.filter.is_empty() && !args.force {
        return Err(Failure::usage(
            "--all without a filter removes every image, for there are no containers that could need one: \
             add --filter until=AGE, or --force",
        ));
    }
    let report = start(global)?.prune_images(&request)?;
    report.removed.iter().for_each(show);
    ui::print(format_args!("Total reclaimed space: {}", ui::bytes(report.bytes)));
    Ok(ExitCode::SUCCESS)
}
