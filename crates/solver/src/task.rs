//! What is done on other threads than the schedule's: hashing, look-ups, execution.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_core::{Cancel, Digest, Op, Selection, Snapshot, Step, StepId};

use crate::key::Snapshots;
use crate::{
    CacheIndex, Claim, Elsewhere, Finished, Inputs, KeyInputs, KeyParts, Place, Sought, SourceUse,
    StepRecord, Verdict, Worker, content_key, definition_key,
};

/// What tasks are done with.
pub(crate) struct Tools<'a, E> {
    pub(crate) worker: &'a dyn Worker<Error = E>,
    pub(crate) index: &'a dyn CacheIndex<Error = E>,
    pub(crate) cancel: &'a Cancel,
}

/// Hash what a selection selects.
pub(crate) struct DigestTask<'g> {
    pub(crate) content: usize,
    pub(crate) asker: usize,
    pub(crate) source: StepId,
    pub(crate) op: &'g Op,
    pub(crate) finished: Option<Arc<Finished>>,
    pub(crate) selection: Selection,
    pub(crate) usage: SourceUse,
}

/// Make a remote source's files present.
pub(crate) struct FetchTask<'g> {
    pub(crate) source: usize,
    pub(crate) asker: usize,
    pub(crate) id: StepId,
    pub(crate) op: &'g Op,
}

/// Find a step's key and its record.
pub(crate) struct LookTask<'g> {
    pub(crate) node: usize,
    pub(crate) id: StepId,
    pub(crate) step: &'g Step,
    pub(crate) inputs: KeyInputs,
    pub(crate) below: Below,
    /// Whether a definition key may be believed: no source is about to be made anew.
    pub(crate) aliases_hold: bool,
}

/// What a step's snapshot begins with: a record of another execution of it does not count.
pub(crate) struct Below {
    pub(crate) root: Known,
    /// Of what a merge puts over its root, and so ends with.
    pub(crate) layers: Option<Known>,
}

/// What is known of an input, and so which records count.
pub(crate) enum Known {
    /// Scratch or an image, which the key names in full: each record counts.
    Fixed,
    /// A snapshot: those that were made over it.
    Made(Arc<Finished>),
    /// No record of it is left: each counts, since it could only be made as it was.
    Gone,
    /// It will be made anew: none.
    Moved,
}

/// Execute a step.
pub(crate) struct RunTask<'g> {
    pub(crate) node: usize,
    pub(crate) id: StepId,
    pub(crate) step: &'g Step,
    pub(crate) key: Digest,
    pub(crate) keys: KeyInputs,
    pub(crate) inputs: Inputs,
}

/// What a look-up found.
pub(crate) enum Looked {
    Hit(Finished),
    /// The key is known, and there is no record that counts.
    Missed {
        key: Digest,
        /// Whether there is one over another root.
        outdated: bool,
    },
    /// The key is not known without the digests of what the step takes from other steps.
    NeedsContents,
}

/// What is to be done with a step whose turn it is.
enum Claimed {
    /// Execute it, and say how it ended.
    Run(Option<Box<dyn Claim>>),
    /// Nothing: somebody else did meanwhile.
    Found(Box<Finished>),
}

/// Whose error it is.
pub(crate) enum Fault<E> {
    Worker(E),
    Index(E),
}

