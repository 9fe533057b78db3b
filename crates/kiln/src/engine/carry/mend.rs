//! A place that no longer has what it must have. An export packs again what there is of it in the caches; what is nowhere is named.

use std::collections::HashSet;
use std::path::PathBuf;

use kiln_carry::{CarryError, Kind, Tree};
use kiln_core::Digest;
use kiln_oci::OciError;
use kiln_registry::RegistryError;

use crate::{CarryFailure, Error};

/// Takes out of trees which files have chunks that are nowhere, and says so.
pub(super) fn without_lost<'a>(
    trees: impl Iterator<Item = &'a mut Tree>,
    there: &HashSet<Digest>,
    notes: &mut Vec<String>,
) {
    for tree in trees {
        let files = tree.entries.iter().filter(|(_, entry)| match &entry.kind {
            Kind::File { chunks, .. } => chunks.iter().any(|chunk| !there.contains(chunk)),
            _ => false,
        });
        let lost: HashSet<PathBuf> = files.map(|(path, _)| path.clone()).collect();
        if lost.is_empty() {
            continue;
        }
        tree.entries.retain(|path, entry| {
            !lost.contains(path) && !matches!(&entry.kind, Kind::Hard { to } if lost.contains(to))
        });
        notes.push(format!(
            "{}: {} of its files are lost there: what held them is damaged or gone",
            tree.id,
            lost.len()
        ));
    }
}

/// Whether a place has no longer what it was said to have: removed by hand, or by a registry's own rules.
pub(super) fn is_gone(error: &Error) -> bool {
    match error {
        Error::Registry(error) => matches!(error.root(), RegistryError::NotFound { .. }),
        Error::Io(error) => error.errno == Some(rustix::io::Errno::NOENT.raw_os_error()),
        _ => false,
    }
}

/// Whether what a place gave was not what it must be: then a new export takes its place, whatever it was.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Oci(OciError::DigestMismatch { .. } | OciError::SizeMismatch { .. })
            | Error::Carry(
                CarryFailure::Place { error: CarryError::Damaged { .. }, .. }
                    | CarryFailure::Form(CarryError::Damaged { .. })
            )
    )
}
