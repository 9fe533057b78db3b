//! What is said of a result beside it.

use serde::{Deserialize, Serialize};

/// One `--attest`. The words are those of buildx: <https://docs.docker.com/build/metadata/attestations/>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Attest {
    /// Where it comes from: SLSA provenance, version 1.
    Provenance(ProvenanceOptions),
    /// What packages are in it: SPDX 2.3.
    Sbom,
}

/// How much is said of where a result comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProvenanceOptions {
    /// How much.
    pub mode: ProvenanceMode,
    /// Who built it: a URI; kiln's own if none.
    pub builder_id: Option<String>,
    /// What the file is called in outputs of files; `provenance.json` if none.
    pub filename: Option<String>,
    /// Says that the build would give the same again. kiln takes the user's word for it.
    pub reproducible: bool,
    /// Leaves it out of outputs of files.
    pub inline_only: bool,
}

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvenanceMode {
    /// What was built from what, and when. No values of build arguments, no labels, no ids of secrets.
    Min,
    /// Also build arguments, labels, ids of secrets and the text of the Dockerfile.
    #[default]
    Max,
}
