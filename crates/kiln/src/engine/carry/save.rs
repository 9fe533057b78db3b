//! Saving for a build: what its steps mounted goes to every place that was asked for. It is read and sent from the moment on at which the
//! last of those steps has ended, beside later steps and the image's own export; the generation becomes known when the build has
//! ended well, and never if it has not.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_core::{Cancel, MountKind, Op, StepGraph, StepId};
use kiln_store::cache_mount::CacheName;

use super::report::CarryExport;
use super::restore::used;
use crate::Error;
use crate::engine::build::Build;
use crate::request::{CarryPlace, CarryTarget};

/// Who waits looks this often whether all of it was interrupted.
const POLL: Duration = Duration::from_millis(50);

/// How far a build is, for whoever saves its caches.
pub(crate) struct Saves {
    /// Steps that mount caches, and which.
    users: Vec<(StepId, Vec<CacheName>)>,
    state: Mutex<State>,
    changed: Condvar,
    /// Ends what is not wanted any more.
    stop: Cancel,
}

#[derive(Default)]
struct State {
    /// Steps that have ended.
    ended: HashSet<StepId>,
    /// No step runs any more.
    over: bool,
    /// Something may still come into caches.
    restoring: bool,
    /// The steps are done so many times: what was read in an earlier one is not what they left.
    attempt: u32,
    /// The build ended, and whether well.
    built: Option<bool>,
}

/// What became of one place.
enum Saved {
    Done(CarryExport),
    /// No step made any of its caches.
    Nothing(CarryPlace),
    Failed(CarryPlace, Error),
}

/// Says that the build ended, whatever becomes of the thread that builds.
pub(crate) struct Ending<'a>(&'a Saves);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.built(false);
    }
}

impl Saves {
    pub(crate) fn of(graph: &StepGraph) -> Self {
        let mounts = |op: &Op| match op {
            Op::Run(run) => run.mounts.clone(),
            _ => Vec::new(),
        };
        let caches = |op: &Op| -> Vec<CacheName> {
            let caches = mounts(op).into_iter().filter_map(|mount| match mount.kind {
                MountKind::Cache(cache) => Some(CacheName { id: cache.id, scope: cache.scope }),
                _ => None,
            });
            caches.collect()
        };
        let users = graph.iter().map(|(id, step)| (id, caches(&step.op)));
        let users = users.filter(|(_, caches)| !caches.is_empty()).collect();
        Self { users, state: Mutex::default(), changed: Condvar::new(), stop: Cancel::new() }
    }

    /// A step has its result and uses nothing any more.
    pub(crate) fn step_ended(&self, step: StepId) {
        self.change(|state| {
            state.ended.insert(step);
        });
    }

    /// No step runs any more: those that did not will not.
    pub(crate) fn steps_over(&self) {
        self.change(|state| state.over = true);
    }

    /// Caches are being restored, or not any more.
    pub(crate) fn restoring(&self, restoring: bool) {
        self.change(|state| state.restoring = restoring);
    }

    /// All steps are gone through once more.
    pub(crate) fn again(&self) {
        self.change(|state| {
            *state = State { attempt: state.attempt + 1, ..State::default() };
        });
    }

    /// The build ended; what was said first counts.
    pub(crate) fn built(&self, well: bool) {
        let mut first = well;
        self.change(|state| first = *state.built.get_or_insert(well));
        if !first {
            self.stop.cancel();
        }
    }

    /// When it is dropped the build has ended, not well unless that was said.
    pub(crate) fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    /// Waits until the caches with these names are what the build leaves, as far as one can know; `whole` until it has ended. Returns
    /// which attempt it is.
    fn ready(&self, names: &[CacheName], whole: bool) -> Result<u32, Error> {
        self.wait(|state| self.is_ready(state, names, whole), |state| state.attempt)
    }

    fn is_ready(&self, state: &State, names: &[CacheName], whole: bool) -> bool {
        let uses = |caches: &[CacheName]| caches.iter().any(|cache| names.contains(cache));
        let idle = || self.users.iter().all(|(id, caches)| state.ended.contains(id) || !uses(caches));
        state.built.is_some() || !whole && !state.restoring && (state.over || idle())
    }

    /// Waits until the build has ended well; fails if it has not, or if its steps are done again.
    fn confirm(&self, attempt: u32) -> Result<(), Error> {
        let well = self.wait(
            |state| state.built.is_some() || state.attempt != attempt,
            |state| state.attempt == attempt && state.built == Some(true),
        )?;
        if well { Ok(()) } else { Err(Error::Interrupted) }
    }

