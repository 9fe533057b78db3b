//! What takes how much room, counted as du(1) does: blocks, each file once.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kiln_core::IoResultExt as _;
use serde::{Deserialize, Serialize};

use crate::durable::children;
use crate::error::StoreError;
use crate::layer::kept::is_kept;
use crate::layout::{self, Ids};
use crate::store::Store;

/// Bytes on disk, by kind. A file with several names counts where it is met first, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Compressed layers, configurations, manifests.
    pub blobs: u64,
    /// Files of base layers and steps.
    pub layers: u64,
    /// What failed steps left.
    #[serde(default)]
    pub failed: u64,
    /// What was fetched from URLs.
    #[serde(default)]
    pub sources: u64,
    /// Records and names of images.
    pub records: u64,
    /// Cache mounts.
    pub caches: u64,
    /// Everything else: stat indexes, what is half-made.
    pub other: u64,
}

impl Usage {
    /// Returns the sum: what `du -s` says.
    pub const fn total(&self) -> u64 {
        self.blobs + self.failed + self.layers + self.sources + self.records + self.caches + self.other
    }
}

impl Store {
    /// Counts the whole store.
    ///
    /// # Errors
    /// A directory cannot be read. What disappears in the meantime is no error.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let layout = &self.0.layout;
        let mut tally = Tally::default();
        let mut count = |path: &Path| {
            let size = tally.add(path).at("count", path)?;
            Ok::<u64, StoreError>(tally.once(&size))
        };
        let mut usage = Usage { blobs: count(&layout.at(layout::BLOBS))?, ..Usage::default() };
        for ids in [Ids::Full, Ids::Single] {
            for kept in
                children(&layout.at(ids.dir()).join(layout::LAYERS))?.iter().filter(|path| is_kept(path))
            {
                usage.failed += count(kept)?;
            }
            usage.layers += count(&layout.at(ids.dir()).join(layout::LAYERS))?;
            usage.records += count(&layout.at(ids.dir()).join(layout::RECORDS))?;
            usage.caches += count(&layout.at(ids.dir()).join(layout::CACHES))?;
        }
        usage.sources = count(&layout.at(layout::SOURCES))?;
        usage.records += count(&layout.at(layout::RECORDS))? + count(&layout.at(layout::IMAGES))?;
        // What is counted already adds nothing the second time.
        usage.other = count(&layout.root)?;
        Ok(usage)
    }
}

/// Counts files once, although they have several names.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By device and inode.
    files: HashMap<(u64, u64), File>,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    /// Names that are not removed yet.
    names: u64,
    counted: bool,
}

/// Room that one thing takes.
#[derive(Debug, Default)]
pub(super) struct Size {
    /// Files met, with how many of their names are in here.
    files: HashMap<(u64, u64), u64>,
}

impl Tally {
    /// Looks at a file or a tree.
    pub(super) fn add(&mut self, path: &Path) -> std::io::Result<Size> {
        let mut size = Size::default();
        visit(path, &mut |metadata| {
            let inode = (metadata.dev(), metadata.ino());
            let names = if metadata.is_dir() { 1 } else { metadata.nlink() };
            let file = File { bytes: metadata.blocks() * 512, names, counted: false };
            self.files.entry(inode).or_insert(file);
            *size.files.entry(inode).or_insert(0) += 1;
        })?;
        Ok(size)
    }

    /// Returns the bytes of what was not counted before.
    fn once(&mut self, size: &Size) -> u64 {
        let mut bytes = 0;
        for inode in size.files.keys() {
            if let Some(file) = self.files.get_mut(inode)
                && !std::mem::replace(&mut file.counted, true)
            {
                bytes += file.bytes;
            }
        }
        bytes
    }

    /// Takes a thing away, and returns the bytes that become free: those of files whose last names are in it.
    pub(super) fn free(&mut self, size: &Size) -> u64 {
        let mut bytes = 0;
        for (inode, names) in &size.files {
            if let Some(file) = self.files.get_mut(inode) {
                file.names = file.names.saturating_sub(*names);
                if file.names == 0 {
                    bytes += std::mem::take(&mut file.bytes);
                }
            }
        }
        bytes
    }
}

/// Shows a file, or a directory and all that is in it. What disappears in the meantime is no error.
pub(super) fn visit(path: &Path, see: &mut dyn FnMut(&Metadata)) -> std::io::Result<()> {
    // What a step has nested deeper than a path can say is not counted.
    let gone = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidFilename)
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    see(&metadata);
    if !metadata.is_dir() {
        return Ok(());
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        visit(&entry?.path(), see)?;
    }
    Ok(())
}
