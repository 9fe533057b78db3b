//! Moves back what was put into a root file system by renaming: kiln_core::Moved.
//!
//! A step in a chroot has the caches themselves in its tree, not mounts of them. So nobody may remove such a tree, or
//! make a layer of it, before they are back; and that must hold when the process was killed in the middle. Whoever
//! removes anything in `tmp/` therefore asks here first.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_core::{IoError, IoResultExt as _, MOVED_ASIDE, MOVED_JOURNAL, Moved};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, RenameFlags, Timespec, Timestamps, UTIME_OMIT, flock, renameat_with,
    utimensat,
};
use rustix::io::Errno;

use crate::scratch::{random_name, remove_tree};

#[cfg(test)]
mod tests;

/// How long a step's init may take to end after kiln is gone. It has to end the step's processes only.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Moves everything back that a journal in `dir` tells of; nothing, if there is none. What a step has taken elsewhere in
/// its tree is found; what it has removed is gone. Doing it again after a crash goes on from there.
///
/// # Errors
/// Something cannot be moved; the journal stays, and nothing may be removed. Or who wrote it still runs.
pub(crate) fn put_back(dir: &Path) -> Result<(), IoError> {
    let path = dir.join(MOVED_JOURNAL);
    let journal = match File::open(&path) {
        Ok(journal) => journal,
        // Or `dir` is a half-made file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error).at("open", path),
    };
    wait_for(&journal).at("wait for the step that wrote", &path)?;
    let mut lines: Vec<Moved> = Vec::new();
    for line in BufReader::new(&journal).split(b'\n') {
        // A line that is not whole was not acted upon.
        lines.extend(serde_json::from_slice(&line.at("read", &path)?));
    }
    let aside = dir.join(MOVED_ASIDE);
    if let Some((Moved::Root { path: root }, moved)) = lines.split_first() {
        for line in moved.iter().rev() {
            if let Moved::Put { source, target, aside: before, identity } = line {
                Put { root, source, target, before, identity: *identity }.undo(source.starts_with(&aside))?;
            }
        }
        for line in moved.iter().rev() {
            if let Moved::Place { path } = line {
                remove_place(root, path)?;
            }
        }
    }
    fs::remove_file(&path).at("remove", &path)?;
    remove_tree(&aside);
    Ok(())
}

/// The same for everything in a process's scratch directory.
pub(crate) fn put_all_back(area: &Path) -> Result<(), IoError> {
    for entry in fs::read_dir(area).into_iter().flatten().flatten() {
        put_back(&entry.path())?;
    }
    Ok(())
}

