//! What was put into a root file system by renaming, where nothing can be mounted.
//!
//! The runner writes the journal, a line of JSON for each thing before it is moved; the store reads it and moves all
//! back, also after a crash. docs/rootless.md, "In a chroot".

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The journal's name, in the directory in which the root file system lies.
pub const MOVED_JOURNAL: &str = "moved";

/// The name of the directory beside it that takes what is made for the step, and what was in the way.
pub const MOVED_ASIDE: &str = "aside";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// The root file system's directory; always the first line.
    Root {
        /// Absolute.
        path: PathBuf,
    },
    /// Something lies in the root file system that belongs elsewhere.
    Put {
        /// Where it belongs.
        source: PathBuf,
        /// Where it lies: a path in the root file system, without leading slash and without links.
        target: PathBuf,
        /// What was there before. Until this is there, nothing was moved.
        aside: PathBuf,
        /// Device and inode number of what was moved, by which it is known wherever a step may take it.
        identity: (u64, u64),
    },
    /// A file or directory was made in the root file system, as a place for something.
    Place {
        /// Where: as above.
        path: PathBuf,
    },
}
