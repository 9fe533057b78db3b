//! `kiln inspect`.

use std::process::ExitCode;

use kiln::{ImageDetails, LoadedImage, Platform};
use serde_json::{Value, json};

use super::{format_flag, start};
use crate::args::{Global, InspectArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints what is known of images, as docker does.
pub(crate) fn inspect(global: Global, args: &InspectArgs) -> Result<ExitCode, Failure> {
    let template = format_flag::read(args.format.as_deref().filter(|format| *format != "json"))?;
    let names = args.image.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(Failure::from_usage)?;
    let platform: Option<Platform> =
        args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?;
    let engine = start(global)?;
    let mut rows = Vec::new();
    for name in &names {
        let details = engine.inspect(name)?;
        if args.raw {
            raw(&details, args.config, platform.as_ref())?;
        } else {
            rows.push(row(&details, details.image(platform.as_ref())?));
        }
    }
    match template {
        _ if args.raw => {}
        Some(template) => format_flag::print(&template, &rows)?,
        None if args.format.is_some() => ui::print(Value::Array(rows)),
        None => ui::print(serde_json::to_string_pretty(&rows).unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The very bytes: their digest is the image's.
fn raw(details: &ImageDetails, config: bool, platform: Option<&Platform>) -> Result<(), Failure> {
    match (config, platform) {
        (false, None) => ui::print_bytes(&details.bytes),
        (false, Some(_)) => ui::print_bytes(&details.image(platform)?.manifest.bytes),
        (true, _) => ui::print_bytes(&details.image(platform)?.config.bytes),
    }
    Ok(())
}

/// docker's names, and `Manifests` with what else the index has.
fn row(details: &ImageDetails, image: &LoadedImage) -> Value {
    let names: Vec<String> = details.names.iter().map(|name| name.familiar()).collect();
    let mut digests: Vec<String> = details
        .names
        .iter()
        .map(|name| {
            let familiar = name.familiar();
            let tag = name.tag.as_ref().map_or(0, |tag| tag.len() + 1);
            format!("{}@{}", &familiar[..familiar.len() - tag], details.digest)
        })
        .collect();
    digests.dedup();
    let here = details.images.iter().map(|image| {
        json!({
            "Id": image.config.digest.to_string(),
            "Digest": image.manifest.digest.to_string(),
            "MediaType": image.manifest.media_type,
            "Platform": image.image.platform().to_string(),
            "Available": true,
            "ContentSize": image.layers.iter().map(|layer| layer.size).sum::<u64>(),
        })
    });
    let absent = details.absent.iter().map(|platform| {
        json!({ "Id": null, "Digest": null, "MediaType": null, "Platform": platform.to_string(), "Available": false, "ContentSize": null })
    });
    json!({
        "Id": image.config.digest.to_string(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Created": image.image.created,
        "Author": image.image.author.clone().unwrap_or_default(),
        "Config": config(image),
        "Architecture": image.image.architecture,
        "Variant": image.image.variant.clone().unwrap_or_default(),
        "Os": image.image.os,
        "Size": details.size,
        "RootFS": {
            "Type": image.image.rootfs.kind,
            "Layers": image.image.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "Metadata": { "LastTagTime": details.tagged.and_then(config::rfc3339) },
        "Descriptor": {
            "mediaType": details.media_type,
            "digest": details.digest.to_string(),
            "size": details.bytes.len(),
        },
        "Manifests": here.chain(absent).collect::<Vec<_>>(),
    })
}

/// The configuration with all of docker's fields, so that a template finds each in every image.
fn config(image: &LoadedImage) -> Value {
    let mut config = json!({
        "User": "", "ExposedPorts": null, "Env": null, "Entrypoint": null, "Cmd": null, "Volumes": null,
        "WorkingDir": "", "Labels": null, "StopSignal": null, "Healthcheck": null, "OnBuild": null, "Shell": null,
    });
    if let (Value::Object(all), Ok(Value::Object(own))) =
        (&mut config, serde_json::to_value(&image.image.config))
    {
        all.extend(own);
    }
    config
}
