//! Deciding what goes where: directories are made as they are met, files are collected into jobs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_core::{InlineFile, IoResultExt, Unpack};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::archive::{self, Archive};
use super::chmod::Change;
use super::job::{CHUNK, Common, Job};
use super::layer::{DirMeta, LayerDir, UNDATED, image_path, others, set_owner, timestamps};
use super::{CopyError, CopyInput, CopyManifest, CopyReport, CopyRequest};
use crate::owner;
use crate::tree::resolve::Found;
use crate::tree::selected::{Match, Selected};
use crate::tree::xattr::Which;
use crate::tree::{Kind, Time};

/// Copies files into a fresh layer.
///
/// # Errors
/// Files and directories in each other's way; the file system failed. The layer is then half-made: discard it.
pub fn copy(request: &CopyRequest<'_>) -> Result<CopyReport, CopyError> {
    let layer = LayerDir::open(request.layer, request.parent, request.rules.ids)?;
    let rules = request.rules;
    let root = layer.duplicate()?;
    let common = Common {
        owner: rules.owner.or((!rules.keep_owners).then_some((0, 0))),
        chmod: rules.chmod.as_ref().map(Change::new).transpose()?,
        epoch: rules.epoch,
        which: if rules.owner.is_none() && rules.keep_owners { Which::Recorded } else { Which::Portable },
        reuse: request.reuse,
        ..Common::plain(&root, request.layer, rules.ids, request.cancel)
    };
    let mut place = Place::new(layer, &common);
    for input in request.inputs {
        match input {
            CopyInput::Inline(file) => place.inline(file, request)?,
            CopyInput::Files(selected) => {
                for m in &selected.matches {
                    let archive = match request.unpack {
                        Unpack::Never => None,
                        Unpack::Archives => archive::open(selected, m)?,
                    };
                    match archive {
                        Some(archive) => place.unpack(&archive, request)?,
                        None => place.one(selected, m, request)?,
                    }
                }
            }
        }
    }
    place.finish()
}

/// The state of one copy.
pub(super) struct Place<'a> {
    layer: LayerDir<'a>,
    common: &'a Common<'a>,
    pending: Vec<Job<'a>>,
    /// Files that pending jobs will make by a name of their own.
    taken: HashSet<PathBuf>,
    /// Where files with several links were put first.
    links: HashMap<(u64, u64), PathBuf>,
    /// Links to make when what they link to is there: (first, another).
    later: Vec<(PathBuf, PathBuf)>,
    /// Whether there are files of an archive.
    unpacked: bool,
}

impl<'a> Place<'a> {
    pub(super) fn new(layer: LayerDir<'a>, common: &'a Common<'a>) -> Self {
        Self {
            layer,
            common,
            pending: Vec::new(),
            taken: HashSet::new(),
            links: HashMap::new(),
            later: Vec::new(),
            unpacked: false,
        }
    }

    /// Puts one matched file or directory where the request says.
    fn one(&mut self, from: &'a Selected, m: &'a Match, request: &CopyRequest<'_>) -> Result<(), CopyError> {
        if from.entry(m.entry).kind() == Kind::Dir {
            self.flush()?;
            let dest = self.target(request)?;
            if dest.found == Found::Other {
                return Err(CopyError::FileInTheWay { path: image_path(&dest.path) });
            }
            self.layer.make_dir(&dest.path, &self.fresh_dir())?;
            self.children(from, m.entry, &m.path, &dest.path, dest.found == Found::Missing)?;
            return self.flush();
        }
        let (dir, name) = self.file_target(request, OsStr::from_bytes(&m.name))?;
        let source = m.path.parent().unwrap_or(Path::new("")).to_owned();
        self.pending.push(Job {
            from,
            source,
            dest: dir,
            files: vec![m.entry],
            name: Some(name),
            replace: true,
        });
        Ok(())
    }

    /// Puts what an archive holds into the destination, which is a directory then.
    fn unpack(&mut self, archive: &Archive<'_>, request: &CopyRequest<'_>) -> Result<(), CopyError> {
        self.flush()?;
        let dest = self.target(request)?;
        if dest.found == Found::Other {
            return Err(CopyError::FileInTheWay { path: image_path(&dest.path) });
        }
        self.layer.make_dir(&dest.path, &self.fresh_dir())?;
        let report = archive.unpack(&mut self.layer, &dest.path, self.common, request.rules.owner)?;
        self.common.state().report.add(report);
        // What of it went over files that were copied is not looked at one by one.
        self.unpacked = true;
        Ok(())
    }

