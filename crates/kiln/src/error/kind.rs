//! What sort of failure an error is.

use kiln_git::GitError;
use kiln_registry::{DaemonError, DownloadError, RegistryError};
use kiln_runtime::{RunError, UserError};
use kiln_store::StoreError;
use kiln_store::cache_mount::{CacheError, PlaceProblem};
use kiln_store::copy::CopyError;

use super::{CarryFailure, Error};

/// What sort of failure it is: what an exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A step failed.
    Step,
    /// The Dockerfile, the context or the request is at fault.
    Input,
    /// This machine cannot.
    Machine,
    /// A registry or the network.
    Network,
    /// A defect in kiln.
    Internal,
    /// Interrupted.
    Interrupted,
}

impl Error {
    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Step { error, .. } | Self::CacheTo { error, .. } => error.kind(),
            // Whatever was being done.
            full if full.is_full() => ErrorKind::Machine,
            Self::Carry(CarryFailure::Room { .. }) => ErrorKind::Machine,
            Self::Store(StoreError::Interrupted)
            | Self::Download(DownloadError::Cancelled)
            | Self::Copy(CopyError::Cancelled) => ErrorKind::Interrupted,
            Self::StepFailed { .. }
            | Self::SecretLeak { .. }
            | Self::LayerSize { .. }
            | Self::ImageSize { .. }
            | Self::Exited { .. }
            | Self::Run(
                RunError::Program { .. }
                | RunError::User(UserError::UnknownUser { .. } | UserError::UnknownGroup { .. }),
            ) => ErrorKind::Step,
            Self::Dockerfile { .. }
            | Self::Checks { .. }
            | Self::NoDockerfile { .. }
            | Self::NotAnArchive { .. }
            | Self::GitUrl(_)
            | Self::TwoDockerfiles { .. }
            | Self::NotItsStdin
            | Self::EmptyContext { .. }
            | Self::NotUtf8 { .. }
            | Self::BadEpoch { .. }
            | Self::NoCommit { .. }
            | Self::IgnoreFile { .. }
            | Self::Reference(_)
            | Self::NotAnImage { .. }
            | Self::NoSuchImage { .. }
            | Self::AmbiguousId { .. }
            | Self::SeveralAlike { .. }
            | Self::SeveralNames { .. }
            | Self::Pattern(_)
            | Self::NoCommand { .. }
            | Self::NoSuchCache { .. }
            | Self::SeveralCaches { .. }
            | Self::Carry(_)
            | Self::NoSecret { .. }
            | Self::NoAgent { .. }
            | Self::SshKey { .. }
            | Self::SecretIsNoText { .. }
            | Self::Output { .. }
            | Self::OnePlatformOnly { .. }
            | Self::Change { .. }
            | Self::NotPreserved { .. }
            | Self::NoIndexThere { .. }
            | Self::Look(_)
            | Self::NoSuchContext { .. }
            | Self::ContextChanged { .. }
            | Self::Tree(_)
            | Self::Copy(_)
            | Self::Archive { .. }
            | Self::Oci(_) => ErrorKind::Input,
            Self::Download(DownloadError::Address { .. })
            | Self::Store(
                StoreError::Archive { .. }
                | StoreError::FileName { .. }
                | StoreError::Sparse { .. }
                | StoreError::LongPath { .. },
            ) => ErrorKind::Input,
            // A name that cannot be had because of a file on this machine is no matter of the network.
            Self::Registry(error) | Self::NotHad { error, .. } => match error.root() {
                RegistryError::Cancelled => ErrorKind::Interrupted,
                RegistryError::Host { .. }
                | RegistryError::Mirror { .. }
                | RegistryError::AuthFile { .. }
                | RegistryError::Configuration { .. }
                | RegistryError::AmbiguousName { .. }
                | RegistryError::Blocked { .. } => ErrorKind::Input,
                _ => ErrorKind::Network,
            },
            Self::Git(error) => match error.root() {
                GitError::Unsupported { .. }
                | GitError::Empty { .. }
                | GitError::NoSuchRef { .. }
                | GitError::NoSuchDirectory { .. } => ErrorKind::Input,
                GitError::Io(_) => ErrorKind::Machine,
                _ => ErrorKind::Network,
            },
            // What was served is not what an image promised, or is no layer.
            Self::Layer { file: true, .. } => ErrorKind::Input,
            Self::Layer { .. } => ErrorKind::Network,
            Self::Store(
                StoreError::Decompress { .. }
                | StoreError::LayerRead { .. }
                | StoreError::BadEntry { .. }
                | StoreError::TooLarge { .. }
                | StoreError::DiffIdMismatch { .. }
                | StoreError::MediaType { .. },
            ) => ErrorKind::Network,
            Self::CacheMount(CacheError::Cancelled) => ErrorKind::Interrupted,
            Self::CacheMount(CacheError::NoCache { .. }) => ErrorKind::Input,
            Self::CacheMount(CacheError::Place { problem, .. }) => match problem {
                PlaceProblem::NoLock { .. }
                | PlaceProblem::Chroot
                | PlaceProblem::Owner { .. }
                | PlaceProblem::Io(_) => ErrorKind::Machine,
                _ => ErrorKind::Input,
            },
            Self::Daemon(DaemonError::Cancelled) => ErrorKind::Interrupted,
            Self::Daemon(DaemonError::Host { .. }) => ErrorKind::Input,
            Self::Enter(_)
            | Self::Daemon(_)
            | Self::Foreign { .. }
            | Self::NoEmulator(_)
            | Self::Run(_)
            | Self::Store(_)
            | Self::CacheMount(_)
            | Self::LockTimeout { .. }
            | Self::Io(_) => ErrorKind::Machine,
            Self::Download(_) | Self::WrongChecksum { .. } | Self::WrongCommit { .. } => ErrorKind::Network,
            Self::NotResolved { .. } | Self::NoSuchStep { .. } | Self::EngineLost { .. } => {
                ErrorKind::Internal
            }
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// Returns whether a file system had no room (or no quota) left.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Step { error, .. } => error.is_full(),
            Self::Io(error) => error.is_full(),
            Self::Store(error) => error.is_full(),
            Self::Copy(CopyError::Io(error)) => error.is_full(),
            Self::Git(error) => matches!(error.root(), GitError::Io(error) if error.is_full()),
            _ => false,
        }
    }
}
