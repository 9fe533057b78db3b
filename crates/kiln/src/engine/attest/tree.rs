//! The files of a snapshot, as the readers of package databases see them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kiln_core::Cancel;
use kiln_sbom::{Entry, FileTree, Kind, Opened};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, statat};

/// A merged view. The kernel keeps links inside of it.
pub(super) struct ViewTree<'a> {
    pub(super) root: OwnedFd,
    pub(super) cancel: &'a Cancel,
}

struct OpenFile {
    file: File,
    size: u64,
}

impl ViewTree<'_> {
    fn open_with(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

impl FileTree for ViewTree<'_> {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        if self.cancel.is_cancelled() {
            // Who cancelled does not look at the result.
            return Ok(Vec::new());
        }
        let dir = self.open_with(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Directory => Kind::Directory,
                FileType::RegularFile | FileType::Unknown => {
                    let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory => Kind::Directory,
                        FileType::RegularFile => Kind::File {
                            size: u64::try_from(stat.st_size).unwrap_or_default(),
                            executable: stat.st_mode & 0o111 != 0,
                        },
                        _ => Kind::Other,
                    }
                }
                _ => Kind::Other,
            };
            entries.push(Entry { name: OsStr::from_bytes(name.to_bytes()).to_owned(), kind });
        }
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Opened + '_>> {
        // Looked at first: to open a device may do something.
        let found = fstat(self.open_with(path, OFlags::PATH)?)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        let file = File::from(self.open_with(path, OFlags::RDONLY)?);
        let size = file.metadata()?.len();
        Ok(Box::new(OpenFile { file, size }))
    }
}

impl Opened for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
}
