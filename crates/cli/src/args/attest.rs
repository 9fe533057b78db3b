//! What is said of a result: flags of `kiln build`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// Write beside the image what is said of it: type=sbom (its packages) or type=provenance[,mode=min|max] (where it comes
    /// from); may be repeated. Without it nothing is written (docs/attestations.md)
    #[arg(long, value_name = "type=TYPE")]
    pub(crate) attest: Vec<String>,
    /// Short for --attest type=provenance: true, false, or keys such as mode=min
    #[arg(long, value_name = "true|false|KEYS")]
    pub(crate) provenance: Option<String>,
    /// Short for --attest type=sbom: true or false
    #[arg(long, value_name = "true|false")]
    pub(crate) sbom: Option<String>,
    /// Write the list of the image's packages to a file (SPDX 2.3); the image stays as it is
    #[arg(long, value_name = "FILE")]
    pub(crate) sbom_file: Option<PathBuf>,
    /// Write the statement of where the image comes from to a file; the image stays as it is
    #[arg(long, value_name = "FILE")]
    pub(crate) provenance_file: Option<PathBuf>,
}
