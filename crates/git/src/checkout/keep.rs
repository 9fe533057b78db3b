//! `.git`: a shallow repository in which `git status`, `git log -1` and `git describe` work.
//!
//! It is what BuildKit leaves: HEAD is the commit itself, the ref that was asked for is there, so is the remote (without
//! credentials); no reflog. <https://git-scm.com/docs/gitrepository-layout>

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::tree::EntryKind;
use kiln_core::IoResultExt as _;

use super::files::{IndexEntry, set_time};
use crate::config::quoted;
use crate::location::Location;
use crate::pack::Commit;
use crate::{GitError, Resolved};

/// A `.git` on its way.
pub(super) struct GitDir(PathBuf);

impl GitDir {
    /// Makes the directories; `path` must not be there.
    pub(super) fn create(path: &Path) -> Result<Self, GitError> {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).at("make", parent)?;
        fs::create_dir(path).at("make", path)?;
        for directory in ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info"] {
            let directory = path.join(directory);
            fs::create_dir_all(&directory).at("make", &directory)?;
        }
        Ok(Self(path.to_owned()))
    }

    pub(super) fn packs(&self) -> PathBuf {
        self.0.join("objects/pack")
    }

    /// Writes everything but the objects.
    pub(super) fn fill(
        &self,
        location: &Location,
        wanted: &Resolved,
        commit: Commit,
        shallow: &[ObjectId],
        entries: &[IndexEntry],
    ) -> Result<(), GitError> {
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
             [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
            quoted(&location.name)
        );
        self.put("config", config.as_bytes())?;
        self.put("HEAD", format!("{}\n", commit.id).as_bytes())?;
        self.put(
            "description",
            b"Unnamed repository; edit this file 'description' to name the repository.\n",
        )?;
        self.put("info/exclude", b"")?;
        self.put("packed-refs", packed_refs(wanted, commit).as_bytes())?;
        let shallow: String = shallow.iter().map(|id| format!("{id}\n")).collect();
        if !shallow.is_empty() {
            self.put("shallow", shallow.as_bytes())?;
        }
        self.put("index", &index(location, entries)?)
    }

    /// Gives everything in it the commit's time, once nothing is written into it any more.
    pub(super) fn date(&self, time: i64) -> Result<(), GitError> {
        date(&self.0, time)
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), GitError> {
        let path = self.0.join(name);
        Ok(fs::write(&path, content).at("write", &path)?)
    }
}

/// The ref that was asked for. In this file a name of the server's is only text; as a path it could lead anywhere.
fn packed_refs(wanted: &Resolved, commit: Commit) -> String {
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    let name = wanted.full_ref.as_deref().filter(|name| name.starts_with("refs/"));
    let Some(name) = name.filter(|name| gix_validate::reference::name((*name).into()).is_ok()) else {
        return text;
    };
    match wanted.tag {
        Some(tag) => text.push_str(&format!("{tag} {name}\n^{}\n", commit.id)),
        None => text.push_str(&format!("{} {name}\n", commit.id)),
    }
    text
}

fn date(directory: &Path, time: i64) -> Result<(), GitError> {
    for entry in fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        if entry.file_type().at("look at", entry.path())?.is_dir() {
            date(&entry.path(), time)?;
        } else {
            set_time(&entry.path(), time)?;
        }
    }
    set_time(directory, time)
}

/// The index: what is checked out. Sizes and times are zero, so that git compares contents the first time it looks: the
/// files' inodes change when they are copied into an image, and their numbers would be other ones on each machine.
/// <https://git-scm.com/docs/index-format>
fn index(location: &Location, entries: &[IndexEntry]) -> Result<Vec<u8>, GitError> {
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let mut out = b"DIRC\0\0\0\x02".to_vec();
    out.extend_from_slice(&count.to_be_bytes());
    for entry in entries {
        let start = out.len();
        let mode: u32 = match entry.kind {
            EntryKind::Blob => 0o100_644,
            EntryKind::BlobExecutable => 0o100_755,
            EntryKind::Link => 0o120_000,
            EntryKind::Commit => 0o160_000,
            EntryKind::Tree => 0o040_000,
        };
        // Two times, device and inode; mode; owner, group, size.
        out.extend_from_slice(&[0; 24]);
        out.extend_from_slice(&mode.to_be_bytes());
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(entry.id.as_slice());
        let path = entry.path.as_os_str().as_bytes();
        let length = u16::try_from(path.len()).unwrap_or(u16::MAX).min(0xfff);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(path);
        // At least one zero, up to a multiple of eight.
        let size = out.len() - start;
        out.resize(start + (size / 8 + 1) * 8, 0);
    }
    let mut hasher = gix_hash::hasher(HashKind::Sha1);
    hasher.update(&out);
    let sum = hasher.try_finalize().map_err(|_| GitError::Pack {
        remote: location.name.clone(),
        reason: "its names are made to collide".to_owned(),
    })?;
    out.extend_from_slice(sum.as_slice());
    Ok(out)
}

/// Ties a submodule's git directory to its files, and tells the repository above that it is there.
pub(super) fn worktree_config(
    git_dir: &Path,
    worktree: &Path,
    above: &Path,
    name: &str,
    url: &str,
) -> Result<(), GitError> {
    let tie = format!("[core]\n\tworktree = {}\n", quoted(&worktree.to_string_lossy()));
    append(&git_dir.join("config"), &tie)?;
    let module = format!("[submodule {}]\n\tactive = true\n\turl = {}\n", quoted(name), quoted(url));
    append(&above.join("config"), &module)
}

fn append(path: &Path, text: &str) -> Result<(), GitError> {
    let mut content = fs::read_to_string(path).unwrap_or_default();
    content.push_str(text);
    Ok(fs::write(path, content).at("write", path)?)
}

/// Returns the way from one directory to another.
pub(super) fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..");
    up.collect::<PathBuf>().join(to.components().skip(common).collect::<PathBuf>())
}
