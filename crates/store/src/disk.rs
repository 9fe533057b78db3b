//! What trees take on disk, as du(1) counts it: blocks, each file once.
//!
//! Somebody waits for these numbers, and nothing but the kernel's answers takes time. So a file costs one statx(2) and no
//! allocation, and several threads share the directories of all trees, however few trees there are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::tree::selected::open_dir;
use crate::tree::{FileStat, Kind, walk};

/// What one tree takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes of directories, and of files with one name.
    pub(crate) bytes: u64,
    /// Names that are no directories'.
    pub(crate) files: u64,
    /// Files with several names, by device and inode.
    pub(crate) linked: HashMap<(u64, u64), Linked>,
    /// Directories that could not be read: what is in them is not counted.
    pub(crate) unread: u64,
}

/// A file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Names in the tree.
    pub(crate) here: u64,
    /// Names that it has.
    pub(crate) all: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

/// A directory that is still to be read.
struct Todo {
    /// Which tree it is of.
    tree: usize,
    /// Where its path begins. A path that grows too long for the kernel begins anew.
    from: Arc<OwnedFd>,
    path: PathBuf,
}

/// From so many bytes on a path begins anew: the kernel takes 4096.
const LONG: usize = 2048;

/// For getdents(2): a thousand names.
const BUFFER: usize = 64 << 10;

impl Taken {
    /// All of it, each file once.
    pub(crate) fn total(&self) -> u64 {
        self.bytes + self.linked.values().map(|file| file.bytes).sum::<u64>()
    }

    fn see(&mut self, stat: &FileStat) {
        if stat.kind() == Kind::Dir {
            self.bytes += stat.allocated;
            return;
        }
        self.files += 1;
        if stat.nlink == 1 {
            self.bytes += stat.allocated;
            return;
        }
        let new = Linked { here: 0, all: u64::from(stat.nlink), bytes: stat.allocated };
        self.linked.entry((stat.dev, stat.ino)).or_insert(new).here += 1;
    }

    /// Adds what another thread saw of the same tree, or what another tree takes.
    pub(crate) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.files += other.files;
        self.unread += other.unread;
        if self.linked.is_empty() {
            self.linked = other.linked;
            return;
        }
        for (inode, file) in other.linked {
            self.linked.entry(inode).or_insert(Linked { here: 0, ..file }).here += file.here;
        }
    }
}

/// Counts a tree, or a file. None if it is gone. What disappears meanwhile does not count.
///
/// # Errors
/// The tree itself cannot be looked at, or a descriptor is not to be had.
pub(crate) fn count(root: &Path) -> io::Result<Option<Taken>> {
    Ok(run(&[root], u64::MAX, 1)?.into_iter().flatten().next())
}

/// The same, unless it has more than so many entries: then there is no number.
///
/// # Errors
/// As there.
pub(crate) fn count_small(root: &Path, most: u64) -> io::Result<Option<Taken>> {
    Ok(run(&[root], most, 1)?.into_iter().flatten().next())
}

/// Counts several trees, on all of the machine's processors.
///
/// # Errors
/// As above.
pub(crate) fn count_all(roots: &[&Path]) -> io::Result<Vec<Option<Taken>>> {
    run(roots, u64::MAX, std::thread::available_parallelism().map_or(1, usize::from))
}

