//! What was found in a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::os_release::Distribution;
use crate::package::{Ecosystem, Package};

/// More packages than any image has; a hostile database must not fill memory.
const MOST_PACKAGES: usize = 200_000;

/// More notes than anybody reads.
const MOST_NOTES: usize = 200;

/// What a tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Which distribution it is.
    pub distribution: Option<Distribution>,
    /// The packages, sorted by ecosystem, name, version and architecture, each once.
    pub packages: Vec<Package>,
    /// What could not be read.
    pub notes: Vec<Note>,
}

/// Something that could not be read, and so may be missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// The file or directory.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {}", self.path, self.reason)
    }
}

type Key = (Ecosystem, String, String, Option<String>, Option<String>);

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    packages: BTreeMap<Key, Package>,
    notes: BTreeSet<Note>,
    full: bool,
}

impl Found {
    /// Takes a package that a file tells of. One without a name is none. One that is known already learns what is new.
    pub(crate) fn push(&mut self, path: &Path, mut package: Package) {
        if package.name.trim().is_empty() {
            return;
        }
        package.found_in.insert(shown(path));
        let Package { ecosystem, name, version, architecture, vcs_url, .. } = &package;
        let key = (*ecosystem, name.clone(), version.clone(), architecture.clone(), vcs_url.clone());
        if let Some(known) = self.packages.get_mut(&key) {
            return merge(known, package);
        }
        if self.packages.len() >= MOST_PACKAGES {
            if !std::mem::replace(&mut self.full, true) {
                self.note(
                    path,
                    format!("there are more than {MOST_PACKAGES} packages; the rest is left out"),
                );
            }
            return;
        }
        self.packages.insert(key, package);
    }

    /// Notes what could not be read.
    pub(crate) fn note(&mut self, path: &Path, reason: impl Into<String>) {
        if self.notes.len() < MOST_NOTES {
            self.notes.insert(Note { path: shown(path), reason: reason.into() });
        }
    }

    /// Whether such a package was found.
    pub(crate) fn knows(&self, ecosystem: Ecosystem, name: &str, version: &str) -> bool {
        let key = (ecosystem, name.to_owned(), version.to_owned(), None, None);
        self.packages.contains_key(&key)
    }

    /// The packages of an ecosystem, to learn more of them.
    pub(crate) fn of(&mut self, ecosystem: Ecosystem) -> impl Iterator<Item = &mut Package> {
        self.packages.values_mut().filter(move |package| package.ecosystem == ecosystem)
    }

    pub(crate) fn finish(self, distribution: Option<Distribution>) -> Inventory {
        let packages = self.packages.into_values().collect();
        Inventory { distribution, packages, notes: self.notes.into_iter().collect() }
    }
}

fn merge(known: &mut Package, other: Package) {
    known.upstream = known.upstream.take().or(other.upstream);
    known.licence = known.licence.take().or(other.licence);
    if known.supplier.is_none() {
        known.supplier = other.supplier;
        known.from_organization = other.from_organization;
    }
    known.homepage = known.homepage.take().or(other.homepage);
    known.download = known.download.take().or(other.download);
    known.checksum = known.checksum.take().or(other.checksum);
    known.found_in.extend(other.found_in);
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
