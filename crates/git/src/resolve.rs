//! From a name to a commit.

use std::fmt;
use std::str::FromStr;

use gix_hash::ObjectId;
use serde::{Deserialize, Serialize};

use crate::greeting::{Lines, Version};
use crate::location::{Location, Reach};
use crate::refs::{self, Ref};
use crate::transport::Service;
use crate::{Access, GitError, local, pkt};

/// The id of a commit: 40 lower-case hexadecimal digits, the SHA-1 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId([u8; 20]);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for CommitId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let id = ObjectId::from_hex(text.as_bytes()).ok().filter(|_| lower && text.len() == 40);
        id.map(Self::from).ok_or_else(|| format!("{text:?} is no id of a commit"))
    }
}

impl TryFrom<String> for CommitId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> Self {
        id.to_string()
    }
}

impl From<ObjectId> for CommitId {
    fn from(id: ObjectId) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&id.as_slice()[..20]);
        Self(bytes)
    }
}

impl From<CommitId> for ObjectId {
    fn from(id: CommitId) -> Self {
        Self::from_bytes_or_panic(&id.0)
    }
}

/// What a name means now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The commit. Where it was asked for by its id, nobody has looked yet whether it is there, and whether it is a
    /// commit and not an annotated tag.
    pub commit: CommitId,
    /// The object of an annotated tag that points to it.
    pub tag: Option<CommitId>,
    /// `refs/heads/main`, `refs/tags/v1`; none where it was asked for by its id.
    pub full_ref: Option<String>,
}

impl Resolved {
    /// Whether a checksum, which may be the beginning of an id, is of the commit, or of the tag that leads to it.
    pub fn matches(&self, checksum: &str) -> bool {
        let checksum = checksum.to_ascii_lowercase();
        let begins = |id: &CommitId| id.to_string().starts_with(&checksum);
        begins(&self.commit) || self.tag.as_ref().is_some_and(begins)
    }
}

/// Asks a remote what a reference means: a full commit id itself, without a request; else a ref, a branch or a tag,
/// in this order; nothing means the remote's default branch.
///
/// # Errors
/// The remote cannot be asked, or has no such name.
pub fn resolve(access: &Access<'_>, remote: &str, reference: Option<&str>) -> Result<Resolved, GitError> {
    if let Some(commit) = reference.and_then(|reference| reference.parse().ok()) {
        return Ok(Resolved { commit, tag: None, full_ref: None });
    }
    let location = Location::parse(remote)?;
    let wanted = match reference {
        Some(reference) => refs::candidates(reference),
        None => vec!["HEAD".to_owned()],
    };
    let known = list(access, &location, &wanted)?;
    if let Some(found) = refs::find(&known, reference) {
        return Ok(resolved(found));
    }
    let remote = location.name.clone();
    // Only now all names are worth their bytes.
    let all = list(access, &location, &["refs/heads/".to_owned(), "refs/tags/".to_owned()])?;
    match reference {
        _ if all.is_empty() => Err(GitError::Empty { remote }),
        Some(reference) => {
            let near = refs::near(&all, reference);
            Err(GitError::NoSuchRef { remote, reference: reference.to_owned(), near })
        }
        None => {
            let near = refs::near(&all, "main");
            Err(GitError::NoSuchRef { remote, reference: "HEAD".to_owned(), near })
        }
    }
}

fn resolved(found: &Ref) -> Resolved {
    let commit = found.peeled.unwrap_or(found.id).into();
    let full_ref = found.target.clone().unwrap_or_else(|| found.name.clone());
    Resolved { commit, tag: found.peeled.map(|_| found.id.into()), full_ref: Some(full_ref) }
}

/// Asks for refs that begin so; an old server sends all.
pub(crate) fn list(
    access: &Access<'_>,
    location: &Location,
    prefixes: &[String],
) -> Result<Vec<Ref>, GitError> {
    if let Reach::File(path) = &location.reach {
        return local::Repository::open(access, location, path)?.refs();
    }
    let mut service = Service::connect(access, location)?;
    list_from(access, &mut service, prefixes)
}

pub(crate) fn list_from(
    access: &Access<'_>,
    service: &mut Service<'_>,
    prefixes: &[String],
) -> Result<Vec<Ref>, GitError> {
    if service.greeting.version == Version::Zero {
        return Ok(service.greeting.refs.clone());
    }
    let mut request = Vec::new();
    pkt::line(&mut request, "command=ls-refs");
    if service.greeting.has("object-format") {
        pkt::line(&mut request, "object-format=sha1");
    }
    request.extend_from_slice(pkt::DELIMITER);
    pkt::line(&mut request, "peel");
    pkt::line(&mut request, "symrefs");
    for prefix in prefixes {
        pkt::line(&mut request, &format!("ref-prefix {prefix}"));
    }
    request.extend_from_slice(pkt::FLUSH);
    let location = service.location;
    let mut answer = service.ask(request)?;
    let mut lines = Lines { reader: &mut answer, location, cancel: &access.cancel, read: 0 };
    let mut found = Vec::new();
    while let Some(line) = lines.next()? {
        let parsed = std::str::from_utf8(&line).ok().and_then(parse);
        match parsed {
            Some(one) => found.extend(one),
            // A name that is not UTF-8 is nobody's in a Dockerfile.
            None if std::str::from_utf8(&line).is_err() => {}
            None => return Err(lines.wrong("a ref that is none")),
        }
    }
    Ok(found)
}

/// `ID NAME [symref-target:NAME] [peeled:ID]`; a branch without a commit has `unborn` for its id.
fn parse(line: &str) -> Option<Option<Ref>> {
    let mut words = line.split(' ');
    let (id, name) = (words.next()?, words.next()?);
    if id == "unborn" {
        return Some(None);
    }
    let id = ObjectId::from_hex(id.as_bytes()).ok()?;
    let mut found = Ref { name: name.to_owned(), id, peeled: None, target: None };
    for word in words {
        if let Some(target) = word.strip_prefix("symref-target:") {
            found.target = Some(target.to_owned());
        } else if let Some(peeled) = word.strip_prefix("peeled:") {
            found.peeled = Some(ObjectId::from_hex(peeled.as_bytes()).ok()?);
        }
    }
    Some(Some(found))
}
