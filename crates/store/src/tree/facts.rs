//! What is kept of a selection's files, to say later which of them changed: "src/a.py mode 0664 -> 0644".
//!
//! A content digest says only that something changed. Facts are one entry a file, sorted by path, made of what the
//! selection knows already, so that they cost no system call; 50,000 files take about 2 MB. They hold exactly what the
//! digest of the same rule counts: where two digests differ, so do the facts, and facts may be kept by the digest.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Canonical, Digest, IoError};

use super::digest::DigestRule;
use super::selected::Selected;
use super::stat::{Kind, kind_of};
use super::xattr::Which;

/// Bytes of all paths together: those of two million files.
const MOST_PATHS: usize = 256 << 20;
const MAGIC: &[u8; 8] = b"kilnfct1";
/// Bytes of an entry behind its path: mode, owner, group, attributes, content.
const FIXED: usize = 4 + 4 + 4 + 8 + 16;

/// What is known of the files of a selection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(Vec<Fact>);

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Relative to the source's root, so as a user writes it.
    pub path: PathBuf,
    /// Type and permission bits; of the latter none where they do not count.
    mode: u32,
    owner: (u32, u32),
    /// Of names and values of extended attributes; zero if there are none.
    attributes: [u8; 8],
    /// Of a file's content, a link's target, a device's number; zero for all else.
    content: [u8; 16],
}

/// A file that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Relative to the source's root.
    pub path: PathBuf,
    /// In which way.
    pub what: Changed,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is of another type.
    Kind {
        /// Before.
        was: Kind,
        /// Now.
        is: Kind,
    },
    /// It differs in one or several of these.
    Parts {
        /// Permission bits before and now.
        mode: Option<(u32, u32)>,
        /// User and group before and now.
        owner: Option<((u32, u32), (u32, u32))>,
        /// Extended attributes.
        attributes: bool,
        /// Content of a file, target of a link, number of a device.
        content: bool,
    },
}

impl Changed {
    /// Whether nothing but permission bits differs: what another umask does.
    pub fn is_mode_only(&self) -> bool {
        matches!(self, Self::Parts { mode: Some(_), owner: None, attributes: false, content: false })
    }
}

impl Fact {
    /// Returns its type.
    pub fn kind(&self) -> Kind {
        kind_of(self.mode)
    }

    /// Returns its permission bits, 0 where they do not count.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    fn changed(&self, now: &Self) -> Option<Changed> {
        if self.kind() != now.kind() {
            return Some(Changed::Kind { was: self.kind(), is: now.kind() });
        }
        let (was, is) = (self.permissions(), now.permissions());
        (self != now).then(|| Changed::Parts {
            mode: (was != is).then_some((was, is)),
            owner: (self.owner != now.owner).then_some((self.owner, now.owner)),
            attributes: self.attributes != now.attributes,
            content: self.content != now.content,
        })
    }
}

impl Selected {
    /// Returns what the digest of the same rule counts, file by file.
    ///
    /// # Errors
    /// A file cannot be read, if its digest was not needed so far.
    pub fn facts(&self, rule: DigestRule) -> Result<Facts, IoError> {
        self.hash_contents()?;
        let mut facts = Vec::with_capacity(self.entries.len());
        for m in &self.matches {
            let is_dir = self.entry(m.entry).kind() == Kind::Dir;
            if rule.whole || !is_dir {
                facts.push(self.fact(m.entry, &m.path, rule));
            }
            let mut path = m.path.clone();
            self.facts_below(m.entry, &mut path, rule, &mut facts);
        }
        // In order already, but for matches that lead through links.
        facts.sort_by(|a, b| in_order(&a.path, &b.path));
        facts.dedup_by(|a, b| a.path == b.path);
        Ok(Facts(facts))
    }

    fn facts_below(&self, id: u32, path: &mut PathBuf, rule: DigestRule, facts: &mut Vec<Fact>) {
        for child in self.live_children(id) {
            path.push(self.name(child));
            facts.push(self.fact(child, path, rule));
            self.facts_below(child, path, rule, facts);
            path.pop();
        }
    }

