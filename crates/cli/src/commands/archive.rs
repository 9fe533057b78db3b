//! `kiln save`, `kiln load`, `kiln import`.

use std::process::ExitCode;

use kiln::{ImportRequest, LoadRequest, Platforms, SaveFormat, SaveRequest};

use super::transfer::{platforms, shown};
use crate::args::{FormatArg, Global, ImportArgs, LoadArgs, SaveArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Writes images to a file.
pub(crate) fn save(global: Global, args: &SaveArgs) -> Result<ExitCode, Failure> {
    let (format, usual) = match args.format {
        FormatArg::DockerArchive => (SaveFormat::DockerArchive, Platforms::Host),
        FormatArg::OciArchive => (SaveFormat::OciArchive, Platforms::All),
        FormatArg::OciDir => (SaveFormat::OciDir, Platforms::All),
    };
    // As docker and podman: `-` would be a file of that name; nobody means that.
    let path = args.output.clone().filter(|path| path.as_os_str() != "-");
    if path.is_none() && format == SaveFormat::OciDir {
        return Err(Failure::usage("--format=oci-dir needs a directory: add --output DIRECTORY"));
    }
    if path.is_none() && config::results_on_terminal() {
        return Err(Failure::usage("the archive would go to the terminal: add --output FILE, or a pipe"));
    }
    let images = args.images.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    let request = SaveRequest {
        images: images.map_err(Failure::from_usage)?,
        format,
        path,
        platforms: platforms(args.platform.as_deref(), false)?.unwrap_or(usual),
        registry: config::registry(&args.registry)?,
    };
    shown(global, &args.show, |engine, events, cancel| engine.save(&request, events, cancel))?;
    Ok(ExitCode::SUCCESS)
}

/// Takes the images of an archive in.
pub(crate) fn load(global: Global, args: &LoadArgs) -> Result<ExitCode, Failure> {
    let path = args.input.clone().filter(|path| path.as_os_str() != "-");
    if path.is_none() && config::input_on_terminal() {
        return Err(Failure::usage("nothing comes from the terminal: add --input FILE, or a pipe"));
    }
    let platform = args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?;
    let request = LoadRequest { path, platform };
    let loaded = shown(global, &args.show, |engine, events, cancel| engine.load(&request, events, cancel))?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&loaded).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    for image in loaded {
        for name in &image.names {
            ui::print(format_args!("Loaded image: {}", name.familiar()));
        }
        if image.names.is_empty() {
            ui::print(format_args!("Loaded image ID: {}", image.digest));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes an image of a tar of files.
pub(crate) fn import(global: Global, args: &ImportArgs) -> Result<ExitCode, Failure> {
    let path = Some(args.file.clone()).filter(|path| path.as_os_str() != "-");
    if let Some(url) = path.as_ref().and_then(|path| path.to_str()).filter(|text| text.contains("://")) {
        return Err(Failure::usage(format!(
            "{url}: kiln imports files; write `curl -L {url} | kiln import -`"
        )));
    }
    let name = args.name.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?;
    let request = ImportRequest {
        path,
        name,
        changes: args.change.clone(),
        message: args.message.clone(),
        platform: args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?,
        source_date_epoch: config::source_date_epoch()?,
    };
    let made = shown(global, &args.show, |engine, events, cancel| engine.import(&request, events, cancel))?;
    ui::print(made.digest);
    Ok(ExitCode::SUCCESS)
}
