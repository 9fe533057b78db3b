//! Whole trees, as they are: a view into a user's directory, a cache into its copy.

use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_core::Cancel;

use super::job::Common;
use super::layer::LayerDir;
use super::place::Place;
use super::{CopyError, CopyReport};
use crate::layout::Ids;
use crate::tree::SourceTree;
use crate::tree::xattr::Which;

/// Copies all that a directory of the store (or a view of a snapshot) holds, with owners, modes, times and
/// attributes, kiln's own too, into an empty directory of the store, which gets its metadata as well.
///
/// # Errors
/// The file system failed or the build was interrupted; the copy is then half-made.
pub fn clone_tree(
    from: OwnedFd,
    label: &Path,
    into: &Path,
    cancel: &Cancel,
) -> Result<CopyReport, CopyError> {
    whole(&SourceTree::stored(from, label), into, Purpose::Store, cancel)
}

/// Copies all files of an image into a user's directory, over what is there (`-o type=local`). Owners are kept where
/// `keep_owners` says so: for real root; else everything belongs to the user. Devices that cannot be made are left
/// out and counted.
///
/// # Errors
/// A file is where a directory must be or the other way round; the file system failed.
pub fn export_tree(
    view: OwnedFd,
    label: &Path,
    into: &Path,
    keep_owners: bool,
    cancel: &Cancel,
) -> Result<CopyReport, CopyError> {
    whole(&SourceTree::view(view, label), into, Purpose::Export { keep_owners }, cancel)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Store,
    Export { keep_owners: bool },
}

fn whole(tree: &SourceTree, into: &Path, purpose: Purpose, cancel: &Cancel) -> Result<CopyReport, CopyError> {
    let selected = tree.all()?;
    // Numbers are copied as they are, so nothing is ever recorded anew.
    let layer = LayerDir::open(into, None, Ids::Full)?;
    let root = layer.duplicate()?;
    let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let common = Common {
        owner: (purpose == Purpose::Export { keep_owners: false }).then_some(user),
        which: if purpose == Purpose::Store { Which::Stored } else { Which::Portable },
        live: purpose == Purpose::Store,
        best_effort: purpose != Purpose::Store,
        ..Common::plain(&root, into, Ids::Full, cancel)
    };
    let mut place = Place::new(layer, &common);
    for m in &selected.matches {
        place.root(&selected, m.entry, purpose == Purpose::Store)?;
    }
    place.finish()
}
