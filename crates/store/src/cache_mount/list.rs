//! Looking at caches from outside, and removing them.

use std::path::{Path, PathBuf};

use kiln_core::{CacheScope, IoError, IoResultExt};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::home::Home;
use super::meta::{CacheFigures, Meta};
use super::{CacheError, CacheMounts, CacheName, count, lock};
use crate::scratch::{random_name, remove_tree};

/// A cache, as `kiln cache ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheInfo {
    /// Its name.
    pub id: String,
    /// Who shares the name.
    pub scope: CacheScope,
    /// Where its content is.
    pub path: PathBuf,
    /// Where is what kiln knows of it.
    pub home: PathBuf,
    /// Bytes on disk when it was last counted.
    pub size: u64,
    /// Files when it was last counted.
    pub files: u64,
    /// Whether nothing has used it since it was counted.
    pub counted: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970: when the last step ended that used it.
    pub last_used: i64,
    /// Seconds since 1970: when size and files were counted; 0 if never.
    pub counted_at: i64,
    /// What it was worth so far.
    pub figures: CacheFigures,
    /// Whether it is in a directory of the user's, which stays when the cache is removed.
    pub placed: bool,
    /// Which step that was, as it said itself.
    pub last_step: String,
    /// Where steps saw it.
    pub targets: Vec<String>,
    /// Who uses it now.
    pub held_by: Vec<String>,
}

/// What lies in a cache's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePart {
    /// Its name; what is not UTF-8 of it is replaced.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes on disk of all that is in it. A file with several names counts once in each part.
    pub size: u64,
    /// Files in it.
    pub files: u64,
}

impl CacheInfo {
    /// Returns which cache it is.
    pub fn name(&self) -> CacheName {
        CacheName { id: self.id.clone(), scope: self.scope.clone() }
    }
}

