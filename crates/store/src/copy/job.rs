//! Putting files into directories that are there already; on several threads if there are many.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_core::{Cancel, IoError, IoResultExt};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::born::Born;
use super::chmod::Change;
use super::data::{self, Mover};
use super::layer::{image_path, others, set_time, timestamps};
use super::reuse::{PlainFile, Record, Reuse, ReuseDir};
use super::shares::Shares;
use super::{CopyError, CopyReport};
use crate::layout::Ids;
use crate::owner::{self, Owner};
use crate::tree::selected::{Entry, Identity, Selected, open_dir};
use crate::tree::xattr::{self, Which, Xattrs};
use crate::tree::{FileStat, Kind, Time};

/// Files that one thread takes at a time.
pub(super) const CHUNK: usize = 128;

/// Some files of one directory.
pub(super) struct Job<'a> {
    pub(super) from: &'a Selected,
    /// Relative to the source's root.
    pub(super) source: PathBuf,
    /// Relative to the layer's root.
    pub(super) dest: PathBuf,
    pub(super) files: Vec<u32>,
    /// A single file may get another name.
    pub(super) name: Option<OsString>,
    /// Whether there may be files of these names in the layer, to be replaced.
    pub(super) replace: bool,
}

/// What all files of one copy have in common.
pub(super) struct Common<'a> {
    pub(super) layer: &'a OwnedFd,
    pub(super) layer_path: &'a Path,
    pub(super) ids: Ids,
    /// None: the owner of the source.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) chmod: Option<Change>,
    pub(super) epoch: Option<u64>,
    pub(super) which: Which,
    /// Whether others may change the source meanwhile: what vanishes is then left out.
    pub(super) live: bool,
    /// Whether the target may lack what it cannot hold: devices and attributes in a user's directory.
    pub(super) best_effort: bool,
    pub(super) reuse: Option<&'a Reuse>,
    pub(super) cancel: &'a Cancel,
    pub(super) mover: Mover,
    pub(super) state: Mutex<State>,
}

/// What the threads add up.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) report: CopyReport,
    /// Files that a later copy may share.
    pub(super) records: Vec<Record>,
    /// Paths of the layer where it may not.
    pub(super) spoilt: Vec<PathBuf>,
    failure: Option<CopyError>,
}

impl<'a> Common<'a> {
    /// Takes files as they are, owners included, from a source that nobody changes.
    pub(super) fn plain(layer: &'a OwnedFd, layer_path: &'a Path, ids: Ids, cancel: &'a Cancel) -> Self {
        Self {
            layer,
            layer_path,
            ids,
            owner: None,
            chmod: None,
            epoch: None,
            which: Which::Portable,
            live: false,
            best_effort: false,
            reuse: None,
            cancel,
            mover: Mover::default(),
            state: Mutex::new(State::default()),
        }
    }

