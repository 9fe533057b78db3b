//! A tar of files becomes an image of one layer.

use std::fs::File;

use kiln_core::{Cancel, EventSink, History, ImageConfig, IoResultExt as _, Platform};
use kiln_frontend::{ImageTable, LowerOptions, Lowered};
use kiln_oci::AssembleOptions;

use super::request::ImportRequest;
use super::{CopyOutcome, Found, Origin, Tree};
use crate::Error;
use crate::engine::{Engine, build, image};
use crate::request::RegistryOptions;

/// What docker's `--change` takes, and what else is only metadata.
const CHANGES: [&str; 13] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Engine {
    /// Makes an image of a root file system's tar.
    ///
    /// # Errors
    /// The tar cannot be read or unpacked, or a change is no instruction that changes a configuration.
    pub fn import(
        &self,
        request: &ImportRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<CopyOutcome, Error> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        // Before anything is read.
        let mut config = configuration(&request.changes, &platform)?;
        self.transfer(&RegistryOptions::default(), events, cancel, |transfer| {
            let name =
                request.path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
            let task = transfer.reporter.task(&format!("importing {name}"));
            let layer = match &request.path {
                Some(path) => {
                    let file = File::open(path).at("open", path)?;
                    self.store.take_layer(&name, file, None, cancel)
                }
                None => self.store.take_layer("standard input", std::io::stdin().lock(), None, cancel),
            };
            let layer = layer.and_then(|layer| {
                // Whether it is a tar that can be unpacked; and the first run has it at hand.
                self.store.unpack(&layer.diff_id, &layer.media_type, self.store.open_blob(&layer.digest)?)?;
                Ok(layer)
            });
            task.end_with(&layer);
            let layer = layer?;
            let created = image::rfc3339(request.source_date_epoch.unwrap_or_else(build::now));
            config.created = Some(created.clone());
            config.history = vec![History {
                created: Some(created),
                comment: Some(request.message.clone().unwrap_or_else(|| format!("Imported from {name}"))),
                ..History::default()
            }];
            let made = kiln_oci::assemble(config, &[layer], &AssembleOptions::default())?;
            self.store.put_blob(&made.config.bytes)?;
            let mut tree =
                Tree::read(made.manifest, &mut |info| Err(Error::NotResolved { manifest: info.digest }))?;
            tree.names.extend(request.name.clone());
            transfer.keep(Found { tree, origin: Origin::Store, name: None, spooled: None })
        })
    }
}

/// Lowers the changes as a Dockerfile would: one place knows what instructions mean.
fn configuration(changes: &[String], platform: &Platform) -> Result<ImageConfig, Error> {
    let bad = |change: &str, reason: String| Error::Change { change: change.to_owned(), reason };
    let mut text = "FROM scratch\n".to_owned();
    let mut env = false;
    for change in changes {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if !CHANGES.contains(&word.as_str()) {
            return Err(bad(change, format!("only {} change a configuration", CHANGES.join(", "))));
        }
        if change.contains('\n') || change.trim_end().ends_with('\\') {
            return Err(bad(change, "it goes over its line".to_owned()));
        }
        env |= word == "ENV";
        text.push_str(change);
        text.push('\n');
    }
    let (file, found) = kiln_dockerfile::parse(&text);
    let wrong = |diagnostics: &[kiln_dockerfile::Diagnostic]| {
        let of = diagnostics.iter().find(|one| one.severity == kiln_dockerfile::Severity::Error);
        of.map(|one| bad(&changes.join("; "), one.message.clone()))
    };
    if let Some(error) = wrong(&found) {
        return Err(error);
    }
    let options = LowerOptions {
        platforms: vec![platform.clone()],
        build_platform: Some(Platform::host()),
        ..LowerOptions::default()
    };
    let unexpected = || bad(&changes.join("; "), "it is more than a change of the configuration".to_owned());
    match kiln_frontend::lower(&file, &options, &ImageTable::new()) {
        Ok(Lowered::Ready(plan)) => {
            let mut config = plan.images.into_iter().next().ok_or_else(unexpected)?.config;
            if !env {
                // docker's has no PATH either, if none is set.
                config.config.env.clear();
            }
            Ok(config)
        }
        Ok(Lowered::NeedImages(_)) => Err(unexpected()),
        Err(diagnostics) => Err(wrong(&diagnostics).unwrap_or_else(unexpected)),
    }
}
