//! What a build is asked to do, as plain data that crosses process boundaries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_core::{Entitlement, ImageRef, Machine, Network, Platform, Sandbox, Secret};
use kiln_registry::{Credentials, HostFiles, ShortNames};
use kiln_runtime::EmulatorSearch;
use kiln_store::cache_mount::CachePlace;
use serde::{Deserialize, Serialize};

use crate::engine::{SizeLimits, StoreBound};
use crate::ssh::SshAgent;

pub use attest::{Attest, ProvenanceMode, ProvenanceOptions};
pub use cache::{CacheMode, CacheTarget, RecordPlace};
pub use carry::{CarryLimits, CarryPlace, CarrySource, CarryTarget};
pub use context::{ContextModes, ContextSource, DockerfileSource, NamedSource};
pub use output::{Annotation, AnnotationPlace, ImageForm, LayerCompression, Output};
pub use place::{ImagePlace, PlaceError, Platforms};

mod attest;
mod cache;
mod carry;
mod context;
mod output;
mod place;

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The store's directory.
    pub root: PathBuf,
    /// The main build context.
    pub context: ContextSource,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// `--build-context NAME=...`.
    pub build_contexts: BTreeMap<String, NamedSource>,
    /// `--context-modes`: how permission bits of the contexts' files count.
    #[serde(default)]
    pub context_modes: ContextModes,
    /// `--build-arg NAME=VALUE`.
    pub build_args: BTreeMap<String, String>,
    /// `--secret`, by id. They are in no layer, key, record, event or message; docs/security.md.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// `--allow-secret-leak`: a step may leave a secret in its layer.
    #[serde(default)]
    pub allow_secret_leak: bool,
    /// `--on-error`: what becomes of what a failed step left.
    #[serde(default)]
    pub on_error: OnError,
    /// `--network`: that of RUN steps that say nothing else.
    #[serde(default)]
    pub network: Network,
    /// `--network` again, `--dns` and the like: what is in no key.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// `--add-host`, `--shm-size`, `--ulimit`.
    #[serde(default)]
    pub machine: Machine,
    /// `--ssh`: ssh agents, by id.
    #[serde(default)]
    pub ssh: BTreeMap<String, SshAgent>,
    /// `--label NAME=VALUE`.
    pub labels: BTreeMap<String, String>,
    /// `--target`; the last stage if none.
    pub target: Option<String>,
    /// `--platform`; this machine's if empty.
    pub platforms: Vec<Platform>,
    /// Where emulators of other platforms are looked for.
    #[serde(default)]
    pub emulators: EmulatorSearch,
    /// `--tag`.
    pub tags: Vec<ImageRef>,
    /// `--no-cache`: step records are not looked up; cache mounts keep what they hold.
    pub no_cache: bool,
    /// `--cache-from`: where results of steps are looked for that the store has not, in order.
    #[serde(default)]
    pub cache_from: Vec<RecordPlace>,
    /// `--cache-to`: where results of steps are left.
    #[serde(default)]
    pub cache_to: Vec<CacheTarget>,
    /// `--pull`: tags are looked up at their registry, even if the local image store has them.
    pub pull: bool,
    /// `--no-cache-filter`: stages whose step records are not looked up.
    pub no_cache_filter: Vec<String>,
    /// `--explain`: each step that runs is preceded by [`Event::StepReason`](crate::Event::StepReason). The outcome has the
    /// reasons in any case.
    #[serde(default)]
    pub explain: bool,
    /// `--allow`: what steps may do besides what all may do.
    pub allow: BTreeSet<Entitlement>,
    /// `--output`. Without one the image is kept in the local image store.
    pub outputs: Vec<Output>,
    /// `--attest`: what is written beside the image. Without any, nothing is, and an image of one platform is no index.
    #[serde(default)]
    pub attest: Vec<Attest>,
    /// `--sbom-file`: the SPDX document, as a file of its own.
    #[serde(default)]
    pub sbom_file: Option<PathBuf>,
    /// `--provenance-file`: the statement of provenance, as a file of its own.
    #[serde(default)]
    pub provenance_file: Option<PathBuf>,
    /// Puts the predicate of provenance into the outcome, with so much in it, also where none is written beside the image. What
    /// is written beside it counts over this.
    #[serde(default)]
    pub provenance_told: Option<ProvenanceMode>,
    /// `--cache-mount id=ID,path=DIR`: cache mounts that are kept in directories of the user's.
    #[serde(default)]
    pub cache_mounts: Vec<CachePlace>,
    /// Steps that run at once; the number of processors if none.
    pub jobs: Option<usize>,
    /// Clamps and replaces times in what is made (SOURCE_DATE_EPOCH,
    /// <https://reproducible-builds.org/specs/source-date-epoch/>).
    pub source_date_epoch: Option<SourceDate>,
    /// `--max-layer-size`, `--max-image-size`: a larger image is refused, and nothing is written.
    #[serde(default)]
    pub size_limits: SizeLimits,
    /// `--lock-timeout`: seconds to wait for what another process holds; as long as it takes if none.
    #[serde(default)]
    pub lock_timeout: Option<u64>,
    /// `--max-store`, `--max-cache-mounts`: kept before the build and after it.
    #[serde(default)]
    pub bound: StoreBound,
    /// `--cache-mounts-from`: where cache mounts are restored from that steps use; of each, the first that has it.
    #[serde(default)]
    pub cache_mounts_from: Vec<CarrySource>,
    /// `--cache-mounts-to`: where those that steps use are exported to after a build that ended well.
    #[serde(default)]
    pub cache_mounts_to: Vec<CarryTarget>,
    /// `--cache-mounts-required`: failing to restore or to save them is a failure.
    #[serde(default)]
    pub cache_mounts_required: bool,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