    fn inline(&mut self, file: &InlineFile, request: &CopyRequest<'_>) -> Result<(), CopyError> {
        let (dir, name) = self.file_target(request, OsStr::new(&file.name))?;
        self.flush()?;
        let path = dir.join(name);
        let full = self.layer.full(&path);
        match rustix::fs::unlinkat(&self.layer.root, &path, AtFlags::empty()) {
            Ok(()) => self.common.state().spoilt.push(path.clone()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).at("replace", &full)?,
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.layer.root, &path, flags, Mode::RUSR | Mode::WUSR)
            .at("create", &full)?;
        let mut out = std::fs::File::from(fd);
        std::io::Write::write_all(&mut out, file.content.as_bytes()).at("write", &full)?;
        let (uid, gid) = self.common.owner.unwrap_or_default();
        set_owner(self.common.ids, &out, uid, gid).at("set the owner of", &full)?;
        let mode = Mode::from_raw_mode(self.common.mode(file.mode, false));
        rustix::fs::fchmod(&out, mode).at("set the mode of", &full)?;
        rustix::fs::futimens(&out, &timestamps(self.undated())).at("set the time of", &full)?;
        let mut state = self.common.state();
        state.report.files += 1;
        state.report.bytes += file.content.len() as u64;
        Ok(())
    }

    /// Returns directory and name for a file, the directory made.
    fn file_target(
        &mut self,
        request: &CopyRequest<'_>,
        name: &OsStr,
    ) -> Result<(PathBuf, std::ffi::OsString), CopyError> {
        let dest = self.target(request)?;
        let (dir, name) = if request.dest_is_dir || dest.found == Found::Dir {
            if dest.found == Found::Other {
                return Err(CopyError::FileInTheWay { path: image_path(&dest.path) });
            }
            (dest.path, name.to_owned())
        } else {
            if self.taken.contains(&dest.path) {
                return Err(CopyError::SeveralIntoOne { path: image_path(&dest.path) });
            }
            // Neither the root nor a name that ends in `..`: those are directories.
            let name = dest.path.file_name().unwrap_or_default().to_owned();
            (dest.path.parent().unwrap_or(Path::new("")).to_owned(), name)
        };
        self.layer.make_dir(&dir, &self.fresh_dir())?;
        let path = dir.join(&name);
        if self.layer.look(&path)? == Found::Dir {
            return Err(CopyError::DirectoryInTheWay { path: image_path(&path) });
        }
        if !self.taken.insert(path.clone()) {
            // A later source of the same name replaces the earlier one.
            self.flush()?;
            self.taken.insert(path);
        }
        Ok((dir, name))
    }

    fn target(&self, request: &CopyRequest<'_>) -> Result<crate::tree::resolve::Resolved, CopyError> {
        self.layer.resolve(request.dest, &mut |path| {
            if self.taken.contains(path) { Ok(Found::Other) } else { self.layer.look(path) }
        })
    }

    /// Puts a whole tree at the root; with its metadata, if the root is ours.
    pub(super) fn root(&mut self, from: &'a Selected, id: u32, ours: bool) -> Result<(), CopyError> {
        if ours {
            self.layer.make_dir(Path::new(""), &self.fresh_dir())?;
            self.layer.set_meta(Path::new(""), self.dir_meta(from, id));
        } else {
            self.layer.adopt_root();
        }
        self.children(from, id, Path::new(""), Path::new(""), ours)
    }

