//! Global scope: platform arguments and the ARGs before the first FROM.

use std::collections::BTreeMap;

use kiln_core::Platform;
use kiln_dockerfile::{Diagnostic, Dockerfile};

use crate::LowerOptions;
use crate::variables::Variables;
use crate::words::Words;

/// Proxy settings that RUN gets without any ARG, in both spellings (`--build-arg` may use either).
/// <https://docs.docker.com/reference/dockerfile/#predefined-args>
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Returns the variables that FROM sees, and a stage's `ARG name` without a default.
pub(crate) fn globals(
    file: &Dockerfile,
    options: &LowerOptions,
    platform: &Platform,
    words: &Words,
) -> Result<Variables, Vec<Diagnostic>> {
    scope(file, platform_args(file, options, platform), &options.build_args, words)
}

/// Returns them as they would be if no `--build-arg` were given for an ARG of the file.
pub(crate) fn defaults(
    file: &Dockerfile,
    options: &LowerOptions,
    platform: &Platform,
    words: &Words,
) -> Result<Variables, Vec<Diagnostic>> {
    scope(file, platform_args(file, options, platform), &BTreeMap::new(), words)
}

fn scope(
    file: &Dockerfile,
    mut env: Variables,
    build_args: &BTreeMap<String, String>,
    words: &Words,
) -> Result<Variables, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    for arg in file.global_args.iter().flat_map(|line| &line.value) {
        let value = match (build_args.get(&arg.name.value), &arg.default) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Some(default)) => words.look(default, &env).map(|expanded| Some(expanded.text)),
            (None, None) => Ok(None),
        };
        match value {
            Ok(Some(value)) => env.set(&arg.name.value, &value),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(env) } else { Err(errors) }
}

/// Returns the proxy variables that were given with `--build-arg`. They are the same for all RUNs and belong neither to
/// a step's identity nor to its key.
pub(crate) fn proxies(build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let given = |name: &str| build_args.get(name).or_else(|| build_args.get(&name.to_lowercase()));
    PROXIES
        .iter()
        .filter_map(|name| Some((*name, given(name)?)))
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())])
        .collect()
}

/// `--build-arg` may overwrite each of them, as in the program.
fn platform_args(file: &Dockerfile, options: &LowerOptions, target: &Platform) -> Variables {
    let build = options.build_platform.clone().unwrap_or_else(Platform::host);
    let stage = match &options.target {
        Some(target) => target.clone(),
        None => file
            .stages
            .last()
            .and_then(|stage| stage.from.value.name.as_ref())
            .map_or_else(|| "default".to_owned(), |name| name.value.clone()),
    };
    let mut env = Variables::default();
    let mut set = |name: &str, value: &str| {
        env.set(name, options.build_args.get(name).map_or(value, String::as_str));
    };
    for (prefix, platform) in [("BUILD", &build), ("TARGET", target)] {
        set(&format!("{prefix}PLATFORM"), &platform.to_string());
        set(&format!("{prefix}OS"), &platform.os);
        set(&format!("{prefix}OSVERSION"), "");
        set(&format!("{prefix}ARCH"), &platform.architecture);
        set(&format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or(""));
    }
    set("TARGETSTAGE", &stage);
    env
}
