//! A directory's entries in another order than the kernel's: pure.
//!
//! A position in it is made of an entry's name, as ext4 makes its own: whoever goes on from one finds its place in a later listing of
//! the same directory as well, whatever was made or removed meanwhile. It fits into the 31 bits that every file system lets
//! a directory be sought to (tmpfs, ext4 without an index) and that getdents(2) of 32-bit programs has.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use kiln_core::DirectoryOrder;
use rustix::io::Errno;

/// Behind the last entry.
pub(super) const END: u32 = 0x7fff_ffff;

/// Names whose positions are the same are put behind each other; so many of them there can never be.
const ROOM: u32 = 1 << 24;

/// How the kernel writes an entry into a program's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dirent {
    /// `struct linux_dirent64`, the same for every program.
    Fixed,
    /// `struct linux_dirent` with numbers of 64 bits, the kind in its last byte: getdents(2).
    Long,
    /// The same of a 32-bit program.
    Short,
}

/// An entry as the kernel gives it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    inode: u64,
    /// Where its name is among the names.
    start: usize,
    length: u8,
    /// `DT_*`.
    kind: u8,
    position: u32,
}

/// All entries of a directory at one time.
#[derive(Debug, Default)]
pub(super) struct Listing {
    names: Vec<u8>,
    /// In the order in which they are told.
    entries: Vec<Entry>,
    /// Their numbers by position.
    places: Vec<(u32, u32)>,
}

impl Listing {
    /// Takes up an entry, in the kernel's order. The name is no longer than 255 bytes, as any is.
    pub(super) fn push(&mut self, name: &[u8], inode: u64, kind: u8) {
        let name = &name[..name.len().min(255)];
        let (start, length) = (self.names.len(), u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.names.extend_from_slice(name);
        self.entries.push(Entry { inode, start, length, kind, position: 0 });
    }

    /// Puts all in order, once they are there.
    pub(super) fn arrange(&mut self, order: DirectoryOrder) {
        let key = match order {
            DirectoryOrder::Reversed => 0,
            DirectoryOrder::Shuffled { key } => key,
        };
        for at in 0..self.entries.len() {
            self.entries[at].position = position(self.name(&self.entries[at]), key);
        }
        let mut by_position: Vec<u32> = (0..).take(self.entries.len()).collect();
        by_position.sort_unstable_by_key(|&at| {
            let entry = &self.entries[at as usize];
            (entry.position, self.name(entry))
        });
        let mut last = 0;
        for &at in &by_position {
            let entry = &mut self.entries[at as usize];
            entry.position = entry.position.max(last + 1);
            last = entry.position;
        }
        match order {
            DirectoryOrder::Reversed => self.entries.reverse(),
            DirectoryOrder::Shuffled { .. } => self.entries.sort_unstable_by_key(|entry| entry.position),
        }
        self.places = (0..).zip(&self.entries).map(|(at, entry)| (entry.position, at)).collect();
        self.places.sort_unstable();
    }

    /// Returns the number of the entry that follows a position; none if the entry that was there is not in this listing.
    pub(super) fn after(&self, position: u64) -> Option<usize> {
        if position == 0 {
            return Some(0);
        }
        let position = u32::try_from(position).ok()?;
        let at = self.places.binary_search_by_key(&position, |(known, _)| *known).ok()?;
        Some(self.places[at].1 as usize + 1)
    }

    /// Lays out entries from a number on, as many as fit; returns them with the position behind them.
    ///
    /// # Errors
    /// As getdents(2): the first does not fit, or its number does not fit into 32 bits.
    pub(super) fn lay_out(&self, from: usize, size: usize, form: Dirent) -> Result<(Vec<u8>, u32), Errno> {
        let (mut bytes, mut position) = (Vec::new(), END);
        for (at, entry) in self.entries.iter().enumerate().skip(from) {
            let next = if at + 1 == self.entries.len() { END } else { entry.position };
            match form.lay_out(entry, self.name(entry), next) {
                Ok(laid) if bytes.len() + laid.len() <= size => bytes.extend(laid),
                Ok(_) if bytes.is_empty() => return Err(Errno::INVAL),
                Err(error) if bytes.is_empty() => return Err(error),
                _ => break,
            }
            position = next;
        }
        Ok((bytes, position))
    }

    /// Bytes of memory that it takes.
    pub(super) fn size(&self) -> usize {
        self.names.capacity() + self.entries.len() * (size_of::<Entry>() + size_of::<(u32, u32)>())
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.start..entry.start + usize::from(entry.length)]
    }
}

/// From 1 on: 0 is the beginning.
fn position(name: &[u8], key: u64) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(key);
    hasher.write(name);
    u32::try_from(hasher.finish() % u64::from(END - ROOM)).unwrap_or(0) + 1
}

impl Dirent {
    /// <https://elixir.bootlin.com/linux/latest/source/fs/readdir.c>: filldir64, filldir, compat_filldir.
    fn lay_out(self, entry: &Entry, name: &[u8], next: u32) -> Result<Vec<u8>, Errno> {
        let (head, align) = match self {
            Self::Fixed => (19, 8),
            Self::Long => (18, 8),
            Self::Short => (10, 4),
        };
        // The name ends with a zero; behind it, in the older forms, stands the kind.
        let old = self != Self::Fixed;
        let length = (head + name.len() + 1 + usize::from(old)).next_multiple_of(align);
        let mut laid = Vec::with_capacity(length);
        match self {
            Self::Short => {
                laid.extend(u32::try_from(entry.inode).map_err(|_| Errno::OVERFLOW)?.to_ne_bytes());
                laid.extend(next.to_ne_bytes());
            }
            Self::Fixed | Self::Long => {
                laid.extend(entry.inode.to_ne_bytes());
                laid.extend(u64::from(next).to_ne_bytes());
            }
        }
        laid.extend(u16::try_from(length).map_err(|_| Errno::OVERFLOW)?.to_ne_bytes());
        if !old {
            laid.push(entry.kind);
        }
        laid.extend_from_slice(name);
        laid.resize(length, 0);
        if old {
            laid[length - 1] = entry.kind;
        }
        Ok(laid)
    }
}

#[cfg(test)]
mod tests;
