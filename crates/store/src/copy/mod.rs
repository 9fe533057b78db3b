//! COPY and WORKDIR: files into a fresh layer directory, in overlay form.
//!
//! The rules are those of docker's file operations as BuildKit does them; docs/dockerfile.md lists them. What a
//! layer does not say it leaves to the image below: directories that are passed through keep their owner, mode and
//! times, so that a layer says the same whenever it is made.

mod archive;
mod born;
mod chmod;
mod data;
mod error;
mod export;
#[cfg(test)]
mod filter_tests;
mod job;
mod layer;
#[cfg(test)]
mod model_tests;
mod passwd;
mod place;
mod reuse;
mod shares;
#[cfg(test)]
mod tests;
mod workdir;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{Cancel, Chmod, InlineFile, Unpack};

pub(crate) use data::Mover;
pub(crate) use layer::timestamps;

pub use archive::unpack_context;
pub use error::CopyError;
pub use export::{clone_tree, export_tree};
pub use passwd::lookup_owner;
pub use place::copy;
pub use reuse::{CopyManifest, Reuse};
pub use workdir::make_dir;

use crate::layout::Ids;
use crate::owner::LinkOwners;
use crate::tree::Selected;

/// What to copy, and where to.
#[derive(Debug, Clone, Copy)]
pub struct CopyRequest<'a> {
    /// A fresh overlay upper directory.
    pub layer: &'a Path,
    /// The root file system so far, merged, read-only; none for scratch.
    pub parent: Option<BorrowedFd<'a>>,
    /// The sources, in order.
    pub inputs: &'a [CopyInput],
    /// Absolute, cleaned.
    pub dest: &'a str,
    /// Whether it was written as a directory.
    pub dest_is_dir: bool,
    /// Whether files that the sources name are unpacked if they are archives.
    pub unpack: Unpack,
    /// What the copies look like.
    pub rules: &'a CopyRules,
    /// An earlier layer of the same step, to share unchanged files with.
    pub reuse: Option<&'a Reuse>,
    /// Stops between two files.
    pub cancel: &'a Cancel,
}

/// One source.
#[derive(Debug, Clone)]
pub enum CopyInput {
    /// Files of a context or view.
    Files(Arc<Selected>),
    /// A heredoc.
    Inline(InlineFile),
}

/// What copies look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRules {
    /// Who owns all that is copied or made: what `--chown` says ([`lookup_owner`]). If it says nothing, that is 0:0,
    /// but what an archive holds belongs to whom the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether files keep their own owner if `owner` says nothing: those of a stage or an image do, as in BuildKit;
    /// those of a build context are of whoever checked them out, and become 0:0.
    pub keep_owners: bool,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// SOURCE_DATE_EPOCH: no time is after it, and what has no time gets it.
    pub epoch: Option<u64>,
    /// Which owners the store can hold.
    pub ids: Ids,
}

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Files and links put into the layer.
    pub files: u64,
    /// Directories in the layer, those passed through included.
    pub directories: u64,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Of those, bytes that share their blocks with the source.
    pub cloned: u64,
    /// Files shared with an earlier layer.
    pub reused: u64,
    /// Sockets, which no layer can hold; devices in an archive; in an export devices that the user may not make.
    pub left_out: u64,
    /// Source files that are not what they were when they were selected: the layer must not be recorded under
    /// the digest of the selection.
    pub changed: Vec<PathBuf>,
    /// Owners of links where the store cannot hold them; goes beside the layer.
    pub link_owners: LinkOwners,
    /// For the next copy's [`Reuse`]; goes beside the layer.
    pub manifest: CopyManifest,
}

impl CopyReport {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.reused += other.reused;
        self.left_out += other.left_out;
        self.changed.extend(other.changed);
        self.link_owners.0.extend(other.link_owners.0);
    }
}
