//! What needs no store and no namespaces: a plan as text, and what this machine allows.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_core::{IoResultExt as _, Platform};
use kiln_dockerfile::Severity;
use kiln_frontend::LowerOptions;
use kiln_runtime::Rung;

use crate::Error;

/// Whose plan to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanRequest {
    /// The Dockerfile's name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`; this machine's if empty.
    pub platforms: Vec<Platform>,
}

/// Returns the step graph of a Dockerfile as text (docs/debug.md). Needs no network: an unknown base counts as one with
/// an empty configuration.
///
/// # Errors
/// [`Error::Dockerfile`].
pub fn plan_text(request: &PlanRequest) -> Result<String, Error> {
    let refused = |diagnostics| Error::Dockerfile {
        file: request.file.clone(),
        text: request.text.clone(),
        diagnostics,
    };
    let (file, diagnostics) = kiln_dockerfile::parse(&request.text);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(refused(diagnostics));
    }
    let options = LowerOptions {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        platforms: request.platforms.clone(),
        build_platform: Some(Platform::host()),
        ..LowerOptions::default()
    };
    let plan = kiln_frontend::lower_offline(&file, &options).map_err(refused)?;
    Ok(kiln_frontend::print::plan(&plan))
}

/// Returns each rung of the ladder of what this machine allows: what is used, why, and what would raise it.
///
/// # Errors
/// The probe's process could not be run.
pub fn doctor(store: &Path) -> Result<Vec<Rung>, Error> {
    std::fs::create_dir_all(store).at("create", store)?;
    Ok(kiln_runtime::probe(store)?)
}
