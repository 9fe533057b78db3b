//! Which ignore file counts for a context.

use std::path::{Path, PathBuf};

use kiln_core::IgnoreList;

use super::definition::{self, Place};
use super::files::Files;
use crate::Error;

/// What stands in every context's root.
const NAME: &str = ".dockerignore";

/// An ignore file that is there.
#[derive(Debug)]
pub(crate) struct IgnoreFile {
    /// What messages call it: its file name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// What it means.
    pub(crate) list: IgnoreList,
}

/// Finds the one beside a Dockerfile, `<Dockerfile>.dockerignore`, else the context's own. The first that is there
/// counts, be it empty; they are never put together.
pub(crate) fn find(dockerfile: &Place, files: &Files) -> Result<Option<IgnoreFile>, Error> {
    let (path, read) = match dockerfile {
        Place::Nowhere => (PathBuf::new(), None),
        Place::Here(path) => (beside(path), definition::read_here(&beside(path))?),
        Place::Inside(path) => (beside(path), files.read(&beside(path))?),
    };
    if let Some(bytes) = read {
        return parse(path, &bytes).map(Some);
    }
    match files.read(Path::new(NAME))? {
        Some(bytes) => parse(files.label.join(NAME), &bytes).map(Some),
        None => Ok(None),
    }
}

/// Returns what is left out of a directory of this machine, for those who look at a Dockerfile without opening its
/// context: `<Dockerfile>.dockerignore` before the directory's own.
///
/// # Errors
/// The file cannot be read, or has a malformed pattern.
pub fn ignore_list(context: &Path, dockerfile: Option<&Path>) -> Result<IgnoreList, Error> {
    for path in dockerfile.map(beside).into_iter().chain([context.join(NAME)]) {
        if let Some(bytes) = definition::read_here(&path)? {
            return parse(path, &bytes).map(|file| file.list);
        }
    }
    Ok(IgnoreList::default())
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(NAME);
    PathBuf::from(beside)
}

fn parse(path: PathBuf, bytes: &[u8]) -> Result<IgnoreFile, Error> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match IgnoreList::parse(&text) {
        Ok(list) => Ok(IgnoreFile { name, text, list }),
        Err(error) => Err(Error::IgnoreFile { path, error }),
    }
}
