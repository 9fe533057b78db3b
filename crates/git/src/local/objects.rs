//! Objects as a repository keeps them: packs, files of their own, and other repositories.
//! <https://git-scm.com/docs/gitrepository-layout>

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;
use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::Kind;
use gix_pack::Bundle;
use gix_pack::cache::lru::MemoryCappedHashmap;
use kiln_core::{IoError, IoResultExt as _};

use crate::GitError;
use crate::error::plain;

/// Repositories whose objects are borrowed from repositories: git's own limit.
const ALTERNATES: usize = 5;

pub(super) struct Database {
    directories: Vec<PathBuf>,
    /// Each with its cache: a cache tells its objects apart by their place in one pack.
    packs: Vec<(Bundle, MemoryCappedHashmap)>,
    inflate: gix_zlib::Inflate,
    limit: usize,
    remote: String,
}

impl Database {
    pub(super) fn open(objects: &Path, remote: &str, limit: usize) -> Result<Self, GitError> {
        let mut found = Self {
            directories: Vec::new(),
            packs: Vec::new(),
            inflate: gix_zlib::Inflate::default(),
            limit,
            remote: remote.to_owned(),
        };
        found.add(objects, 0)?;
        Ok(found)
    }

    fn add(&mut self, objects: &Path, depth: usize) -> Result<(), GitError> {
        if depth > ALTERNATES || self.directories.iter().any(|known| known == objects) {
            return Ok(());
        }
        self.directories.push(objects.to_owned());
        for path in packs(&objects.join("pack"))? {
            let mut bundle = Bundle::at(&path, HashKind::Sha1).map_err(|error| self.wrong(&path, &error))?;
            bundle.pack = bundle.pack.with_alloc_limit_bytes(Some(self.limit));
            self.packs.push((bundle, MemoryCappedHashmap::new(8 << 20)));
        }
        let others = fs::read_to_string(objects.join("info/alternates")).unwrap_or_default();
        for other in others.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            self.add(&objects.join(other), depth + 1)?;
        }
        Ok(())
    }

    pub(super) fn find(&mut self, id: ObjectId) -> Result<Option<(Kind, Vec<u8>)>, GitError> {
        let mut buffer = Vec::new();
        for (bundle, cache) in &mut self.packs {
            let found = bundle.find(&id, &mut buffer, &mut self.inflate, cache);
            let found = found.map_err(|error| GitError::Pack {
                remote: self.remote.clone(),
                reason: format!("object {id}: {}", plain(&error.to_string())),
            })?;
            if let Some(kind) = found.map(|(object, _)| object.kind) {
                return Ok(Some((kind, buffer)));
            }
        }
        for directory in &self.directories {
            let name = id.to_string();
            let path = directory.join(&name[..2]).join(&name[2..]);
            match File::open(&path) {
                Ok(file) => return self.loose(file, &path).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(IoError::new("open", &path, &error).into()),
            }
        }
        Ok(None)
    }

    /// `KIND SIZE\0DATA`, deflated.
    fn loose(&self, file: File, path: &Path) -> Result<(Kind, Vec<u8>), GitError> {
        let mut data = Vec::new();
        let most = self.limit as u64 + 64;
        ZlibDecoder::new(file).take(most).read_to_end(&mut data).at("read", path)?;
        if data.len() as u64 == most {
            let what = format!("an object has more than {} MiB", self.limit >> 20);
            return Err(GitError::TooLarge { remote: self.remote.clone(), what });
        }
        let end = data.iter().take(64).position(|byte| *byte == 0);
        let head =
            end.and_then(|end| std::str::from_utf8(&data[..end]).ok()).and_then(|head| head.split_once(' '));
        let kind = head.and_then(|(kind, size)| {
            let whole = size.parse::<usize>().ok()? == data.len() - end? - 1;
            Kind::from_bytes(kind.as_bytes()).ok().filter(|_| whole)
        });
        let (Some(kind), Some(end)) = (kind, end) else {
            let reason = format!("{} is no object", path.display());
            return Err(GitError::Pack { remote: self.remote.clone(), reason });
        };
        data.drain(..=end);
        Ok((kind, data))
    }

    fn wrong(&self, path: &Path, error: &dyn std::error::Error) -> GitError {
        let reason = format!("{}: {}", path.display(), plain(&error.to_string()));
        GitError::Pack { remote: self.remote.clone(), reason }
    }
}

fn packs(directory: &Path) -> Result<Vec<PathBuf>, GitError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(IoError::new("read", directory, &error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at("read", directory)?.path();
        if path.extension().is_some_and(|extension| extension == "idx")
            && path.with_extension("pack").exists()
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
