//! An environment: variables in order, cheap to keep many of.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Canonical, Digest, Encode};

/// Entries that share one allocation and one digest.
const CHUNK: usize = 32;

/// Variables in order, each name once.
///
/// Every RUN of a Dockerfile carries the whole environment in effect, which grows with the file. So entries lie in
/// chunks that clones share, and a chunk's digest is computed once: a step more costs what has changed since the last.
#[derive(Clone, Default)]
pub struct Env {
    /// All but the last are full.
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Clone, Default)]
struct Chunk {
    entries: Vec<(String, String)>,
    digest: OnceLock<Digest>,
}

impl Env {
    /// Starts without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of variables.
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.entries.len())
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Goes through all pairs in order.
    pub fn iter(&self) -> EnvIter<'_> {
        EnvIter { env: self, next: 0 }
    }

    /// Returns all pairs in order.
    pub fn to_vec(&self) -> Vec<(String, String)> {
        self.iter().cloned().collect()
    }

    /// Returns the pair at a place.
    pub fn at(&self, place: usize) -> Option<&(String, String)> {
        self.chunks.get(place / CHUNK)?.entries.get(place % CHUNK)
    }

    /// Returns the places where this has another pair than `other`, or `other` has none. What both share is not looked at.
    pub fn places_that_differ(&self, other: &Self) -> Vec<usize> {
        let mut places = Vec::new();
        for (number, chunk) in self.chunks.iter().enumerate() {
            let before = other.chunks.get(number);
            if before.is_some_and(|before| Arc::ptr_eq(before, chunk)) {
                continue;
            }
            let differs = |(place, pair): (usize, &(String, String))| {
                let same = before.and_then(|before| before.entries.get(place)) == Some(pair);
                (!same).then_some(number * CHUNK + place)
            };
            places.extend(chunk.entries.iter().enumerate().filter_map(differs));
        }
        places
    }

    /// Puts a pair at a place, which is one of a pair or right behind the last. The caller sees to it that names stay different.
    ///
    /// # Panics
    /// If the place is behind that.
    pub fn put(&mut self, place: usize, name: impl Into<String>, value: impl Into<String>) {
        if place == self.len() {
            self.push(name, value);
        } else {
            let entries = Arc::make_mut(&mut self.chunks[place / CHUNK]).entries_mut();
            entries[place % CHUNK] = (name.into(), value.into());
        }
    }

    /// Keeps the first so many variables.
    pub fn truncate(&mut self, length: usize) {
        self.chunks.truncate(length.div_ceil(CHUNK));
        let left = length % CHUNK;
        if left > 0
            && self.len() > length
            && let Some(last) = self.chunks.last_mut()
        {
            Arc::make_mut(last).entries_mut().truncate(left);
        }
    }

    /// Appends a variable and returns its place. The caller sees to it that the name is new.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) -> usize {
        if self.chunks.last().is_none_or(|last| last.entries.len() == CHUNK) {
            self.chunks.push(Arc::default());
        }
        if let Some(last) = self.chunks.last_mut() {
            Arc::make_mut(last).entries_mut().push((name.into(), value.into()));
        }
        self.len() - 1
    }

    /// Gives the variable at a place another value.
    ///
    /// # Panics
    /// If there is no variable at that place.
    pub fn set_at(&mut self, place: usize, value: impl Into<String>) {
        Arc::make_mut(&mut self.chunks[place / CHUNK]).entries_mut()[place % CHUNK].1 = value.into();
    }
}

/// See [`Env::iter`].
#[derive(Debug, Clone)]
pub struct EnvIter<'a> {
    env: &'a Env,
    next: usize,
}

impl<'a> Iterator for EnvIter<'a> {
    type Item = &'a (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.env.at(self.next)?;
        self.next += 1;
        Some(entry)
    }
}

impl<'a> IntoIterator for &'a Env {
    type Item = &'a (String, String);
    type IntoIter = EnvIter<'a>;

    fn into_iter(self) -> EnvIter<'a> {
        self.iter()
    }
}

impl FromIterator<(String, String)> for Env {
    /// Collects pairs whose names differ.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut env = Self::new();
        for (name, value) in pairs {
            env.push(name, value);
        }
        env
    }
}

impl PartialEq for Env {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Chunk>, &Arc<Chunk>)| Arc::ptr_eq(a, b) || a.entries == b.entries;
        self.chunks.len() == other.chunks.len() && self.chunks.iter().zip(&other.chunks).all(same)
    }
}

impl Eq for Env {}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value))).finish()
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

impl Encode for Env {
    /// The number of variables, then the digest of every chunk.
    fn encode(&self, out: &mut Canonical) {
        out.u64(self.len() as u64);
        for chunk in &self.chunks {
            out.digest(chunk.digest());
        }
    }
}

impl Chunk {
    fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| {
            let mut out = Canonical::new("env");
            out.list(&self.entries, |(name, value), out| {
                out.str(name).str(value);
            });
            out.finish()
        })
    }

    /// Returns the entries for writing.
    fn entries_mut(&mut self) -> &mut Vec<(String, String)> {
        self.digest = OnceLock::new();
        &mut self.entries
    }
}
