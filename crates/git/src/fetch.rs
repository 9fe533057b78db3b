//! Getting the objects of one commit.

mod sideband;

use std::path::Path;

use gix_hash::ObjectId;

use crate::fetch::sideband::Sideband;
use crate::greeting::{Lines, Version};
use crate::location::{Location, Reach};
use crate::pack::Objects;
use crate::pkt::{self, Packet};
use crate::transport::Service;
use crate::{Access, GitError, Progress, Resolved, local, resolve};

/// A commit with all its files, and perhaps more.
pub(crate) struct Fetched {
    pub(crate) objects: Objects,
    /// Commits whose parents are not there.
    pub(crate) shallow: Vec<ObjectId>,
}

/// Whose history comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    None,
    All,
}

/// Fetches a commit into a pack in `directory`, which exists.
///
/// Servers may refuse what no name points to; then all names are fetched with all their history, and the commit may be in
/// there. <https://git-scm.com/docs/git-config#Documentation/git-config.txt-uploadpackallowReachableSHA1InWant>
pub(crate) fn fetch(
    access: &Access<'_>,
    location: &Location,
    wanted: &Resolved,
    directory: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, GitError> {
    progress(Progress::Fetching { remote: &location.name });
    // An annotated tag brings its commit along, and is what a name points to.
    let id = ObjectId::from(wanted.tag.unwrap_or(wanted.commit));
    let absent =
        || GitError::NoSuchCommit { remote: location.name.clone(), commit: wanted.commit.to_string() };
    if let Reach::File(path) = &location.reach {
        let repository = local::Repository::open(access, location, path)?;
        let mut pack = repository.pack(id, directory)?.ok_or_else(absent)?;
        let objects = Objects::receive(access, location, &mut pack.stream, directory)?;
        return Ok(Fetched { objects, shallow: pack.shallow });
    }
    let mut service = Service::connect(access, location)?;
    if may_ask(&service, id) {
        match ask(access, service, &[id], History::None, directory, progress) {
            Err(GitError::Refused { message, .. }) if message.contains("not our ref") => {
                // git itself gives any object that it has to whoever speaks version 2.
                service = Service::connect(access, location)?;
                if service.greeting.version == Version::Two {
                    return Err(absent());
                }
            }
            Err(GitError::Refused { .. }) => service = Service::connect(access, location)?,
            done => return done,
        }
    }
    let names =
        resolve::list_from(access, &mut service, &["refs/heads/".to_owned(), "refs/tags/".to_owned()])?;
    let mut ids: Vec<ObjectId> = names.iter().map(|name| name.id).collect();
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Err(absent());
    }
    let service = Service::connect(access, location)?;
    ask(access, service, &ids, History::All, directory, progress)
}

/// Whether it is worth asking for an object by its id.
fn may_ask(service: &Service<'_>, id: ObjectId) -> bool {
    let greeting = &service.greeting;
    let by_id = ["allow-tip-sha1-in-want", "allow-reachable-sha1-in-want", "allow-any-sha1-in-want"];
    greeting.version == Version::Two
        || greeting.refs.iter().any(|found| found.id == id)
        || by_id.iter().any(|capability| greeting.has(capability))
}

fn ask(
    access: &Access<'_>,
    mut service: Service<'_>,
    ids: &[ObjectId],
    history: History,
    directory: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, GitError> {
    let location = service.location;
    let version = service.greeting.version;
    let request = match version {
        Version::Two => request(&service, ids, history),
        Version::Zero => old_request(&service, ids, history)?,
    };
    let mut answer = service.ask(request)?;
    let mut lines = Lines { reader: &mut answer, location, cancel: &access.cancel, read: 0 };
    let shallow = match version {
        Version::Two => sections(&mut lines)?,
        Version::Zero => old_sections(&mut lines, history)?,
    };
    let mut pack = Sideband::new(access, location, &mut answer, progress);
    let received = Objects::receive(access, location, &mut pack, directory);
    // Why the stream ended says more than that the pack was not whole.
    let objects = match pack.failure() {
        Some(failure) => return Err(failure),
        None => received?,
    };
    Ok(Fetched { objects, shallow })
}

/// <https://git-scm.com/docs/protocol-v2#_fetch>
fn request(service: &Service<'_>, ids: &[ObjectId], history: History) -> Vec<u8> {
    let mut out = Vec::new();
    pkt::line(&mut out, "command=fetch");
    if service.greeting.has("object-format") {
        pkt::line(&mut out, "object-format=sha1");
    }
    out.extend_from_slice(pkt::DELIMITER);
    pkt::line(&mut out, "no-progress");
    pkt::line(&mut out, "ofs-delta");
    if history == History::None {
        pkt::line(&mut out, "deepen 1");
    }
    for id in ids {
        pkt::line(&mut out, &format!("want {id}"));
    }
    pkt::line(&mut out, "done");
    out.extend_from_slice(pkt::FLUSH);
    out
}

/// Reads up to the pack; returns what is shallow.
fn sections(lines: &mut Lines<'_>) -> Result<Vec<ObjectId>, GitError> {
    let mut shallow = Vec::new();
    loop {
        let Some(section) = lines.next()? else { return Err(lines.wrong("an answer without a pack")) };
        match section.as_slice() {
            b"packfile" => return Ok(shallow),
            b"shallow-info" | b"acknowledgments" | b"wanted-refs" | b"packfile-uris" => loop {
                let packet = lines.packet()?;
                match packet.line() {
                    Some(line) => shallow.extend(shallowed(line)),
                    None if packet == Packet::Delimiter => break,
                    None => return Err(lines.wrong("an answer without a pack")),
                }
            },
            _ => return Err(lines.wrong("a section that was not asked for")),
        }
    }
}

/// <https://git-scm.com/docs/pack-protocol#_packfile_negotiation>
fn old_request(service: &Service<'_>, ids: &[ObjectId], history: History) -> Result<Vec<u8>, GitError> {
    let greeting = &service.greeting;
    let unsupported = |what: &str| {
        let reason = format!("its server is too old: it knows no {what}");
        GitError::Unsupported { remote: service.location.name.clone(), reason }
    };
    if !greeting.has("side-band-64k") {
        return Err(unsupported("side-band-64k"));
    }
    if history == History::None && !greeting.has("shallow") {
        return Err(unsupported("shallow"));
    }
    let known = ["ofs-delta", "no-progress"].into_iter().filter(|capability| greeting.has(capability));
    let mut capabilities: String = known.map(|capability| format!(" {capability}")).collect();
    capabilities.push_str(" side-band-64k");
    let mut out = Vec::new();
    for id in ids {
        pkt::line(&mut out, &format!("want {id}{}", std::mem::take(&mut capabilities)));
    }
    if history == History::None {
        pkt::line(&mut out, "deepen 1");
    }
    out.extend_from_slice(pkt::FLUSH);
    pkt::line(&mut out, "done");
    Ok(out)
}

fn old_sections(lines: &mut Lines<'_>, history: History) -> Result<Vec<ObjectId>, GitError> {
    let mut shallow = Vec::new();
    if history == History::None {
        while let Some(line) = lines.next()? {
            shallow.extend(shallowed(&line));
        }
    }
    match lines.next()?.as_deref() {
        Some(b"NAK") => Ok(shallow),
        _ => Err(lines.wrong("an acknowledgement of what was not said")),
    }
}

fn shallowed(line: &[u8]) -> Option<ObjectId> {
    ObjectId::from_hex(line.strip_prefix(b"shallow ")?).ok()
}
