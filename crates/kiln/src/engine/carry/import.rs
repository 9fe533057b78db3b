//! Importing: into a directory beside the cache, which takes its place in one step, or whose files then move into it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_carry::{Entry, Frames, Index, Kind, Location, MAX_FRAME, MAX_PACK, Pack, Tree, decode_frame};
use kiln_core::{Digest, IoError, IoResultExt as _};
use kiln_store::cache_mount::{CacheHold, CacheName, HoldAs, Stage};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, statat};
use rustix::io::Errno;

use super::Carrier;
use super::depot::Depot;
use super::known::{self, Known};
use super::report::CarriedCache;
use super::stage::{Filling, Partial, room};
use super::tree::{Identity, is_empty};
use crate::engine::reporter::Task;
use crate::{CarryFailure, Error};

/// Packs that are fetched and unpacked at once: some 15 MiB each.
const WORKERS: usize = 4;

/// What an import of one cache did.
pub(super) struct Imported {
    pub(super) cache: CarriedCache,
    pub(super) moved: u64,
    pub(super) notes: Vec<String>,
    /// Files that were written, and their last access as it was set.
    pub(super) written: Vec<(PathBuf, i64)>,
}

impl Carrier<'_> {
    /// Imports one cache of an export. Where the cache has files, those that are newer there stay, and none is removed,
    /// unless `replace` is asked for.
    pub(super) fn import(
        &self,
        index: &Index,
        tree: &Tree,
        generations: &[Digest],
        depot: &dyn Depot,
        replace: bool,
        task: &Task<'_>,
    ) -> Result<Imported, Error> {
        let name = CacheName { id: tree.id.clone(), scope: CacheName::scope_from(&tree.scope) };
        let new = self.caches.find(&name)?.is_none();
        let imported = self.import_into(&name, (index, tree, generations), depot, replace, task);
        if imported.is_err() && new {
            // A mount's own seed, owner and mode are for a new cache. Somebody may have begun to use it: then it stays.
            let _ = self.caches.remove(&name.id, Some(&name.scope));
        }
        imported
    }

    fn import_into(
        &self,
        name: &CacheName,
        (index, tree, generations): (&Index, &Tree, &[Digest]),
        depot: &dyn Depot,
        replace: bool,
        task: &Task<'_>,
    ) -> Result<Imported, Error> {
        // Held for a moment only: whoever uses it goes on while the packs come.
        let how = if replace { HoldAs::Replace } else { HoldAs::Fill };
        let hold = self.hold(name, how)?;
        let data = hold.path();
        let filled = !is_empty(&data)?;
        let stage = hold.stage()?;
        let merge = !replace && (filled || stage.is_inside());
        drop(hold);
        let here = |path: &Path, entry: &Entry| merge && is_as_new(&data.join(path), entry);
        let mut skipped: HashSet<&PathBuf> = HashSet::new();
        for (path, entry) in &tree.entries {
            if entry.kind != Kind::Directory && here(path, entry) {
                skipped.insert(path);
            }
        }
        // A hard link's file must be there to be linked to.
        for (path, entry) in &tree.entries {
            if let Kind::Hard { to } = &entry.kind
                && !skipped.contains(path)
            {
                skipped.remove(to);
            }
        }
        let wanted = |path: &Path| !skipped.contains(&path.to_path_buf());
        let needed = tree.entries.iter().filter(|(path, _)| wanted(path)).map(|(_, entry)| entry.size());
        let (needed, free) = (needed.fold(0, u64::saturating_add), room(&data)?);
        if needed > free {
            return Err(Error::Carry(CarryFailure::Room { id: tree.id.clone(), needed, free }));
        }
        let (moved, mut notes) = self.fill(index, tree, depot, stage.path(), &wanted, task)?;
        let hold = self.hold(name, how)?;
        let written: Vec<PathBuf> = tree
            .entries
            .iter()
            .filter(|(path, entry)| entry.kind != Kind::Directory && wanted(path))
            .map(|(path, _)| path.clone())
            .collect();
        let written = if merge || !replace && !is_empty(&hold.path())? {
            let moved = move_in(&hold.path(), &stage, tree, &written, &mut notes)?;
            drop(stage);
            let data = hold.path();
            self.note(name, tree, generations, &data)?;
            hold.changed()?;
            moved
        } else {
            let data = hold.path();
            hold.replace(stage)?;
            self.note(name, tree, generations, &data)?;
            written
        };
        let bytes = written.iter().filter_map(|path| tree.entries.get(path)).map(Entry::size).sum();
        let (id, scope) = (tree.id.clone(), tree.scope.clone());
        let cache = CarriedCache { id, scope, files: written.len() as u64, bytes, used: None };
        let used = |path: PathBuf| tree.entries.get(&path).map(|entry| (path, entry.last_use()));
        let written = written.into_iter().filter_map(used).collect();
        Ok(Imported { cache, moved, notes, written })
    }

    fn hold(&self, name: &CacheName, how: HoldAs) -> Result<CacheHold, Error> {
        let mut on_wait = |holder: &str| {
            self.reporter
                .warn(format!("the import waits for cache {:?}, which {holder} uses", name.id), None);
        };
        Ok(self.caches.hold(name, how, &self.who("import"), &mut on_wait, self.cancel)?)
    }

    /// Remembers which chunks the files have, so that the next export reads none of them.
    fn note(&self, name: &CacheName, tree: &Tree, generations: &[Digest], data: &Path) -> Result<(), Error> {
        let mut files = Vec::new();
        for (path, entry) in &tree.entries {
            let Kind::File { chunks, size } = &entry.kind else { continue };
            let Ok(stat) = statat(CWD, data.join(path), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let identity = Identity::of(&stat);
            // Another file may have stayed.
            if FileType::from_raw_mode(stat.st_mode).is_file()
                && (identity.size, identity.mtime) == (*size, entry.mtime)
            {
                files.push((path, identity, &chunks[..]));
            }
        }
        let files = files.iter().map(|(path, identity, chunks)| (*path, identity, *chunks));
        Known::write(&self.known(name), known::clock(), generations, files)?;
        Ok(())
    }

    /// Brings all wanted files into a directory. Returns the bytes that were moved.
    fn fill(
        &self,
        index: &Index,
        tree: &Tree,
        depot: &dyn Depot,
        into: &Path,
        wanted: &(dyn Fn(&Path) -> bool + Sync),
        task: &Task<'_>,
    ) -> Result<(u64, Vec<String>), Error> {
        let filling = Filling::begin(into, self.engine.store.ids(), &tree.entries, wanted)?;
        let locations = index.locations();
        let mut files = Vec::new();
        // Which files want a chunk, and where. By its place: another pack may have the same chunk.
        let mut uses: HashMap<Location, Vec<(usize, u64)>> = HashMap::new();
        let mut packs: HashMap<u32, HashSet<u32>> = HashMap::new();
        for (path, entry) in &tree.entries {
            let Kind::File { size, chunks } = &entry.kind else { continue };
            if !wanted(path) {
                continue;
            }
            if *size == 0 {
                filling.empty(path, entry)?;
                continue;
            }
            let mut at = 0;
            for chunk in chunks {
                let place = locations[chunk];
                uses.entry(place).or_default().push((files.len(), at));
                packs.entry(place.pack).or_default().insert(place.frame);
                at += u64::from(place.length);
            }
            files.push(Partial { path, entry, missing: AtomicU64::new(*size) });
        }
        let mut packs: Vec<(u32, HashSet<u32>)> = packs.into_iter().collect();
        packs.sort_by_key(|(pack, _)| *pack);
        let of = |pack: u32| &index.packs[pack as usize];
        let total: u64 = packs.iter().map(|(pack, _)| of(*pack).size).sum();
        let (moved, next, stop) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let failed: Mutex<Option<Error>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..WORKERS.min(packs.len()) {
                scope.spawn(|| {
                    // Once, for the largest: one that grows leaves holes behind it. What is not written to takes no memory.
                    let (mut packed, mut raw) = (buffer(MAX_PACK), buffer(MAX_FRAME));
                    while let Some((number, frames)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.load(Ordering::Relaxed) || self.cancel.is_cancelled() {
                            return;
                        }
                        let (number, pack) = (*number, of(*number));
                        let done = unpack(
                            depot,
                            (number, pack),
                            frames,
                            (&mut packed, &mut raw),
                            &mut |place, bytes| {
                                for (file, at) in uses.get(&place).into_iter().flatten() {
                                    filling.write(&files[*file], *at, bytes)?;
                                }
                                Ok(())
                            },
                        );
                        if let Err(error) = done {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            return;
                        }
                        let now = moved.fetch_add(pack.size, Ordering::Relaxed) + pack.size;
                        task.progress(&tree.id, now, Some(total));
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        if let Some(file) = files.iter().find(|file| file.missing.load(Ordering::Relaxed) != 0) {
            let reason = format!("{:?} does not get all its bytes", file.path);
            return Err(kiln_carry::CarryError::Damaged { reason }.into());
        }
        filling.end(wanted)?;
        let notes = filling.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((moved.into_inner(), notes))
    }
}

/// Room for so many bytes and the one that shows that there are more.
fn buffer(size: u64) -> Vec<u8> {
    Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1)
}

/// Is shown where a chunk is and what it holds.
type See<'a> = dyn FnMut(Location, &[u8]) -> Result<(), IoError> + 'a;

/// Gets a pack and shows the chunks of the frames that are wanted.
fn unpack(
    depot: &dyn Depot,
    (at, pack): (u32, &Pack),
    wanted: &HashSet<u32>,
    (packed, raw): (&mut Vec<u8>, &mut Vec<u8>),
    see: &mut See<'_>,
) -> Result<(), Error> {
    depot.read(&pack.digest, pack.size, false, packed)?;
    for (number, (frame, bytes)) in (0..).zip(Frames::of_verified(pack, packed)?) {
        if !wanted.contains(&number) {
            continue;
        }
        decode_frame(frame, bytes, raw)?;
        let mut place = Location { pack: at, frame: number, at: 0, length: 0 };
        for chunk in &frame.chunks {
            place.length = chunk.length;
            let end = place.at + chunk.length;
            see(place, &raw[place.at as usize..end as usize])?;
            place.at = end;
        }
    }
    Ok(())
}

/// Whether what is there is at least as new as the entry. A directory is never replaced by a file.
fn is_as_new(path: &Path, entry: &Entry) -> bool {
    let Ok(stat) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    FileType::from_raw_mode(stat.st_mode).is_dir() || Identity::of(&stat).mtime >= entry.mtime
}

/// Moves staged files into a cache that has some, each by a rename. Links in the cache are never followed: a step may have
/// made them. Returns what was moved.
fn move_in(
    data: &Path,
    stage: &Stage,
    tree: &Tree,
    files: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>, IoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).at("open", path);
    let (to, from) = (open(data)?, open(stage.path())?);
    let beneath = |path: &Path| {
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&to, name, flags, Mode::empty(), resolve)
    };
    // Directories that the cache lacks come whole from the stage, parents first; then files move one by one.
    let mut moved = Vec::new();
    let mut whole: Option<&Path> = None;
    for (path, entry) in &tree.entries {
        // What is in a directory follows it at once.
        if whole.is_some_and(|dir| path.starts_with(dir)) {
            if entry.kind != Kind::Directory && files.binary_search(path).is_ok() {
                moved.push(path.clone());
            }
            continue;
        }
        let directory = entry.kind == Kind::Directory;
        if path.as_os_str().is_empty() || !directory && files.binary_search(path).is_err() {
            continue;
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let full = data.join(path);
        let dir = match beneath(parent) {
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
                notes.push(format!(
                    "{}: {} is no directory here, so it stays out",
                    tree.id,
                    parent.display()
                ));
                continue;
            }
            dir => dir.at("open", &full)?,
        };
        let name = path.file_name().unwrap_or_default();
        if directory {
            match rustix::fs::renameat_with(&from, path, &dir, name, RenameFlags::NOREPLACE) {
                Ok(()) => whole = Some(path),
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOENT) => {}
                Err(error) => return Err(error).at("move to", full),
            }
            continue;
        }
        if is_as_new(&full, entry) {
            continue;
        }
        match rustix::fs::renameat(&from, path, &dir, name) {
            Ok(()) => moved.push(path.clone()),
            Err(Errno::ISDIR | Errno::NOTEMPTY) => {
                notes.push(format!(
                    "{}: {} is a directory here, so the file stays out",
                    tree.id,
                    path.display()
                ));
            }
            Err(error) => return Err(error).at("move to", full),
        }
    }
    Ok(moved)
}
