//! A tree in memory: for tests, fuzzing and examples.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::tree::{Entry, FileTree, Kind, Opened};

/// Files by path. All of them are executable, so that all are looked into.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryTree {
    /// Adds a file; its directories come with it.
    pub fn add(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), bytes.into());
    }
}

impl FileTree for MemoryTree {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries: BTreeMap<_, Kind> = BTreeMap::new();
        for (path, bytes) in &self.files {
            let Ok(below) = path.strip_prefix(dir) else { continue };
            let mut parts = below.iter();
            let Some(name) = parts.next() else { continue };
            let kind = match parts.next() {
                Some(_) => Kind::Directory,
                None => Kind::File { size: bytes.len() as u64, executable: true },
            };
            entries.insert(name.to_owned(), kind);
        }
        if entries.is_empty() && !dir.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(entries.into_iter().map(|(name, kind)| Entry { name, kind }).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Opened + '_>> {
        let bytes = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(bytes.as_slice()))
    }
}

impl Opened for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(self.len());
        let count = buffer.len().min(self.len() - start);
        buffer[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }
}
