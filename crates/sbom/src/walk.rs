//! From a tree to what it holds: the databases that have one place, and one walk for all that may be anywhere.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::found::{Found, Inventory};
use crate::os_release::Distribution;
use crate::readers;
use crate::tree::{FileTree, Kind, Opened, part};

/// More entries than any image has.
const MOST_ENTRIES: usize = 5_000_000;

/// Deeper than a path can be written in one call.
const DEEPEST: usize = 512;

/// A text that is larger is no package's.
const LARGEST_TEXT: u64 = 8 << 20;

/// A database that is larger is not read.
const LARGEST_DATABASE: u64 = 256 << 20;

/// What file systems of the kernel hold is not the image's, and has no end.
const NOT_THE_IMAGES: &[&str] = &["proc", "sys", "dev"];

/// Reads what packages a tree holds.
pub fn inventory(tree: &dyn FileTree) -> Inventory {
    let mut look = Look { tree, found: Found::default(), entries: 0 };
    let distribution = ["etc/os-release", "usr/lib/os-release"]
        .into_iter()
        .find_map(|path| Distribution::parse(&look.text(Path::new(path), LARGEST_TEXT)?));
    readers::dpkg::look(&mut look);
    readers::apk::look(&mut look);
    readers::rpm::look(&mut look);
    let mut later = Vec::new();
    look.directory(Path::new(""), 0, &mut later);
    for path in later {
        readers::npm::lock(&mut look, &path);
    }
    look.found.finish(distribution)
}

/// A tree and what was found in it so far.
pub(crate) struct Look<'a> {
    pub(crate) tree: &'a dyn FileTree,
    pub(crate) found: Found,
    entries: usize,
}

impl<'a> Look<'a> {
    /// Reads a small file whole, as text; none if it is not there. A byte that is no UTF-8 does not spoil the rest.
    pub(crate) fn small(&mut self, path: &Path) -> Option<String> {
        self.text(path, LARGEST_TEXT)
    }

    /// Reads a database of text.
    pub(crate) fn database(&mut self, path: &Path) -> Option<String> {
        self.text(path, LARGEST_DATABASE)
    }

    fn text(&mut self, path: &Path, limit: u64) -> Option<String> {
        let file = self.open(path)?;
        let size = file.size();
        if size > limit {
            let reason = format!("it has {size} bytes, more than the {limit} that are read");
            self.found.note(path, reason);
            return None;
        }
        let Some(bytes) = part(&*file, 0, usize::try_from(size).ok()?) else {
            self.found.note(path, "it cannot be read to its end");
            return None;
        };
        Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// Opens a file; none if it is not there, or cannot be opened, which is noted.
    pub(crate) fn open(&mut self, path: &Path) -> Option<Box<dyn Opened + 'a>> {
        let tree = self.tree;
        match tree.open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                if !is_missing(error.kind()) {
                    self.found.note(path, format!("it cannot be opened: {error}"));
                }
                None
            }
        }
    }

    /// Lists a directory, sorted; nothing if it is not there.
    pub(crate) fn list(&mut self, dir: &Path) -> Vec<(PathBuf, Kind)> {
        match self.tree.list(dir) {
            Ok(mut entries) => {
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                entries.into_iter().map(|entry| (dir.join(entry.name), entry.kind)).collect()
            }
            Err(error) => {
                if !is_missing(error.kind()) {
                    self.found.note(dir, format!("it cannot be listed: {error}"));
                }
                Vec::new()
            }
        }
    }

    fn directory(&mut self, dir: &Path, depth: usize, later: &mut Vec<PathBuf>) {
        if depth > DEEPEST {
            self.found.note(dir, "it is too deep to be looked into");
            return;
        }
        for (path, kind) in self.list(dir) {
            if self.entries >= MOST_ENTRIES {
                self.found.note(dir, format!("the tree has more than {MOST_ENTRIES} files"));
                return;
            }
            self.entries += 1;
            match kind {
                Kind::Directory
                    if depth == 0 && NOT_THE_IMAGES.iter().any(|name| path == Path::new(name)) => {}
                Kind::Directory => {
                    readers::pip::directory(self, &path);
                    self.directory(&path, depth + 1, later);
                }
                Kind::File { size, executable } => self.file(&path, size, executable, later),
                Kind::Other => {}
            }
        }
    }

    fn file(&mut self, path: &Path, size: u64, executable: bool, later: &mut Vec<PathBuf>) {
        match path.file_name().and_then(OsStr::to_str) {
            Some("package.json") => readers::npm::installed(self, path),
            Some("package-lock.json") => later.push(path.to_owned()),
            Some("Cargo.lock") => readers::cargo::lock(self, path),
            Some(name) if name.ends_with(".egg-info") => readers::pip::metadata(self, path),
            _ if executable && size >= readers::elf::SMALLEST => readers::elf::look(self, path),
            _ => {}
        }
    }
}

fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}