impl<E: Display + Send> Tools<'_, E> {
    pub(crate) fn digest(&self, task: &DigestTask<'_>, late: &dyn Fn()) -> Result<Digest, Fault<E>> {
        let snapshot = task.finished.as_ref().map(|finished| &finished.snapshot);
        let DigestTask { source, op, selection, usage, .. } = task;
        self.worker
            .content_digest(*source, op, snapshot, selection, *usage, late, self.cancel)
            .map_err(Fault::Worker)
    }

    pub(crate) fn fetch(&self, task: &FetchTask<'_>) -> Result<(), Fault<E>> {
        self.worker.fetch(task.id, task.op, self.cancel).map_err(Fault::Worker)
    }

    pub(crate) fn look(&self, task: &LookTask<'_>) -> Result<Looked, Fault<E>> {
        self.find(task).map_err(Fault::Index)
    }

    fn find(&self, task: &LookTask<'_>) -> Result<Looked, E> {
        let LookTask { id, step, inputs, below, aliases_hold, .. } = task;
        let look = !step.info.no_cache;
        let sought = Sought { id: *id, step, inputs, root: below.root_snapshot() };
        if let Some(key) = content_key(&step.op, inputs) {
            let record = if look { self.index.lookup(&key)? } else { None };
            let mut outdated = record.is_some();
            let mut found = record.filter(|record| below.bears(&record.snapshot));
            if look && found.is_none() {
                match self.elsewhere(&key, &sought, below) {
                    Elsewhere::Nothing => {}
                    Elsewhere::Unfit => outdated = true,
                    Elsewhere::Record(record) => found = Some(record),
                }
            }
            return match found {
                Some(record) => {
                    self.note_aliases(&step.op, inputs, &key)?;
                    self.index.settled(&sought, &record);
                    Ok(Looked::Hit(finished(record, Verdict::Hit)))
                }
                None => Ok(Looked::Missed { key, outdated }),
            };
        }
        if !look || !*aliases_hold {
            return Ok(Looked::NeedsContents);
        }
        let here = || self.index.alias(&definition_key(&step.op, inputs, Snapshots::Known));
        let far = || Ok(self.index.alias_elsewhere(&sought).filter(|_| below.may_bear()));
        for alias in [&here as &dyn Fn() -> Result<Option<Digest>, E>, &far] {
            let Some(key) = alias()? else { continue };
            let found = self.index.lookup(&key)?.filter(|record| below.bears(&record.snapshot));
            let found = found.or_else(|| match self.elsewhere(&key, &sought, below) {
                Elsewhere::Record(record) => Some(record),
                Elsewhere::Nothing | Elsewhere::Unfit => None,
            });
            if let Some(record) = found {
                self.index.settled(&sought, &record);
                return Ok(Looked::Hit(finished(record, Verdict::Hit)));
            }
        }
        Ok(Looked::NeedsContents)
    }

    /// Looks where other machines keep their records. The same rule holds for those.
    fn elsewhere(&self, key: &Digest, sought: &Sought<'_>, below: &Below) -> Elsewhere {
        if !below.may_bear() {
            return Elsewhere::Nothing;
        }
        match self.index.elsewhere(key, sought) {
            Elsewhere::Record(record) if record.key != *key || !below.bears(&record.snapshot) => {
                Elsewhere::Unfit
            }
            found => found,
        }
    }

    /// Executes and records, unless another process just did. The duration is of the execution alone.
    pub(crate) fn run(
        &self,
        task: &RunTask<'_>,
        place: &Place<'_>,
    ) -> (Result<Finished, Fault<E>>, Duration) {
        let claim = match self.claim(task, place) {
            Ok(Claimed::Run(claim)) => claim,
            Ok(Claimed::Found(finished)) => return (Ok(*finished), Duration::ZERO),
            Err(fault) => return (Err(fault), Duration::ZERO),
        };
        let start = Instant::now();
        let result = self.worker.execute(task.id, task.step, &task.inputs, place, self.cancel);
        let duration = start.elapsed();
        let result = result.map_err(Fault::Worker);
        let result = result.and_then(|snapshot| self.keep(task, snapshot, duration).map_err(Fault::Index));
        if let Some(claim) = claim {
            // Of who gives up because the build stops, nothing follows for others.
            if result.is_ok() || !self.cancel.is_cancelled() {
                claim.end(result.is_ok());
            }
        }
        (result, duration)
    }

    /// Waits for others who execute the same step, and takes what they recorded.
    fn claim(&self, task: &RunTask<'_>, place: &Place<'_>) -> Result<Claimed, Fault<E>> {
        let RunTask { id, step, key, keys, inputs, .. } = task;
        if step.info.no_cache || matches!(step.op, Op::Image(_)) || step.op.layers().is_some() {
            // It has to run here; or there is nothing to run.
            return Ok(Claimed::Run(None));
        }
        let claim = self.worker.claim(*id, step, key, place, self.cancel).map_err(Fault::Worker)?;
        let Some(claim) = claim else { return Ok(Claimed::Run(None)) };
        // Also without a wait: somebody may have finished between the look-up and now.
        let record = self.index.lookup(key).map_err(Fault::Index)?;
        match record.filter(|record| grows_from(&record.snapshot, &inputs.root)) {
            Some(record) => {
                self.note_aliases(&step.op, keys, key).map_err(Fault::Index)?;
                let sought = Sought { id: *id, step, inputs: keys, root: Some(&inputs.root) };
                self.index.settled(&sought, &record);
                claim.end(true);
                Ok(Claimed::Found(Box::new(finished(record, Verdict::Hit))))
            }
            None => Ok(Claimed::Run(Some(claim))),
        }
    }

    fn keep(&self, task: &RunTask<'_>, snapshot: Snapshot, duration: Duration) -> Result<Finished, E> {
        let RunTask { step, key, keys, inputs, .. } = task;
        if matches!(step.op, Op::Image(_)) {
            return Ok(Finished { snapshot, key: *key, created: None, verdict: Verdict::Ran, duration });
        }
        // Another process may have run the same step meanwhile. Its result is as good, and if both go on from one
        // result, neither finds the other's records made over a root that it does not know.
        let other = if step.info.no_cache { None } else { self.index.lookup(key)? };
        let other = other.filter(|record| match step.op.layers() {
            // There is only one way to put layers over a root.
            Some(_) => record.snapshot == snapshot,
            None => grows_from(&record.snapshot, &inputs.root),
        });
        let record = match other {
            Some(record) => StepRecord { duration_us: micros(duration), ..record },
            None => {
                let (duration_us, title) = (micros(duration), step.info.title.clone());
                let record = StepRecord { key: *key, snapshot, created: 0, duration_us, title };
                self.index.record(record, &KeyParts::of(&step.op, keys))?
            }
        };
        self.note_aliases(&step.op, keys, key)?;
        let sought = Sought { id: task.id, step, inputs: keys, root: Some(&inputs.root) };
        self.index.settled(&sought, &record);
        Ok(finished(record, Verdict::Ran))
    }

    /// Notes which key the definition stood for: once over the snapshots that the sources have now, and once over
    /// their keys alone, for a time when their records are gone.
    fn note_aliases(&self, op: &Op, inputs: &KeyInputs, key: &Digest) -> Result<(), E> {
        if inputs.sources.iter().all(|source| source.step.is_none()) {
            return Ok(());
        }
        let left = definition_key(op, inputs, Snapshots::Left);
        let known = definition_key(op, inputs, Snapshots::Known);
        if known != left {
            self.index.record_alias(&known, key)?;
        }
        self.index.record_alias(&left, key)
    }
}