    fn fact(&self, id: u32, path: &Path, rule: DigestRule) -> Fact {
        let entry = self.entry(id);
        let mut content = [0; 16];
        match entry.kind() {
            Kind::File | Kind::Symlink => {
                let digest = entry.digest.get().expect("hash_contents came before");
                content.copy_from_slice(&digest[..16]);
            }
            Kind::CharDevice | Kind::BlockDevice => {
                content[..8].copy_from_slice(&entry.stat.size.to_le_bytes());
            }
            Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
        let xattrs = self.xattrs_of(id).unwrap_or_default();
        let seen = xattrs.iter().filter(|(name, _)| rule.owners || Which::Portable.wants(name));
        let mut attributes = [0; 8];
        let seen: Vec<_> = seen.collect();
        if !seen.is_empty() {
            let mut out = Canonical::new("attributes");
            out.list(&seen, |(name, value), out| {
                out.bytes(name).bytes(value);
            });
            attributes.copy_from_slice(&out.finish().as_bytes()[..8]);
        }
        let permissions = if rule.modes && entry.kind() != Kind::Symlink { entry.mode & 0o7777 } else { 0 };
        Fact {
            path: path.to_owned(),
            mode: entry.mode & 0o170_000 | permissions,
            owner: if rule.owners { (entry.uid, entry.gid) } else { (0, 0) },
            attributes,
            content,
        }
    }
}

impl Facts {
    /// Returns each file, sorted by path: by name in each directory, directories before what they hold.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter()
    }

    /// Returns how many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what differs in `now`, sorted by path. A directory that is new or gone comes with all that is in it.
    pub fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = FileChange> + 'a {
        Changes { was: self.0.iter().peekable(), is: now.0.iter().peekable() }
    }

    /// Returns them as bytes to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.0.len() * (FIXED + 16));
        let mut before: &[u8] = b"";
        for fact in &self.0 {
            let path = fact.path.as_os_str().as_bytes();
            let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            for length in [shared, path.len() - shared] {
                // Paths of a walk can be longer than PATH_MAX, but not than this.
                body.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()[..3]);
            }
            body.extend_from_slice(&path[shared..]);
            for number in [fact.mode, fact.owner.0, fact.owner.1] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            body.extend_from_slice(&fact.attributes);
            body.extend_from_slice(&fact.content);
            before = path;
        }
        let mut bytes = Vec::with_capacity(40 + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(Digest::of(&body).as_bytes());
        bytes.append(&mut body);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; none if it is damaged or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(40)?;
        if head[..8] != *MAGIC || head[8..] != *Digest::of(rest).as_bytes() {
            return None;
        }
        let mut facts = Vec::new();
        let mut path = Vec::new();
        let mut all = 0;
        while !rest.is_empty() {
            path.truncate(length(&mut rest)?);
            let added = length(&mut rest)?;
            path.extend_from_slice(take(&mut rest, added)?);
            all += path.len();
            // It may be of somebody else: a few bytes can repeat a long path many times.
            if all > MOST_PATHS {
                return None;
            }
            let mut number = || Some(u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?));
            let (mode, owner) = (number()?, (number()?, number()?));
            let attributes = *take(&mut rest, 8)?.first_chunk()?;
            let content = *take(&mut rest, 16)?.first_chunk()?;
            facts.push(Fact { path: OsStr::from_bytes(&path).into(), mode, owner, attributes, content });
        }
        Some(Self(facts))
    }
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let [a, b, c] = *take(rest, 3)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes([a, b, c, 0])).ok()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

struct Changes<'a> {
    was: Peekable<std::slice::Iter<'a, Fact>>,
    is: Peekable<std::slice::Iter<'a, Fact>>,
}

impl Iterator for Changes<'_> {
    type Item = FileChange;

    fn next(&mut self) -> Option<FileChange> {
        loop {
            let order = match (self.was.peek(), self.is.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(was), Some(is)) => in_order(&was.path, &is.path),
            };
            let (path, what) = match order {
                Ordering::Less => (&self.was.next()?.path, Changed::Removed),
                Ordering::Greater => (&self.is.next()?.path, Changed::Added),
                Ordering::Equal => {
                    let (was, is) = (self.was.next()?, self.is.next()?);
                    match was.changed(is) {
                        Some(what) => (&is.path, what),
                        None => continue,
                    }
                }
            };
            return Some(FileChange { path: path.clone(), what });
        }
    }
}

/// By name in each directory, and a directory before what is in it: as a walk goes.
fn in_order(a: &Path, b: &Path) -> Ordering {
    // A slash comes before all that a name can hold.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let (a, b) = (a.as_os_str().as_bytes(), b.as_os_str().as_bytes());
    a.iter().map(rank).cmp(b.iter().map(rank))
}
