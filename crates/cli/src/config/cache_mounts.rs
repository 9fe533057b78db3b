//! Where cache mounts are kept: `--cache-mount`, and `cache_mounts` of the configuration file.

use std::path::{Path, PathBuf};

use kiln::CachePlace;

use super::{absolute_var, file};
use crate::hints::Failure;

/// One of `cache_mounts`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    id: String,
    path: PathBuf,
    #[serde(default)]
    scope: Option<String>,
}

/// Returns the places of the configuration file, but for caches that the command line gives another one.
pub(crate) fn cache_mounts(asked: Vec<CachePlace>) -> Result<Vec<CachePlace>, Failure> {
    let mut all = Vec::new();
    for Setting { id, path, scope } in file::read()?.cache_mounts {
        let wrong = |reason: &str| {
            Failure::usage(format!("cache_mounts in the configuration file, {id:?}: {reason}"))
        };
        if id.is_empty() {
            return Err(wrong("the id is empty"));
        }
        let path = home(&path).ok_or_else(|| wrong("HOME is not set, so that ~ means nothing"))?;
        if !path.is_absolute() {
            return Err(wrong("the path is relative, and would mean another directory in each"));
        }
        let place = CachePlace { id, scope: scope.as_deref().map(scope_from), path, standing: true };
        if !asked.iter().any(|asked| asked.id == place.id && overlap(asked, &place)) {
            all.push(place);
        }
    }
    all.extend(asked);
    Ok(all)
}

/// Without a scope several are meant.
fn overlap(one: &CachePlace, other: &CachePlace) -> bool {
    one.scope.is_none() || other.scope.is_none() || one.scope == other.scope
}

/// Reads a scope.
pub(crate) fn scope_from(text: &str) -> kiln::CacheScope {
    kiln::CacheName::scope_from(text)
}

/// `~/x` as a shell reads it, which does so at the start of a word only.
pub(crate) fn home(path: &Path) -> Option<PathBuf> {
    match path.strip_prefix("~") {
        Ok(rest) => Some(absolute_var("HOME")?.join(rest)),
        Err(_) => Some(path.to_owned()),
    }
}
