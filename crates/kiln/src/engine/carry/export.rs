//! Exporting: what changed since the last generation is packed, the rest is named.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kiln_carry::{Fit, Generation, Index, Kind, Strategy, Tree, fit, heads, keep_packs, union};
use kiln_core::Digest;
use kiln_store::cache_mount::{CacheHold, CacheName, HoldAs};
use rustix::time::Timespec;

use super::depot::{Content, Depot, New};
use super::gather::{Gathered, Wanted, gather};
use super::known::{self, Known};
use super::mend::{is_damage, is_gone, without_lost};
use super::outgoing::Outgoing;
use super::report::{CarriedCache, CarryExport};
use super::tree::{Identity, walk};
use super::{Carrier, load};
use crate::Error;
use crate::engine::build::now;
use crate::engine::reporter::Task;
use crate::request::CarryLimits;

/// So many generations are remembered that a cache's content takes the place of.
const MOST_PARENTS: usize = 16;

/// A cache that is being exported.
struct Taken {
    hold: CacheHold,
    tree: Tree,
    identities: HashMap<PathBuf, Identity>,
    known: Known,
    /// When it was begun to look at it.
    since: Timespec,
}

/// A cache that is given back: what is remembered of it.
struct Seen {
    path: PathBuf,
    /// The memory as it was written then.
    written: Identity,
    identities: HashMap<PathBuf, Identity>,
    since: Timespec,
    /// Generations that its content takes the place of.
    parents: Vec<Digest>,
}

