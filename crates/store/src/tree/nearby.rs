//! What to say of a path that is not there.

use std::path::Path;

use super::resolve::{Found, look_up, resolve};
use super::selected::open_dir;
use super::{Exclusion, SourceTree, TreeError, select, walk};

/// As many names as fit into one line.
const MAX_NAMES: usize = 3;

/// Says that nothing is there, or that line `excluded` of the ignore file leaves it out.
pub(super) fn not_found(tree: &SourceTree, path: &Path, wanted: &str, excluded: Option<usize>) -> TreeError {
    let excluded = excluded.map(|line| Exclusion { file: tree.ignore_name.clone(), line });
    let nearby = if excluded.is_some() { Vec::new() } else { nearby(tree, path) };
    TreeError::NotFound { path: wanted.to_owned(), excluded, nearby }
}

/// Returns similar names in the nearest directory that exists; if none is similar, some of what it holds.
fn nearby(tree: &SourceTree, path: &Path) -> Vec<String> {
    let mut look = |path: &Path| look_up(&tree.root, path);
    let mut missing = path;
    let dir = loop {
        let Some(parent) = missing.parent() else { return Vec::new() };
        match resolve(parent, true, &mut look) {
            Ok(at) if at.found == Found::Dir => break at.path,
            _ => missing = parent,
        }
    };
    let wanted = missing.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let names = open_dir(tree.root(), &dir).and_then(|fd| walk::names(&fd)).unwrap_or_default();
    let mut ranked: Vec<(usize, String)> = names
        .iter()
        .map(|name| dir.join(name))
        .filter(|path| !select::is_excluded(tree, path))
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            (distance(&wanted, &name), path.to_string_lossy().into_owned())
        })
        .collect();
    ranked.sort();
    let similar = ranked.iter().take_while(|(far, _)| *far <= wanted.chars().count().div_ceil(2)).count();
    let keep = if similar == 0 { MAX_NAMES } else { similar.min(MAX_NAMES) };
    ranked.truncate(keep);
    ranked.into_iter().map(|(_, path)| path).collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
