//! Advice for contexts that hold what no build needs.

use std::collections::{BTreeMap, BTreeSet};

use kiln::ListedFile;

use crate::ui;

/// Directories that are made by tools, and made again by the build.
const HEAVY: [&str; 14] = [
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    ".venv",
    "venv",
    "__pycache__",
    ".tox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".gradle",
    ".terraform",
    ".next",
];
/// Marks a directory as a cache, cargo's `target` for one: <https://bford.info/cachedir/>.
const CACHE_TAG: &str = "CACHEDIR.TAG";
/// What is smaller is not worth a line.
const MIN_BYTES: u64 = 1_000_000;

/// Returns an advice for each kind of directory that is sent and hardly meant to be; the biggest first.
pub(crate) fn heavy(sent: &[ListedFile]) -> Vec<String> {
    let tagged: BTreeSet<&str> = sent
        .iter()
        .filter_map(|file| file.path.rsplit_once('/'))
        .filter(|(_, name)| *name == CACHE_TAG)
        .map(|(dir, _)| dir)
        .collect();
    // By the name of the outermost such directory.
    let mut found: BTreeMap<&str, Heavy> = BTreeMap::new();
    for file in sent {
        let dirs = file.path.match_indices('/').map(|(slash, _)| &file.path[..slash]);
        let name = |dir: &str| dir.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dir) =
            dirs.into_iter().find(|dir| HEAVY.contains(&&dir[name(dir)..]) || tagged.contains(dir))
        else {
            continue;
        };
        let heavy = found.entry(&dir[name(dir)..]).or_default();
        heavy.bytes += file.bytes;
        heavy.files += 1;
        heavy.nested |= dir.contains('/');
    }
    let mut found: Vec<_> = found.into_iter().filter(|(_, heavy)| heavy.bytes >= MIN_BYTES).collect();
    found.sort_by_key(|(_, heavy)| std::cmp::Reverse(heavy.bytes));
    found.into_iter().map(|(name, heavy)| heavy.advice(name)).collect()
}

#[derive(Debug, Default)]
struct Heavy {
    bytes: u64,
    files: u64,
    /// Whether one is deeper than the context's root.
    nested: bool,
}

impl Heavy {
    fn advice(&self, name: &str) -> String {
        let line = if self.nested { format!("**/{name}") } else { name.to_owned() };
        format!(
            "{name} is {} in {} files; if no step needs it, add a line to .dockerignore: {line}",
            ui::bytes(self.bytes),
            self.files
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_directories_are_told_by_name_or_tag() {
        let file = |path: &str, bytes| ListedFile { path: path.to_owned(), bytes };
        let sent = [
            file(".git/a", 2_000_000),
            file("app/node_modules/x/node_modules/y", 3_000_000),
            file("node_modules/z", 1),
            file("target/CACHEDIR.TAG", 1),
            file("target/debug/big", 1_000_000),
            file("src/target/big", 9_000_000),
            file("venv", 9_000_000),
            file("__pycache__/small", 10),
        ];
        let advice = heavy(&sent);
        let starts =
            ["node_modules is 3.0 MB in 2 files", ".git is 2.0 MB in 1 files", "target is 1.0 MB in 2 files"];
        let ends = [": **/node_modules", ": .git", ": target"];
        assert_eq!(advice.len(), 3, "{advice:?}");
        for (advice, (start, end)) in advice.iter().zip(starts.iter().zip(ends)) {
            assert!(advice.starts_with(start) && advice.ends_with(end), "{advice}");
        }
    }
}
