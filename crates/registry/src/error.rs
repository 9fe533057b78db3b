//! What can go wrong with a registry. No variant holds a credential or a whole URL: redirects lead to signed ones.

use std::fmt::Display;
use std::path::PathBuf;

use kiln_core::Digest;
use kiln_oci::OciError;
use serde::{Deserialize, Serialize};

/// Why something could not be had from a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RegistryError {
    /// It answered that there is no such thing.
    #[error("{host} has no {repository}{}{}", separated(reference), said(detail))]
    NotFound {
        /// Who answered.
        host: String,
        /// Asked for.
        repository: String,
        /// Tag or digest.
        reference: String,
        /// The registry's own words.
        detail: Option<String>,
    },
    /// It wants other credentials than it got, or has no such repository and does not say so.
    #[error(
        "{host} denies access to {repository}: it does not exist, or needs other credentials{}",
        said(detail)
    )]
    Unauthorized {
        /// Who answered.
        host: String,
        /// Asked for.
        repository: String,
        /// The registry's own words, or why no credentials could be sent.
        detail: Option<String>,
    },
    /// It does not let this user write there.
    #[error("{host} denies pushing to {repository}{}", said(detail))]
    PushDenied {
        /// Who answered.
        host: String,
        /// Where to.
        repository: String,
        /// The registry's own words, or why no credentials could be sent.
        detail: Option<String>,
    },
    /// Too many requests, for longer than is worth waiting.
    #[error("{host} limits the rate of requests{}{}", said(detail), again(retry_after))]
    RateLimited {
        /// Who answered.
        host: String,
        /// When it will answer again, seconds from then.
        retry_after: Option<u64>,
        /// The registry's own words, and what the limit is.
        detail: Option<String>,
    },
    /// Another failure that it reports.
    #[error("{host} answers {status}{}", said(detail))]
    Status {
        /// Who answered.
        host: String,
        /// HTTP status.
        status: u16,
        /// The registry's own words.
        detail: Option<String>,
    },
    /// No connection, or one that broke each time.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Whom.
        host: String,
        /// The system's words.
        cause: String,
    },
    /// It said nothing, or next to nothing, for too long.
    #[error("{host} sent nothing for {seconds} s")]
    Stalled {
        /// Who.
        host: String,
        /// How long one waited.
        seconds: u64,
    },
    /// The connection was made, but not trusted.
    #[error("no secure connection to {host}: {cause}")]
    Tls {
        /// To whom.
        host: String,
        /// Why.
        cause: String,
    },
    /// An answer that the protocol does not have.
    #[error("{host} answers wrongly: {reason}")]
    Protocol {
        /// Who.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A transfer that broke off more often than is worth trying.
    #[error("{host} broke off {digest} after {received} of {size} bytes: {cause}")]
    Interrupted {
        /// Who.
        host: String,
        /// What.
        digest: Digest,
        /// Bytes that came.
        received: u64,
        /// Bytes in all.
        size: u64,
        /// The system's words.
        cause: String,
    },
    /// Other bytes than asked for. Never used, never kept.
    #[error("{host} sends wrong bytes for {wanted}: their digest is {actual}")]
    DigestMismatch {
        /// Who.
        host: String,
        /// Asked for.
        wanted: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than its descriptor says.
    #[error("{host} sends {actual} bytes for {digest}, which has {wanted}")]
    SizeMismatch {
        /// Who.
        host: String,
        /// Asked for.
        digest: Digest,
        /// What the descriptor says, bytes.
        wanted: u64,
        /// What came or was announced, bytes.
        actual: u64,
    },
    /// A manifest or configuration that is too large to be one.
    #[error("{host} sends more than {limit} bytes for {what}")]
    TooLarge {
        /// Who.
        host: String,
        /// For what.
        what: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// It came, but kiln cannot use it.
    #[error("{image}: {error}")]
    Image {
        /// Which image.
        image: String,
        /// Why.
        error: OciError,
    },
    /// A failure that does not say itself what it was about.
    #[error("{subject}: {error}")]
    Of {
        /// `registry/repository:tag` or `registry/repository@digest`.
        subject: String,
        /// What failed.
        error: Box<RegistryError>,
    },
    /// Mirrors were tried, and the registry itself last.
    #[error("{name} cannot be had{}", tried.iter().map(|Attempt { error, .. }| format!("; {error}")).collect::<String>())]
    Mirrors {
        /// Registry and repository.
        name: String,
        /// Everybody who was asked, in order.
        tried: Vec<Attempt>,
    },
    /// A name without a registry that several registries were asked for, and none has.
    #[error("none of the registries that {from} names has {name}{}", tried.iter().map(|Attempt { error, .. }| format!("; {error}")).collect::<String>())]
    Nowhere {
        /// As it was written.
        name: String,
        /// The file that names the registries.
        from: String,
        /// Everybody who was asked, in order.
        tried: Vec<Attempt>,
    },
    /// A name without a registry that may be several images, where that is not to be guessed.
    #[error("{name} may be {}: {from} names these registries, and short-name-mode is \"enforcing\"", candidates.join(" or "))]
    AmbiguousName {
        /// As it was written.
        name: String,
        /// What it may be.
        candidates: Vec<String>,
        /// The file that names the registries.
        from: String,
    },
    /// A mirror that is no http or https address.
    #[error("mirror {mirror:?} of {registry} is not usable: {reason}")]
    Mirror {
        /// For which registry.
        registry: String,
        /// As configured, without any password.
        mirror: String,
        /// Why.
        reason: String,
    },
    /// A file with credentials that cannot be read.
    #[error("credentials in {} cannot be read: {reason}", path.display())]
    AuthFile {
        /// Which.
        path: PathBuf,
        /// Why; never its content.
        reason: String,
    },
    /// A file that tells how registries are reached, and does not.
    #[error("{}: {reason}", file.display())]
    Configuration {
        /// Which.
        file: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// One of those files forbids it.
    #[error("{name} is blocked by {from}")]
    Blocked {
        /// Registry and repository.
        name: String,
        /// File and line.
        from: String,
    },
    /// It was shown a name and a password, and does not take them.
    #[error("{host} does not take this name and password{}", said(detail))]
    Login {
        /// Who answered.
        host: String,
        /// The registry's own words.
        detail: Option<String>,
    },
    /// What one cannot log in to.
    #[error("{name:?} is not a registry: write HOST or HOST:PORT")]
    Host {
        /// As given.
        name: String,
    },
    /// A program that has the credentials for a registry does not give them.
    #[error("{program} has no credentials for {server} to give: {reason}")]
    Helper {
        /// `docker-credential-NAME`.
        program: String,
        /// For whom.
        server: String,
        /// Why; never a secret.
        reason: String,
    },
    /// What is to be pushed cannot be read here.
    #[error("{digest} cannot be pushed: {reason}")]
    Source {
        /// Which blob.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The machine gives no thread, or no HTTP client can be made.
    #[error("the registry client cannot run: {cause}")]
    Client {
        /// Why.
        cause: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// One of several that were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who.
    pub host: String,
    /// How it failed.
    pub error: RegistryError,
}

impl RegistryError {
    /// Returns the failure that matters: of mirrors, that of the registry itself.
    pub fn root(&self) -> &Self {
        match self {
            Self::Of { error, .. } => error.root(),
            Self::Mirrors { tried, .. } | Self::Nowhere { tried, .. } => {
                tried.last().map_or(self, |attempt| attempt.error.root())
            }
            other => other,
        }
    }

    /// Adds registry, repository and reference to a failure that does not name them.
    pub(crate) fn of_what(self, name: &str, reference: &dyn Display) -> Self {
        let subject = format!("{name}{}", separated(&reference.to_string()));
        match self {
            // It names the repository; which part of an image is kept back is told, too.
            Self::Unauthorized { .. } if subject.contains('@') => Self::Of { subject, error: Box::new(self) },
            Self::RateLimited { .. }
            | Self::Status { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Tls { .. }
            | Self::Protocol { .. }
            | Self::Interrupted { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::TooLarge { .. } => Self::Of { subject, error: Box::new(self) },
            other => other,
        }
    }

    /// Finds the failure inside what [`BlobReader`](crate::BlobReader) gave to its reader.
    pub fn of(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

fn said(detail: &Option<String>) -> String {
    detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

fn separated(reference: &str) -> String {
    let separator = if reference.contains(':') { '@' } else { ':' };
    format!("{separator}{reference}")
}

fn again(seconds: &Option<u64>) -> String {
    seconds.map(|seconds| format!("; it answers again in {seconds} s")).unwrap_or_default()
}
