//! What comes from outside the command line: environment, configuration file, terminal. Read here and nowhere else.
//!
//! The file is `$XDG_CONFIG_HOME/kiln/config.json` (`~/.config/kiln/config.json`); docs/registries.md has the keys of `registry`,
//! docs/cache-mounts.md those of `cache_mounts`.

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use kiln::{DaemonOptions, EmulatorSearch, Platform, ProvenanceMode, SourceDate};

use crate::hints::Failure;

mod cache_mounts;
mod file;
mod registry;

pub(crate) use cache_mounts::{cache_mounts, home, scope_from};
pub(crate) use registry::{login_file, registry};

/// Returns the store's directory: as asked for, or by the XDG rules
/// (<https://specifications.freedesktop.org/basedir-spec/latest/>).
pub(crate) fn store_root(asked: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(root) = asked {
        return std::path::absolute(&root)
            .map_err(|error| Failure::usage(format!("{}: {error}", root.display())));
    }
    if let Some(data) = absolute_var("XDG_DATA_HOME") {
        return Ok(data.join("kiln"));
    }
    match absolute_var("HOME") {
        Some(home) => Ok(home.join(".local/share/kiln")),
        None => Err(Failure::usage(
            "HOME is not set: say where the store shall be, by --root DIR or KILN_ROOT=DIR",
        )),
    }
}

/// Returns `max_store` and `max_cache_mounts` of the configuration file.
pub(crate) fn bound() -> Result<(Option<String>, Option<String>), Failure> {
    let config = file::read()?;
    Ok((config.max_store, config.max_cache_mounts))
}

/// Returns where a running docker or podman is looked for: DOCKER_HOST, else their sockets.
pub(crate) fn daemon() -> DaemonOptions {
    let host = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    // Rootless ones of this user, then podman's of the machine.
    if let Some(runtime) = absolute_var("XDG_RUNTIME_DIR") {
        sockets.extend([runtime.join("docker.sock"), runtime.join("podman/podman.sock")]);
    }
    sockets.push("/run/podman/podman.sock".into());
    DaemonOptions { host, sockets }
}

/// Reads `--platform`.
pub(crate) fn platforms(values: &[String]) -> Result<Vec<Platform>, Failure> {
    values.iter().map(|value| value.parse()).collect::<Result<_, _>>().map_err(Failure::from_usage)
}

/// Returns where emulators are looked for: `KILN_EMULATOR_ARM64` and its like, then PATH.
pub(crate) fn emulators() -> EmulatorSearch {
    let given = kiln::architectures().into_iter().filter_map(|architecture| {
        let name = format!("KILN_EMULATOR_{}", architecture.to_ascii_uppercase());
        let program = env::var_os(name).filter(|value| !value.is_empty())?;
        Some((architecture.to_owned(), std::path::absolute(program).ok()?))
    });
    EmulatorSearch { given: given.collect(), path: programs() }
}

/// Returns the directories of PATH. A relative one means another place in each directory, so it is none.
fn programs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
}

/// Returns `NAME=VALUE`s as a map; a name alone takes the environment's value, and is left out if there is none, as
/// docker does.
pub(crate) fn assignments(flag: &str, values: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for value in values {
        let (name, value) = match value.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (value.as_str(), env::var(value).ok()),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!("{flag}: the name before `=` is empty")));
        }
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    }
    Ok(map)
}

/// Reads `--env-file`s as docker does: a variable a line, `#` for a remark; a later line goes before.
pub(crate) fn env_files(paths: &[PathBuf]) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--env-file {}: {error}", path.display())))?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (number, line) in lines.enumerate() {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(Failure::usage(format!(
                    "--env-file {}: variable {} is called {name:?}, which is no name",
                    path.display(),
                    number + 1
                )));
            }
            map.extend(assignments("--env-file", &[line.to_owned()])?);
        }
    }
    Ok(map)
}

/// Returns the user's shell.
pub(crate) fn shell() -> String {
    env::var("SHELL").ok().filter(|shell| shell.starts_with('/')).unwrap_or_else(|| "/bin/sh".to_owned())
}

/// Returns a variable's value, whatever its bytes.
pub(crate) fn variable(name: &str) -> Option<Vec<u8>> {
    env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// Returns `--source-date-epoch`, else SOURCE_DATE_EPOCH.
pub(crate) fn source_date(asked: Option<&str>) -> Result<Option<SourceDate>, Failure> {
    match asked {
        Some("git" | "commit") => Ok(Some(SourceDate::Commit)),
        Some(text) => text.parse().map(|seconds| Some(SourceDate::Seconds(seconds))).map_err(|_| {
            Failure::usage(format!(
                "--source-date-epoch={text}: write seconds since 1970, or git for the time of the context's commit"
            ))
        }),
        None => Ok(source_date_epoch()?.map(SourceDate::Seconds)),
    }
}

/// Returns SOURCE_DATE_EPOCH (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub(crate) fn source_date_epoch() -> Result<Option<u64>, Failure> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            let bad = |_| Failure::usage(format!("SOURCE_DATE_EPOCH={text}: write seconds since 1970"));
            text.parse().map(Some).map_err(bad)
        }
        _ => Ok(None),
    }
}

/// Returns how much of provenance `--metadata-file` has, by buildx's variable
/// (<https://docs.docker.com/build/building/variables/#buildx_metadata_provenance>).
pub(crate) fn metadata_provenance() -> Result<Option<ProvenanceMode>, Failure> {
    let asked = env::var("BUILDX_METADATA_PROVENANCE").unwrap_or_default();
    match asked.as_str() {
        "" | "min" | "true" | "1" => Ok(Some(ProvenanceMode::Min)),
        "max" => Ok(Some(ProvenanceMode::Max)),
        "disabled" | "false" | "0" => Ok(None),
        _ => Err(Failure::usage(format!("BUILDX_METADATA_PROVENANCE={asked}: write min, max or disabled"))),
    }
}

/// Returns whether a live display makes sense on standard error.
pub(crate) fn live_terminal() -> bool {
    std::io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns whether somebody sits at both ends of a terminal.
pub(crate) fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Returns whether results are read by a person.
pub(crate) fn results_on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Returns whether input would come from a person.
pub(crate) fn input_on_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Returns whether to use colours: on a terminal, unless NO_COLOR asks for none (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Returns seconds since 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// Reads a time as images have it, to seconds since 1970; none before that.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_second()).ok()
}

/// Writes seconds since 1970 as images have times.
pub(crate) fn rfc3339(seconds: u64) -> Option<String> {
    Some(jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.to_string())
}

/// `~/.config`, as it is named here.
fn config_home() -> Option<PathBuf> {
    absolute_var("XDG_CONFIG_HOME").or_else(|| Some(absolute_var("HOME")?.join(".config")))
}

/// The XDG rules say: a relative path is invalid and ignored.
fn absolute_var(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}
