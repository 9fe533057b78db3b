//! Cache mounts that travel: `kiln cache export`, `kiln cache import`, `kiln build --cache-mounts-from`, `--cache-mounts-to`.

use clap::Args;

use super::{RegistryArgs, ShowArgs, WaitArgs};

const EXPORT_EXAMPLES: &str = "\
Examples:
  kiln cache export --all --to docker://registry.example/team/caches:main
  kiln cache export /root/.cache/pip --to oci:/mnt/caches     a directory; the next export writes what changed
  kiln cache export pip --to oci-archive:pip.tar              a file
  kiln cache export --all > caches.tar                        standard output
  kiln cache export --all --to oci:caches --max-size 2g --max-age 30d

Places:
  docker://REF, HOST/REF     a registry: each export is a generation, REF stands for the last ones
  oci:DIR[:NAME]             the same in a directory, an OCI layout
  oci-archive:FILE[:NAME]    a tar of one, with one generation
  -                          standard output";

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(crate) struct CacheExportArgs {
    /// Ids of caches
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Vec<String>,
    /// All caches of the store
    #[arg(long)]
    pub(crate) all: bool,
    /// Only in this scope, such as linux/amd64
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// Where to
    #[arg(long, value_name = "PLACE", default_value = "-")]
    pub(crate) to: String,
    /// So much of the files, uncompressed; the least recently used stay behind
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<String>,
    /// What was neither written nor read for so long stays behind, such as 30d
    #[arg(long, value_name = "AGE")]
    pub(crate) max_age: Option<String>,
    /// So many generations stay in a registry or directory [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<String>,
    /// zstd's level, 1 to 19 [default: 3]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  kiln cache import --from docker://registry.example/team/caches:main
  kiln cache import /root/.cache/pip --from oci:/mnt/caches
  kiln cache import --from - < caches.tar
  kiln cache import --replace --from oci-archive:pip.tar      also takes away what the export has not";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct CacheImportArgs {
    /// Ids of caches [default: all of the export]
    #[arg(value_name = "ID")]
    pub(crate) id: Vec<String>,
    /// Only in this scope, such as linux/amd64
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// Where from
    #[arg(long, value_name = "PLACE", default_value = "-")]
    pub(crate) from: String,
    /// What counts where several writers made a generation each: merge or newest
    #[arg(long, value_name = "STRATEGY", default_value = "merge")]
    pub(crate) strategy: String,
    /// Replace what is in a cache; without, newer files stay and none is removed
    #[arg(long)]
    pub(crate) replace: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Of `kiln build`.
#[derive(Debug, Args)]
pub(crate) struct CarryArgs {
    /// Restore the cache mounts of steps from a place of `kiln cache import`: PLACE[,id=ID][,strategy=merge|newest]; may be
    /// repeated: of each cache, the first place that has it
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_mounts_from: Vec<String>,
    /// Export the cache mounts of steps to a place of `kiln cache export` after the build:
    /// PLACE[,id=ID][,max-size=BYTES][,max-age=AGE][,keep=N][,level=N]; may be repeated
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_mounts_to: Vec<String>,
    /// Fail if cache mounts cannot be restored or exported
    #[arg(long)]
    pub(crate) cache_mounts_required: bool,
}
