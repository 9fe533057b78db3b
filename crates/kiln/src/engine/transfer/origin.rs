//! Which repositories have a blob: from there it is fetched if the store has it no more, and from there a registry
//! mounts it into another repository.

use kiln_core::{Digest, ImageRef};
use kiln_store::{RecordKind, Store};

use crate::Error;

/// Repositories noted for a blob, the last used first. A registry is asked for each, so there are few.
const MOST: usize = 3;

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

/// Returns the repositories that had a blob when it was last seen there.
pub(crate) fn of(store: &Store, blob: &Digest) -> Result<Vec<ImageRef>, Error> {
    let known: Vec<String> = store.get_record(RecordKind::Origin, &blob.hex())?.unwrap_or_default();
    let parsed = known.iter().filter_map(|name| format!("{name}@{blob}").parse().ok());
    Ok(parsed.collect())
}
