//! Whether it takes longer to fetch a result than to make it.
//!
//! A result that is not taken has to be made, and all above it, for no record above counts then. So it is passed over only if its
//! files are needed for sure, and fetching them takes longer than it took to make them and all that is recorded above them.
//! What cannot be known speaks for fetching.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_core::{Digest, Op, StepGraph, StepId};
use kiln_solver::Sought;
use kiln_store::{RecordKind, Store};

use super::StepCache;
use super::import::{Offer, parts_of};
use super::record::{Entry, StepLayer};
use crate::engine::transfer::Origin;

/// Less than this is the time of a request, and says nothing of how fast bytes come.
const MEASURABLE: u64 = 256 << 10;
/// Nobody is glad about less than that, microseconds.
const WORTH: u64 = 250_000;

/// How fast places deliver, and what stands above what.
pub(super) struct Rates {
    store: Store,
    /// Bytes a second by host, as measured last.
    measured: Mutex<HashMap<String, u64>>,
    users: HashMap<StepId, Vec<StepId>>,
    keys: Mutex<HashMap<StepId, Digest>>,
    /// Steps whose files are needed, whatever becomes of the others.
    needed: HashSet<StepId>,
}

/// A result that takes longer to fetch than to make.
pub(super) struct Slow {
    /// Microseconds.
    pub(super) fetch: u64,
    /// Microseconds, where it was made.
    pub(super) run: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rates {
    /// `whole` says whether an output holds all that the result consists of.
    pub(super) fn new(store: &Store, graph: &StepGraph, wanted: &[StepId], whole: bool) -> Self {
        let mut users: HashMap<StepId, Vec<StepId>> = HashMap::new();
        for (id, step) in graph.iter() {
            for input in step.op.inputs() {
                users.entry(input).or_default().push(id);
            }
        }
        let needed = if whole { parts_of(graph, wanted) } else { HashSet::new() };
        Self { store: store.clone(), measured: Mutex::default(), users, keys: Mutex::default(), needed }
    }

    pub(super) fn foresee(&self, id: StepId, key: &Digest) {
        lock(&self.keys).insert(id, *key);
    }

    /// Takes note of how long a layer took.
    pub(super) fn note(&self, origin: &Origin, bytes: u64, took: Duration) {
        let Some(host) = host(origin).filter(|_| bytes >= MEASURABLE) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = (u128::from(bytes) * 1_000_000 / u128::from(micros)).try_into().unwrap_or(u64::MAX);
        lock(&self.measured).insert(host.clone(), rate);
        // A guess for the next build; without it that one only fetches.
        let _ = self.store.put_record(RecordKind::Rate, &host, &rate);
    }

    fn rate(&self, host: &str) -> Option<u64> {
        let mut measured = lock(&self.measured);
        if let Some(rate) = measured.get(host) {
            return Some(*rate);
        }
        let known: Option<u64> = self.store.get_record(RecordKind::Rate, host).ok().flatten();
        let known = known.filter(|rate| *rate > 0)?;
        measured.insert(host.to_owned(), known);
        Some(known)
    }

    /// Returns why a record is better passed over, if it is. `missing` are its layers that are not here.
    pub(super) fn slower(
        &self,
        entry: &Entry,
        missing: &[StepLayer],
        origin: &Origin,
        cache: &StepCache<'_>,
        sought: &Sought<'_>,
    ) -> Option<Slow> {
        let bytes: u64 = missing.iter().map(|layer| layer.layer.size).fold(0, u64::saturating_add);
        let rate = self.rate(&host(origin)?)?;
        let fetch = u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
        let run = entry.facts.duration_us;
        if fetch < WORTH || fetch <= run {
            return None;
        }
        let all = run.saturating_add(self.above(sought.id, cache)?);
        if fetch <= all {
            return None;
        }
        Some(Slow { fetch, run })
    }

    /// Returns how long all took that is recorded above a step, microseconds; none if that cannot be known, or if the step's
    /// files need not be needed.
    fn above(&self, id: StepId, cache: &StepCache<'_>) -> Option<u64> {
        let mut needed = self.needed.contains(&id);
        let mut total = 0_u64;
        let mut seen = HashSet::from([id]);
        let mut todo: Vec<(StepId, StepId)> = self.users(id).map(|user| (id, user)).collect();
        while let Some((below, user)) = todo.pop() {
            if !seen.insert(user) {
                continue;
            }
            let key = *lock(&self.keys).get(&user)?;
            if self.store.peek_record::<serde::de::IgnoredAny>(RecordKind::Step, &key.hex()).ok()?.is_some() {
                return None;
            }
            match cache.find(&key).next() {
                Some(Offer { entry, .. }) => total = total.saturating_add(entry.facts.duration_us),
                // It runs, and over these files, unless it only puts layers together.
                None => {
                    let op = cache.graph.get(user).map(|step| &step.op);
                    needed |= below == id && !matches!(op, Some(Op::Merge(_)));
                }
            }
            todo.extend(self.users(user).map(|next| (user, next)));
        }
        needed.then_some(total)
    }

    fn users(&self, id: StepId) -> impl Iterator<Item = StepId> {
        self.users.get(&id).map(Vec::as_slice).unwrap_or_default().iter().copied()
    }
}

/// Whose speed it is. A directory's is that of the disk, which steps write to as well.
fn host(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Registry(name) => Some(name.registry.clone()),
        Origin::Store | Origin::Layout(_) => None,
    }
}