    /// Does the jobs, in any order.
    pub(super) fn run(&self, jobs: &[Job<'_>]) -> Result<(), CopyError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
        let shares = Shares::new(jobs.len(), threads);
        let work = |thread| {
            let mut buffer = vec![0; 128 << 10];
            while let Some(job) = shares.next(thread) {
                let done = if self.cancel.is_cancelled() {
                    Err(CopyError::Cancelled)
                } else {
                    self.one(&jobs[job], &mut buffer)
                };
                if let Err(error) = done {
                    shares.stop();
                    self.state().failure.get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            let work = &work;
            for thread in 1..threads {
                scope.spawn(move || work(thread));
            }
            work(0);
        });
        self.state().failure.take().map_or(Ok(()), Err)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the mode that a file gets.
    pub(super) fn mode(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.chmod {
            Some(change) => change.apply(mode & 0o7777, is_dir),
            None => mode & 0o7777,
        }
    }

    /// Returns the time that a file gets: its own, but none after SOURCE_DATE_EPOCH.
    pub(super) fn time(&self, time: Time) -> Time {
        match self.epoch.and_then(|epoch| i64::try_from(epoch).ok()) {
            Some(epoch) if time.secs >= epoch => Time { secs: epoch, nanos: 0 },
            _ => time,
        }
    }

    fn one(&self, job: &Job<'_>, buffer: &mut [u8]) -> Result<(), CopyError> {
        let source = match job.from.open_dir(&job.source) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if self.live => return Ok(()),
            opened => opened.at("open", job.from.full(&job.source))?,
        };
        let dest = open_dir(self.layer.as_fd(), &job.dest).at("open", self.layer_path.join(&job.dest))?;
        let shared = self.reuse.and_then(|reuse| reuse.dir(&job.dest));
        let (mut sum, born) = (State::default(), Born::default());
        for id in &job.files {
            let name = job.name.as_deref().unwrap_or_else(|| job.from.name(*id));
            let path = job.dest.join(name);
            let file = OneFile {
                common: self,
                job,
                id: *id,
                source: &source,
                dest: &dest,
                name,
                path: &path,
                shared: shared.as_ref(),
                born: &born,
            };
            file.put(&mut sum, buffer)?;
        }
        let mut state = self.state();
        state.report.add(sum.report);
        state.records.append(&mut sum.records);
        Ok(())
    }
}

struct OneFile<'a> {
    common: &'a Common<'a>,
    job: &'a Job<'a>,
    id: u32,
    source: &'a OwnedFd,
    dest: &'a OwnedFd,
    name: &'a OsStr,
    /// In the layer.
    path: &'a Path,
    shared: Option<&'a ReuseDir<'a>>,
    born: &'a Born,
}

impl OneFile<'_> {
    fn put(&self, sum: &mut State, buffer: &mut [u8]) -> Result<(), CopyError> {
        let entry = self.job.from.entry(self.id);
        if self.common.live {
            // Asked once more, right before: another type, or nothing, means that it is not there any more.
            let now = FileStat::at(self.source, self.job.from.name(self.id));
            if !now.is_ok_and(|now| now.kind() == entry.kind()) {
                return Ok(());
            }
        }
        match entry.kind() {
            Kind::File => self.regular(entry, sum, buffer)?,
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(self.source, self.job.from.name(self.id), Vec::new())
                    .map_err(|error| self.source_error("read link", error.into()))?;
                self.create(|| rustix::fs::symlinkat(target.as_c_str(), self.dest, self.name))?;
                self.finish_unopened(entry, sum)?;
            }
            Kind::Fifo => {
                self.create(|| rustix::fs::mkfifoat(self.dest, self.name, Mode::RUSR))?;
                self.chmod_unopened(entry)?;
                self.finish_unopened(entry, sum)?;
            }
            Kind::CharDevice | Kind::BlockDevice => self.device(entry, sum)?,
            // A tar cannot hold it, and without its process it means nothing.
            Kind::Socket => {
                sum.report.left_out += 1;
                return Ok(());
            }
            Kind::Dir => return Ok(()),
        }
        sum.report.files += 1;
        Ok(())
    }

    fn regular(&self, entry: &Entry, sum: &mut State, buffer: &mut [u8]) -> Result<(), CopyError> {
        let record = self.record(entry);
        if let (Some(record), Some(shared)) = (&record, self.shared)
            && shared.has(record)
            && self.link_from(shared)?
        {
            sum.report.reused += 1;
            sum.records.push(*record);
            return Ok(());
        }
        let from = match self.open_source() {
            Err(CopyError::Io(error)) if self.common.live && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(());
            }
            opened => opened?,
        };
        let mode = self.common.mode(entry.mode, false);
        let to = self.open_new(Born::mode(mode))?;
        let copied = if self.common.live || entry.stat.size > data::SMALL {
            let before = FileStat::of(&from).map_err(|error| self.source_error("stat", error.into()))?;
            self.common.mover.copy(&from, &before, &to, buffer)
        } else {
            data::copy_small(&from, entry.stat.size, &to, buffer)
        };
        sum.report.bytes += copied.map_err(|error| self.dest_error("write", &error))?;
        if self.job.from.may_change() {
            let after = FileStat::of(&from).map_err(|error| self.source_error("stat", error.into()))?;
            if Identity::from(&after) != entry.stat {
                let path = self.job.source.join(self.job.from.name(self.id));
                sum.report.changed.push(self.job.from.full(&path));
                return self.finish_open(entry, mode, &from, &to);
            }
        }
        sum.records.extend(record);
        self.finish_open(entry, mode, &from, &to)
    }

    /// Says what the file becomes, if a later copy may share it.
    fn record(&self, entry: &Entry) -> Option<Record> {
        let digest = entry.digest.get()?;
        // An empty file of a layer may stand for a device.
        let maybe_device = entry.stat.size == 0 && !self.job.from.may_change();
        if maybe_device || self.job.from.xattrs_of(self.id).is_some() {
            return None;
        }
        let file = PlainFile {
            digest,
            mode: self.common.mode(entry.mode, false),
            owner: self.common.owner.unwrap_or((entry.uid, entry.gid)),
            mtime: self.common.time(entry.stat.mtime),
        };
        Some(file.record(self.path))
    }

    /// Shares the file of an earlier layer. Returns whether that could be done.
    fn link_from(&self, shared: &ReuseDir<'_>) -> Result<bool, CopyError> {
        match self.retried(|| shared.link(self.name, self.dest)) {
            Ok(()) => Ok(true),
            // As many names as an inode can have; or it was pruned meanwhile.
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOENT) => Ok(false),
            Err(error) => Err(IoError::new("link from", shared.full(self.path), &error.into()).into()),
        }
    }

    fn open_source(&self) -> Result<File, CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(self.source, self.job.from.name(self.id), flags, Mode::empty())
            .map(File::from)
            .map_err(|error| self.source_error("open", error.into()))
    }

    fn open_new(&self, mode: Mode) -> Result<File, CopyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.create(|| rustix::fs::openat(self.dest, self.name, flags, mode)).map(File::from)
    }

    /// Owner, attributes, mode, time: in this order, because chown(2) clears set-id bits and capabilities.
    fn finish_open(&self, entry: &Entry, mode: u32, from: &File, to: &File) -> Result<(), CopyError> {
        let step = |op: &'static str| move |error: std::io::Error| self.dest_error(op, &error);
        let owner = self.common.owner.unwrap_or((entry.uid, entry.gid));
        let is_device = entry.stat.size == 0
            && !self.job.from.may_change()
            && self.common.which == Which::Portable
            && self.keep_recorded_device(from, to, owner).map_err(step("record the type of"))?;
        if !is_device {
            self.born.own(self.common.ids, to, mode, owner).map_err(step("set the owner of"))?;
        }
        if let Some(xattrs) = self.xattrs(entry, from)? {
            match xattr::write(to, &xattrs) {
                Err(error) if !self.common.best_effort => {
                    return Err(self.dest_error("set attributes of", &error.into()));
                }
                _ => {}
            }
        }
        self.born.allow(to, mode).map_err(|error| self.dest_error("set the mode of", &error.into()))?;
        rustix::fs::futimens(to, &timestamps(self.common.time(entry.stat.mtime)))
            .map_err(|error| self.dest_error("set the time of", &error.into()))
    }

    /// Returns the attributes of a file, if it has any.
    fn xattrs(&self, entry: &Entry, from: &File) -> Result<Option<Arc<Xattrs>>, CopyError> {
        if entry.digest.get().is_some() {
            // They were read with the content; what the index of files knows without reading has none.
            let all = self.job.from.xattrs_of(self.id);
            return Ok(all.and_then(|all| others(&all, |name| self.common.which.wants(name))));
        }
        let read = xattr::read(from, self.common.which)
            .map_err(|error| self.source_error("read attributes of", error.into()))?;
        Ok((!read.is_empty()).then(|| Arc::new(read)))
    }

    /// Where devices cannot be made they are empty files with a record: it goes with them, and says their owner, for a record
    /// counts on kiln's own files only. Returns whether there was one.
    fn keep_recorded_device(&self, from: &File, to: &File, (uid, gid): (u32, u32)) -> std::io::Result<bool> {
        let there = owner::of(from, &rustix::fs::fstat(from)?)?;
        if there.file_type() == rustix::fs::FileType::RegularFile {
            return Ok(false);
        }
        owner::record(to, &Owner { uid, gid, ..there }, &rustix::fs::fstat(to)?)?;
        Ok(true)
    }

    fn device(&self, entry: &Entry, sum: &mut State) -> Result<(), CopyError> {
        let kind = rustix::fs::FileType::from_raw_mode(entry.mode);
        let made = self.retried(|| {
            rustix::fs::mknodat(self.dest, self.name, kind, Mode::RUSR | Mode::WUSR, entry.stat.size)
        });
        match made {
            Ok(()) => {
                self.chmod_unopened(entry)?;
                self.finish_unopened(entry, sum)
            }
            Err(Errno::PERM) if self.common.best_effort => {
                sum.report.left_out += 1;
                Ok(())
            }
            Err(Errno::PERM) => {
                let to = self.open_new(Mode::RUSR | Mode::WUSR)?;
                let (uid, gid) = self.common.owner.unwrap_or((entry.uid, entry.gid));
                let device = (rustix::fs::major(entry.stat.size), rustix::fs::minor(entry.stat.size));
                let record = || {
                    let stat = rustix::fs::fstat(&to)?;
                    owner::record(&to, &Owner { uid, gid, mode: entry.mode, device }, &stat)
                };
                record().map_err(|error| self.dest_error("record the type of", &error))?;
                let mode = Mode::from_raw_mode(self.common.mode(entry.mode, false));
                rustix::fs::fchmod(&to, mode).map_err(|e| self.dest_error("set the mode of", &e.into()))?;
                rustix::fs::futimens(&to, &timestamps(self.common.time(entry.stat.mtime)))
                    .map_err(|e| self.dest_error("set the time of", &e.into()))?;
                Ok(())
            }
            Err(error) => Err(self.dest_error("create device", &error.into())),
        }
    }

    fn chmod_unopened(&self, entry: &Entry) -> Result<(), CopyError> {
        let mode = Mode::from_raw_mode(self.common.mode(entry.mode, false));
        rustix::fs::chmodat(self.dest, self.name, mode, AtFlags::empty())
            .map_err(|error| self.dest_error("set the mode of", &error.into()))
    }

    /// Owner and time of what cannot be opened.
    fn finish_unopened(&self, entry: &Entry, sum: &mut State) -> Result<(), CopyError> {
        let (uid, gid) = self.common.owner.unwrap_or((entry.uid, entry.gid));
        match self.common.ids {
            Ids::Full => rustix::fs::chownat(
                self.dest,
                self.name,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|error| self.dest_error("set the owner of", &error.into()))?,
            Ids::Single => {
                let stat = FileStat::at(self.dest, self.name)
                    .map_err(|error| self.dest_error("stat", &error.into()))?;
                if (stat.uid, stat.gid) != (uid, gid) {
                    sum.report.link_owners.0.insert(self.path.to_owned(), (uid, gid));
                }
            }
        }
        set_time(self.dest, self.name, self.common.time(entry.stat.mtime))
            .map_err(|error| self.dest_error("set the time of", &error.into()))
    }

    fn create<T>(&self, make: impl Fn() -> rustix::io::Result<T>) -> Result<T, CopyError> {
        self.retried(make).map_err(|error| match error {
            Errno::ISDIR => CopyError::DirectoryInTheWay { path: image_path(self.path) },
            error => self.dest_error("create", &error.into()),
        })
    }

    /// Makes something new; what is in its place goes first, if it may.
    fn retried<T>(&self, make: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) if self.job.replace => {
                self.common.state().spoilt.push(self.path.to_owned());
                rustix::fs::unlinkat(self.dest, self.name, AtFlags::empty())?;
                make()
            }
            made => made,
        }
    }

    fn source_error(&self, op: &str, error: std::io::Error) -> CopyError {
        let path = self.job.source.join(self.job.from.name(self.id));
        IoError::new(op, self.job.from.full(&path), &error).into()
    }

    fn dest_error(&self, op: &str, error: &std::io::Error) -> CopyError {
        IoError::new(op, self.common.layer_path.join(self.path), error).into()
    }
}
