//! Files of images: `kiln save`, `kiln load`, `kiln import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{RegistryArgs, transfer::ShowArgs};

const SAVE_EXAMPLES: &str = "\
Examples:
  kiln save -o demo.tar demo:1 other:2                for `docker load` and `podman load`
  kiln save demo | docker load
  kiln save --format oci-archive -o demo.tar demo     a whole index, too";

#[derive(Debug, Args)]
#[command(after_help = SAVE_EXAMPLES)]
pub(crate) struct SaveArgs {
    /// File to write, or directory with --format=oci-dir [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: FormatArg,
    /// Of an index only the image for this platform [default: this machine's in docker's archive, else all]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Images of the local image store, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// What docker and podman load
    #[default]
    DockerArchive,
    /// A tar of an OCI layout
    OciArchive,
    /// An OCI layout directory
    OciDir,
}

const LOAD_EXAMPLES: &str = "\
Examples:
  kiln load -i demo.tar                               what docker, podman, skopeo or kiln saved
  docker save demo | kiln load
  kiln load < demo.tar.zst";

#[derive(Debug, Args)]
#[command(after_help = LOAD_EXAMPLES)]
pub(crate) struct LoadArgs {
    /// Archive, compressed or not [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Print what was loaded as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  kiln import rootfs.tar.gz base:1
  tar -C rootfs -c . | kiln import --change 'CMD [\"/bin/sh\"]' - base:1";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct ImportArgs {
    /// Apply a Dockerfile instruction to the image's configuration, such as 'ENV A=b'; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// What the image's history says
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Platform that the files are for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// Tar of a root file system, compressed or not; or `-`, standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}
