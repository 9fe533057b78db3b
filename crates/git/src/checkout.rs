//! Writing the files of a commit.

mod files;
mod keep;
mod submodule;

use std::fs;
use std::path::{Path, PathBuf};

use gix_hash::ObjectId;
use gix_object::{Kind, TreeRefIter};
use kiln_core::{IoError, IoResultExt as _};

use crate::checkout::files::Files;
use crate::checkout::keep::GitDir;
use crate::fetch::{Fetched, fetch};
use crate::location::Location;
use crate::pack::{Commit, Objects};
use crate::{Access, CommitId, GitError, Progress, Resolved};

/// What of a commit is wanted, and how.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutOptions<'a> {
    /// The directory in it whose content is wanted; empty for all.
    pub subdir: &'a str,
    /// Whether `.git` is made; as in BuildKit, never for a `subdir`.
    pub keep_git_dir: bool,
    /// Whether submodules are fetched too; if not, they are empty directories.
    pub submodules: bool,
    /// A directory for packs, if `.git` is not made. All in it is removed, also on failure.
    pub scratch: &'a Path,
}

/// Fetches a commit and writes its files into `target`, an empty directory or one that is made. Returns the commit, which is
/// another one than asked for if that was an annotated tag's id.
///
/// Files are 0644 or 0755, directories 0755, links links; owner is who runs this. All have the commit's time, so that the
/// same commit is the same tree everywhere. Nothing is converted: attributes (line ends, filters, `export-ignore`) are
/// not looked at, and a file kept in LFS is its pointer.
///
/// What is in the tree is the repository's doing: links may lead anywhere. After a failure `target` holds some of it.
///
/// # Errors
/// The remote cannot be asked, does not have the commit, or what it sends is not sound.
pub fn checkout(
    access: &Access<'_>,
    remote: &str,
    wanted: &Resolved,
    options: &CheckoutOptions<'_>,
    target: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<CommitId, GitError> {
    fs::create_dir_all(target).at("make", target)?;
    let mut old = fs::read_dir(target).at("read", target)?;
    if old.next().is_some() {
        let full = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        return Err(IoError::new("check out into", target, &full).into());
    }
    let keep = options.keep_git_dir && options.subdir.is_empty();
    let place = Place {
        target: target.to_owned(),
        git_dir: keep.then(|| target.join(".git")),
        subdir: options.subdir,
        depth: 0,
    };
    let mut run = Checkout { access, options, progress, entries: 0, bytes: 0 };
    run.repository(&Location::parse(remote)?, wanted, &place)
}

/// One repository's part of a checkout.
struct Place<'a> {
    target: PathBuf,
    /// Where `.git` is made, if it is.
    git_dir: Option<PathBuf>,
    subdir: &'a str,
    /// Submodules above.
    depth: usize,
}

/// What all repositories of a checkout share.
struct Checkout<'a, 'p> {
    access: &'a Access<'a>,
    options: &'a CheckoutOptions<'a>,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
    /// Written so far.
    entries: u64,
    bytes: u64,
}

impl Checkout<'_, '_> {
    fn repository(
        &mut self,
        location: &Location,
        wanted: &Resolved,
        place: &Place<'_>,
    ) -> Result<CommitId, GitError> {
        let git_dir = place.git_dir.as_deref().map(GitDir::create).transpose()?;
        let scratch;
        let packs = match &git_dir {
            Some(git_dir) => git_dir.packs(),
            None => {
                scratch = tempfile::tempdir_in(self.options.scratch)
                    .at("make a temporary directory in", self.options.scratch)?;
                scratch.path().to_owned()
            }
        };
        let Fetched { mut objects, shallow } = fetch(self.access, location, wanted, &packs, self.progress)?;
        let absent =
            || GitError::NoSuchCommit { remote: location.name.clone(), commit: wanted.commit.to_string() };
        let commit = objects.commit(wanted.commit.into())?.ok_or_else(absent)?;
        let top = descend(&mut objects, location, commit, place.subdir)?;
        let mut files = Files::new(location, commit.time, &place.target, self);
        files.tree(&mut objects, top)?;
        let written = files.written;
        if let Some(git_dir) = &git_dir {
            git_dir.fill(location, wanted, commit, &shallow, &written.index)?;
        }
        if self.options.submodules && !written.submodules.is_empty() {
            self.submodules(location, &mut objects, commit, place, &written)?;
        }
        if let Some(git_dir) = &git_dir {
            git_dir.date(commit.time)?;
        }
        // A submodule's own directory is part of this tree, and has its time; so are those that things were written into.
        files::set_times(&place.target, &written.directories, commit.time)?;
        (self.progress)(Progress::Written { entries: self.entries });
        Ok(commit.id.into())
    }
}

/// Goes down to the directory that is wanted.
fn descend(
    objects: &mut Objects,
    location: &Location,
    commit: Commit,
    subdir: &str,
) -> Result<ObjectId, GitError> {
    let mut id = commit.tree;
    for part in subdir.split('/').filter(|part| !part.is_empty()) {
        let data = objects.get(id, Kind::Tree)?;
        let mut entries = TreeRefIter::from_bytes(data, gix_hash::Kind::Sha1).filter_map(Result::ok);
        let found = entries.find(|entry| entry.filename == part.as_bytes() && entry.mode.is_tree());
        id = found.map(|entry| entry.oid.to_owned()).ok_or_else(|| GitError::NoSuchDirectory {
            remote: location.name.clone(),
            commit: commit.id.to_string(),
            subdir: subdir.to_owned(),
        })?;
    }
    Ok(id)
}
