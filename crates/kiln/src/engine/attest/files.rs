//! What is said of outputs that are files and no images: each file by its digest, as BuildKit does it
//! (<https://github.com/moby/buildkit/blob/master/exporter/local/fs.go>).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, Digest, DigestHasher, IoError, IoResultExt as _, Snapshot};
use kiln_sbom::{FileTree as _, Kind, Opened};
use rustix::fs::{AtFlags, Mode, fchmod, statat};

use super::Claims;
use super::statement::StatedOf;
use super::tree::ViewTree;
use crate::Error;
use crate::engine::Engine;
use crate::engine::build::Build;

/// A file that is written beside others: its name and its bytes.
pub(in crate::engine) type Beside = (String, Vec<u8>);

impl Build<'_> {
    /// Returns what is written into the root of the files of an image. They must not have such files of their own.
    pub(in crate::engine) fn beside(
        &self,
        claims: &Claims,
        which: usize,
        snapshot: &Snapshot,
    ) -> Result<Vec<Beside>, Error> {
        if !claims.are_attached() {
            return Ok(Vec::new());
        }
        let files = claims.files(which, &self.engine.digests(snapshot, self.cancel)?);
        if !snapshot.layers.is_empty() {
            let root = self.engine.view_of(snapshot, self.cancel)?.root()?;
            for (name, _) in &files {
                if statat(&root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    let reason = "the result has a file of that name itself; give --attest type=provenance another \
                                  filename=, or leave it out";
                    return Err(Error::Output { output: name.clone(), reason: reason.to_owned() });
                }
            }
        }
        Ok(files)
    }
}

/// Writes such files into a directory. A link that lies there is replaced and not followed.
pub(in crate::engine) fn write_beside(dir: &Path, files: &[Beside]) -> Result<(), Error> {
    for (name, bytes) in files {
        let path = dir.join(name);
        let mut half =
            tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir).at("create a file in", dir)?;
        half.write_all(bytes).at("write", &path)?;
        fchmod(half.as_file(), Mode::from_raw_mode(0o644)).at("set mode of", &path)?;
        half.persist(&path).map_err(|error| error.error).at("create", &path)?;
    }
    Ok(())
}

impl Engine {
    /// Returns every regular file of a snapshot with its digest, sorted by path. All of them are read.
    pub(in crate::engine) fn digests(
        &self,
        snapshot: &Snapshot,
        cancel: &Cancel,
    ) -> Result<Vec<StatedOf>, Error> {
        let mut found = BTreeMap::new();
        if snapshot.layers.is_empty() {
            return Ok(Vec::new());
        }
        let view = self.view_of(snapshot, cancel)?;
        let tree = ViewTree { root: view.root()?, cancel };
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            for entry in tree.list(&dir).map_err(|error| IoError::new("read", &dir, &error))? {
                let path = dir.join(entry.name);
                match entry.kind {
                    Kind::Directory => todo.push(path),
                    Kind::File { .. } => {
                        let digest =
                            digest(&tree, &path).map_err(|error| IoError::new("read", &path, &error))?;
                        found.insert(path.to_string_lossy().into_owned(), digest);
                    }
                    Kind::Other => {}
                }
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn digest(tree: &ViewTree<'_>, path: &Path) -> std::io::Result<Digest> {
    let file: Box<dyn Opened + '_> = tree.open(path)?;
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut position = 0;
    loop {
        match file.read_at(&mut buffer, position)? {
            0 => return Ok(hasher.finish()),
            count => {
                hasher.update(&buffer[..count]);
                position += count as u64;
            }
        }
    }
}
