//! All that can go wrong in a build, as types that survive the trip from the engine's process.

use std::path::PathBuf;

use kiln_core::{
    Digest, Exceeded, ExitStatus, GitUrlError, ImageRef, IoError, PatternError, ReferenceError, StepId,
};
use kiln_dockerfile::Diagnostic;
use kiln_git::GitError;
use kiln_oci::OciError;
use kiln_registry::{DaemonError, DownloadError, RegistryError};
use kiln_runtime::{EnterError, NoEmulator, RunError};
use kiln_store::StoreError;
use kiln_store::cache_mount::CacheError;
use kiln_store::copy::CopyError;
use kiln_store::tree::TreeError;
use serde::{Deserialize, Serialize};

use crate::engine::Oversized;
use crate::ssh::SshKeyError;

mod carry;
mod kind;
mod look;
mod words;

pub use carry::CarryFailure;
pub use kind::ErrorKind;
pub use look::LookError;
use words::{inside_text, killed, nearby_text};

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// The Dockerfile cannot be built as it is.
    #[error("{file} cannot be built: {}", diagnostics.first().map_or("", |d| d.message.as_str()))]
    Dockerfile {
        /// Its name, for messages.
        file: String,
        /// Its text.
        text: String,
        /// What is wrong, and warnings.
        diagnostics: Vec<Diagnostic>,
    },
    /// Checks found something, and `# check=error=true` makes that a failure.
    #[error("checks found something, and `error=true` makes that a failure: {}", rules.join(", "))]
    Checks {
        /// The rules.
        rules: Vec<String>,
    },
    /// There is no Dockerfile.
    #[error("there is no {}{}{}", path.display(), inside_text(.inside), nearby_text(.nearby))]
    NoDockerfile {
        /// Where it was looked for.
        path: PathBuf,
        /// The context that it was looked for in, if that is no directory of this machine.
        inside: Option<String>,
        /// What is there under similar names.
        nearby: Vec<PathBuf>,
    },
    /// A file as build context that is no archive.
    #[error("{context} is neither a directory nor a tar archive")]
    NotAnArchive {
        /// Where the context comes from.
        context: String,
    },
    /// A git URL that cannot be used.
    #[error(transparent)]
    GitUrl(#[from] GitUrlError),
    /// The context is a Dockerfile, and another one was named.
    #[error("{context} holds a Dockerfile and no files, but another Dockerfile was named")]
    TwoDockerfiles {
        /// Where the context comes from.
        context: String,
    },
    /// Standard input was named as context to an engine that has another one.
    #[error("the engine of a Builder cannot read this process's standard input: give a file")]
    NotItsStdin,
    /// A Dockerfile is no text.
    #[error("{} is not UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A .dockerignore file cannot be read.
    #[error("{}: {error}", path.display())]
    IgnoreFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PatternError,
    },
    /// A SOURCE_DATE_EPOCH that is no time.
    #[error("SOURCE_DATE_EPOCH={text}: write seconds since 1970")]
    BadEpoch {
        /// As given.
        text: String,
    },
    /// The time of a commit is wanted, and the context is no checkout.
    #[error("--source-date-epoch=git: {reason}; give seconds since 1970")]
    NoCommit {
        /// Why not.
        reason: String,
    },
    /// A step's process failed.
    #[error("{title}: {status}{}", killed(*exceeded))]
    StepFailed {
        /// The Dockerfile's name.
        file: String,
        /// Its text.
        text: String,
        /// The step's title.
        title: String,
        /// Its lines.
        lines: Option<(usize, usize)>,
        /// How the process ended.
        status: ExitStatus,
        /// The limit that it came up against.
        exceeded: Option<Exceeded>,
        /// The last lines it wrote.
        tail: Vec<String>,
        /// Under which name what it left is kept, if it is.
        #[serde(default)]
        kept: Option<String>,
    },
    /// A step could not be done.
    #[error("{title}: {error}")]
    Step {
        /// The Dockerfile's name.
        file: String,
        /// Its text.
        text: String,
        /// The step's title.
        title: String,
        /// Its lines.
        lines: Option<(usize, usize)>,
        /// Why.
        error: Box<Error>,
        /// Under which name what it left is kept, if it is.
        #[serde(default)]
        kept: Option<String>,
    },
    /// A process ended badly; within a build it becomes [`Error::StepFailed`].
    #[error("the process ended with {status}{}", killed(*exceeded))]
    Exited {
        /// How.
        status: ExitStatus,
        /// The limit that it came up against.
        exceeded: Option<Exceeded>,
        /// The last lines it wrote.
        tail: Vec<String>,
    },
    /// A step of an earlier build cannot be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// A private key that was given with `--ssh`.
    #[error("ssh key for {id:?}: {error}")]
    SshKey {
        /// The id it was given for.
        id: String,
        /// Why it cannot be used.
        error: SshKeyError,
    },
    /// A name is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A named build context that an image was expected of.
    #[error("build context {context} is files, not an image")]
    NotAnImage {
        /// Where it comes from.
        context: String,
    },
    /// A layer whose bytes are those of its digest, and not what its image says. None of it is kept.
    #[error("{place}: {error}")]
    Layer {
        /// `registry/repository@digest`, or the archive or layout that it is from.
        place: String,
        /// Whether that is a file or directory of this machine.
        file: bool,
        /// What is wrong.
        error: Box<StoreError>,
    },
    /// An archive or layout of this machine that is not what it says.
    #[error("{place}: {error}")]
    Archive {
        /// Which.
        place: String,
        /// What is wrong.
        error: OciError,
    },
    /// An image that is not in the local image store.
    #[error("there is no image {}", name.familiar())]
    NoSuchImage {
        /// As asked for.
        name: ImageRef,
    },
    /// An image that is neither here nor to be had.
    #[error("{} is not in the local image store, and {error}", name.familiar())]
    NotHad {
        /// As asked for.
        name: ImageRef,
        /// Why its registry does not deliver it.
        error: RegistryError,
    },
    /// Several images whose ids begin alike.
    #[error("{several} images have an id that begins like {}: give more of it", name.familiar())]
    AmbiguousId {
        /// As asked for.
        name: ImageRef,
        /// How many.
        several: usize,
    },
    /// A short name that several images of the local image store have, each with another registry.
    #[error("{} may be {}: give the whole name", name.familiar(), names.iter().map(ImageRef::familiar).collect::<Vec<_>>().join(" or "))]
    SeveralAlike {
        /// As asked for.
        name: ImageRef,
        /// The names.
        names: Vec<ImageRef>,
    },
    /// An id of an image with several names, which shall all go.
    #[error("{} has {} names: {}", name.familiar(), names.len(), names.iter().map(ImageRef::familiar).collect::<Vec<_>>().join(", "))]
    SeveralNames {
        /// As asked for.
        name: ImageRef,
        /// The names.
        names: Vec<ImageRef>,
    },
    /// Layers that are larger than they may be.
    #[error("{} of the image's layers {} larger than --max-layer-size {limit} (bytes)", layers.len(), if layers.len() == 1 { "is" } else { "are" })]
    LayerSize {
        /// The limit, bytes.
        limit: u64,
        /// The layers, the lowest first.
        layers: Vec<Oversized>,
        /// The Dockerfile's name, of a build.
        file: String,
        /// Its text.
        text: String,
    },
    /// An image that is larger than it may be.
    #[error("the image has {bytes} bytes, more than --max-image-size {limit}")]
    ImageSize {
        /// The limit, bytes.
        limit: u64,
        /// What it has, compressed.
        bytes: u64,
        /// Its largest layers, the largest first.
        layers: Vec<Oversized>,
        /// The Dockerfile's name, of a build.
        file: String,
        /// Its text.
        text: String,
    },
    /// A cache that could not be written.
    #[error("the cache could not be left in {target}: {error}")]
    CacheTo {
        /// Where.
        target: String,
        /// Why.
        error: Box<Error>,
    },
    /// A pattern of a filter.
    #[error(transparent)]
    Pattern(PatternError),
    /// An image without a command, and none was given.
    #[error("{} has neither entrypoint nor command: say what to run", image.familiar())]
    NoCommand {
        /// The image.
        image: ImageRef,
    },
    /// A cache mount that is not there.
    #[error("there is no cache mount {id:?}")]
    NoSuchCache {
        /// As asked for.
        id: String,
    },
    /// An id that several cache mounts have.
    #[error("cache mount {id:?} is there in the scopes {}: say which one, with --scope", scopes.join(", "))]
    SeveralCaches {
        /// As asked for.
        id: String,
        /// The scopes.
        scopes: Vec<String>,
    },
    /// Cache mounts cannot be exported or imported.
    #[error(transparent)]
    Carry(#[from] CarryFailure),
    /// A step cannot do without a secret that was not given.
    #[error("secret {id:?} is required here and was not given: add --secret id={id},src=FILE, or env=NAME")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// A step left a secret in what would become a layer.
    #[error("the step leaves secret {id:?} in {}: do not write it, or remove it in the same step; --allow-secret-leak keeps it", path.display())]
    SecretLeak {
        /// Its id.
        id: String,
        /// The file; a name that is the secret is stars.
        path: PathBuf,
    },
    /// A step cannot do without an ssh agent that was not given.
    #[error("ssh agent {id:?} is required here and was not given: add --ssh {id}, or --ssh {id}=SOCKET")]
    NoAgent {
        /// Its id.
        id: String,
    },
    /// A secret that is no text cannot be a variable.
    #[error("secret {id:?} holds a zero byte and cannot be given in the variable {name}: mount it as a file")]
    SecretIsNoText {
        /// Its id.
        id: String,
        /// The variable.
        name: String,
    },
    /// An output that cannot be had as it is asked for.
    #[error("output {output}: {reason}")]
    Output {
        /// The output.
        output: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// An output that holds one image, asked for several.
    #[error(
        "{output} holds one image and no index: build for one platform, or write type=oci ({platforms} were asked for)"
    )]
    OnePlatformOnly {
        /// The output.
        output: String,
        /// How many.
        platforms: usize,
    },
    /// A `--change` of an import that does not change a configuration.
    #[error("--change {change:?}: {reason}")]
    Change {
        /// As given.
        change: String,
        /// Why not.
        reason: String,
    },
    /// A place that keeps no manifests, asked to keep a digest.
    #[error("{place} keeps no manifest, and so no digest: write oci-archive: or oci:")]
    NotPreserved {
        /// The place.
        place: String,
    },
    /// A place that an index cannot be made in.
    #[error("an index is made in the image store or in a registry (docker://), not in {place}")]
    NoIndexThere {
        /// The place.
        place: String,
    },
    /// A file was written to while it was copied.
    #[error("{} changed while it was copied: build again", path.display())]
    ContextChanged {
        /// The file.
        path: PathBuf,
    },
    /// A file of a context that has none.
    #[error("{path:?} not found: the build context is empty, only a Dockerfile was given")]
    EmptyContext {
        /// As asked for.
        path: String,
    },
    /// A build context that a step names was not given.
    #[error("there is no build context {name:?}")]
    NoSuchContext {
        /// Its name.
        name: String,
    },
    /// A step names an image that was never resolved: a defect in kiln.
    #[error("image {manifest} was not resolved")]
    NotResolved {
        /// Its manifest.
        manifest: Digest,
    },
    /// A step names an input that is not in the graph: a defect in kiln.
    #[error("step {step} is not in the graph")]
    NoSuchStep {
        /// Its id.
        step: StepId,
    },
    /// Files of a context or stage cannot be had.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A cache mount cannot be had.
    #[error(transparent)]
    CacheMount(#[from] CacheError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image, layout or archive is malformed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A running engine cannot be used.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A file behind a URL could not be had.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A file behind a URL is another one than `--checksum` says.
    #[error("{url} has checksum {actual}, not {expected}")]
    WrongChecksum {
        /// The URL, without what nobody must see.
        url: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A commit of a git repository could not be had.
    #[error(transparent)]
    Git(GitError),
    /// A git reference means another commit than `--checksum` says.
    #[error("{remote} has commit {actual} there, which does not begin with {expected}")]
    WrongCommit {
        /// The repository.
        remote: String,
        /// What was promised.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The namespaces cannot be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// Steps execute programs of an architecture that this machine has no emulator for. Nothing was executed.
    #[error("{}", missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Foreign {
        /// The Dockerfile's name.
        file: String,
        /// Its text.
        text: String,
        /// The steps' titles and lines.
        steps: Vec<(String, Option<(usize, usize)>)>,
        /// What there is no emulator for, and why.
        missing: Vec<NoEmulator>,
    },
    /// Programs of an architecture do not run here.
    #[error(transparent)]
    NoEmulator(#[from] NoEmulator),
    /// A step's process could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file or system operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The engine's process ended without an answer.
    #[error("the engine's process ended with {status} and without an answer")]
    EngineLost {
        /// How.
        status: String,
    },
    /// Another process kept something that this one needs alone.
    #[error("waited {seconds} s for {holder}")]
    LockTimeout {
        /// Who has it, and since when.
        holder: String,
        /// As asked for.
        seconds: u64,
    },
    /// The build was interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Returns what went wrong in the step, if it was in one.
    pub fn root(&self) -> &Self {
        match self {
            Self::Step { error, .. } => error.root(),
            other => other,
        }
    }

    /// Returns under which name is kept what a failed step left, if it is: [`Engine::step`](crate::Engine::step) finds it.
    pub fn kept(&self) -> Option<&str> {
        match self {
            Self::StepFailed { kept, .. } | Self::Step { kept, .. } => kept.as_deref(),
            _ => None,
        }
    }
}