impl Carrier<'_> {
    /// Exports caches to one place as a new generation, on top of those that are there.
    pub(super) fn export(
        &self,
        names: &[CacheName],
        place: &str,
        depot: &dyn Depot,
        limits: &CarryLimits,
        (task, confirm): (&Task<'_>, &dyn Fn() -> Result<(), Error>),
    ) -> Result<CarryExport, Error> {
        let started = Instant::now();
        let pointer = depot.pointer()?;
        let heads: Vec<Generation> = heads(&pointer.generations).into_iter().cloned().collect();
        let mut notes = Vec::new();
        let (loaded, damaged) = match load(depot, place, &heads) {
            Err(error) if is_damage(&error) || is_gone(&error) => {
                notes.push(format!("what {place} had is damaged or gone and was made anew: {error}"));
                (Vec::new(), true)
            }
            loaded => (loaded?, false),
        };
        let mut base = union(loaded, Strategy::Newest);
        let mut taken = Vec::new();
        for name in names {
            taken.push(self.take(name, &mut notes)?);
        }
        let mut trees: Vec<Tree> =
            taken.iter_mut().map(|taken| std::mem::replace(&mut taken.tree, empty())).collect();
        let since = limits.max_age.map(|age| i64::try_from(now().saturating_sub(age)).unwrap_or(0));
        let left_behind = fit(&mut trees, &Fit { since, bytes: limits.max_size });

        let own: Vec<_> = trees.iter().map(|tree| (tree.id.clone(), tree.scope.clone())).collect();
        let is_exported = |tree: &Tree| own.iter().any(|(id, scope)| (id, scope) == (&tree.id, &tree.scope));
        let (mut live, mut bound) = (HashSet::new(), HashSet::new());
        for tree in base.trees.iter().filter(|tree| !is_exported(tree)) {
            bound.extend(chunks(tree));
        }
        for (taken, tree) in taken.iter().zip(&mut trees) {
            taken.look_up(tree);
            live.extend(chunks(tree));
            // Not known, but probably what it was: its chunks count as used.
            if let Some(old) = base.tree(&tree.id, &tree.scope) {
                for (path, entry) in &tree.entries {
                    if let Some(was) = old.entries.get(path)
                        && (was.mtime, was.size()) == (entry.mtime, entry.size())
                        && let Kind::File { chunks, .. } = &was.kind
                    {
                        live.extend(chunks.iter().copied());
                    }
                }
            }
        }
        let all = base.packs.len();
        let lacking = depot.lacks(&base.packs)?;
        base.packs.retain(|pack| !lacking.contains(&pack.digest));
        let keep = keep_packs(&base.packs, &live, &bound);
        let mut keep = keep.into_iter();
        base.packs.retain(|_| keep.next().unwrap_or(true));
        let repacked = base.packs.len() < all;
        let there: HashSet<Digest> = base.locations().into_keys().collect();
        if !lacking.is_empty() {
            without_lost(base.trees.iter_mut().filter(|tree| !is_exported(tree)), &there, &mut notes);
        }

        let mut wanted: Vec<(usize, Wanted)> = Vec::new();
        for (number, (taken, tree)) in taken.iter().zip(&trees).enumerate() {
            for (path, entry) in &tree.entries {
                let Kind::File { size, chunks } = &entry.kind else { continue };
                let whole = !chunks.is_empty() && chunks.iter().all(|chunk| there.contains(chunk));
                if *size > 0
                    && !whole
                    && let Some(identity) = taken.identities.get(path)
                {
                    let wanted_file =
                        Wanted { root: taken.hold.path(), path: path.clone(), identity: *identity };
                    wanted.push((number, wanted_file));
                }
            }
        }
        let files: Vec<Wanted> = wanted.iter().map(|(_, wanted)| wanted.clone()).collect();
        let total: u64 = files.iter().map(|file| file.identity.size).sum();
        let shown = AtomicU64::new(0);
        let sent = |sent, of| task.progress("send", sent, Some(of));
        let outgoing = Outgoing::new(depot, &self.engine.store, &sent, self.cancel);
        let read = std::thread::scope(|scope| {
            for _ in 0..depot.senders() {
                scope.spawn(|| outgoing.send());
            }
            let read = gather(
                &files,
                there,
                limits.level,
                &|pack, bytes| outgoing.take(pack, bytes),
                &|read| {
                    if read >> 24 > shown.fetch_max(read, Ordering::Relaxed) >> 24 || read >= total {
                        task.progress("read", read, Some(total.max(read)));
                    }
                },
                self.cancel,
            );
            outgoing.close(read.as_ref().err());
            let (gathered, packs) = read?;
            for ((number, wanted), gathered) in wanted.iter().zip(gathered) {
                taken[*number].saw(&mut trees[*number], &wanted.path, gathered, &mut notes);
            }
            // All is read: who waits for a cache goes on, while the last packs are sent.
            let seen = taken.into_iter().zip(&trees).map(|(taken, tree)| taken.give_back(self, tree));
            Ok::<_, Error>((seen.collect::<Result<Vec<Seen>, Error>>()?, packs))
        });
        let (seen, packs) = match read {
            // What failed first is what there is to say.
            Err(error) => return Err(outgoing.moved().err().unwrap_or(error)),
            Ok(read) => read,
        };
        let moved = AtomicU64::new(outgoing.moved()?);
        let parents: BTreeSet<Digest> = seen.iter().flat_map(|seen| seen.parents.clone()).collect();
        let heads: BTreeSet<Digest> = heads.iter().map(|head| head.digest).collect();
        let fresh = !packs.is_empty()
            || repacked
            || trees.iter().any(|tree| !is_the_same(base.tree(&tree.id, &tree.scope), tree));
        let caches = trees.iter().map(summary).collect();
        let asked = Instant::now();
        confirm()?;
        let waited = asked.elapsed();
        // One head, and all as it has it: there is nothing to say.
        let generation = if fresh || heads.len() != 1 {
            let replaced = |head: &&Digest| {
                damaged || parents.contains(*head) || heads.len() == 1 && self.is_whole(&base, &trees)
            };
            let replaces: BTreeSet<Digest> = heads.iter().filter(replaced).copied().collect();
            let index = assemble(base, packs, &trees);
            let packed = index.packed();
            let latest = pointer.generations.iter().map(|known| known.time).max().unwrap_or(0);
            let (generation, notes_of) =
                self.publish(depot, &index, replaces, latest, limits.keep, &moved)?;
            notes.extend(notes_of);
            Some((generation, packed))
        } else {
            None
        };
        let packed = generation.as_ref().map_or(0, |(_, packed)| *packed);
        let generation = generation.map(|(generation, _)| generation);
        for (seen, tree) in seen.into_iter().zip(&trees) {
            let mut parents: Vec<Digest> = match generation {
                Some(generation) => vec![generation],
                None => heads.iter().copied().collect(),
            };
            // Those of other places stay known.
            parents.extend(
                seen.parents.iter().filter(|known| !parents.contains(known)).copied().collect::<Vec<_>>(),
            );
            parents.truncate(MOST_PARENTS);
            seen.stands_for(tree, &parents)?;
        }
        Ok(CarryExport {
            place: place.to_owned(),
            generation,
            caches,
            read_files: files.len() as u64,
            moved: moved.into_inner(),
            packed,
            left_behind,
            duration_us: u64::try_from((started.elapsed() - waited).as_micros()).unwrap_or(u64::MAX),
            notes,
        })
    }

    /// Holds a cache and looks at all of it.
    fn take(&self, name: &CacheName, notes: &mut Vec<String>) -> Result<Taken, Error> {
        let who = self.who("export");
        let mut on_wait = |holder: &str| {
            self.reporter
                .warn(format!("the export waits for cache {:?}, which {holder} uses", name.id), None);
        };
        let hold = self.caches.hold(name, HoldAs::Read, &who, &mut on_wait, self.cancel)?;
        let since = known::clock();
        let walked = walk(&hold.path(), self.cancel)?;
        notes.extend(walked.left.iter().map(|left| format!("{}: {left}", name.id)));
        let known = Known::read(&self.known(name));
        let info = self.caches.find(name)?;
        let tree = Tree {
            id: name.id.clone(),
            scope: name.scope_text().to_owned(),
            saved: i64::try_from(now()).unwrap_or(0),
            targets: info.map(|info| info.targets).unwrap_or_default(),
            entries: walked.entries,
        };
        Ok(Taken { hold, tree, identities: walked.identities, known, since })
    }

    pub(super) fn known(&self, name: &CacheName) -> PathBuf {
        let ids = format!("{:?}", self.engine.store.ids());
        known::path(self.engine.store.root(), &ids, &name.id, name.scope_text())
    }

    /// Whether these trees are all that a generation has: then a new one takes its place.
    fn is_whole(&self, base: &Index, trees: &[Tree]) -> bool {
        // Every entry that was there before is there still, or was seen to be gone by whoever had imported it.
        base.trees.iter().all(|old| {
            let new = trees.iter().find(|tree| (&tree.id, &tree.scope) == (&old.id, &old.scope));
            new.is_none_or(|new| old.entries.keys().all(|path| new.entries.contains_key(path)))
        })
    }

    fn publish(
        &self,
        depot: &dyn Depot,
        index: &Index,
        parents: BTreeSet<Digest>,
        latest: i64,
        keep: usize,
        moved: &AtomicU64,
    ) -> Result<(Digest, Vec<String>), Error> {
        let bytes = kiln_carry::write(index)?;
        let listed = (Digest::of(&bytes), bytes.len() as u64);
        moved.fetch_add(depot.put(&listed.0, &Content::Memory(&bytes))?, Ordering::Relaxed);
        let time = i64::try_from(now()).unwrap_or(0).max(latest + 1);
        let packs: Vec<(Digest, u64)> = index.packs.iter().map(|pack| (pack.digest, pack.size)).collect();
        let tag = self.tag(time);
        let mut generation = Generation { digest: listed.0, size: 0, time, tag, parents };
        let (manifest, config) = generation.manifest(listed, &packs);
        (generation.digest, generation.size) = (Digest::of(&manifest), manifest.len() as u64);
        let blobs: Vec<(Digest, u64)> = packs.into_iter().chain([listed]).collect();
        let new = New { generation: &generation, manifest: &manifest, config, blobs: &blobs };
        let published = depot.publish(&new, keep)?;
        Ok((generation.digest, published.notes))
    }
}

