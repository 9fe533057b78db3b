//! Notes: what earlier builds did, kept to explain later ones.
//!
//! Nothing depends on a note, and a note keeps nothing else: what it speaks of may be gone. There are so many and no more,
//! the oldest go. A missing or damaged one only makes an explanation shorter, so nothing is locked and nothing is synced.

use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::time::SystemTime;

use kiln_core::IoResultExt as _;

use crate::durable::children;
use crate::error::StoreError;
use crate::layout::NOTES;
use crate::record::remove_file;
use crate::store::Store;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// One build: what it was for and why its steps ran. The name begins with its time, so that names sort by age. As it is,
    /// so that a person can read it.
    Build,
    /// The steps of builds, with the parts of their keys.
    Lines,
    /// The files of one selection, by its content digest.
    Files,
}

/// A note that decompresses to more is damaged, bytes.
const LARGEST: u64 = 1 << 30;

impl NoteKind {
    const fn dir(self) -> &'static str {
        match self {
            Self::Build => "builds",
            Self::Lines => "lines",
            Self::Files => "files",
        }
    }

    /// How many are kept, and how many bytes of them.
    const fn most(self) -> (usize, u64) {
        match self {
            Self::Build => (100, u64::MAX),
            Self::Lines => (200, 16 << 20),
            Self::Files => (2000, 32 << 20),
        }
    }

    const fn is_compressed(self) -> bool {
        !matches!(self, Self::Build)
    }
}

impl Store {
    /// Writes a note, and removes the oldest of its kind if there are too many. Names are of letters, digits and `-`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_note(&self, kind: NoteKind, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.note_path(kind, name);
        if kind.is_compressed() {
            let mut packed = Vec::with_capacity(bytes.len() / 4);
            let level = 1;
            let mut encoder = zstd::Encoder::new(&mut packed, level).at("compress", &path)?;
            encoder.include_checksum(true).at("compress", &path)?;
            std::io::Write::write_all(&mut encoder, bytes).at("compress", &path)?;
            encoder.finish().at("compress", &path)?;
            self.put_file(&path, &packed)?;
        } else {
            self.put_file(&path, bytes)?;
        }
        self.trim_notes(kind)
    }

    /// Reads a note; none if there is none, or what is there is damaged.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn get_note(&self, kind: NoteKind, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.note_path(kind, name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", path)?,
        };
        if !kind.is_compressed() {
            return Ok(Some(bytes));
        }
        let mut unpacked = Vec::new();
        let read = zstd::Decoder::new(&bytes[..])
            .and_then(|decoder| decoder.take(LARGEST + 1).read_to_end(&mut unpacked));
        if read.is_err() || unpacked.len() as u64 > LARGEST {
            remove_file(&path)?;
            return Ok(None);
        }
        self.note_use(&path)?;
        Ok(Some(unpacked))
    }

    /// Returns a note as it is kept: compressed, to be sent somewhere.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn packed_note(&self, kind: NoteKind, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.note_path(kind, name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", path)?,
        }
    }

    /// Returns whether there is such a note; if so, it counts as used now.
    ///
    /// # Errors
    /// The file system failed.
    pub fn has_note(&self, kind: NoteKind, name: &str) -> Result<bool, StoreError> {
        Ok(self.note_use(&self.note_path(kind, name))?)
    }

    /// Lists the names of all notes of a kind, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn notes(&self, kind: NoteKind) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = children(&self.note_dir(kind))?
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn trim_notes(&self, kind: NoteKind) -> Result<(), StoreError> {
        let (most, bytes) = kind.most();
        let mut found = children(&self.note_dir(kind))?;
        if kind == NoteKind::Build {
            // Their names say how old they are.
            found.sort_unstable();
            for path in found.iter().rev().skip(most) {
                remove_file(path)?;
            }
            return Ok(());
        }
        let stat = |path: PathBuf| {
            let metadata = std::fs::metadata(&path).ok()?;
            Some((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path))
        };
        let mut found: Vec<_> = found.into_iter().filter_map(stat).collect();
        found.sort_unstable();
        let mut sum = 0;
        for (number, (_, size, path)) in found.iter().rev().enumerate() {
            sum += size;
            // The newest stays, however big it is.
            if number > 0 && (number >= most || sum > bytes) {
                remove_file(path)?;
            }
        }
        Ok(())
    }

    fn note_dir(&self, kind: NoteKind) -> PathBuf {
        self.0.layout.owned().join(NOTES).join(kind.dir())
    }

    fn note_path(&self, kind: NoteKind, name: &str) -> PathBuf {
        self.note_dir(kind).join(name)
    }
}

/// Unpacks what [`packed_note`](Store::packed_note) of another store returned; none if it is damaged, or more than so many bytes.
pub fn unpack_note(packed: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    zstd::Decoder::new(packed).ok()?.take(most + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 <= most).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Ids;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Ids::Single).expect("a store");
        (dir, store)
    }

    #[test]
    fn what_was_put_is_got() {
        let (_dir, store) = store();
        for kind in [NoteKind::Build, NoteKind::Lines, NoteKind::Files] {
            assert_eq!(store.get_note(kind, "a").expect("a store"), None);
            assert!(!store.has_note(kind, "a").expect("a store"));
            store.put_note(kind, "a", b"text").expect("written");
            store.put_note(kind, "b", b"").expect("written");
            assert_eq!(store.get_note(kind, "a").expect("a store").as_deref(), Some(&b"text"[..]));
            assert!(store.has_note(kind, "b").expect("a store"));
            assert_eq!(store.notes(kind).expect("a store"), ["a", "b"]);
        }
        assert_eq!(store.fsck().expect("a check"), []);
    }

    #[test]
    fn a_damaged_note_counts_as_none_and_goes() {
        let (_dir, store) = store();
        store.put_note(NoteKind::Lines, "a", &b"text".repeat(1000)).expect("written");
        let path = store.note_path(NoteKind::Lines, "a");
        let bytes = std::fs::read(&path).expect("it is there");
        for damage in [&bytes[..bytes.len() - 1], &b"garbage"[..], b""] {
            std::fs::write(&path, damage).expect("written");
            assert_eq!(store.get_note(NoteKind::Lines, "a").expect("a store"), None, "{damage:?}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn only_the_newest_builds_stay() {
        let (_dir, store) = store();
        for number in 0..105 {
            store.put_note(NoteKind::Build, &format!("{number:04}"), b"x").expect("written");
        }
        let names = store.notes(NoteKind::Build).expect("a store");
        assert_eq!((names.len(), names[0].as_str(), names[99].as_str()), (100, "0005", "0104"));
    }

    #[test]
    fn notes_are_bounded_in_bytes_and_the_least_used_goes_first() {
        let (_dir, store) = store();
        // Of random bytes, which do not compress.
        let mut state = 1_u64;
        let mut noise = |count: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..count).map(|_| next()).collect()
        };
        for name in ["a", "b", "c"] {
            store.put_note(NoteKind::Lines, name, &noise(6 << 20)).expect("written");
            let age = match name {
                "a" => 7200,
                _ => 3600,
            };
            let file = std::fs::File::options().write(true).open(store.note_path(NoteKind::Lines, name));
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            file.expect("it is there").set_modified(then).expect("a time");
            if name == "b" {
                assert!(store.has_note(NoteKind::Lines, "a").expect("a store"), "and so it is used");
            }
        }
        assert_eq!(store.notes(NoteKind::Lines).expect("a store"), ["a", "c"]);
    }
}
