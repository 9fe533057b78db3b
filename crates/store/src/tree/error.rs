//! Why files cannot be selected or hashed.

use std::path::PathBuf;

use kiln_core::{IoError, PatternError};
use serde::{Deserialize, Serialize};

/// Why files of a source cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TreeError {
    /// Nothing is at a literal path.
    #[error("{path:?} not found{}", nearby_text(.excluded, .nearby))]
    NotFound {
        /// As asked for.
        path: String,
        /// If something is there that the ignore file leaves out.
        excluded: Option<Exclusion>,
        /// What the nearest existing directory holds under similar names, as paths; nearest first.
        nearby: Vec<String>,
    },
    /// A file stands where a directory is needed.
    #[error("{path:?} cannot be reached: {} is not a directory", .file.display())]
    NotDirectory {
        /// As asked for.
        path: String,
        /// The file.
        file: PathBuf,
    },
    /// `--parents` with a path through a symbolic link: there is no directory to keep.
    #[error("{path:?} leads through the symbolic link {}, which --parents does not follow", .link.display())]
    ThroughLink {
        /// As asked for.
        path: String,
        /// The link.
        link: PathBuf,
    },
    /// Symbolic links that lead to each other.
    #[error("{path:?} cannot be resolved: too many symbolic links")]
    LinkLoop {
        /// As asked for.
        path: String,
    },
    /// A wildcard that cannot be read.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Which line leaves a path out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// What messages call the ignore file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

fn nearby_text(excluded: &Option<Exclusion>, nearby: &[String]) -> String {
    match (excluded, nearby) {
        (Some(Exclusion { file, line }), _) => format!(": line {line} of {file} excludes it"),
        (None, []) => String::new(),
        (None, nearby) => format!("; nearby: {}", nearby.join(", ")),
    }
}
