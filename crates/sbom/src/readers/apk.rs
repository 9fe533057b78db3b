//! apk's database of what is installed (<https://wiki.alpinelinux.org/wiki/Apk_spec>): a letter and a value a line.

use std::collections::HashMap;
use std::path::Path;

use crate::package::{Ecosystem, Package};
use crate::walk::Look;

pub(crate) fn look(look: &mut Look<'_>) {
    // The second is where it is since /usr was merged.
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        let path = Path::new(path);
        let Some(text) = look.database(path) else { continue };
        let mut seen = false;
        for fields in text.split("\n\n").map(fields) {
            let (Some(name), Some(version)) = (fields.get("P"), fields.get("V")) else { continue };
            seen = true;
            let owned = |key| fields.get(key).map(|value| (*value).to_owned());
            let package = Package {
                architecture: owned("A"),
                licence: owned("L"),
                upstream: owned("o").filter(|origin| origin != name),
                supplier: owned("m"),
                homepage: owned("U"),
                ..Package::new(Ecosystem::Apk, *name, *version)
            };
            look.found.push(path, package);
        }
        if !seen && !text.trim().is_empty() {
            look.found.note(path, "it is no database of apk");
        }
    }
}

fn fields(paragraph: &str) -> HashMap<&str, &str> {
    let pairs = paragraph.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key, value.trim())).filter(|(_, value)| !value.is_empty()).collect()
}
