//! The nouns and the seams of kiln; no I/O.
//!
//! Every other crate speaks in these words: a [`Digest`] names bytes, an [`Op`] is what a step does, a
//! [`StepGraph`] is what a Dockerfile means, a [`Snapshot`] is what a step left behind, a [`RunSpec`] is what
//! the runner is told, an [`Event`] is what a build says while it goes on.

mod cancel;
mod canonical;
mod config;
mod digest;
mod entitlement;
mod env;
mod event;
mod git_url;
mod graph;
mod io_error;
mod machine;
mod moved;
mod op;
mod pattern;
mod platform;
mod reference;
mod run;
mod sandbox;
mod secret;
mod snapshot;
mod stat_record;
mod why;

pub use cancel::{Cancel, CancelGuard};
pub use canonical::{Canonical, ENCODING_VERSION, Encode, Purpose};
pub use config::{ContainerConfig, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestError, DigestHasher};
pub use entitlement::{Entitlement, EntitlementError};
pub use env::{Env, EnvIter};
pub use event::{CacheMountState, Event, EventSink, LogStream, StepOutcome};
pub use git_url::{GitCredentials, GitScheme, GitUrl, GitUrlError, decode_percent};
pub use graph::{Step, StepGraph, StepId, StepInfo};
pub use io_error::{IoError, IoResultExt};
pub use machine::{Limit, Machine};
pub use moved::{MOVED_ASIDE, MOVED_JOURNAL, Moved};
pub use op::{
    Bind, CacheMount, CacheScope, Chmod, ContextOp, CopyFrom, CopyOp, CopySource, GitOp, HttpOp, ImageOp,
    InlineFile, MergeOp, Mount, MountKind, Network, Op, RunOp, SecretMount, Security, Selection, Sharing,
    SshMount, Tmpfs, Unpack, WorkdirOp,
};
pub use pattern::{IgnoreList, Pattern, PatternError, Verdict, clean_path, resolve_path};
pub use platform::{Platform, PlatformError};
pub use reference::{ImageRef, ReferenceError, Short};
pub use run::{
    DirectoryOrder, Emulator, ExitStatus, MountSpec, MountSpecKind, NetworkMode, Rootfs, RunSpec, StepUsage,
};
pub use sandbox::{Exceeded, NetworkChoice, Resolver, Resources, Sandbox, Variation};
pub use secret::{Secret, SecretTooLarge};
pub use snapshot::{Layer, LayerId, Snapshot};
pub use stat_record::{NoStatRecord, STAT_XATTR, StatRecord};
pub use why::{Advice, Compared, KeyChange, MOST_PATHS, PathChange, PathPart, Reason, StepWhy};
