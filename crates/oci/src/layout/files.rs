//! A layout's files: of a directory, or inside a tar that is read where it lies.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};

use crate::OciError;

#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    /// Positions and sizes by name. Only plain files count; a link in such an archive leads nowhere.
    Archive {
        path: PathBuf,
        file: File,
        entries: HashMap<String, (u64, u64)>,
    },
}

/// A reader and how many bytes it has.
pub(super) type Opened<'a> = (Box<dyn Read + Send + 'a>, u64);

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, OciError> {
        let meta = std::fs::metadata(path).at("open", path)?;
        if meta.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).at("open", path)?;
        let mut magic = [0; 4];
        let count = file.read_at(&mut magic, 0).at("read", path)?;
        if matches!(magic[..count], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            let reason = "the archive is compressed; unpack it to a plain tar first".to_owned();
            return Err(OciError::NotALayout { path: path.to_owned(), reason });
        }
        let entries = scan(&file).map_err(|error| OciError::NotALayout {
            path: path.to_owned(),
            reason: format!("it is no tar archive: {error}"),
        })?;
        Ok(Self::Archive { path: path.to_owned(), file, entries })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } => path,
        }
    }

    /// Opens a file of the layout, with its size; none if it is not there.
    pub(super) fn get(&self, name: &str) -> Result<Option<Opened<'_>>, IoError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other.at("open", &path)?,
                };
                let size = file.metadata().at("stat", &path)?.len();
                Ok(Some((Box::new(file), size)))
            }
            Self::Archive { file, entries, .. } => Ok(entries.get(name).map(|&(position, size)| {
                let section = Section { file, position, left: size };
                (Box::new(section) as Box<dyn Read + Send>, size)
            })),
        }
    }
}

/// Headers only: the bytes of entries are jumped over.
fn scan(file: &File) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut entries = HashMap::new();
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            // The last of equal names is what unpacking would leave.
            entries.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(entries)
}

/// Part of a file, read by position, so that several can be read at once.
struct Section<'a> {
    file: &'a File,
    position: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..want], self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
