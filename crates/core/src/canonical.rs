//! The one encoding that everything hashed goes through.
//!
//! Integers are 8 bytes little-endian; strings, byte strings and lists carry their length first; enum variants
//! carry a number that never changes. So no two different values share an encoding by accident: rolling keys
//! together without framing gave kaniko key collisions
//! (<https://github.com/osscontainertools/kaniko>, `FF_KANIKO_*` key flags).

use crate::{Digest, DigestHasher};

/// Changes whenever the encoding of anything changes; all keys change with it.
pub const ENCODING_VERSION: u64 = 2;

/// What an encoding is for: a step's identity in a graph, or its key in the cache.
///
/// They differ in what they leave out (docs/cache-keys.md has the table): a cache mount's id and sharing are part
/// of what a step is, but not of what it produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For [`StepId`](crate::StepId).
    Id,
    /// For the cache key.
    Key,
}

/// A value with a canonical encoding.
pub trait Encode {
    /// Appends the encoding of `self`.
    fn encode(&self, out: &mut Canonical);
}

/// Collects a canonical encoding and hashes it on the way.
#[derive(Debug)]
pub struct Canonical {
    hasher: DigestHasher,
}

impl Canonical {
    /// Starts an encoding of one kind of thing; `domain` keeps kinds apart.
    pub fn new(domain: &str) -> Self {
        let mut out = Self { hasher: DigestHasher::new() };
        out.str("kiln").u64(ENCODING_VERSION).str(domain);
        out
    }

    /// Appends an integer.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.hasher.update(&value.to_le_bytes());
        self
    }

    /// Appends a truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u64(u64::from(value))
    }

    /// Appends a byte string, its length first.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u64(value.len() as u64);
        self.hasher.update(value);
        self
    }

    /// Appends a string, its length first.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Appends a digest.
    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Appends a value.
    pub fn value(&mut self, value: &impl Encode) -> &mut Self {
        value.encode(self);
        self
    }

    /// Appends whether there is a value, then the value.
    pub fn option<T>(&mut self, value: Option<&T>, encode: impl FnOnce(&T, &mut Self)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            encode(value, self);
        }
        self
    }

    /// Appends the number of items, then each.
    pub fn list<T>(&mut self, items: &[T], mut encode: impl FnMut(&T, &mut Self)) -> &mut Self {
        self.u64(items.len() as u64);
        for item in items {
            encode(item, self);
        }
        self
    }

    /// Returns the digest of all that was appended.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Canonical) {
        out.str(self);
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Canonical) {
        out.str(self);
    }
}

impl Encode for Digest {
    fn encode(&self, out: &mut Canonical) {
        out.digest(self);
    }
}
