//! Layers: directories in overlay form, made by unpacking a base's tar or by a step, and written out as blobs.
//!
//! Overlay form is what the kernel reads with `userxattr`: a deletion is a character device 0:0, a directory that
//! hides what is below has the xattr `user.overlay.opaque=y`
//! (<https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>).

pub(crate) mod active;
pub(crate) mod archive;
pub(crate) mod changes;
mod entries;
pub(crate) mod header;
pub(crate) mod kept;
mod links;
pub(crate) mod list;
mod opaque;
pub(crate) mod pack;
mod repack;
pub(crate) mod same;
pub(crate) mod stack;
pub(crate) mod take;
mod unchanged;

use std::os::fd::AsFd;
use std::path::Path;

use kiln_core::{IoError, IoResultExt as _, LayerId};
use rustix::fs::{FileType, OFlags, Stat};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::layout::LAYER_FILE;
use crate::store::Store;

/// How a directory of a tree that is not ours is opened: no link is followed.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory hide what lies below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// Facts about a layer that its tree cannot hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    /// Whether the layer says something about the root directory. If not, the root belongs to the layers below.
    pub(crate) root: bool,
}

impl LayerInfo {
    pub(crate) fn write(&self, dir: &Path) -> Result<(), IoError> {
        let path = dir.join(LAYER_FILE);
        let text = serde_json::to_vec(self).map_err(std::io::Error::from).at("write", &path)?;
        std::fs::write(&path, text).at("write", path)
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, IoError> {
        let path = dir.join(LAYER_FILE);
        let text = std::fs::read(&path).at("read", &path)?;
        serde_json::from_slice(&text).map_err(std::io::Error::from).at("read", path)
    }
}

impl Store {
    /// Returns whether a layer is there, and notes the use.
    pub fn has_layer(&self, layer: &LayerId) -> bool {
        self.note_use(&self.0.layout.layer(layer)).unwrap_or(false)
    }

    /// Returns the facts about a layer.
    pub(crate) fn layer_info(&self, layer: &LayerId) -> Result<LayerInfo, StoreError> {
        match LayerInfo::read(&self.0.layout.layer(layer)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::NoLayer { layer: layer.clone() })
            }
            other => Ok(other?),
        }
    }
}

/// Whether a file stands for a deletion.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an open directory hides what lies below it.
pub(crate) fn is_opaque(dir: impl AsFd) -> std::io::Result<bool> {
    use rustix::io::Errno;
    let mut value = [0_u8; 4];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