    /// Puts all that a directory holds into a directory of the layer. `fresh` says that the image has nothing
    /// there, nor has the layer.
    fn children(
        &mut self,
        from: &'a Selected,
        id: u32,
        source: &Path,
        dest: &Path,
        fresh: bool,
    ) -> Result<(), CopyError> {
        let mut files = Vec::new();
        for child in from.live_children(id) {
            let (entry, path) = (from.entry(child), dest.join(from.name(child)));
            let found = if fresh { Found::Missing } else { self.layer.look(&path)? };
            if entry.kind() == Kind::Dir {
                if !matches!(found, Found::Missing | Found::Dir) {
                    return Err(CopyError::FileInTheWay { path: image_path(&path) });
                }
                self.layer.make_dir(&path, &self.fresh_dir())?;
                if entry.on_the_way && found == Found::Dir {
                    // What is only passed through stays whose it is, but for its mode: so BuildKit has it.
                    self.layer.set_mode(&path, self.common.mode(entry.mode, true));
                } else {
                    self.layer.set_meta(&path, self.dir_meta(from, child));
                }
                let source = source.join(from.name(child));
                self.children(from, child, &source, &path, found == Found::Missing)?;
                continue;
            }
            if found == Found::Dir {
                return Err(CopyError::DirectoryInTheWay { path: image_path(&path) });
            }
            if entry.kind() == Kind::File && entry.nlink > 1 {
                let inode = (entry.stat.dev, entry.stat.ino);
                if let Some(first) = self.links.get(&inode) {
                    self.later.push((first.clone(), path));
                    continue;
                }
                self.links.insert(inode, path);
            }
            files.push(child);
        }
        self.pending.extend(files.chunks(CHUNK).map(|files| Job {
            from,
            source: source.to_owned(),
            dest: dest.to_owned(),
            files: files.to_vec(),
            name: None,
            replace: !fresh,
        }));
        Ok(())
    }

    /// What a copied directory looks like.
    fn dir_meta(&self, from: &Selected, id: u32) -> DirMeta {
        let entry = from.entry(id);
        let xattrs = from.xattrs_of(id).and_then(|all| others(&all, |name| self.common.which.wants(name)));
        let recorded =
            xattrs.iter().flat_map(|all| &**all).any(|(name, _)| name == owner::STAT_XATTR.as_bytes());
        DirMeta {
            mode: self.common.mode(entry.mode, true),
            // Its record travels among the attributes.
            owner: (!recorded).then(|| self.common.owner.unwrap_or((entry.uid, entry.gid))),
            mtime: self.common.time(entry.stat.mtime),
            xattrs,
        }
    }

    /// What a directory looks like that is only made to hold something.
    fn fresh_dir(&self) -> DirMeta {
        let owner = Some(self.common.owner.unwrap_or_default());
        DirMeta { mode: 0o755, owner, mtime: self.undated(), xattrs: None }
    }

    fn undated(&self) -> Time {
        undated(self.common.epoch)
    }

    /// Does what is collected.
    fn flush(&mut self) -> Result<(), CopyError> {
        self.taken.clear();
        if !self.pending.is_empty() {
            self.common.run(&std::mem::take(&mut self.pending))?;
        }
        for (first, another) in std::mem::take(&mut self.later) {
            let root = &self.layer.root;
            let link = || rustix::fs::linkat(root, &first, root, &another, AtFlags::empty());
            match link() {
                // What it would link to vanished before it was copied.
                Err(rustix::io::Errno::NOENT) if self.common.live => continue,
                Err(rustix::io::Errno::EXIST) => {
                    rustix::fs::unlinkat(root, &another, AtFlags::empty())
                        .at("replace", self.layer.full(&another))?;
                    link()
                }
                done => done,
            }
            .at("link", self.layer.full(&another))?;
            let mut state = self.common.state();
            state.report.files += 1;
            state.spoilt.extend([first, another]);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<CopyReport, CopyError> {
        self.flush()?;
        let directories = self.layer.dirs() as u64;
        self.layer.finish()?;
        let mut state = self.common.state();
        let mut report = std::mem::take(&mut state.report);
        report.directories = directories;
        report.cloned = self.common.mover.cloned.load(std::sync::atomic::Ordering::Relaxed);
        if !self.unpacked {
            report.manifest = CopyManifest::new(std::mem::take(&mut state.records), &state.spoilt);
        }
        Ok(report)
    }
}

/// The time of what has none.
pub(super) fn undated(epoch: Option<u64>) -> Time {
    match epoch.and_then(|epoch| i64::try_from(epoch).ok()) {
        Some(secs) => Time { secs, nanos: 0 },
        None => UNDATED,
    }
}
