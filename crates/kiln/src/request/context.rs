//! Where a build's files and its Dockerfile come from.

use std::fmt;
use std::path::PathBuf;

use kiln_core::{GitUrl, ImageRef};
use serde::{Deserialize, Serialize};

pub use kiln_store::tree::Modes as ContextModes;

/// Where the files of a build context come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// A tar, plain or compressed with gzip, bzip2, xz or zstd. It is read once, from its start: a named pipe will do.
    Archive(PathBuf),
    /// What is behind an `http://` or `https://` URL: a tar as above, else a single file, which is called `context` and, of the main
    /// context, is the Dockerfile.
    Http(String),
    /// A git repository, as [`GitUrl`] reads it: `https://HOST/REPOSITORY.git#REF:DIRECTORY`.
    Git(String),
    /// No files at all: COPY finds nothing.
    Empty,
    /// This process's standard input: a tar as above, else a Dockerfile, which then has no files beside it.
    /// [`Builder`](crate::Builder) refuses it, for its engine has a process of its own.
    Stdin,
}

/// What a named build context stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedSource {
    /// Files.
    Files(ContextSource),
    /// `oci-layout://PATH[:TAG][@DIGEST]`: an image in a layout directory or archive.
    OciLayout {
        /// The directory, or a tar of one.
        path: PathBuf,
        /// Which of several: the value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
        /// Which of several.
        digest: Option<kiln_core::Digest>,
    },
    /// `docker-image://REF`.
    Image(ImageRef),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DockerfileSource {
    /// In the main context, under its usual name: `Dockerfile`, else `dockerfile`, else `Containerfile`.
    Default,
    /// In the main context, at this path.
    InContext(PathBuf),
    /// A file on this machine.
    Path(PathBuf),
    /// Its text.
    Text(String),
}

impl fmt::Display for ContextSource {
    /// What messages call it, without what nobody must see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) | Self::Archive(path) => path.display().fmt(f),
            Self::Http(url) => f.write_str(&kiln_registry::redacted(url)),
            Self::Git(text) => match GitUrl::parse(text) {
                Some(Ok(url)) => url.fmt(f),
                _ => f.write_str(&kiln_registry::redacted(text)),
            },
            Self::Empty => f.write_str("the empty context"),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}
