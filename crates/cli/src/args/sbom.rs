//! `kiln sbom`.

use std::path::PathBuf;

use clap::Args;

use super::RegistryArgs;

const SBOM_EXAMPLES: &str = "\
Examples:
  kiln sbom demo                                      what packages demo holds, as SPDX 2.3
  kiln sbom -o demo.spdx.json demo                    the same in a file
  kiln sbom --list demo                               the packages' URLs, one a line
  kiln sbom --platform linux/arm64 demo";

#[derive(Debug, Args)]
#[command(after_help = SBOM_EXAMPLES)]
pub(crate) struct SbomArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print package URLs instead, one a line
    #[arg(long)]
    pub(crate) list: bool,
    /// Fail if something that may hold packages cannot be read
    #[arg(long)]
    pub(crate) strict: bool,
    /// Platform of the image, of those that it has [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image: of the local image store, else of its registry
    pub(crate) image: String,
}