fn run(roots: &[&Path], most: u64, threads: usize) -> io::Result<Vec<Option<Taken>>> {
    let mut sums: Vec<Option<Taken>> = Vec::with_capacity(roots.len());
    let mut first = Vec::new();
    for (tree, root) in roots.iter().enumerate() {
        let (mut taken, stat) = (Taken::default(), FileStat::at(CWD, *root));
        let stat = match stat {
            Err(error) if is_gone(error) => {
                sums.push(None);
                continue;
            }
            stat => stat?,
        };
        taken.see(&stat);
        sums.push(Some(taken));
        if stat.kind() == Kind::Dir {
            first.push(tree);
        }
    }
    let work = Work { most, seen: AtomicU64::new(0), shared: Mutex::default(), more: Condvar::new() };
    let failed = |error: Errno| io::Error::from(error);
    for tree in first.into_iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(roots[tree], flags, Mode::empty()) {
            Ok(from) => work.lock().todo.push(Todo { tree, from: Arc::new(from), path: PathBuf::new() }),
            Err(error) if is_gone(error) => {}
            Err(Errno::ACCESS) => sums[tree].get_or_insert_default().unread += 1,
            Err(error) => return Err(failed(error)),
        }
    }
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run())).collect();
        let mut parts = vec![work.run()];
        for other in others {
            parts.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        parts
    });
    if let Some(error) = work.lock().failed {
        return Err(failed(error));
    }
    if work.seen.load(Ordering::Relaxed) > most {
        return Ok(vec![None; roots.len()]);
    }
    for (tree, part) in parts.into_iter().flatten() {
        sums[tree].get_or_insert_default().add(part);
    }
    Ok(sums)
}

/// What the threads share.
struct Work {
    most: u64,
    seen: AtomicU64,
    shared: Mutex<Shared>,
    /// There is more to do, or nothing will be any more.
    more: Condvar,
}

#[derive(Default)]
struct Shared {
    /// The last one is the next: depth first, so that few wait.
    todo: Vec<Todo>,
    /// Threads that read a directory, and may find more.
    busy: usize,
    failed: Option<Errno>,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads directories until there are none. Returns what it saw, by tree.
    fn run(&self) -> HashMap<usize, Taken> {
        let mut sums: HashMap<usize, Taken> = HashMap::new();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut found = Vec::new();
        while let Some(todo) = self.next() {
            let result = self.read(&todo, sums.entry(todo.tree).or_default(), &mut buffer, &mut found);
            drop(todo);
            let mut shared = self.lock();
            shared.busy -= 1;
            shared.todo.append(&mut found);
            if let Err(error) = result {
                shared.failed.get_or_insert(error);
            }
            let is_over = shared.is_over();
            drop(shared);
            // One more is what this thread itself takes.
            if is_over {
                self.more.notify_all();
            } else {
                self.more.notify_one();
            }
        }
        sums
    }

    fn next(&self) -> Option<Todo> {
        let waits = |shared: &mut Shared| shared.todo.is_empty() && !shared.is_over();
        let mut shared = self.more.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        if shared.failed.is_some() {
            return None;
        }
        let todo = shared.todo.pop()?;
        shared.busy += 1;
        Some(todo)
    }

    fn read(
        &self,
        todo: &Todo,
        sum: &mut Taken,
        buffer: &mut [MaybeUninit<u8>],
        found: &mut Vec<Todo>,
    ) -> Result<(), Errno> {
        let at = match open_dir(todo.from.as_fd(), &todo.path) {
            Ok(at) => Arc::new(at),
            Err(error) if is_gone(error) => return Ok(()),
            Err(Errno::ACCESS) => {
                sum.unread += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut seen = 0;
        let listed = walk::list(&at, buffer, &mut |name, _| {
            let stat = match FileStat::at(&at, name) {
                Ok(stat) => stat,
                Err(error) if is_gone(error) => return Ok(()),
                Err(error) => return Err(error),
            };
            sum.see(&stat);
            seen += 1;
            if seen > self.most {
                return Err(Errno::TOOBIG);
            }
            if stat.kind() == Kind::Dir {
                let name = OsStr::from_bytes(name.to_bytes());
                let (from, path) = if todo.path.as_os_str().len() > LONG {
                    (&at, PathBuf::from(name))
                } else {
                    (&todo.from, todo.path.join(name))
                };
                found.push(Todo { tree: todo.tree, from: Arc::clone(from), path });
            }
            Ok(())
        });
        if self.seen.fetch_add(seen, Ordering::Relaxed) + seen > self.most {
            return Err(Errno::TOOBIG);
        }
        match listed {
            Err(error) if is_gone(error) => Ok(()),
            listed => listed,
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.failed.is_some() || self.todo.is_empty() && self.busy == 0
    }
}

/// Somebody removed it meanwhile, or put something else in its place.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}
