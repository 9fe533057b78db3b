//! From a Dockerfile to a plan: lowering asks for images, they are resolved, and it is asked again.

use kiln_core::{IgnoreList, ImageRef, Platform};
use kiln_frontend::{
    BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, NamedContext, ResolvedImage,
};

use super::bases::Bases;
use super::definition::Definition;
use super::reporter::Reporter;
use crate::check::{Checked, judge, of_text};
use crate::request::NamedSource;
use crate::{BuildRequest, Error};

/// Plans what is asked for, and says what there is to say of it. `epoch` is what the request's `source_date_epoch` came to.
pub(crate) fn plan(
    request: &BuildRequest,
    definition: &Definition,
    (ignore, epoch): (IgnoreList, Option<u64>),
    bases: &Bases<'_>,
    reporter: &Reporter<'_>,
) -> Result<(BuildPlan, Checked), Error> {
    let (file, mut found) = definition.parse()?;
    let file = &file;
    let options = LowerOptions { ignore, ..options(request, epoch) };
    let mut table = ImageTable::new();
    loop {
        let lowered = kiln_frontend::lower(file, &options, &table).map_err(|diagnostics| {
            let judged = judge(file, &definition.text, &request.build_args, diagnostics);
            definition.refused(judged.into_diagnostics())
        })?;
        match lowered {
            Lowered::Ready(plan) => {
                found.extend(of_text(&definition.text, file, &options, &table));
                found.extend(plan.diagnostics.iter().cloned());
                let checked = judge(file, &definition.text, &request.build_args, found);
                if checked.is_broken() {
                    return Err(definition.refused(checked.into_diagnostics()));
                }
                return Ok((*plan, checked));
            }
            Lowered::NeedImages(requests) => {
                let resolved = resolve_all(request, &requests, bases, reporter);
                for (wanted, resolved) in requests.into_iter().zip(resolved) {
                    let resolved =
                        resolved.map_err(|error| definition.at_image(file, &wanted.name, error))?;
                    table.insert(wanted, resolved);
                }
            }
        }
    }
}

fn options(request: &BuildRequest, epoch: Option<u64>) -> LowerOptions {
    let contexts = request.build_contexts.iter().map(|(name, source)| {
        let kind = match source {
            NamedSource::Files(_) => NamedContext::Files,
            NamedSource::OciLayout { .. } | NamedSource::Image(_) => NamedContext::Image,
        };
        (name.clone(), kind)
    });
    let mut build_args = request.build_args.clone();
    if let Some(epoch) = epoch {
        // A Dockerfile sees it as an argument, wherever it comes from; buildx does the same.
        build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
    }
    LowerOptions {
        build_args,
        target: request.target.clone(),
        platforms: request.platforms.clone(),
        build_platform: Some(Platform::host()),
        labels: request.labels.clone(),
        contexts: contexts.collect(),
        no_cache: request.no_cache,
        no_cache_filter: request.no_cache_filter.clone(),
        allow: request.allow.clone(),
        network: request.network,
        machine: request.machine.clone(),
        ..LowerOptions::default()
    }
}

/// Resolves images at once, a thread each: a Dockerfile names few.
fn resolve_all(
    request: &BuildRequest,
    wanted: &[ImageRequest],
    bases: &Bases<'_>,
    reporter: &Reporter<'_>,
) -> Vec<Result<ResolvedImage, Error>> {
    std::thread::scope(|scope| {
        let start = |wanted| scope.spawn(move || resolve(request, wanted, bases, reporter));
        let threads: Vec<_> = wanted.iter().map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

fn resolve(
    request: &BuildRequest,
    wanted: &ImageRequest,
    bases: &Bases<'_>,
    reporter: &Reporter<'_>,
) -> Result<ResolvedImage, Error> {
    let named = request.build_contexts.get(&wanted.name);
    let written = wanted.name.parse::<ImageRef>();
    let title = match (named, &written) {
        (None, Ok(name)) => format!("[internal] load metadata for {}", bases.describe(name, request.pull)),
        _ => format!("[internal] load metadata for {}", wanted.name),
    };
    let task = reporter.task(&title);
    let found = match (named, written) {
        (Some(source), _) => {
            bases.by_context(source, &wanted.platform).map(|base| (base, wanted.name.clone()))
        }
        (None, Ok(name)) => {
            let found = match request.pull {
                true => bases.by_registry(&name, &wanted.platform),
                false => bases.by_name(&name, &wanted.platform),
            };
            found.map(|found| {
                found.warning(&name).into_iter().for_each(|warning| reporter.warn(warning, None));
                // What other machines would need to know to build the same.
                let moved = found.name != name;
                (found.base, if moved { found.name.to_string() } else { wanted.name.clone() })
            })
        }
        (None, Err(error)) => Err(Error::Reference(error)),
    };
    task.end_with(&found);
    let (base, name) = found?;
    bases.note(&name, named, &wanted.platform, &base);
    if base.image.image.platform() != wanted.platform {
        reporter.warn(
            format!("{} is for {}, not for {}", wanted.name, base.image.image.platform(), wanted.platform),
            None,
        );
    }
    Ok(ResolvedImage { manifest: base.image.digest(), config: base.image.image.clone() })
}
