//! Registries: `kiln login`, `kiln logout`, `kiln doctor registry`; and the flags of all that reach one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Try this registry before HOST's own; may be repeated
    #[arg(long, value_name = "HOST=URL")]
    pub(crate) registry_mirror: Vec<String>,
    /// Registry, or network as 10.0.0.0/8, whose certificates are not checked, and that may be reached by
    /// http; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,
    /// File with credentials that counts alone, in docker's or podman's form
    /// [default: $REGISTRY_AUTH_FILE; else $DOCKER_AUTH_CONFIG, docker's config.json, podman's auth.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

const LOGIN_EXAMPLES: &str = "\
Examples:
  kiln login                                          to docker.io; asks for name and password
  kiln login -u me --password-stdin ghcr.io < token
  kiln login --get-login ghcr.io                      who one is there";

#[derive(Debug, Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub(crate) struct LoginArgs {
    /// Name at the registry
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token. Others on this machine may see it: --password-stdin is better
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Only print the name that is used at the registry
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub(crate) get_login: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Registry, HOST or HOST:PORT
    #[arg(value_name = "HOST", default_value = "docker.io")]
    pub(crate) host: String,
}

const LOGOUT_EXAMPLES: &str = "\
Examples:
  kiln logout ghcr.io
  kiln logout --all";

#[derive(Debug, Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub(crate) struct LogoutArgs {
    /// From all registries
    #[arg(short, long, conflicts_with = "host")]
    pub(crate) all: bool,
    /// File with credentials [default: as of `kiln login`]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Registry, HOST or HOST:PORT [default: docker.io]
    #[arg(value_name = "HOST")]
    pub(crate) host: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DoctorArgs {
    #[command(subcommand)]
    pub(crate) about: Option<DoctorCommand>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorCommand {
    /// Say how an image is looked up: each request, and which file decided
    Registry(DoctorRegistryArgs),
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  kiln doctor registry alpine:3.20
  kiln doctor registry --json registry.lan:5000/team/app | jq .servers[0].decided_by";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorRegistryArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image
    #[arg(value_name = "REF")]
    pub(crate) image: String,
}
