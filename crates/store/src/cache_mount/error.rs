//! Why a cache cannot be had.

use std::path::PathBuf;

use kiln_core::IoError;
use serde::{Deserialize, Serialize};

use crate::copy::CopyError;

/// Why a cache mount cannot be had, or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CacheError {
    /// It is in use.
    #[error("cache {id:?} is in use by {holder}")]
    Held {
        /// Which.
        id: String,
        /// By whom, as the holder says it.
        holder: String,
    },
    /// There is no such cache.
    #[error("there is no cache {id:?}")]
    NoCache {
        /// Which.
        id: String,
    },
    /// Somebody kept it for longer than was to be waited.
    #[error("waited {seconds} s for cache {id:?}, held by {holder}")]
    TimedOut {
        /// Which.
        id: String,
        /// Who has it, as the holder says it.
        holder: String,
        /// As asked for.
        seconds: u64,
    },
    /// The build was interrupted while it waited.
    #[error("interrupted")]
    Cancelled,
    /// Its content cannot be copied.
    #[error("cache {id:?} cannot be copied from {}: {source}", .from.display())]
    Copy {
        /// Which.
        id: String,
        /// From where: a seed, or the cache itself.
        from: PathBuf,
        /// Why.
        source: Box<CopyError>,
    },
    /// It cannot be kept where it was placed.
    #[error("cache {id:?} cannot be kept in {}: {problem}", .path.display())]
    Place {
        /// Which.
        id: String,
        /// The directory.
        path: PathBuf,
        /// Why not.
        problem: PlaceProblem,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a cache cannot be kept in a directory of the user's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PlaceProblem {
    /// Something else is there.
    #[error("it is no directory")]
    NotADirectory,
    /// It would be a cache in the store, or the store in a cache.
    #[error("it and kiln's store {} lie in each other", root.display())]
    Store {
        /// The store.
        root: PathBuf,
    },
    /// It is everything.
    #[error("it is the root directory")]
    Root,
    /// Two caches would be one.
    #[error(
        "cache {other:?} is kept there already, and two caches in one directory would wait for each other"
    )]
    Taken {
        /// The other one.
        other: String,
    },
    /// One cache would be in two places.
    #[error("it is kept in {} already", other.display())]
    Twice {
        /// The other directory.
        other: PathBuf,
    },
    /// Nobody may write there.
    #[error("it cannot be written to ({error}): a step may only read it, with `ro` in its --mount")]
    ReadOnly {
        /// What the system says.
        error: String,
    },
    /// It is not there, and its parent does not let it be made.
    #[error("it is not there and cannot be made: {error}")]
    NotMade {
        /// What the system says.
        error: String,
    },
    /// flock(2) fails, as on some network file systems.
    #[error("it cannot be locked ({error}), so that nothing would keep two builds apart")]
    NoLock {
        /// What the system says.
        error: String,
    },
    /// A copy cannot take its place by renaming.
    #[error(
        "a whole new content takes its place by renaming, for `sharing=private` and for `import --replace`, and that is impossible here: \
         {reason}; `sharing=locked`, and an import without `--replace`, work"
    )]
    NoSwap {
        /// Why.
        reason: String,
    },
    /// There are no mounts.
    #[error(
        "in a chroot a step has the cache's directory itself, which would be moved away from there: that needs namespaces"
    )]
    Chroot,
    /// The kernel cannot show its files to steps as theirs.
    #[error(
        "it belongs to user {uid}, and what steps write there would not, since kiln runs as root and {reason}; run kiln as that user, \
         or give the directory to root"
    )]
    Owner {
        /// Whose it is.
        uid: u32,
        /// Why the ids cannot be mapped.
        reason: String,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(IoError),
}