    fn is_stale(&self, attempt: u32) -> bool {
        self.lock().attempt != attempt
    }

    fn wait<T>(&self, until: impl Fn(&State) -> bool, result: impl Fn(&State) -> T) -> Result<T, Error> {
        let mut state = self.lock();
        loop {
            if self.stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            if until(&state) {
                return Ok(result(&state));
            }
            state = self.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Build<'_> {
    /// Builds, and saves caches beside that.
    pub(in crate::engine) fn saving<T>(&self, build: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.request.cache_mounts_to.is_empty() {
            return build();
        }
        let (built, saved) = std::thread::scope(|scope| {
            let saving = scope.spawn(|| self.save_caches());
            let ending = self.saves.ending();
            let built = build();
            self.saves.built(built.is_ok());
            drop(ending);
            (built, saving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let built = built?;
        match saved {
            Some(all) => self.tell_saved(all).map(|()| built),
            None => Err(Error::Interrupted),
        }
    }

    /// Exports the caches of this build's steps, beside it. None if it did not end well.
    fn save_caches(&self) -> Option<Vec<Saved>> {
        let stop = self.saves.stop.clone();
        let _forward = self.cancel.on_cancel(move || stop.cancel());
        let mut all = Vec::new();
        for target in &self.request.cache_mounts_to {
            let saved = match self.save(target) {
                Ok(Some(export)) => Saved::Done(export),
                Ok(None) => Saved::Nothing(target.place.clone()),
                Err(Error::Interrupted) => return None,
                Err(error) => Saved::Failed(target.place.clone(), error),
            };
            all.push(saved);
        }
        Some(all)
    }

    fn save(&self, target: &CarryTarget) -> Result<Option<CarryExport>, Error> {
        let names = used(&self.plan.graph).into_iter().map(|(id, scope)| CacheName { id, scope });
        let names: Vec<CacheName> =
            names.filter(|name| target.ids.is_empty() || target.ids.contains(&name.id)).collect();
        // What went into a pipe cannot be taken back.
        let whole = is_stream(&target.place);
        let mut tries = 0;
        loop {
            tries += 1;
            let attempt = self.saves.ready(&names, whole)?;
            let mut there = Vec::new();
            for name in &names {
                if self.caches.find(name)?.is_some() {
                    there.push(name.clone());
                }
            }
            if there.is_empty() {
                self.saves.confirm(attempt)?;
                return Ok(None);
            }
            let to = (&target.place, &target.limits, &self.request.registry);
            let confirm = || self.saves.confirm(attempt);
            let stop = &self.saves.stop;
            let saved = self.engine.export_to(&self.caches, &there, to, self.reporter, stop, &confirm);
            match saved {
                Err(Error::Interrupted) if self.saves.is_stale(attempt) && !stop.is_cancelled() => {}
                // What was there when it was looked for may be gone by the end of a long build.
                Err(error) if tries == 1 && super::mend::is_gone(&error) => self.saves.confirm(attempt)?,
                saved => {
                    // A failure is told at the end, too.
                    if saved.is_err() {
                        self.saves.confirm(attempt)?;
                    }
                    return saved.map(Some);
                }
            }
        }
    }

    /// Tells what was saved. The image stands by now: a failure is told and no more, unless it is required.
    fn tell_saved(&self, all: Vec<Saved>) -> Result<(), Error> {
        for saved in all {
            match saved {
                Saved::Done(export) => {
                    for note in &export.notes {
                        self.reporter.warn(note.clone(), None);
                    }
                    self.carried.lock().unwrap_or_else(PoisonError::into_inner).saved.push(export);
                }
                Saved::Nothing(place) => {
                    self.reporter.warn(format!("there is no cache mount to export to {place}"), None);
                }
                Saved::Failed(_, error) if self.request.cache_mounts_required => return Err(error),
                Saved::Failed(place, error) => {
                    let message =
                        format!("the image is built, but cache mounts are not exported to {place}: {error}");
                    self.reporter.warn(message, None);
                }
            }
        }
        Ok(())
    }
}

/// Whether what is written there is with somebody else at once.
fn is_stream(place: &CarryPlace) -> bool {
    match place {
        CarryPlace::Archive { path: None, .. } => true,
        CarryPlace::Archive { path: Some(path), .. } => {
            path.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
