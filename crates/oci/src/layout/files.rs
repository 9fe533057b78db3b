//! A layout's files: of a directory, or inside a tar that is read where it lies.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};

use super::scan::{Found, scan};
use crate::{MAX_DOCUMENT, OciError};

#[derive(Debug)]
pub(crate) enum Files {
    Directory(PathBuf),
    Archive { path: PathBuf, file: File, found: Found },
}

/// A reader and how many bytes it has.
pub(crate) type Opened<'a> = (Box<dyn Read + Send + 'a>, u64);

impl Files {
    pub(crate) fn open(path: &Path) -> Result<Self, OciError> {
        Self::open_as(path, path)
    }

    /// Opens what messages call by another name.
    pub(crate) fn open_as(path: &Path, name: &Path) -> Result<Self, OciError> {
        let meta = std::fs::metadata(path).at("open", path)?;
        if meta.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).at("open", path)?;
        let mut magic = [0; 4];
        let count = file.read_at(&mut magic, 0).at("read", path)?;
        if matches!(magic[..count], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            let reason = "the archive is compressed; unpack it to a plain tar first".to_owned();
            return Err(OciError::NotALayout { path: name.to_owned(), reason });
        }
        let found = scan(&file).map_err(|error| OciError::NotALayout {
            path: name.to_owned(),
            reason: format!("it is no tar archive: {error}"),
        })?;
        Ok(Self::Archive { path: name.to_owned(), file, found })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } => path,
        }
    }

    /// Opens a file of the layout, with its size; none if it is not there. A link in an archive leads nowhere.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Opened<'_>>, IoError> {
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
            Self::Archive { file, found, .. } => {
                Ok(found.files.get(name).map(|&(position, size)| section(file, position, size)))
            }
        }
    }

    /// Opens a file of an archive, through links: `docker save` writes a layer that two images share once, and links to it.
    /// Links of a directory are not followed here: they could lead out of it.
    pub(crate) fn follow(&self, name: &str) -> Result<Option<Opened<'_>>, IoError> {
        match self {
            Self::Directory(_) => self.get(name),
            Self::Archive { file, found, .. } => {
                Ok(found.follow(name).map(|(position, size)| section(file, position, size)))
            }
        }
    }

    /// Reads a small file whole, never more than [`MAX_DOCUMENT`] bytes of it.
    pub(crate) fn small(&self, name: &str) -> Result<Option<Vec<u8>>, OciError> {
        let Some((reader, size)) = self.get(name)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(size.min(MAX_DOCUMENT) as usize);
        let read = reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|error| IoError::new("read", self.path().join(name), &error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let reason = format!("it has more than {MAX_DOCUMENT} bytes");
            return Err(OciError::Malformed { what: name.to_owned(), reason });
        }
        Ok(Some(bytes))
    }
}

fn section(file: &File, position: u64, size: u64) -> Opened<'_> {
    (Box::new(Section { file, position, left: size }), size)
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
