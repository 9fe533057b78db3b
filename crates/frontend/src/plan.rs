//! What lowering gives and what it takes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{
    Digest, Entitlement, IgnoreList, ImageConfig, Machine, Network, Platform, StepGraph, StepId,
};
use kiln_dockerfile::Diagnostic;
use serde::{Deserialize, Serialize};

/// What a build asks of a Dockerfile, besides its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: a stage's name or number; the last stage if none.
    pub target: Option<String>,
    /// Platforms to build for; the host's if empty.
    pub platforms: Vec<Platform>,
    /// What this machine is (BUILDPLATFORM).
    pub build_platform: Option<Platform>,
    /// `--label`s, put over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Names given with `--build-context`: such a name stands for files or an image, before stages and registries.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// Stages of `--no-cache-filter`.
    pub no_cache_filter: Vec<String>,
    /// `--allow`.
    pub allow: BTreeSet<Entitlement>,
    /// `--network`: that of a RUN that says nothing else.
    pub network: Network,
    /// `--add-host`, `--shm-size`, `--ulimit`.
    pub machine: Machine,
    /// What .dockerignore leaves out of the main context, for the check that looks for such files in COPY.
    pub ignore: IgnoreList,
    /// Whether stages that the target does not need are lowered too; they add steps that nothing asks for. This is for
    /// checks.
    pub all_stages: bool,
}

/// What a named build context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedContext {
    /// A tree of files without a configuration: a directory.
    Files,
    /// An image; the [`ImageTable`] has it under the context's own name.
    Image,
}

/// An image that lowering must know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageRequest {
    /// As written after FROM or `--from=`, expanded: `python:3.10`, or a named context's name.
    pub name: String,
    /// For which platform.
    pub platform: Platform,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// Digest of the platform's own manifest.
    pub manifest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// What the caller has resolved so far.
pub type ImageTable = BTreeMap<ImageRequest, ResolvedImage>;

/// Lowering's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Lowered {
    /// These must be resolved first; then call again.
    NeedImages(Vec<ImageRequest>),
    /// All is known.
    Ready(Box<BuildPlan>),
}

/// What a Dockerfile means.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildPlan {
    /// Every step of every wanted image.
    pub graph: StepGraph,
    /// The images, in the order of the platforms asked for.
    pub images: Vec<PlannedImage>,
    /// Proxy settings (`--build-arg HTTP_PROXY=...`) for every RUN whose own environment does not set them; never part
    /// of a step's identity or key.
    pub run_env: Vec<(String, String)>,
    /// Whether the result is an index even for one platform (`BUILDKIT_MULTI_PLATFORM`).
    pub index: bool,
    /// SOURCE_DATE_EPOCH as the build arguments or an ARG before the first FROM give it; not yet read.
    pub source_date_epoch: Option<String>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// One image to be.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedImage {
    /// For which platform.
    pub platform: Platform,
    /// The step whose snapshot is its root file system; none for an image without any layer (scratch).
    pub rootfs: Option<StepId>,
    /// Its configuration, but for `created`, `rootfs` and `history`.
    pub config: ImageConfig,
    /// What happened after `FROM`, oldest first; the base image's history goes before it.
    pub history: Vec<PlannedHistory>,
    /// The base image's configuration, whose `rootfs.diff_ids` and `history` come first.
    pub base: Option<ImageConfig>,
}

/// A line of history to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHistory {
    /// `created_by`, in BuildKit's words: `RUN /bin/sh -c make # buildkit`, `COPY a b # buildkit`, `ENV A=b`.
    pub created_by: String,
    /// The step that may have made a layer; none for metadata.
    pub step: Option<StepId>,
}
