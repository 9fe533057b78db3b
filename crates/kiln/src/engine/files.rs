//! The files of one build context, brought to where they can be opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{Cancel, IoError, IoResultExt as _, Snapshot};
use kiln_store::{ActiveLayer, Store};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::remote::Remote;
use crate::Error;

/// A directory with a context's files.
pub(crate) struct Files {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// It, opened.
    pub(crate) root: OwnedFd,
    /// What messages call it.
    pub(crate) label: PathBuf,
    pub(crate) kind: FilesKind,
}

/// Whose directory it is.
pub(crate) enum FilesKind {
    /// The user's: links in it may lead anywhere, and it is the same one in the next build.
    Own,
    /// Unpacked for this build.
    Unpacked { _dir: ActiveLayer },
    /// Fetched and kept in the store. If it is a single file, that is the Dockerfile.
    Remote { _remote: Arc<Remote>, dockerfile: Option<PathBuf> },
    /// Nobody's: there are no files, because only a Dockerfile was given, which is here if the context itself was one.
    Empty { dockerfile: Option<String>, _dir: ActiveLayer },
}

impl Files {
    /// Opens a user's directory.
    pub(crate) fn directory(path: &Path) -> Result<Self, Error> {
        let path = std::fs::canonicalize(path).at("open build context", path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).at("open build context", &path)?;
        Ok(Self { label: path.clone(), path, root, kind: FilesKind::Own })
    }

    /// Makes an empty directory.
    pub(crate) fn empty(store: &Store, dockerfile: Option<String>) -> Result<Self, Error> {
        let dir = store.begin_layer(&Snapshot::default())?;
        Self::at(dir.upper().to_owned(), PathBuf::new(), FilesKind::Empty { dockerfile, _dir: dir })
    }

    /// Unpacks an archive while it comes, into a directory that vanishes with the build.
    pub(crate) fn unpack(
        store: &Store,
        reader: impl Read,
        label: &str,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let dir = store.begin_layer(&Snapshot::default())?;
        kiln_store::copy::unpack_context(dir.upper(), Path::new(label), reader, store.ids(), cancel)?;
        Self::at(dir.upper().to_owned(), label.into(), FilesKind::Unpacked { _dir: dir })
    }

    /// Takes what was fetched.
    pub(crate) fn remote(
        remote: Arc<Remote>,
        label: &str,
        dockerfile: Option<PathBuf>,
    ) -> Result<Self, Error> {
        Self::at(remote.path.clone(), label.into(), FilesKind::Remote { _remote: remote, dockerfile })
    }

    fn at(path: PathBuf, label: PathBuf, kind: FilesKind) -> Result<Self, Error> {
        let root = File::open(&path).at("open", &path)?.into();
        Ok(Self { path, root, label, kind })
    }

    /// Reads a small file of the context; none if it is not there. Links of foreign contexts stay inside.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, IoError> {
        let full = self.label.join(path);
        let resolve = match self.kind {
            FilesKind::Own => ResolveFlags::empty(),
            _ => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        };
        // Not to hang on a named pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
        let mut file = match opened {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => File::from(opened.at("read", &full)?),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read", &full)?;
        Ok(Some(bytes))
    }

    /// Returns what is at a path; a link there is not followed.
    pub(crate) fn kind(&self, path: &str) -> Option<FileType> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).ok()?;
        let stat = rustix::fs::fstat(found).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Lists a directory of the context.
    pub(crate) fn names(&self, dir: &Path) -> Result<Vec<OsString>, IoError> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let listed = rustix::fs::openat2(&self.root, dir, flags, Mode::empty(), resolve)
            .and_then(rustix::fs::Dir::new)
            .at("read", self.label.join(dir))?;
        let name = |entry: rustix::fs::DirEntry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        Ok(listed.flatten().map(name).collect())
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