impl Below {
    /// Whether any record can count.
    fn may_bear(&self) -> bool {
        !matches!(self.root, Known::Moved) && !matches!(self.layers, Some(Known::Moved))
    }

    /// The snapshot below, where that says more than the key.
    fn root_snapshot(&self) -> Option<&Snapshot> {
        match &self.root {
            Known::Made(root) => Some(&root.snapshot),
            Known::Fixed | Known::Gone | Known::Moved => None,
        }
    }

    /// Returns whether a record with this snapshot counts.
    pub(crate) fn bears(&self, snapshot: &Snapshot) -> bool {
        let root = match &self.root {
            Known::Fixed | Known::Gone => true,
            Known::Made(root) => grows_from(snapshot, &root.snapshot),
            Known::Moved => false,
        };
        root && match &self.layers {
            None | Some(Known::Fixed | Known::Gone) => true,
            Some(Known::Made(made)) => match &self.root {
                Known::Made(root) => snapshot.layers[root.snapshot.layers.len()..] == made.snapshot.layers,
                _ => snapshot.layers.ends_with(&made.snapshot.layers),
            },
            Some(Known::Moved) => false,
        }
    }
}

/// Returns whether a snapshot was made over this root.
fn grows_from(snapshot: &Snapshot, root: &Snapshot) -> bool {
    snapshot.layers.starts_with(&root.layers)
}

fn finished(record: StepRecord, verdict: Verdict) -> Finished {
    Finished {
        snapshot: record.snapshot,
        key: record.key,
        created: Some(record.created),
        verdict,
        duration: Duration::from_micros(record.duration_us),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
