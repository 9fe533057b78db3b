//! Secrets in what a step leaves: looked for before its layer is kept.
//!
//! Not when the layer is packed: the step would be recorded by then, and the next build, perhaps without `--secret`,
//! would take it from the cache. What comes from the cache was looked through when it was made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoResultExt as _, Secret};
use memchr::memmem::Finder;
use rustix::fs::{CWD, FileType, Mode, OFlags, SeekFrom, lgetxattr, llistxattr, llistxattr_query, seek};
use rustix::io::Errno;

use crate::Error;

/// Shorter secrets are in every other file by chance.
const SHORTEST: usize = 8;
/// As much as is looked at at once, bytes.
const CHUNK: usize = 256 * 1024;

/// Knows the secrets of a build.
#[derive(Default)]
pub(crate) struct LeakScanner {
    finders: Vec<(String, Finder<'static>)>,
}

impl LeakScanner {
    /// Looks for each secret without the white space around it.
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let finder = |(id, secret): (&String, &Secret)| {
            let needle = secret.bytes().trim_ascii();
            (needle.len() >= SHORTEST).then(|| (id.clone(), Finder::new(needle).into_owned()))
        };
        Self { finders: secrets.iter().filter_map(finder).collect() }
    }

    /// Fails if a file below `dir`, its name, its link's target or an extended attribute of it holds a secret.
    pub(crate) fn check(&self, dir: &Path, cancel: &Cancel) -> Result<(), Error> {
        if self.finders.is_empty() {
            return Ok(());
        }
        if let Some(id) = self.find_in_attributes(dir).at("read attributes of", dir)? {
            return Err(Error::SecretLeak { id: id.to_owned(), path: "/".into() });
        }
        let mut todo = vec![PathBuf::new()];
        while let Some(inside) = todo.pop() {
            let directory = dir.join(&inside);
            for entry in std::fs::read_dir(&directory).at("list", &directory)? {
                if cancel.is_cancelled() {
                    return Err(Error::Interrupted);
                }
                let entry = entry.at("list", &directory)?;
                let inside = inside.join(entry.file_name());
                let kind = entry.file_type().at("stat", dir.join(&inside))?;
                let found = match self.find(entry.file_name().as_bytes()) {
                    None if kind.is_symlink() => {
                        let target = std::fs::read_link(entry.path()).at("read", entry.path())?;
                        self.find(target.as_os_str().as_bytes())
                    }
                    None if kind.is_file() => {
                        self.find_in_file(&entry.path(), cancel).at("read", entry.path())?
                    }
                    found => found,
                };
                let found = match found {
                    None => self.find_in_attributes(&entry.path()).at("read attributes of", entry.path())?,
                    found => found,
                };
                if let Some(id) = found {
                    let path = Path::new("/").join(self.shown(&inside));
                    return Err(Error::SecretLeak { id: id.to_owned(), path });
                }
                if kind.is_dir() {
                    todo.push(inside);
                }
            }
        }
        Ok(())
    }

    fn find(&self, bytes: &[u8]) -> Option<&str> {
        self.finders.iter().find(|(_, finder)| finder.find(bytes).is_some()).map(|(id, _)| id.as_str())
    }

