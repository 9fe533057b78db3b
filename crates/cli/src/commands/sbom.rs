//! `kiln sbom`: what packages an image holds.

use std::process::ExitCode;

use kiln::SbomRequest;

use super::start;
use crate::args::{Global, SbomArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints the document, or writes it to a file.
pub(crate) fn sbom(global: Global, args: &SbomArgs) -> Result<ExitCode, Failure> {
    let request = SbomRequest {
        image: args.image.parse().map_err(Failure::from_usage)?,
        platform: args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?,
        registry: config::registry(&args.registry)?,
    };
    let engine = start(global)?;
    let cancel = super::cancel_on_signal()?;
    let found = engine.sbom(&request, &cancel)?;
    for note in &found.notes {
        ui::note(format_args!("packages may be missing: {note}"));
    }
    if args.strict && !found.notes.is_empty() {
        return Err(Failure::usage("--strict: not all that may hold packages could be read"));
    }
    let text = if args.list { list(&found.document).join("\n") } else { format!("{:#}", found.document) };
    match &args.output {
        Some(path) => std::fs::write(path, text + "\n")
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?,
        None if args.list && text.is_empty() => ui::note("no packages: no package manager left its database"),
        None => ui::print(text),
    }
    Ok(ExitCode::SUCCESS)
}

/// The package URLs of a document, but for the image's own.
fn list(document: &serde_json::Value) -> Vec<String> {
    let packages = document["packages"].as_array().into_iter().flatten();
    let others = packages.filter(|package| package["SPDXID"] != "SPDXRef-Root");
    let urls = others.filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str());
    urls.map(str::to_owned).collect()
}
