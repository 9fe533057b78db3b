//! Looking at caches from outside, and removing them.

use std::path::PathBuf;

use kiln_core::{CacheScope, IoError, IoResultExt};
use rustix::fs::FlockOperation;

use super::home::Home;
use super::meta::Meta;
use super::{CacheError, CacheMounts, count, lock};
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
    /// Which step that was, as it said itself.
    pub last_step: String,
    /// Where steps saw it.
    pub targets: Vec<String>,
    /// Who uses it now.
    pub held_by: Vec<String>,
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
            home.update(|meta| {
                (meta.size, meta.files, meta.counted) = (counted.size, counted.files, idle);
            })?;
        }
        Ok(())
    }

    /// Removes a cache, in every scope that has it or only in the given one; returns how many it were. It is gone
    /// at once for all steps that start later; its files are deleted then.
    ///
    /// # Errors
    /// A step uses it; there is no such cache.
    pub fn remove(&self, id: &str, scope: Option<&CacheScope>) -> Result<usize, CacheError> {
        let homes: Vec<Home> = match scope {
            Some(scope) => vec![self.home(id, scope)],
            None => {
                let name = super::name::of_id(id);
                self.homes()?.into_iter().filter(|home| home.dir.file_name() == Some(name.as_ref())).collect()
            }
        };
        let mut removed = 0;
        for home in homes {
            removed += usize::from(self.remove_home(id, &home)?);
        }
        if removed == 0 { Err(CacheError::NoCache { id: id.to_owned() }) } else { Ok(removed) }
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
                    Home { dir: path.clone(), scratch: None }.sweep();
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
            homes.extend(entries(&scope)?.into_iter().filter(visible).map(|dir| Home { dir, scratch: None }));
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

fn entries(dir: &std::path::Path) -> Result<Vec<PathBuf>, IoError> {
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
