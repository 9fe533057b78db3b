//! Caches in directories of the user's own: `--cache-mount id=ID,path=DIR`.
//!
//! Nothing of kiln's is in such a directory (buildah PR#4349). What kiln knows of it is in the store, beside the other
//! caches: a directory with `meta.json`, `holders/` and the link `place`. The lock is on the user's directory itself, so
//! that it is one for all stores that have it placed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_core::{CacheScope, Cancel, Digest, IoError, IoResultExt as _};
use rustix::fs::{
    Access, AtFlags, CWD, FlockOperation, Gid, Mode, RenameFlags, StatxAttributes, StatxFlags, Uid, chownat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::home::{Half, Home, copy_error, give};
use super::meta::Meta;
use super::{CacheError, CacheMounts, CacheName, CacheRequest, PlaceProblem, lock, name};
use crate::copy::clone_tree;
use crate::layout::Ids;
use crate::scratch::random_name;
use crate::tree::FileStat;

/// The link to the user's directory.
pub(super) const PLACE: &str = "place";

/// Where the user wants a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachePlace {
    /// The cache's id.
    pub id: String,
    /// Its scope. Without, it is the cache of everybody who says the id, and that of the machine's own platform.
    #[serde(default)]
    pub scope: Option<CacheScope>,
    /// The directory, absolute. It is made when the cache is first used.
    pub path: PathBuf,
    /// Whether it holds for all builds, so that one that does not mount the cache is no mistake.
    #[serde(default)]
    pub standing: bool,
}

/// The place of a cache.
pub(super) fn of<'a>(places: &'a [CachePlace], id: &str, scope: &CacheScope) -> Option<&'a CachePlace> {
    places.iter().find(|place| place.id == id && place.scope.as_ref() == Some(scope))
}

/// The name of the directory in the store: no id is written with a `~` that has no `%` before it.
pub(super) fn name(id: &str, path: &Path) -> String {
    let hex = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
    format!("{}~{}", name::of_id(id), &hex[..16])
}

/// Whether a directory in the store may be that of a placed cache.
pub(super) fn is_name(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'~'))
}

impl CacheMounts {
    /// Keeps these caches in directories of the user's. A place without a scope counts for the global one and for
    /// `platform`, this machine's own.
    ///
    /// # Errors
    /// [`CacheError::Place`]: a directory is no directory, overlaps the store, or is named twice.
    pub fn placed(mut self, places: &[CachePlace], platform: &str) -> Result<Self, CacheError> {
        let root = self.dir.ancestors().nth(2).unwrap_or(&self.dir).to_owned();
        let root = std::fs::canonicalize(&root).unwrap_or(root);
        let mut all: Vec<CachePlace> = Vec::new();
        for given in places {
            let wrong =
                |problem| CacheError::Place { id: given.id.clone(), path: given.path.clone(), problem };
            let path = resolve(&given.path).map_err(|error| wrong(PlaceProblem::Io(error)))?;
            if path.exists() && !path.is_dir() {
                return Err(wrong(PlaceProblem::NotADirectory));
            }
            if path.parent().is_none() {
                return Err(wrong(PlaceProblem::Root));
            }
            if path.starts_with(&root) || root.starts_with(&path) {
                return Err(wrong(PlaceProblem::Store { root: root.clone() }));
            }
            if self.moves {
                return Err(wrong(PlaceProblem::Chroot));
            }
            if let Some(other) = all.iter().find(|other| other.path == path && other.id != given.id) {
                return Err(wrong(PlaceProblem::Taken { other: other.id.clone() }));
            }
            let scopes = match &given.scope {
                Some(scope) => vec![scope.clone()],
                None => vec![CacheScope::Global, CacheScope::Platform(platform.to_owned())],
            };
            for scope in scopes {
                match of(&all, &given.id, &scope) {
                    Some(other) if other.path == path => {}
                    Some(other) => return Err(wrong(PlaceProblem::Twice { other: other.path.clone() })),
                    None => {
                        all.push(CachePlace { scope: Some(scope), path: path.clone(), ..given.clone() });
                    }
                }
            }
        }
        self.places = all;
        Ok(self)
    }

    /// Returns the directory of the user's that a cache is placed in.
    pub fn place(&self, name: &CacheName) -> Option<&Path> {
        of(&self.places, &name.id, &name.scope).map(|place| place.path.as_path())
    }

    /// Makes the directory of a placed cache that is not there, if what is above it is somebody else's, for that user: as
    /// `~/.cache/pip`, when root builds for the user. What fails is told when the cache is wanted.
    pub fn make_for_owner(&self, name: &CacheName, mode: u32) {
        let Some(place) = self.place(name) else { return };
        let Some(above) = place.ancestors().find(|above| above.exists()) else { return };
        let own = rustix::process::geteuid().as_raw();
        if above != place
            && FileStat::at(CWD, above).is_ok_and(|above| above.uid != own)
            && make_for_owner(place).is_ok()
        {
            let _ = rustix::fs::chmod(place, Mode::from_raw_mode(mode & 0o7777));
        }
    }

    /// Returns the directories that caches are placed in, each with its id.
    pub fn places(&self) -> impl Iterator<Item = (&str, &Path)> {
        let mut before: Option<&CachePlace> = None;
        self.places.iter().filter_map(move |place| {
            let again = before.is_some_and(|before| before.path == place.path);
            before = Some(place);
            (!again).then_some((place.id.as_str(), place.path.as_path()))
        })
    }
}