/// The writer holds a lock on its journal until it has ended, and with it all that it started.
fn wait_for(journal: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match flock(journal, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => std::thread::sleep(POLL),
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

struct Put<'a> {
    root: &'a Path,
    source: &'a Path,
    target: &'a Path,
    before: &'a Path,
    identity: (u64, u64),
}

impl Put<'_> {
    /// `made` is what was made for the step and goes with it; everything else is somebody's.
    fn undo(&self, made: bool) -> Result<(), IoError> {
        if stat(self.before)?.is_none() {
            // Nothing was moved, or all is back.
            return Ok(());
        }
        let mut place = self.root.join(self.target);
        if !self.is(self.source)? {
            let found = match is_inside(self.root, self.target) && self.is(&place)? {
                true => Some(place.clone()),
                false => self.search(self.root)?.into_iter().next(),
            };
            if let Some(found) = found {
                keeping_time(&found, || fs::rename(&found, self.source).at("move back to", self.source))?;
                place = found;
            }
        }
        match stat(self.source)? {
            Some(metadata) if made && metadata.is_file() && metadata.nlink() > 1 => {
                for name in self.search(self.root)? {
                    keeping_time(&name, || fs::remove_file(&name).at("remove", &name))?;
                }
            }
            Some(metadata) if !made && metadata.is_dir() => part(self.source)?,
            _ => {}
        }
        let inside = place.strip_prefix(self.root).is_ok_and(|path| is_inside(self.root, path));
        let back = || match renameat_with(CWD, self.before, CWD, &place, RenameFlags::NOREPLACE) {
            // The step has made something else there, or removed what it was in: that is how it wants it.
            Err(Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => Ok(()),
            other => other.at("move back", &place),
        };
        if inside { keeping_time(&place, back) } else { Ok(()) }
    }

    fn is(&self, path: &Path) -> Result<bool, IoError> {
        Ok(stat(path)?.is_some_and(|metadata| self.identity == (metadata.dev(), metadata.ino())))
    }

    /// All names below `dir` of what was moved. Only for a step that has moved it, or linked to it.
    fn search(&self, dir: &Path) -> Result<Vec<PathBuf>, IoError> {
        let mut found = Vec::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                let path = entry.at("list", &dir)?.path();
                if self.is(&path)? {
                    found.push(path);
                } else if stat(&path)?.is_some_and(|metadata| metadata.is_dir()) {
                    todo.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// Whether the directory of `path` is reached in `root` without a link on the way.
fn is_inside(root: &Path, path: &Path) -> bool {
    let above = path.parent().unwrap_or(path);
    above.ancestors().all(|part| {
        part.as_os_str().is_empty()
            || fs::symlink_metadata(root.join(part)).is_ok_and(|metadata| metadata.is_dir())
    })
}

/// Removes a file or directory that was only a place for something, if the step left it empty.
fn remove_place(root: &Path, path: &Path) -> Result<(), IoError> {
    let place = root.join(path);
    if !is_inside(root, path) {
        return Ok(());
    }
    keeping_time(&place, || match stat(&place)? {
        Some(metadata) if metadata.is_dir() => match fs::remove_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.at("remove", &place),
        },
        Some(metadata) if metadata.is_file() && metadata.len() == 0 => {
            fs::remove_file(&place).at("remove", &place)
        }
        _ => Ok(()),
    })
}

/// Gives the directory that a path is in its time back after a change that is not the step's.
fn keeping_time<T>(path: &Path, change: impl FnOnce() -> Result<T, IoError>) -> Result<T, IoError> {
    let parent = path.parent().unwrap_or(path);
    let before = stat(parent)?;
    let result = change()?;
    if let Some(before) = before {
        let times = modified(&before);
        utimensat(CWD, parent, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", parent)?;
    }
    Ok(result)
}

/// Gives files of a cache that have names outside of it bodies of their own: without mounts between them, a step can
/// link a cache's file into its root, and whoever changes the one later would change the other.
fn part(cache: &Path) -> Result<(), IoError> {
    let mut linked: BTreeMap<(u64, u64), (Metadata, Vec<PathBuf>)> = BTreeMap::new();
    let mut todo = vec![cache.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let Some(metadata) = stat(&path)? else { continue };
            if metadata.is_dir() {
                todo.push(path);
            } else if metadata.is_file() && metadata.nlink() > 1 {
                let known = (metadata.dev(), metadata.ino());
                linked.entry(known).or_insert_with(|| (metadata, Vec::new())).1.push(path);
            }
        }
    }
    for (metadata, names) in
        linked.into_values().filter(|(metadata, names)| metadata.nlink() > names.len() as u64)
    {
        let body = cache.join(format!(".kiln-{}", random_name()));
        fs::copy(&names[0], &body).at("copy", &names[0])?;
        chown(&body, Some(metadata.uid()), Some(metadata.gid())).at("set the owner of", &body)?;
        // A change of the owner takes set-user-ID bits away.
        fs::set_permissions(&body, metadata.permissions()).at("set the mode of", &body)?;
        utimensat(CWD, &body, &modified(&metadata), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", &body)?;
        for name in &names {
            let link = cache.join(format!(".kiln-{}", random_name()));
            fs::hard_link(&body, &link).at("link", &link)?;
            keeping_time(name, || fs::rename(&link, name).at("replace", name))?;
        }
        fs::remove_file(&body).at("remove", &body)?;
    }
    Ok(())
}

fn modified(metadata: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    }
}

fn stat(path: &Path) -> Result<Option<Metadata>, IoError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).at("stat", path),
    }
}
