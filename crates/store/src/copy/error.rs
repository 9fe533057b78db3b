//! Why files cannot be copied into a layer.

use std::path::PathBuf;

use kiln_core::IoError;
use serde::{Deserialize, Serialize};

use crate::ArchiveError;
use crate::tree::TreeError;

/// Why a COPY or WORKDIR did not happen. Paths are those of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CopyError {
    /// The sources cannot be had.
    #[error(transparent)]
    Source(#[from] TreeError),
    /// A directory is to be copied where a file is, or a path leads through a file.
    #[error("{} is not a directory in the image", .path.display())]
    FileInTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A file is to be copied where a directory is.
    #[error("a file cannot replace the directory {} of the image", .path.display())]
    DirectoryInTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// Several files for one name.
    #[error(
        "several files cannot all become {}: write the destination with a trailing slash to copy into a directory",
        .path.display()
    )]
    SeveralIntoOne {
        /// The destination.
        path: PathBuf,
    },
    /// Symbolic links in the image that lead to each other.
    #[error("{} cannot be resolved in the image: too many symbolic links", .path.display())]
    LinkLoop {
        /// The destination.
        path: PathBuf,
    },
    /// An archive that cannot be unpacked.
    #[error("{} cannot be unpacked: {error}", .path.display())]
    Archive {
        /// The archive, as a path of its source.
        path: PathBuf,
        /// Why.
        error: ArchiveError,
    },
    /// `--chown` or USER with a name that the image does not know.
    #[error("{name:?} is not in the image's {file}{}", no_file_text(.file_missing))]
    UnknownName {
        /// The user or group.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: String,
        /// Whether the image has no such file at all.
        file_missing: bool,
    },
    /// `--chown` or USER that is neither a name nor a number.
    #[error("{text:?} is not a user[:group]")]
    BadOwner {
        /// As written.
        text: String,
    },
    /// `--chmod` that cannot be read.
    #[error("{text:?} is not a mode")]
    BadMode {
        /// As written.
        text: String,
    },
    /// The build was interrupted.
    #[error("interrupted")]
    Cancelled,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn no_file_text(missing: &bool) -> &'static str {
    if *missing { ", which it does not have" } else { "" }
}