impl Taken {
    /// Fills in the chunks of files that are what they were.
    fn look_up(&self, tree: &mut Tree) {
        for (path, entry) in &mut tree.entries {
            if let Kind::File { chunks, .. } = &mut entry.kind
                && let Some(known) =
                    self.identities.get(path).and_then(|identity| self.known.get(path, identity))
            {
                chunks.clone_from(known);
            }
        }
    }

    /// Notes what became of a file that was read.
    fn saw(&mut self, tree: &mut Tree, path: &PathBuf, gathered: Gathered, notes: &mut Vec<String>) {
        match gathered {
            Gathered::Chunks(identity, found) => {
                self.identities.insert(path.clone(), identity);
                if let Some(entry) = tree.entries.get_mut(path) {
                    entry.mtime = identity.mtime;
                    entry.kind = Kind::File { size: identity.size, chunks: found };
                }
            }
            Gathered::Gone => forget(tree, path),
            Gathered::Left(reason) => {
                notes.push(format!("{}: {}: {reason}", tree.id, path.display()));
                forget(tree, path);
            }
        }
    }

    /// Ends the hold, and remembers which chunks the files have as long as it lasts.
    fn give_back(self, carrier: &Carrier<'_>, tree: &Tree) -> Result<Seen, Error> {
        let Self { hold, identities, known, since, .. } = self;
        let path = carrier.known(hold.name());
        let parents = known.parents;
        let written = Known::write(&path, since, &parents, with_chunks(tree, &identities))?;
        drop(hold);
        Ok(Seen { path, written, identities, since, parents })
    }
}

