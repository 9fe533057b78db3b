//! Build container images from Dockerfiles, without a daemon, root or host packages.
//!
//! Call [`init`] first thing in `main`, then [`Builder::build`]. docs/embedding.md is the guide.

mod account;
mod check;
mod engine;
mod error;
mod fix;
mod outcome;
mod plan;
mod remote;
mod request;
mod ssh;

pub use account::{account, login, logout, trace_image};
pub use check::{CheckRequest, Checked, check, outline, sarif, targets};
pub use engine::{
    BoundReport, BuildNote, BuildVerdict, CacheFilter, CacheLeft, CachePruneReport, CachePruneRequest,
    CacheSummary, CarriedCache, CarryExport, CarryExportRequest, CarryImport, CarryImportRequest,
    CarryReport, Circumstance, ContextListing, ContextView, CopyOutcome, CopyRequest, Engine, EnterRequest,
    Entering, HeldStep, HiddenFile, HistoryStep, ImageDetails, ImageDifference, ImageFilter,
    ImagePruneReport, ImagePruneRequest, ImageSummary, ImagesRequest, ImportRequest, IndexRequest, LargeFile,
    LayerReport, LayersReport, ListedFile, LoadRequest, NextToGo, Oversized, PartDifference, PathDifference,
    PruneReport, PruneRequest, PrunedKind, PrunedThing, Recipe, RemovedImage, Rule, RuleUse, RunMount,
    RunMountKind, RunRequest, SaveFormat, SaveRequest, Sbom, SbomRequest, Side, SizeLimits, Snapshotter,
    StepMount, StepShell, StepSummary, StoreBound, TagRequest, Unvaried, VerifyReport, VerifyRequest, Why,
    history, ignore_list,
};
pub use error::{CarryFailure, Error, ErrorKind, LookError};
pub use fix::{Fixed, fix};
pub use kiln_carry::{CarryError, Strategy};
pub use kiln_core::{
    Advice, CacheMountState, CacheScope, Cancel, Compared, Digest, Entitlement, Event, EventSink, Exceeded,
    ExitStatus, History, ImageConfig, ImageRef, KeyChange, Layer, Limit, LogStream, Machine, Network,
    NetworkChoice, PathChange, PathPart, Platform, Reason, Resolver, Resources, Sandbox, Secret,
    SecretTooLarge, Sharing, StepOutcome, StepUsage, StepWhy,
};
pub use kiln_frontend::{Argument, MountName, NamedContext, Outline, Target};
pub use kiln_git::GitError;
pub use kiln_oci::{LoadedImage, OciError};
pub use kiln_registry::{
    Account, CredentialSource, Credentials, DaemonError, DaemonOptions, DownloadError, HostFiles, Kept,
    RegistryError, RequestTrace, ServerTrace, ShortNames, Trace,
};
pub use kiln_runtime::{
    EmulatorSearch, EnterOptions, Isolation, NoEmulator, RunError, Rung, Signals, architectures,
};
pub use kiln_store::cache_mount::{
    CacheError, CacheFigures, CacheHold, CacheName, CachePart, CachePlace, PlaceProblem,
};
pub use kiln_store::{Change, FileState, Problem, Room, StoreError, Usage};
pub use outcome::{BuildOutcome, BuiltImage, CacheVerdict, Export, StepReport};
pub use plan::{PlanRequest, doctor, plan_text};
pub use remote::{Builder, init};
pub use request::{
    Annotation, AnnotationPlace, Attest, BuildRequest, CacheMode, CacheTarget, CarryLimits, CarryPlace,
    CarrySource, CarryTarget, ContextModes, ContextSource, DockerfileSource, ImageForm, ImagePlace,
    LayerCompression, NamedSource, OnError, Output, PlaceError, Platforms, ProvenanceMode, ProvenanceOptions,
    RecordPlace, RegistryOptions, SourceDate,
};
pub use ssh::{SshAgent, SshKeyError, check_ssh_key};
