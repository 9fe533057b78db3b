//! How registries are reached: kiln's own configuration file, the command line, and what docker and podman leave.
//!
//! Here are only the places. The files are read when a registry is first reached.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use kiln::{CredentialSource, Credentials, HostFiles, RegistryOptions, Secret, ShortNames};

use super::{absolute_var, config_home, file, programs};
use crate::args::RegistryArgs;
use crate::hints::Failure;

/// The `registry` part of kiln's configuration file.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    mirrors: BTreeMap<String, Vec<String>>,
    insecure: Vec<String>,
    auth_file: Option<PathBuf>,
    short_names: ShortNames,
    user_agent: Option<String>,
}

/// Returns how registries are reached: the configuration file's word, then the command line's.
pub(crate) fn registry(args: &RegistryArgs) -> Result<RegistryOptions, Failure> {
    let settings = file::read()?.registry;
    let mut options = RegistryOptions {
        mirrors: settings.mirrors,
        insecure: settings.insecure,
        user_agent: settings.user_agent,
        short_names: settings.short_names,
        files: files(),
        credentials: credentials(args.authfile.as_deref(), settings.auth_file)?,
    };
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mirror in &args.registry_mirror {
        let Some((host, url)) =
            mirror.split_once('=').filter(|(host, url)| !host.is_empty() && !url.is_empty())
        else {
            return Err(Failure::usage(format!(
                "--registry-mirror {mirror}: write HOST=URL, such as docker.io=http://127.0.0.1:5000"
            )));
        };
        asked.entry(host.to_owned()).or_default().push(url.to_owned());
    }
    options.mirrors.extend(asked);
    options.insecure.extend(args.insecure_registry.iter().cloned());
    Ok(options)
}

/// Returns where credentials are. A file that is named counts alone, as podman has it; else DOCKER_AUTH_CONFIG, docker's file
/// and those of podman, skopeo and buildah, in this order.
fn credentials(flag: Option<&Path>, setting: Option<PathBuf>) -> Result<Credentials, Failure> {
    let base = Credentials { programs: programs(), ..Credentials::default() };
    if let Some(named) = named_file(flag, setting)? {
        return Ok(Credentials { sources: vec![CredentialSource::File(named)], ..base });
    }
    let mut sources = Vec::new();
    if let Some(text) = super::variable("DOCKER_AUTH_CONFIG").filter(|text| !text.trim_ascii().is_empty()) {
        let text =
            Secret::new(text).map_err(|error| Failure::usage(format!("DOCKER_AUTH_CONFIG: {error}")))?;
        sources.push(CredentialSource::Text { name: "DOCKER_AUTH_CONFIG".to_owned(), text });
    }
    // Before the namespaces are entered, where this id is another.
    let runtime = match absolute_var("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("containers"),
        None => format!("/run/containers/{}", rustix::process::getuid().as_raw()).into(),
    };
    let files = [
        docker_config(),
        Some(runtime.join("auth.json")),
        config_home().map(|home| home.join("containers/auth.json")),
    ];
    sources.extend(files.into_iter().flatten().map(CredentialSource::File));
    Ok(Credentials { sources, ..base })
}

/// Returns the file where a login is kept: the one that counts alone, else docker's.
pub(crate) fn login_file(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    let file = named_file(flag, file::read()?.registry.auth_file)?.or_else(docker_config);
    file.ok_or_else(|| {
        Failure::usage(
            "HOME is not set: say where the credentials shall be, by --authfile FILE or DOCKER_CONFIG=DIR",
        )
    })
}

/// `--authfile`, then REGISTRY_AUTH_FILE, then kiln's configuration file.
fn named_file(flag: Option<&Path>, setting: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    let variable = env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(named) = flag.map(Path::to_owned).or(variable).or(setting) else { return Ok(None) };
    let absolute = std::path::absolute(&named);
    absolute.map(Some).map_err(|error| Failure::usage(format!("{}: {error}", named.display())))
}

/// Returns where docker, podman and containerd are told how registries are reached: the user's files before the machine's.
fn files() -> HostFiles {
    let home = config_home();
    let of = |name: &str| home.iter().map(|home| home.join(name)).collect::<Vec<_>>();
    let with = |first: Vec<PathBuf>, then: &str| first.into_iter().chain([then.into()]).collect();
    let named = env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|value| !value.is_empty());
    let named = named.and_then(|path| std::path::absolute(path).ok());
    let (registries_conf, registries_conf_dirs) = match named {
        // It counts alone, as podman has it.
        Some(named) => (vec![named], Vec::new()),
        None => {
            let mut directories = vec!["/etc/containers/registries.conf.d".into()];
            directories.extend(of("containers/registries.conf.d"));
            (with(of("containers/registries.conf"), "/etc/containers/registries.conf"), directories)
        }
    };
    let mut certs = of("containers/certs.d");
    certs.push("/etc/containers/certs.d".into());
    certs.extend(of("docker/certs.d"));
    certs.push("/etc/docker/certs.d".into());
    HostFiles {
        daemon_json: with(of("docker/daemon.json"), "/etc/docker/daemon.json"),
        registries_conf,
        registries_conf_dirs,
        short_name_aliases: short_name_aliases(),
        containerd: with(of("containerd/certs.d"), "/etc/containerd/certs.d"),
        certs,
    }
}

/// Where podman notes which image was chosen for a short name: for root beside the machine's files, else the user's.
fn short_name_aliases() -> Vec<PathBuf> {
    let name = "containers/short-name-aliases.conf";
    if rustix::process::geteuid().is_root() {
        return vec![PathBuf::from("/var/cache").join(name)];
    }
    let cache = absolute_var("XDG_CACHE_HOME").or_else(|| Some(absolute_var("HOME")?.join(".cache")));
    cache.into_iter().map(|cache| cache.join(name)).collect()
}

/// Docker's `config.json`.
fn docker_config() -> Option<PathBuf> {
    let asked = env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty());
    let directory = match asked {
        Some(directory) => std::path::absolute(directory).ok()?,
        None => absolute_var("HOME")?.join(".docker"),
    };
    Some(directory.join("config.json"))
}