impl Seen {
    /// Remembers which generations have the content. Not if somebody imported or exported the cache meanwhile, who knows better: then
    /// the next export is one of several until they are merged.
    fn stands_for(self, tree: &Tree, parents: &[Digest]) -> Result<(), Error> {
        if Known::is(&self.path, &self.written) {
            Known::write(&self.path, self.since, parents, with_chunks(tree, &self.identities))?;
        }
        Ok(())
    }
}

fn with_chunks<'a>(
    tree: &'a Tree,
    identities: &'a HashMap<PathBuf, Identity>,
) -> impl Iterator<Item = (&'a PathBuf, &'a Identity, &'a [Digest])> {
    tree.entries.iter().filter_map(|(path, entry)| match &entry.kind {
        Kind::File { chunks, .. } => Some((path, identities.get(path)?, &chunks[..])),
        _ => None,
    })
}

fn assemble(mut base: Index, packs: Vec<kiln_carry::Pack>, trees: &[Tree]) -> Index {
    base.trees.retain(|tree| !trees.iter().any(|own| (&own.id, &own.scope) == (&tree.id, &tree.scope)));
    base.trees.extend(trees.iter().cloned());
    base.trees.sort_by(|a, b| (&a.id, &a.scope).cmp(&(&b.id, &b.scope)));
    base.packs.extend(packs);
    base.drop_unused();
    base
}

/// Whether a tree is what an earlier one was. When files were read does not count.
fn is_the_same(old: Option<&Tree>, new: &Tree) -> bool {
    let Some(old) = old else { return false };
    old.entries.len() == new.entries.len()
        && old.entries.iter().zip(&new.entries).all(|((path, a), (other, b))| {
            let same =
                (&a.kind, a.mode, a.uid, a.gid, &a.xattrs) == (&b.kind, b.mode, b.uid, b.gid, &b.xattrs);
            path == other && same && (a.mtime == b.mtime || a.kind == Kind::Directory)
        })
}

fn forget(tree: &mut Tree, path: &PathBuf) {
    tree.entries.remove(path);
    tree.entries.retain(|_, entry| !matches!(&entry.kind, Kind::Hard { to } if to == path));
}

fn chunks(tree: &Tree) -> impl Iterator<Item = Digest> {
    let of = |entry: &kiln_carry::Entry| match &entry.kind {
        Kind::File { chunks, .. } => chunks.clone(),
        _ => Vec::new(),
    };
    tree.entries.values().flat_map(of)
}

pub(super) fn summary(tree: &Tree) -> CarriedCache {
    let (id, scope) = (tree.id.clone(), tree.scope.clone());
    CarriedCache { id, scope, files: tree.files(), bytes: tree.bytes(), used: None }
}

fn empty() -> Tree {
    let (id, scope, saved, targets, entries) = Default::default();
    Tree { id, scope, saved, targets, entries }
}
