//! Doing a thing once: who is about to do what others may be doing takes a claim, and waits for them instead.
//!
//! A claim is a lock with a note in it that says whose it is. It is taken for one piece of work (a step, a layer of a base, a
//! download) and held until that has ended. Who holds one waits for no other: so no two can wait for each other. After the wait
//! the thing is looked for again: whoever had the claim may have been killed.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use kiln_core::Cancel;
use serde::{Deserialize, Serialize};

use crate::durable::children;
use crate::error::StoreError;
use crate::layout;
use crate::lock::FileLock;
use crate::store::Store;

/// A wait asks again this often. A thread that blocks in flock(2) could not be called back.
const POLL: Duration = Duration::from_millis(10);
/// So many polls after which a holder that has left no note is shown as unknown, and how often the note is read again.
const LOOK: u32 = 10;

/// Who holds a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub process: u32,
    /// What it does, as a person would say it: `kiln build /src/app`.
    pub doing: String,
    /// When it began, seconds since 1970.
    pub since: u64,
}

/// How a claim is waited for.
pub struct Waiting<'a> {
    /// What others see while they wait for this one.
    pub doing: &'a str,
    /// For how long; as long as it takes if none.
    pub timeout: Option<Duration>,
    /// Ends the wait.
    pub cancel: &'a Cancel,
    /// Is told for whom, at first and whenever that changes; none is somebody who has left no note.
    pub on_wait: &'a mut dyn FnMut(Option<&Holder>),
}

/// Is told for whom a wait took too long, where what is waited for is done all the same.
pub type GaveUp<'a> = &'a mut dyn FnMut(Option<&Holder>);

/// What became of a wait.
#[derive(Debug)]
pub enum Claimed {
    /// It is held.
    Held {
        /// Until this is dropped.
        claim: Claim,
        /// Whether others had it meanwhile: then the thing may be there.
        waited: bool,
    },
    /// Others had it and failed. Nobody holds it: those who waited need not fail one after the other.
    Failed,
    /// Others still have it.
    TimedOut(Option<Holder>),
    /// The build is cancelled.
    Cancelled,
}

/// While it is held, others who want the same wait. It dies with its process.
#[derive(Debug)]
pub struct Claim(Option<FileLock>);

impl Store {
    /// Waits until nobody else, in any process, does what is called so: a name for a file.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn claim(&self, what: &str, waiting: &mut Waiting<'_>) -> Result<Claimed, StoreError> {
        let path = self.0.layout.at(layout::LOCKS).join(what);
        let started = Instant::now();
        let waiter = std::thread::current();
        let mut guard = None;
        let mut shown: Option<Option<Holder>> = None;
        let mut polls = 0;
        loop {
            if waiting.cancel.is_cancelled() {
                return Ok(Claimed::Cancelled);
            }
            if let Some(lock) = FileLock::attempt_new(&path)? {
                if polls > 0 && read(lock.file()) == Some(Note::Failed) {
                    return Ok(Claimed::Failed);
                }
                // A hint only: on a full disk nobody hears who it is.
                let _ = write(lock.file(), &Note::Held(Holder::here(waiting.doing)));
                return Ok(Claimed::Held { claim: Claim(Some(lock)), waited: polls > 0 });
            }
            if polls <= LOOK || polls % LOOK == 0 {
                let holder = holder(&path);
                // One that has just taken the lock has not said yet who it is.
                if (holder.is_some() || polls >= LOOK) && shown.as_ref() != Some(&holder) {
                    (waiting.on_wait)(holder.as_ref());
                    shown = Some(holder);
                }
            }
            if waiting.timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
                return Ok(Claimed::TimedOut(shown.flatten()));
            }
            polls += 1;
            let waiter = waiter.clone();
            guard.get_or_insert_with(|| waiting.cancel.on_cancel(move || waiter.unpark()));
            std::thread::park_timeout(POLL);
        }
    }

    /// Removes lock files that nobody holds: those of who was killed, or failed.
    pub(crate) fn sweep_locks(&self) -> Result<(), StoreError> {
        for path in children(&self.0.layout.at(layout::LOCKS))? {
            if let Some(lock) = FileLock::try_existing(&path)? {
                lock.remove();
            }
        }
        Ok(())
    }
}

impl Claim {
    /// Lets go, and says that it came to nothing: those who wait go on by themselves, all at once.
    pub fn fail(mut self) {
        if let Some(lock) = self.0.take() {
            let _ = write(lock.file(), &Note::Failed);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            lock.remove();
        }
    }
}

impl Holder {
    fn here(doing: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { process: std::process::id(), doing: doing.to_owned(), since: now.as_secs() }
    }
}

/// What a lock file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Note {
    Held(Holder),
    Failed,
}

fn holder(path: &Path) -> Option<Holder> {
    match read(&File::open(path).ok()?) {
        Some(Note::Held(holder)) => Some(holder),
        _ => None,
    }
}

fn read(mut file: &File) -> Option<Note> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(1 << 16).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(mut file: &File, note: &Note) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(note)?)
}
