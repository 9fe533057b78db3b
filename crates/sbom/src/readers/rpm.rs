//! rpm's database, where it is SQLite: Fedora since 33, RHEL since 9 (<https://fedoraproject.org/wiki/Changes/Sqlite_Rpmdb>).
//! The older forms are named and not read.

use std::path::Path;

use crate::package::{Ecosystem, Package};
use crate::walk::Look;

mod header;
mod sqlite;

/// Where it may be; the second since rpm moved it under /usr, the third on systems made of trees.
const PLACES: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];

/// The other forms of the database, by file.
const OTHERS: &[(&str, &str)] = &[("Packages", "a Berkeley DB"), ("Packages.db", "rpm's own ndb")];

pub(crate) fn look(look: &mut Look<'_>) {
    let mut seen = Vec::new();
    for place in PLACES {
        let dir = Path::new(place);
        let path = dir.join("rpmdb.sqlite");
        if let Some(file) = look.open(&path) {
            // One is often a link to another.
            let stamp = (file.size(), crate::tree::part(&*file, 0, 100));
            if !seen.contains(&stamp) {
                read(look, &path, &*file);
                seen.push(stamp);
            }
            let log = dir.join("rpmdb.sqlite-wal");
            if look.open(&log).is_some_and(|log| log.size() > 0) {
                look.found.note(&log, "changes in a write-ahead log are not read; packages may be missing");
            }
            continue;
        }
        for (name, form) in OTHERS {
            let path = dir.join(name);
            if look.open(&path).is_some_and(|file| file.size() > 0) {
                let reason = format!("an rpm database that is {form} cannot be read; one that is SQLite can");
                look.found.note(&path, reason);
            }
        }
    }
}

fn read(look: &mut Look<'_>, path: &Path, file: &dyn crate::tree::Opened) {
    let mut bad = 0;
    let found = &mut look.found;
    let read = sqlite::table(file, "Packages", &mut |columns| {
        let Some(sqlite::Column::Bytes(blob)) = columns.get(1) else { return bad += 1 };
        match header::package(blob) {
            // rpm keeps the keys that it trusts as if they were packages.
            Some(package) if package.name == "gpg-pubkey" => {}
            Some(package) => found.push(path, package),
            None => bad += 1,
        }
    });
    if let Err(reason) = read {
        found.note(path, reason);
    }
    if bad > 0 {
        found.note(path, format!("{bad} of its packages cannot be read"));
    }
}

fn new(name: String, version: String) -> Package {
    Package::new(Ecosystem::Rpm, name, version)
}