impl Home {
    /// Makes a placed cache's directories as far as they are not there; returns whether the user's was missing, or empty.
    pub(super) fn create_placed(
        &self,
        place: &Path,
        request: &CacheRequest,
        ids: Ids,
        seed: &mut dyn FnMut() -> Result<Option<OwnedFd>, IoError>,
        cancel: &Cancel,
    ) -> Result<bool, CacheError> {
        self.note_place(place, request)?;
        let wrong = |problem| CacheError::Place { id: request.id.clone(), path: place.to_owned(), problem };
        let new = match std::fs::metadata(place) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => return Err(wrong(PlaceProblem::NotADirectory)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(place)
                    .map_err(|error| wrong(PlaceProblem::NotMade { error: lower(&error) }))?;
                true
            }
            Err(error) => return Err(wrong(PlaceProblem::Io(IoError::new("look at", place, &error)))),
        };
        if !request.read_only {
            // As a file system says it for a write, read-only mounts included.
            rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|errno| wrong(PlaceProblem::ReadOnly { error: reason(errno) }))?;
        }
        let alone = lock::attempt(place, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let error = error.to_string();
            wrong(PlaceProblem::NoLock { error })
        })?;
        // Who has it fills it.
        let Some(_alone) = alone else { return Ok(new) };
        if !is_empty(place)? {
            return Ok(false);
        }
        let mut seeded = false;
        if let Some(from) = seed()? {
            // It cannot be renamed to where it belongs from another file system. Who is killed here leaves a part of the seed,
            // and a cache is never more than a part.
            clone_tree(from, Path::new("/"), place, cancel)
                .map_err(|source| copy_error(request, Path::new("the seed"), source))?;
            seeded = true;
        }
        // A directory that was there is as its owner wants it.
        if new && (!seeded || !request.has_default_owner()) {
            give(place, request, ids)?;
        }
        Ok(true)
    }

    /// Makes what the store knows of the place.
    fn note_place(&self, place: &Path, request: &CacheRequest) -> Result<(), CacheError> {
        if self.holders().is_dir() {
            return Ok(());
        }
        let scope = self.dir.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(scope).at("create", scope)?;
        let new = Half(scope.join(format!(".new-{}", random_name())));
        std::fs::create_dir(&new.0).at("create", &new.0)?;
        let _alive = lock::attempt(&new.0, FlockOperation::NonBlockingLockExclusive)?;
        let holders = new.0.join("holders");
        std::fs::create_dir(&holders).at("create", &holders)?;
        std::os::unix::fs::symlink(place, new.0.join(PLACE)).at("link to", place)?;
        Meta::new(&request.id, &request.scope).write(&new.0)?;
        match rustix::fs::renameat_with(CWD, &new.0, CWD, &self.dir, RenameFlags::NOREPLACE) {
            Ok(()) => new.keep(),
            Err(Errno::EXIST | Errno::NOTEMPTY) => match std::fs::create_dir(self.holders()) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create", self.holders())?;
                }
                _ => {}
            },
            Err(error) => return Err(error).at("rename to", &self.dir)?,
        }
        Ok(())
    }

    /// Looks whether a copy in the store can take the place of the cache by renaming, as it always can within the store.
    pub(super) fn can_swap(&self, id: &str) -> Result<(), CacheError> {
        let Some(place) = &self.place else { return Ok(()) };
        let wrong = |reason: String| CacheError::Place {
            id: id.to_owned(),
            path: place.clone(),
            problem: PlaceProblem::NoSwap { reason },
        };
        // The kernel's own answer, with something of ours: a mount in between counts as another file system does.
        let parent = place.parent().unwrap_or(place);
        let trial = self.dir.join(format!("gone-{}", random_name()));
        std::fs::create_dir(&trial).at("create", &trial)?;
        let there = parent.join(format!(".kiln-{}", random_name()));
        let moved = rustix::fs::rename(&trial, &there);
        let removed = std::fs::remove_dir(if moved.is_ok() { &there } else { &trial });
        match moved {
            Ok(()) => removed.at("remove", &there)?,
            Err(Errno::XDEV) => {
                return Err(wrong(format!("{} is on another file system than the store", parent.display())));
            }
            Err(errno) => return Err(wrong(format!("{}: {}", parent.display(), reason(errno)))),
        }
        let mounted = rustix::fs::statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
            .at("look at", place)?;
        if mounted.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(wrong("something is mounted there".to_owned()));
        }
        Ok(())
    }
}

/// Makes links and `..` plain as far as the path exists: one directory has one name.
fn resolve(path: &Path) -> Result<PathBuf, IoError> {
    let path = std::path::absolute(path).at("find", path)?;
    for above in path.ancestors() {
        match std::fs::canonicalize(above) {
            Ok(found) => {
                let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
                return Ok(if rest.as_os_str().is_empty() { found } else { found.join(rest) });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("find", above),
        }
    }
    Ok(path)
}

fn is_empty(dir: &Path) -> Result<bool, IoError> {
    Ok(std::fs::read_dir(dir).at("read", dir)?.next().is_none())
}

/// Makes a directory and those above it that are missing, each for whom the one above belongs to.
fn make_for_owner(path: &Path) -> std::io::Result<()> {
    let Some(parent) = path.parent().filter(|_| !path.exists()) else { return Ok(()) };
    make_for_owner(parent)?;
    std::fs::create_dir(path)?;
    let above = FileStat::at(CWD, parent)?;
    let (uid, gid) = (Uid::from_raw(above.uid), Gid::from_raw(above.gid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn reason(errno: Errno) -> String {
    lower(&errno.into())
}

/// As messages have it: `permission denied`.
fn lower(error: &std::io::Error) -> String {
    IoError::new("", Path::new(""), error).message
}
