//! Which repositories have a blob: from there it is fetched if the store has it no more, and from there a registry
//! mounts it into another repository.

use std::path::Path;

use kiln_core::{Digest, ImageRef};
use kiln_store::{RecordKind, Store};

use crate::Error;

/// Repositories noted for a blob, the last used first. A registry is asked for each, so there are few.
const MOST: usize = 3;
/// Before the path of a file. No name of an image begins so.
const FILE: &str = "file://";

/// Notes that a repository has a blob.
pub(crate) fn note(store: &Store, blob: &Digest, repository: &ImageRef) -> Result<(), Error> {
    let known: Vec<String> = store.get_record(RecordKind::Origin, &blob.hex())?.unwrap_or_default();
    let name = repository.name();
    if known.first() == Some(&name) {
        return Ok(());
    }
    let others = known.into_iter().filter(|other| *other != name);
    let all: Vec<String> = std::iter::once(name.clone()).chain(others).take(MOST).collect();
    Ok(store.put_record(RecordKind::Origin, &blob.hex(), &all)?)
}

/// Notes that a blob was read from a file or directory of this machine.
pub(crate) fn note_file(store: &Store, blob: &Digest, path: &Path) -> Result<(), Error> {
    let known: Vec<String> = store.get_record(RecordKind::Origin, &blob.hex())?.unwrap_or_default();
    let name = format!("{FILE}{}", path.display());
    // Who has it to give comes first.
    if known.contains(&name) || known.len() >= MOST {
        return Ok(());
    }
    let all: Vec<String> = known.into_iter().chain([name]).collect();
    Ok(store.put_record(RecordKind::Origin, &blob.hex(), &all)?)
}

/// Returns the file or directory that a blob was read from, if it has never been in a registry as far as is known.
pub(crate) fn file_of(store: &Store, blob: &Digest) -> Result<Option<String>, Error> {
    let known: Vec<String> = store.get_record(RecordKind::Origin, &blob.hex())?.unwrap_or_default();
    Ok(known.iter().find_map(|name| name.strip_prefix(FILE)).map(str::to_owned))
}

/// Returns the repositories that had a blob when it was last seen there.
pub(crate) fn of(store: &Store, blob: &Digest) -> Result<Vec<ImageRef>, Error> {
    let known: Vec<String> = store.get_record(RecordKind::Origin, &blob.hex())?.unwrap_or_default();
    let parsed = known
        .iter()
        .filter(|name| !name.starts_with(FILE))
        .filter_map(|name| format!("{name}@{blob}").parse().ok());
    Ok(parsed.collect())
}
