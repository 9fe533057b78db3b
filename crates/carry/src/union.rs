//! Several generations as one, and what of earlier packs is worth keeping.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::str::FromStr;

use kiln_core::Digest;
use serde::{Deserialize, Serialize};

use crate::{Generation, Index, Kind, Pack, Tree};

/// Which generations count where several writers made one each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// All that none takes the place of: of each path, the file that was modified last.
    #[default]
    Merge,
    /// Of each cache, the one that was saved last.
    Newest,
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "merge" => Ok(Self::Merge),
            "newest" => Ok(Self::Newest),
            _ => Err(format!("{text:?} is no strategy: there are merge and newest")),
        }
    }
}

/// Returns the generations that no other one takes the place of.
pub fn heads(generations: &[Generation]) -> Vec<&Generation> {
    let replaced: BTreeSet<&Digest> = generations.iter().flat_map(|generation| &generation.parents).collect();
    generations.iter().filter(|generation| !replaced.contains(&generation.digest)).collect()
}

/// Makes one index of several, newest first.
pub fn union(indexes: Vec<Index>, strategy: Strategy) -> Index {
    let mut all = Index::default();
    let mut seen = HashSet::new();
    for index in indexes {
        for tree in index.trees {
            match all.trees.iter_mut().find(|known| (&known.id, &known.scope) == (&tree.id, &tree.scope)) {
                None => all.trees.push(tree),
                Some(known) if strategy == Strategy::Newest => {
                    if tree.saved > known.saved {
                        *known = tree;
                    }
                }
                Some(known) => merge(known, tree),
            }
        }
        all.packs.extend(index.packs.into_iter().filter(|pack| seen.insert(pack.digest)));
    }
    all.trees.sort_by(|a, b| (&a.id, &a.scope).cmp(&(&b.id, &b.scope)));
    all
}

/// Puts another tree's entries into one, where they are newer or there is none.
fn merge(into: &mut Tree, from: Tree) {
    let mut left_out: Vec<PathBuf> = Vec::new();
    for (path, entry) in from.entries {
        if left_out.iter().any(|out| path.starts_with(out)) {
            continue;
        }
        match into.entries.get(&path) {
            None => {}
            Some(known) if (known.kind == Kind::Directory) != (entry.kind == Kind::Directory) => {
                // One cannot stand over the other: what was saved last stays, with all that is in it.
                if from.saved <= into.saved {
                    left_out.push(path);
                    continue;
                }
                into.entries.retain(|other, _| !other.starts_with(&path));
            }
            Some(known) if known.mtime >= entry.mtime => continue,
            Some(_) => {}
        }
        into.entries.insert(path, entry);
    }
    // A hard link whose file came from elsewhere, or went, is that file no more.
    loop {
        let is_file =
            |path: &PathBuf| into.entries.get(path).is_some_and(|e| matches!(e.kind, Kind::File { .. }));
        let broken: Vec<PathBuf> = into
            .entries
            .iter()
            .filter(|(path, entry)| matches!(&entry.kind, Kind::Hard { to } if to >= *path || !is_file(to)))
            .map(|(path, _)| path.clone())
            .collect();
        if broken.is_empty() {
            break;
        }
        for path in broken {
            into.entries.remove(&path);
        }
    }
    into.saved = into.saved.max(from.saved);
    for target in from.targets {
        if !into.targets.contains(&target) {
            into.targets.push(target);
        }
    }
}

/// Below this many bytes a pack is small.
const SMALL: u64 = 1 << 20;
/// So many small packs may stand beside the others.
const MANY: usize = 24;

/// Returns which packs are worth keeping. `live` are the chunks that are probably still used, `bound` those that must stay
/// where they are because nobody here could pack them again. A pack of which less than half is used goes, and so do
/// small packs when there are many: each export leaves one.
pub fn keep_packs(packs: &[Pack], live: &HashSet<Digest>, bound: &HashSet<Digest>) -> Vec<bool> {
    let mut used: Vec<(u64, u64, bool)> = Vec::with_capacity(packs.len());
    let mut counted: HashSet<Digest> = HashSet::new();
    for pack in packs {
        let (mut of, mut all, mut stays) = (0_u64, 0_u64, false);
        for chunk in pack.frames.iter().flat_map(|frame| &frame.chunks) {
            all += u64::from(chunk.length);
            // What an earlier pack has, too, is of no use here.
            if (live.contains(&chunk.id) || bound.contains(&chunk.id)) && counted.insert(chunk.id) {
                of += u64::from(chunk.length);
                stays |= bound.contains(&chunk.id);
            }
        }
        used.push((of, all, stays));
    }
    let small = packs.iter().filter(|pack| pack.size < SMALL).count();
    let worth = |(pack, (of, all, stays)): (&Pack, &(u64, u64, bool))| {
        *stays || (of * 2 >= *all && *of > 0 && (small <= MANY || pack.size >= SMALL))
    };
    packs.iter().zip(&used).map(worth).collect()
}

impl Index {
    /// Drops the packs that no entry needs.
    pub fn drop_unused(&mut self) {
        let wanted: HashSet<Digest> = self
            .trees
            .iter()
            .flat_map(|tree| tree.entries.values())
            .filter_map(|entry| match &entry.kind {
                Kind::File { chunks, .. } => Some(chunks),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        let locations: HashMap<Digest, _> = self.locations();
        let used: HashSet<u32> =
            locations.iter().filter(|(id, _)| wanted.contains(*id)).map(|(_, at)| at.pack).collect();
        let mut number = 0;
        self.packs.retain(|_| {
            number += 1;
            used.contains(&(number - 1))
        });
    }
}