impl CacheMounts {
    /// Lists all caches, by scope and id. Sizes are those kept from the last count: no cache is walked.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<CacheInfo>, IoError> {
        let mut found: Vec<CacheInfo> = self.homes()?.iter().map(info).collect();
        found.sort_by(|a, b| (&a.scope, &a.id).cmp(&(&b.scope, &b.id)));
        Ok(found)
    }

    /// Looks for one cache, where it is kept now.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn find(&self, name: &CacheName) -> Result<Option<CacheInfo>, IoError> {
        let home = self.home(&name.id, &name.scope);
        Ok(home.data().is_dir().then(|| CacheInfo {
            id: name.id.clone(),
            scope: name.scope.clone(),
            ..info(&home)
        }))
    }

    /// Says what a cache's directory holds, largest first. Several threads walk it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn parts(path: &Path) -> Result<Vec<CachePart>, IoError> {
        let mut parts = Vec::new();
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(path).at("read", path)? {
            let entry = entry.at("read", path)?;
            let Ok(found) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            if found.is_dir() {
                dirs.push((name, entry.path()));
            } else {
                let size = std::os::unix::fs::MetadataExt::blocks(&found) * 512;
                parts.push(CachePart { name, directory: false, size, files: 1 });
            }
        }
        let (names, roots): (Vec<String>, Vec<PathBuf>) = dirs.into_iter().unzip();
        for (name, counted) in names.into_iter().zip(count::count_all(&roots)) {
            let Some(count::Count { size, files }) = counted else { continue };
            parts.push(CachePart { name, directory: true, size, files });
        }
        parts.sort_by(|a, b| (b.size, &a.name).cmp(&(a.size, &b.name)));
        Ok(parts)
    }

    /// Counts the caches that changed since they were counted, on all processors, and keeps the sizes. For the end
    /// of a build, beside its export, and for `kiln du`.
    ///
    /// # Errors
    /// The directory cannot be read, or a size not be written.
    pub fn refresh_sizes(&self) -> Result<(), IoError> {
        let changed: Vec<Home> =
            self.homes()?.into_iter().filter(|home| !Meta::read(&home.dir).counted).collect();
        let roots: Vec<PathBuf> = changed.iter().map(Home::data).collect();
        for (home, counted) in changed.iter().zip(count::count_all(&roots)) {
            let Some(counted) = counted else { continue };
            // One that is in use may have changed while it was counted.
            let idle = lock::holders(&home.holders()).alive.is_empty();
            let noted = home.update(|meta| {
                meta.counted(false, Some(counted));
                meta.counted = idle;
            });
            // A full disk is when room is made, which must not need any: the number stays the old one.
            noted.or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    /// Removes a cache, in every scope that has it or only in the given one; returns how many it were. It is gone
    /// at once for all steps that start later; its files are deleted then. Of one that is placed in a directory of the user's
    /// goes what kiln knows of it; the files stay.
    ///
    /// # Errors
    /// A step uses it; there is no such cache.
    pub fn remove(&self, id: &str, scope: Option<&CacheScope>) -> Result<usize, CacheError> {
        let name = super::name::of_id(id);
        let is_it = |home: &Home| {
            let found = home.dir.file_name().unwrap_or_default().as_encoded_bytes();
            let rest = found.strip_prefix(name.as_bytes());
            let in_scope = scope.is_none_or(|scope| {
                home.dir.parent().and_then(Path::file_name) == Some(super::name::of_scope(scope).as_ref())
            });
            in_scope && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"~"))
        };
        let homes: Vec<Home> = self.homes()?.into_iter().filter(is_it).collect();
        let mut removed = 0;
        for home in homes {
            removed += usize::from(self.remove_home(id, &home)?);
        }
        if removed == 0 { Err(CacheError::NoCache { id: id.to_owned() }) } else { Ok(removed) }
    }

    /// Removes one that was listed, as [`remove`](Self::remove) does. Returns whether it was there.
    ///
    /// # Errors
    /// A step uses it.
    pub fn remove_found(&self, cache: &CacheInfo) -> Result<bool, CacheError> {
        self.remove_home(&cache.id, &Home::found(cache.home.clone()))
    }

    fn remove_home(&self, id: &str, home: &Home) -> Result<bool, CacheError> {
        let Some(_guard) = lock::guard(&home.dir)? else { return Ok(false) };
        let alone = lock::attempt(&home.lock(), FlockOperation::NonBlockingLockExclusive)?;
        let alive = lock::holders(&home.holders()).alive;
        if (alone.is_none() && home.lock().exists()) || !alive.is_empty() {
            return Err(CacheError::Held { id: id.to_owned(), holder: who(&alive) });
        }
        let gone = home.dir.with_file_name(format!(".gone-{}", random_name()));
        std::fs::rename(&home.dir, &gone).at("rename", &home.dir)?;
        remove_tree(&gone);
        Ok(true)
    }

    /// Removes what dead processes left half-made or half-removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sweep(&self) -> Result<(), IoError> {
        for scope in entries(&self.dir)? {
            for path in entries(&scope)? {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                if !name.starts_with(b".") {
                    // Copies are made under the same lock.
                    let _guard = lock::guard(&path)?;
                    Home::found(path.clone()).sweep();
                } else if let Some(_lock) = lock::attempt(&path, FlockOperation::NonBlockingLockExclusive)? {
                    remove_tree(&path);
                }
            }
        }
        Ok(())
    }

    fn homes(&self) -> Result<Vec<Home>, IoError> {
        let mut homes = Vec::new();
        for scope in entries(&self.dir)? {
            let visible =
                |path: &PathBuf| !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".");
            homes.extend(entries(&scope)?.into_iter().filter(visible).map(Home::found));
        }
        Ok(homes)
    }
}

/// Names the holders in one phrase.
pub(super) fn who(alive: &[String]) -> String {
    match alive {
        [] => "another step".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

fn info(home: &Home) -> CacheInfo {
    let meta = Meta::read(&home.dir);
    let holders = lock::holders(&home.holders());
    if holders.died && meta.counted {
        // Its last user died without a word, so nobody knows what it did. Should this not be written, the next
        // use counts again.
        let _ = home.update(|meta| meta.counted = false);
    }
    CacheInfo {
        path: home.data(),
        home: home.dir.clone(),
        counted_at: meta.counted_at,
        figures: meta.figures,
        placed: home.place.is_some(),
        counted: meta.counted && !holders.died && holders.alive.is_empty(),
        id: meta.id,
        scope: meta.scope,
        size: meta.size,
        files: meta.files,
        created: meta.created,
        last_used: meta.last_used,
        last_step: meta.last_step,
        targets: meta.targets,
        held_by: holders.alive,
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).at("read", dir),
    };
    listing.map(|entry| Ok(entry.at("read", dir)?.path())).collect()
}
