//! kiln's own configuration file, as JSON: each part belongs to a module here.

use serde::Deserialize;

use super::{cache_mounts, config_home, registry};
use crate::hints::Failure;

/// The whole file. A key that is not known is an error: what somebody wrote there shall not be silently without effect.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) registry: registry::Settings,
    pub(super) cache_mounts: Vec<cache_mounts::Setting>,
    /// As `--max-store` has it.
    pub(super) max_store: Option<String>,
    /// As `--max-cache-mounts` has it.
    pub(super) max_cache_mounts: Option<String>,
}

/// Reads it; one that is not there says nothing.
pub(super) fn read() -> Result<Config, Failure> {
    let Some(path) = config_home().map(|home| home.join("kiln/config.json")) else {
        return Ok(Config::default());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
    };
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
