//! Sources of files: a build context, or a merged view of a stage's snapshot, as a directory descriptor.
//!
//! Only what some COPY or bind mount selects is walked and only what is new is read: an unchanged tree costs one
//! stat walk, because a [`StatIndex`] remembers content digests.

mod digest;
mod error;
mod facts;
#[cfg(test)]
mod facts_tests;
#[cfg(test)]
mod filter_tests;
mod nearby;
pub(crate) mod resolve;
mod select;
pub(crate) mod selected;
pub(crate) mod stat;
mod stat_index;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod walk;
pub(crate) mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{IgnoreList, Selection};

pub use digest::DigestRule;
pub use error::{Exclusion, TreeError};
pub use facts::{Changed, Fact, Facts, FileChange};
pub use selected::{Selected, Visit};
pub use stat::{FileStat, Kind, Time};
pub use stat_index::StatIndex;
pub use survey::{Surveyed, survey};
pub use walk::Modes;

use xattr::Which;

use crate::owner::LinkOwners;

/// A directory that files are taken from.
#[derive(Debug)]
pub struct SourceTree {
    root: Arc<OwnedFd>,
    label: PathBuf,
    ignore: Option<IgnoreList>,
    /// What messages call the file that `ignore` was read from.
    ignore_name: String,
    index: Option<Arc<StatIndex>>,
    modes: Modes,
    xattrs: Which,
    live: bool,
    /// Owners that the files themselves do not show.
    links: LinkOwners,
    /// Each selection is walked once, so that the key and the copy of a step see the same files.
    seen: Mutex<HashMap<Selection, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<Selected>>>>;

impl SourceTree {
    /// Makes a build context: a user's directory, with what its .dockerignore leaves out. `label` names it in
    /// messages.
    pub fn context(
        root: OwnedFd,
        label: impl Into<PathBuf>,
        ignore: IgnoreList,
        index: Option<Arc<StatIndex>>,
    ) -> Self {
        let ignore = (ignore != IgnoreList::default()).then_some(ignore);
        // What a stranger's file says of its owner is not believed.
        Self { ignore, index, xattrs: Which::Portable, ..Self::view(root, label) }
    }

    /// Makes a view of a finished snapshot: all of it, unchanging.
    pub fn view(root: OwnedFd, label: impl Into<PathBuf>) -> Self {
        Self {
            root: Arc::new(root),
            label: label.into(),
            ignore: None,
            ignore_name: ".dockerignore".to_owned(),
            index: None,
            modes: Modes::AsIs,
            xattrs: Which::Recorded,
            live: false,
            links: LinkOwners::default(),
            seen: Mutex::default(),
        }
    }

    /// Says what messages call the ignore file, if not `.dockerignore`.
    #[must_use]
    pub fn with_ignore_name(self, ignore_name: impl Into<String>) -> Self {
        Self { ignore_name: ignore_name.into(), ..self }
    }

    /// Says whose links, fifos and devices are that the file system shows as somebody else's.
    #[must_use]
    pub fn with_link_owners(self, links: LinkOwners) -> Self {
        Self { links, ..self }
    }

    /// Counts permission bits in another way.
    #[must_use]
    pub fn with_modes(self, modes: Modes) -> Self {
        Self { modes, ..self }
    }

    /// A directory of this store, copied with all that the store keeps in it; steps may be at work there.
    pub(crate) fn stored(root: OwnedFd, label: impl Into<PathBuf>) -> Self {
        Self { xattrs: Which::Stored, live: true, ..Self::view(root, label) }
    }

    /// Returns the files that a selection means. Walks each selection once.
    ///
    /// # Errors
    /// A literal path without a file; files that cannot be read.
    pub fn select(&self, selection: &Selection) -> Result<Arc<Selected>, TreeError> {
        let slot = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(seen.entry(selection.clone()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(selected) = &*slot {
            return Ok(Arc::clone(selected));
        }
        let selected = Arc::new(select::select(self, selection)?);
        *slot = Some(Arc::clone(&selected));
        Ok(selected)
    }

    /// Returns the whole tree.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn all(&self) -> Result<Arc<Selected>, TreeError> {
        self.select(&Selection::all())
    }

    /// Returns the directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns its name in messages.
    pub fn label(&self) -> &Path {
        &self.label
    }
}