impl BuildRequest {
    /// Asks for what `kiln build CONTEXT` does, in the store at `root`: the context's `Dockerfile`, the last stage, this
    /// machine's platform, the result in the local image store without a name.
    pub fn new(root: impl Into<PathBuf>, context: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            context: ContextSource::Directory(context.into()),
            dockerfile: DockerfileSource::Default,
            build_contexts: BTreeMap::new(),
            context_modes: ContextModes::AsIs,
            build_args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            allow_secret_leak: false,
            on_error: OnError::Keep,
            network: Network::Default,
            sandbox: Sandbox::default(),
            machine: Machine::default(),
            ssh: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            platforms: Vec::new(),
            emulators: EmulatorSearch::default(),
            tags: Vec::new(),
            no_cache: false,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            pull: false,
            no_cache_filter: Vec::new(),
            explain: false,
            allow: BTreeSet::new(),
            outputs: Vec::new(),
            attest: Vec::new(),
            sbom_file: None,
            provenance_file: None,
            provenance_told: None,
            cache_mounts: Vec::new(),
            jobs: None,
            source_date_epoch: None,
            size_limits: SizeLimits::default(),
            lock_timeout: None,
            bound: StoreBound::default(),
            cache_mounts_from: Vec::new(),
            cache_mounts_to: Vec::new(),
            cache_mounts_required: false,
            registry: RegistryOptions::default(),
        }
    }
}

/// Which time clamps and replaces those in what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceDate {
    /// Seconds since 1970.
    Seconds(u64),
    /// The time of the commit that the main context is a checkout of: a git URL's, or that of the work tree that the
    /// directory is in.
    Commit,
}

/// What becomes of what a failed step left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It stays in the store, to be looked at: the last few, until they are pruned.
    #[default]
    Keep,
    /// It goes.
    Discard,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryOptions {
    /// Per registry host, the mirrors to try first, in order: `http://127.0.0.1:5000`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts reached by plain http.
    pub insecure: Vec<String>,
    /// Where credentials are. None by default: the command line puts in what docker and podman use.
    pub credentials: Credentials,
    /// What other programs of the machine are told about registries. None by default, as above.
    pub files: HostFiles,
    /// Who says what a name without a registry is.
    #[serde(default)]
    pub short_names: ShortNames,
    /// What kiln calls itself.
    pub user_agent: Option<String>,
}
