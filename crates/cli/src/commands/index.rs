//! `kiln tag`, `kiln index`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kiln::{IndexRequest, TagRequest};

use super::start;
use super::transfer::{place, shown};
use crate::args::{Global, IndexArgs, IndexCommand, TagArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Gives an image further names.
pub(crate) fn tag(global: Global, args: &TagArgs) -> Result<ExitCode, Failure> {
    let names = args.names.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    let request = TagRequest {
        image: args.image.parse().map_err(Failure::from_usage)?,
        names: names.map_err(Failure::from_usage)?,
    };
    start(global)?.tag(&request)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes an index, or adds to one.
pub(crate) fn index(global: Global, command: &IndexCommand) -> Result<ExitCode, Failure> {
    let (args, join) = match command {
        IndexCommand::Create(args) => (args, false),
        IndexCommand::Join(args) => (args, true),
    };
    let (names, images) = named(args)?;
    let requests =
        names.iter().map(|name| request(args, name, images, join)).collect::<Result<Vec<_>, _>>()?;
    let made = shown(global, &args.show, |engine, events, cancel| {
        let mut made = None;
        for request in &requests {
            made = Some(engine.index(request, events, cancel)?);
        }
        Ok(made)
    })?;
    let Some(made) = made else { return Ok(ExitCode::SUCCESS) };
    if args.json {
        ui::print(serde_json::to_string_pretty(&made).unwrap_or_default());
    } else {
        ui::print(made.digest);
    }
    Ok(ExitCode::SUCCESS)
}

/// The index's names, and the images for it.
fn named(args: &IndexArgs) -> Result<(&[String], &[String]), Failure> {
    match (&args.tag[..], &args.names[..]) {
        ([], [name, images @ ..]) if !images.is_empty() => Ok((std::slice::from_ref(name), images)),
        ([], _) => Err(Failure::usage("no images: write NAME REF..., or --tag NAME REF...")),
        (tags, images) => Ok((tags, images)),
    }
}

fn request(args: &IndexArgs, name: &str, images: &[String], join: bool) -> Result<IndexRequest, Failure> {
    Ok(IndexRequest {
        to: place(name)?,
        images: images.iter().map(|image| place(image)).collect::<Result<_, _>>()?,
        join,
        amend: args.amend,
        annotations: annotations("--annotation", &args.annotation)?,
        entry_annotations: annotations("--entry-annotation", &args.entry_annotation)?,
        registry: config::registry(&args.registry)?,
    })
}

/// buildx writes `index:KEY=VALUE`; the kind is what the flag says already.
fn annotations(flag: &str, values: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for text in values {
        let bare = text.strip_prefix("index:").filter(|_| flag == "--annotation").unwrap_or(text);
        let (key, value) = bare
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Failure::usage(format!("{flag} {text}: write KEY=VALUE")))?;
        all.insert(key.to_owned(), value.to_owned());
    }
    Ok(all)
}