    /// Names and values, of the link itself if it is one: xattr(7).
    fn find_in_attributes(&self, path: &Path) -> std::io::Result<Option<&str>> {
        let mut names = Vec::new();
        loop {
            let size = match llistxattr_query(path) {
                // The file system has none.
                Err(Errno::NOTSUP) | Ok(0) => return Ok(None),
                other => other?,
            };
            names.resize(size, 0_u8);
            match llistxattr(path, &mut names) {
                // It grew meanwhile.
                Err(Errno::RANGE) => {}
                other => {
                    names.truncate(other?);
                    break;
                }
            }
        }
        if let Some(id) = self.find(&names) {
            return Ok(Some(id));
        }
        // The kernel's own bound, XATTR_SIZE_MAX.
        let mut value = vec![0_u8; 1 << 16];
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match lgetxattr(path, name, &mut value) {
                // It went, or is not for us to read: then it is not for the layer to have either.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
                other => {
                    if let Some(id) = self.find(&value[..other?]) {
                        return Ok(Some(id));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads a file piece by piece, and of a sparse one what is there. The pieces overlap by as much as a secret's
    /// beginning may be.
    fn find_in_file(&self, path: &Path, cancel: &Cancel) -> std::io::Result<Option<&str>> {
        let overlap = self.finders.iter().map(|(_, finder)| finder.needle().len() - 1).max().unwrap_or(0);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(CWD, path, flags, Mode::empty())?.into();
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        let mut buffer = vec![0; overlap + CHUNK.min(size)];
        let mut kept = 0;
        let mut at = 0;
        while !cancel.is_cancelled() {
            let data = match seek(&file, SeekFrom::Data(at)) {
                // No more of it, or an empty file.
                Err(Errno::NXIO) => break,
                // A file system that knows no holes.
                Err(Errno::INVAL) => at,
                other => other?,
            };
            if data > at {
                kept = 0;
            }
            let length = rustix::io::pread(&file, &mut buffer[kept..], data)?;
            if length == 0 {
                break;
            }
            let filled = kept + length;
            if let Some(id) = self.find(&buffer[..filled]) {
                return Ok(Some(id));
            }
            at = data + length as u64;
            kept = overlap.min(filled);
            buffer.copy_within(filled - kept..filled, 0);
        }
        Ok(None)
    }

    /// A path for a message: without the name that is the secret.
    fn shown(&self, path: &Path) -> PathBuf {
        let hide = |name: &OsStr| match self.find(name.as_bytes()) {
            Some(_) => "***".into(),
            None => name.to_owned(),
        };
        path.iter().map(hide).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    const VALUE: &str = "hunter2-hunter2";

    fn scanner(value: &str) -> LeakScanner {
        let secret = Secret::new(format!("{value}\n").into_bytes()).unwrap();
        LeakScanner::new(&[("token".to_owned(), secret)].into())
    }

    fn found(dir: &Path) -> Option<String> {
        match scanner(VALUE).check(dir, &Cancel::new()) {
            Ok(()) => None,
            Err(Error::SecretLeak { id, path }) if id == "token" => Some(path.display().to_string()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn files_names_and_links_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/empty"), "").unwrap();
        std::fs::write(dir.path().join("a/part"), &VALUE[1..]).unwrap();
        assert_eq!(found(dir.path()), None);
        std::fs::write(dir.path().join("a/b/f"), format!("x={VALUE};")).unwrap();
        assert_eq!(found(dir.path()).as_deref(), Some("/a/b/f"));
        std::fs::rename(dir.path().join("a/b/f"), dir.path().join("f")).unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink(VALUE, dir.path().join("a/link")).unwrap();
        assert_eq!(found(dir.path()).as_deref(), Some("/a/link"));
        std::fs::remove_file(dir.path().join("a/link")).unwrap();
        std::fs::create_dir(dir.path().join("a").join(VALUE)).unwrap();
        assert_eq!(found(dir.path()).as_deref(), Some("/a/***"));
    }

    #[test]
    fn attributes_are_looked_at() {
        use rustix::fs::{XattrFlags, setxattr};
        // Not /tmp, which may be a tmpfs of an older kernel, without them.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let set = |path: &str, name: &str, value: &str| {
            setxattr(dir.path().join(path), name, value.as_bytes(), XattrFlags::empty()).unwrap();
        };
        set("f", "user.other", "nothing of interest");
        assert_eq!(found(dir.path()), None);
        set("f", "user.token", &format!("v={VALUE}"));
        assert_eq!(found(dir.path()).as_deref(), Some("/f"));
        std::fs::remove_file(dir.path().join("f")).unwrap();
        set("", &format!("user.{VALUE}"), "");
        assert_eq!(found(dir.path()).as_deref(), Some("/"));
    }

    #[test]
    fn wherever_it_stands_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for at in [0, CHUNK - 7, CHUNK, CHUNK + 14 - 3, 2 * CHUNK + 3, 5 * CHUNK - 1] {
            let mut bytes = vec![b'h'; 5 * CHUNK];
            bytes.truncate(at);
            bytes.extend(VALUE.bytes());
            bytes.resize(bytes.len() + 100, b'.');
            std::fs::write(dir.path().join("f"), bytes).unwrap();
            assert_eq!(found(dir.path()).as_deref(), Some("/f"), "{at}");
        }
    }

    #[test]
    fn holes_cost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(found(dir.path()), None);
        file.seek(std::io::SeekFrom::Start(1 << 39)).unwrap();
        file.write_all(VALUE.as_bytes()).unwrap();
        assert_eq!(found(dir.path()).as_deref(), Some("/sparse"));
    }

    #[test]
    fn short_secrets_are_not_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "abcdefg").unwrap();
        assert!(scanner("abcdefg").check(dir.path(), &Cancel::new()).is_ok());
        std::fs::write(dir.path().join("f"), "abcdefgh").unwrap();
        assert!(scanner("abcdefgh").check(dir.path(), &Cancel::new()).is_err());
    }
}
