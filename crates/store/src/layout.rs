//! Where things are on disk. docs/store.md explains each path.

use std::path::{Path, PathBuf};

use kiln_core::{Digest, LayerId};
use serde::{Deserialize, Serialize};

use crate::source::SourceId;

/// Format of the store: the number in the file `format`. A kiln refuses stores of a newer one.
pub(crate) const FORMAT: u32 = 1;

/// Holds [`FORMAT`] as decimal text.
pub(crate) const FORMAT_FILE: &str = "format";
/// Locked shared for moments by those who note a use, exclusively by collection while it takes things away.
pub(crate) const LOCK_FILE: &str = "lock";
/// Blobs by digest.
pub(crate) const BLOBS: &str = "blobs/sha256";
/// Records that do not depend on [`Ids`].
pub(crate) const RECORDS: &str = "records";
/// Names of images.
pub(crate) const IMAGES: &str = "images";
/// Lock files that come and go, by what they protect.
pub(crate) const LOCKS: &str = "locks";
/// One locked file per running build.
pub(crate) const PINS: &str = "pins";
/// One locked directory per process, for half-made things.
pub(crate) const SCRATCH: &str = "tmp";
/// Blobs that came in part.
pub(crate) const PARTIAL: &str = "partial";
/// Lists what is not synced yet.
pub(crate) const PENDING: &str = "pending";
/// Lists which step records were removed lately, and why.
pub(crate) const REMOVED: &str = "removed";
/// What the store held when it was last counted.
pub(crate) const ACCOUNT: &str = "account";
/// Stat indexes, one file per build context.
pub(crate) const INDEX: &str = "index";
/// Fetched sources.
pub(crate) const SOURCES: &str = "sources";
/// Cache mounts, below the directory of the [`Ids`].
pub(crate) const CACHES: &str = "caches";
/// What earlier builds did, below the directory of the [`Ids`].
pub(crate) const NOTES: &str = "notes";
/// Layers, below the directory of the [`Ids`].
pub(crate) const LAYERS: &str = "layers";
/// The tree of a layer or a source, in its directory.
pub(crate) const TREE: &str = "fs";
/// Shows whether the store was copied, below the directory of the [`Ids`].
pub(crate) const PROBE: &str = "probe";
/// Facts about a layer, in its directory.
pub(crate) const LAYER_FILE: &str = "layer.json";
/// Owners of a layer's symbolic links, in its directory.
pub(crate) const OWNERS_FILE: &str = "owners.json";

/// Which owners the files of a store can have on disk.
///
/// Layers and step results of the two kinds do not mix; they lie side by side in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// Any: files belong to whom the layer says.
    Full,
    /// One: files belong to the user who runs kiln; other owners are recorded beside them ([`crate::owner`]).
    Single,
}

impl Ids {
    /// Returns the name of the directory in a store that holds what depends on it.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Single => "single",
        }
    }
}

/// Paths in one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) ids: Ids,
}

impl Layout {
    pub(crate) fn at(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.at(BLOBS).join(digest.hex())
    }

    /// The directory of what depends on the ids.
    pub(crate) fn owned(&self) -> PathBuf {
        self.at(self.ids.dir())
    }

    /// A fetched source's directory: its tree.
    pub(crate) fn source(&self, source: &SourceId) -> PathBuf {
        self.at(SOURCES).join(source.to_string())
    }

    /// A layer's directory: its tree and the files about it.
    pub(crate) fn layer(&self, layer: &LayerId) -> PathBuf {
        self.owned().join(LAYERS).join(&layer.0)
    }
}
