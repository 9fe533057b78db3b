//! Objects out of a pack. gitoxide indexes it: each object is rebuilt and hashed, so an id names exactly its bytes.

use std::error::Error;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::{CommitRefIter, Kind, TagRefIter};
use gix_pack::Bundle;
use gix_pack::bundle::write::Options;
use gix_pack::cache::lru::MemoryCappedHashmap;
use kiln_core::{IoError, IoResultExt as _};

use crate::error::plain;
use crate::location::Location;
use crate::{Access, GitError};

/// Bases of deltas that are kept while files are written, bytes.
const CACHE: usize = 32 << 20;
/// Tags that point to tags.
const TAGS: usize = 16;

/// The objects of a repository that were received.
pub(crate) struct Objects {
    bundle: Bundle,
    inflate: gix_zlib::Inflate,
    cache: MemoryCappedHashmap,
    buffer: Vec<u8>,
    remote: String,
}

impl Objects {
    /// Reads a pack to its end, writes it with its index into `directory`.
    pub(crate) fn receive(
        access: &Access<'_>,
        location: &Location,
        pack: &mut dyn Read,
        directory: &Path,
    ) -> Result<Self, GitError> {
        let remote = location.name.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopper = stop.clone();
        let _guard = access.cancel.on_cancel(move || stopper.store(true, Ordering::Relaxed));
        let limit = Some(access.limits.object);
        let options = Options { thread_limit: Some(1), alloc_limit_bytes: limit, ..Options::default() };
        let written = Bundle::write_to_directory(
            &mut BufReader::with_capacity(64 << 10, pack),
            Some(directory),
            &mut gix_utils::progress::Discard,
            &stop,
            None::<gix_object::find::Never>,
            HashKind::Sha1,
            options,
        );
        let fail = |error: &(dyn Error + 'static)| {
            if access.cancel.is_cancelled() {
                GitError::Cancelled
            } else {
                unsound(&remote, directory, error)
            }
        };
        let written = written.map_err(|error| fail(&error))?;
        if let Some(keep) = &written.keep_path {
            std::fs::remove_file(keep).at("remove", keep)?;
        }
        let nothing = || GitError::Pack { remote: remote.clone(), reason: "its pack is empty".to_owned() };
        let mut bundle = written.to_bundle().ok_or_else(nothing)?.map_err(|error| fail(&error))?;
        bundle.pack = bundle.pack.with_alloc_limit_bytes(limit);
        let cache = MemoryCappedHashmap::new(CACHE);
        Ok(Self { bundle, inflate: gix_zlib::Inflate::default(), cache, buffer: Vec::new(), remote })
    }

    /// Returns an object's bytes if it is there.
    pub(crate) fn find(&mut self, id: ObjectId) -> Result<Option<(Kind, &[u8])>, GitError> {
        let Self { bundle, inflate, cache, buffer, remote } = self;
        let found = bundle.find(&id, buffer, inflate, cache);
        let found = found.map_err(|error| GitError::Pack {
            remote: remote.clone(),
            reason: format!("object {id}: {}", plain(&error.to_string())),
        })?;
        Ok(found.map(|(object, _)| (object.kind, object.data)))
    }

    /// Returns the bytes of an object that must be there.
    pub(crate) fn get(&mut self, id: ObjectId, wanted: Kind) -> Result<&[u8], GitError> {
        let remote = self.remote.clone();
        let wrong = |reason: String| GitError::Pack { remote, reason };
        match self.find(id)? {
            Some((kind, data)) if kind == wanted => Ok(data),
            Some((kind, _)) => Err(wrong(format!("object {id} is a {kind} and should be a {wanted}"))),
            None => Err(wrong(format!("object {id}, a {wanted}, is missing"))),
        }
    }

    /// Follows tags to their commit; none if the object is not there.
    pub(crate) fn commit(&mut self, mut id: ObjectId) -> Result<Option<Commit>, GitError> {
        let remote = self.remote.clone();
        let wrong = |reason: String| GitError::Pack { remote: remote.clone(), reason };
        let damaged = |id: ObjectId| wrong(format!("object {id} cannot be read"));
        for _ in 0..TAGS {
            match self.find(id)? {
                None => return Ok(None),
                Some((Kind::Commit, data)) => {
                    let mut parts = CommitRefIter::from_bytes(data, HashKind::Sha1);
                    let tree = parts.tree_id().map_err(|_| damaged(id))?;
                    let committer = CommitRefIter::from_bytes(data, HashKind::Sha1).committer();
                    let time = committer.map_err(|_| damaged(id))?.seconds();
                    let has_parents = parts.parent_ids().next().is_some();
                    return Ok(Some(Commit { id, tree, time: time.clamp(0, LATEST), has_parents }));
                }
                Some((Kind::Tag, data)) => {
                    let target = TagRefIter::from_bytes(data, HashKind::Sha1).target_id();
                    id = target.map_err(|_| damaged(id))?;
                }
                Some((kind, _)) => {
                    return Err(wrong(format!("object {id} is a {kind} and should be a commit")));
                }
            }
        }
        Err(wrong(format!("more than {TAGS} tags point to each other")))
    }
}

/// Beyond it lie years that no file system has.
const LATEST: i64 = u32::MAX as i64;

/// What is needed of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: ObjectId,
    pub(crate) tree: ObjectId,
    /// When it was committed, seconds since 1970.
    pub(crate) time: i64,
    pub(crate) has_parents: bool,
}

/// A full disk is no fault of the pack.
fn unsound(remote: &str, directory: &Path, error: &(dyn Error + 'static)) -> GitError {
    let mut inner = Some(error);
    let mut reason = error.to_string();
    while let Some(error) = inner {
        let system = error.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_some());
        if let Some(system) = system {
            return IoError::new("write the pack in", directory, system).into();
        }
        reason = error.to_string();
        inner = error.source();
    }
    GitError::Pack { remote: remote.to_owned(), reason: plain(&reason) }
}
