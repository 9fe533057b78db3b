//! Where results of steps are found and left besides the store: `--cache-from` and `--cache-to`.

use std::fmt;
use std::path::PathBuf;

use kiln_core::ImageRef;
use serde::{Deserialize, Serialize};

use super::LayerCompression;

/// A place with records of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordPlace {
    /// A repository of a registry. Its tag names the list of the last build's records; the records themselves belong to the
    /// repository. To read from: an image with [`Inline`](Self::Inline) facts, too.
    Registry(ImageRef),
    /// A directory of this machine.
    Local(PathBuf),
    /// The image's own configuration, to write to: who reads names the image.
    Inline,
}

/// `--cache-to`: where records are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheTarget {
    /// Where.
    pub place: RecordPlace,
    /// Which steps'.
    #[serde(default)]
    pub mode: CacheMode,
    /// How layers are packed; as the first image output has them if none.
    #[serde(default)]
    pub compression: Option<LayerCompression>,
    /// The level of it.
    #[serde(default)]
    pub level: Option<u32>,
    /// Whether a cache that cannot be written is a warning, and not the build's failure.
    #[serde(default)]
    pub ignore_error: bool,
}

/// Which steps' results are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Those that the result consists of.
    #[default]
    Min,
    /// All.
    Max,
}

impl CacheTarget {
    /// Leaves what the result consists of.
    pub fn new(place: RecordPlace) -> Self {
        Self { place, mode: CacheMode::Min, compression: None, level: None, ignore_error: false }
    }
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) => write!(f, "{}", name.familiar()),
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Inline => f.write_str("inline"),
        }
    }
}
