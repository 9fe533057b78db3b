//! Images of the local image store by id, as docker takes them: a digest, or the first digits of one, of a manifest, an
//! index or a configuration.

use std::collections::BTreeSet;

use kiln_core::{Digest, ImageRef};
use kiln_store::{RecordKind, Store};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Digits that a bare id needs. What is shorter may well be a name: `cafe`, `beef`.
const SHORT: usize = 12;

/// By its configuration's digest, what an image is: its name may have moved on, or it never had one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownImage {
    /// The manifest or index.
    pub(super) root: Digest,
}

/// Returns what a name stands for in the local image store.
pub(super) fn digest_of(store: &Store, name: &ImageRef) -> Result<Option<Digest>, Error> {
    if let Some(digest) = name.digest {
        return Ok(Some(digest));
    }
    if let Some(tagged) = store.image(name)? {
        return Ok(Some(tagged.digest));
    }
    match prefix(name) {
        Some(prefix) => by_prefix(store, name, prefix),
        None => Ok(None),
    }
}

/// Returns the name that the local image store has for what was typed: the same; for a short name that it does not have, the
/// only one that ends like it, as podman looks for `fedora` and finds `registry.example/fedora`. What it has none for comes
/// back as it is.
pub(super) fn full(store: &Store, name: &ImageRef) -> Result<ImageRef, Error> {
    if !name.short.0 || digest_of(store, name)?.is_some() {
        return Ok(name.clone());
    }
    let typed = name.repository.strip_prefix("library/").unwrap_or(&name.repository);
    let ends = |known: &ImageRef| {
        known.tag == name.tag
            && known.repository.strip_suffix(typed).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let mut names: Vec<ImageRef> =
        store.images()?.into_iter().map(|tagged| tagged.name).filter(ends).collect();
    match names.len() {
        0 => Ok(name.clone()),
        1 => Ok(names.remove(0).in_full()),
        _ => Err(Error::SeveralAlike { name: name.clone(), names }),
    }
}

/// Whether a name can be nothing but an id: no registry is asked for it.
pub(super) fn is_id(name: &ImageRef) -> bool {
    name.registry == "docker.io" && name.repository == "library/sha256"
}

/// Notes an image under its configurations.
pub(super) fn remember(store: &Store, root: &Digest, configs: &[Digest]) -> Result<(), Error> {
    let known = KnownImage { root: *root };
    for config in configs {
        if store.get_record::<KnownImage>(RecordKind::Image, &config.hex())?.as_ref() != Some(&known) {
            store.put_record(RecordKind::Image, &config.hex(), &known)?;
        }
    }
    Ok(())
}

/// Returns all images that were built here and are still there, with a configuration's digest in hex.
pub(super) fn known(store: &Store) -> Result<Vec<(String, Digest)>, Error> {
    let mut found = Vec::new();
    for info in store.list_records(RecordKind::Image)? {
        if let Some(KnownImage { root }) = store.peek_record(RecordKind::Image, &info.key)?
            && store.blob_path(&root).exists()
        {
            found.push((info.key, root));
        }
    }
    Ok(found)
}

fn by_prefix(store: &Store, name: &ImageRef, prefix: &str) -> Result<Option<Digest>, Error> {
    let mut found = BTreeSet::new();
    for tagged in store.images()? {
        if tagged.digest.hex().starts_with(prefix) {
            found.insert(tagged.digest);
        }
    }
    for (config, root) in known(store)? {
        if config.starts_with(prefix) || root.hex().starts_with(prefix) {
            found.insert(root);
        }
    }
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop_first()),
        several => Err(Error::AmbiguousId { name: name.clone(), several }),
    }
}

/// Returns the digits of `sha256:DIGITS` or of bare `DIGITS`, which a parser takes for a name on docker.io.
fn prefix(name: &ImageRef) -> Option<&str> {
    let hex = |text: &str, least| {
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (least..=64).contains(&text.len()) && text.chars().all(digits)
    };
    let tag = name.tag.as_deref()?;
    if is_id(name) {
        return Some(tag).filter(|tag| hex(tag, 4));
    }
    let bare = name.repository.strip_prefix("library/").filter(|_| name.registry == "docker.io");
    bare.filter(|bare| tag == "latest" && hex(bare, SHORT))
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn what_may_be_an_id() {
        let full = "87fcfc688975c4d18a49a9254294bec736d06b38f569a4000d6422196b5daf7c";
        let rows = [
            (full.to_owned(), Some(full)),
            (format!("sha256:{full}"), Some(full)),
            ("87fcfc688975".to_owned(), Some("87fcfc688975")),
            ("sha256:87fc".to_owned(), Some("87fc")),
            ("sha256:latest".to_owned(), None),
            ("87fcfc68897".to_owned(), None),
            ("cafe".to_owned(), None),
            ("87fcfc688975:v1".to_owned(), None),
            ("quay.io/87fcfc688975".to_owned(), None),
            ("team/87fcfc688975".to_owned(), None),
        ];
        for (text, digits) in rows {
            let name = text.parse().expect("a reference");
            assert_eq!(prefix(&name), digits, "{text}");
        }
    }
}
