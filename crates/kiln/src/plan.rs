//! What needs no store and no namespaces: a plan as text, and what this machine allows.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_core::{IoResultExt as _, Platform};
use kiln_dockerfile::{Diagnostic, Dockerfile, Severity};
use kiln_frontend::LowerOptions;
use kiln_runtime::{EmulatorSearch, Isolation, Rung};

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

impl PlanRequest {
    /// Parses the Dockerfile.
    pub(crate) fn parse(&self) -> Result<Dockerfile, Error> {
        let (file, diagnostics) = kiln_dockerfile::parse(&self.text);
        match diagnostics.iter().any(|one| one.severity == Severity::Error) {
            true => Err(self.refused(diagnostics)),
            false => Ok(file),
        }
    }

    /// Says that it cannot be built.
    pub(crate) fn refused(&self, diagnostics: Vec<Diagnostic>) -> Error {
        Error::Dockerfile { file: self.file.clone(), text: self.text.clone(), diagnostics }
    }
}

/// Returns the step graph of a Dockerfile as text (docs/debug.md). Needs no network: an unknown base counts as one with
/// an empty configuration.
///
/// # Errors
/// [`Error::Dockerfile`].
pub fn plan_text(request: &PlanRequest) -> Result<String, Error> {
    let file = request.parse()?;
    let options = LowerOptions {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        platforms: request.platforms.clone(),
        build_platform: Some(Platform::host()),
        ..LowerOptions::default()
    };
    let plan =
        kiln_frontend::lower_offline(&file, &options).map_err(|diagnostics| request.refused(diagnostics))?;
    Ok(kiln_frontend::print::plan(&plan))
}

/// Returns each rung of the ladder of what this machine allows: what is used, why, and what would raise it. Emulators are
/// tried out.
///
/// # Errors
/// The probe's process could not be run.
pub fn doctor(
    store: &Path,
    emulators: &EmulatorSearch,
    isolation: Option<Isolation>,
) -> Result<Vec<Rung>, Error> {
    std::fs::create_dir_all(store).at("create", store)?;
    Ok(kiln_runtime::probe(store, emulators, isolation)?)
}
