//! Cache mounts on their way between machines: exported to a registry, a directory or a file, and imported from there.
//!
//! The form is `kiln_carry`'s; here are the files ([`tree`], [`stage`]), the places ([`depot`]) and what goes on between them.
//! Caches are touched through `CacheMounts::hold` only. docs/cache-export.md is the users' page.

mod depot;
mod export;
mod gather;
mod import;
mod known;
mod mend;
mod outgoing;
mod report;
mod restore;
mod save;
mod stage;
mod tree;

use std::time::Instant;

use kiln_carry::{Generation, Index, Strategy, generation_tag, heads, union};
use kiln_core::{Cancel, Digest, EventSink};
use kiln_registry::RegistryClient;
use kiln_store::cache_mount::{CacheMounts, CacheName};
use ring::rand::SecureRandom as _;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::reporter::{Reporter, Task};
use crate::request::{CarryLimits, CarryPlace, RegistryOptions};
use crate::{CarryFailure, Error};
use depot::Depot;

pub use report::{CarriedCache, CarryExport, CarryImport, CarryReport};
pub(super) use restore::Restores;
pub(super) use save::Saves;

/// More than this an index has not, bytes: some four million files.
const MAX_INDEX: u64 = 512 << 20;

/// `kiln cache export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryExportRequest {
    /// Caches of these ids; all there are, if none is given.
    pub ids: Vec<String>,
    /// Only those of this scope.
    pub scope: Option<String>,
    /// Where to.
    pub place: CarryPlace,
    /// What of them.
    pub limits: CarryLimits,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

/// `kiln cache import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryImportRequest {
    /// Caches of these ids; all there are, if none is given.
    pub ids: Vec<String>,
    /// Only those of this scope.
    pub scope: Option<String>,
    /// Where from.
    pub place: CarryPlace,
    /// What counts where several writers made a generation each.
    pub strategy: Strategy,
    /// What a cache has here goes, instead of staying where it is newer or nothing comes for it.
    pub replace: bool,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

/// What carrying needs.
pub(super) struct Carrier<'a> {
    pub(super) engine: &'a Engine,
    pub(super) caches: &'a CacheMounts,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) cancel: &'a Cancel,
    /// The name that generations get their tags from.
    pub(super) name: String,
}

impl Engine {
    /// Exports cache mounts as a generation that takes the place of those it is made on top of.
    ///
    /// # Errors
    /// [`Error::NoSuchCache`]; the place holds something else, or cannot be written. What was there stays as it was.
    pub fn export_caches(
        &self,
        request: &CarryExportRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<CarryExport, Error> {
        let reporter = Reporter::new(events);
        let names = self.cache_names(&request.ids, request.scope.as_deref())?;
        let to = (&request.place, &request.limits, &request.registry);
        self.export_to(&self.caches, &names, to, &reporter, cancel, &|| Ok(()))
    }

    /// Exports. `confirm` is asked once all is sent and before it becomes known: if it fails nothing was exported.
    pub(super) fn export_to(
        &self,
        caches: &CacheMounts,
        names: &[CacheName],
        (place, limits, registry): (&CarryPlace, &CarryLimits, &RegistryOptions),
        reporter: &Reporter<'_>,
        cancel: &Cancel,
        confirm: &dyn Fn() -> Result<(), Error>,
    ) -> Result<CarryExport, Error> {
        let registry = RegistryClient::new(self.registry_config(registry), cancel.clone())?;
        let task = reporter.task(&format!("exporting cache mounts to {place}"));
        let done = depot::open(place, true, &registry, &self.store, cancel).and_then(|depot| {
            let carrier = Carrier { engine: self, caches, reporter, cancel, name: tag_name(place) };
            let done = carrier.export(names, &place.to_string(), &*depot, limits, (&task, confirm));
            if done.is_err() {
                depot.take_back();
            }
            done
        });
        task.end_with(&done);
        interrupted(done, cancel)
    }

    /// Imports cache mounts. A cache that is used meanwhile is waited for, in the end, for a moment.
    ///
    /// # Errors
    /// There is no export, or not this cache in it; it is damaged. No cache is changed then that was not imported whole.
    pub fn import_caches(
        &self,
        request: &CarryImportRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<CarryImport, Error> {
        let reporter = Reporter::new(events);
        let registry = RegistryClient::new(self.registry_config(&request.registry), cancel.clone())?;
        let task = reporter.task(&format!("importing cache mounts from {}", request.place));
        let done = depot::open(&request.place, false, &registry, &self.store, cancel).and_then(|depot| {
            let (caches, name) = (&self.caches, tag_name(&request.place));
            let carrier = Carrier { engine: self, caches, reporter: &reporter, cancel, name };
            carrier.import_all(request, &*depot, &task)
        });
        task.end_with(&done);
        interrupted(done, cancel)
    }

    fn cache_names(&self, ids: &[String], scope: Option<&str>) -> Result<Vec<CacheName>, Error> {
        let all: Vec<CacheName> = self.caches.list()?.iter().map(|info| info.name()).collect();
        let fits = |name: &CacheName| scope.is_none_or(|scope| name.scope_text() == scope);
        for id in ids {
            if !all.iter().any(|name| name.id == *id && fits(name)) {
                return Err(Error::NoSuchCache { id: id.clone() });
            }
        }
        Ok(all.into_iter().filter(|name| fits(name) && (ids.is_empty() || ids.contains(&name.id))).collect())
    }
}

impl Carrier<'_> {
    fn import_all(
        &self,
        request: &CarryImportRequest,
        depot: &dyn Depot,
        task: &Task<'_>,
    ) -> Result<CarryImport, Error> {
        let started = Instant::now();
        let place = request.place.to_string();
        let (index, generations) = self.index(depot, &place, request.strategy)?;
        if generations.is_empty() {
            return Err(Error::Carry(CarryFailure::Nothing { place }));
        }
        let fits = |scope: &str| request.scope.as_deref().is_none_or(|wanted| wanted == scope);
        for id in &request.ids {
            if !index.trees.iter().any(|tree| tree.id == *id && fits(&tree.scope)) {
                let there = index.trees.iter().map(|tree| tree.id.clone()).collect();
                return Err(Error::Carry(CarryFailure::Lacks { place, id: id.clone(), there }));
            }
        }
        let (mut caches, mut moved, mut notes) = (Vec::new(), 0, Vec::new());
        let wanted = |id: &String| request.ids.is_empty() || request.ids.contains(id);
        for tree in index.trees.iter().filter(|tree| wanted(&tree.id) && fits(&tree.scope)) {
            let imported = self.import(&index, tree, &generations, depot, request.replace, task)?;
            moved += imported.moved;
            notes.extend(imported.notes);
            caches.push(imported.cache);
        }
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(CarryImport { place, caches, moved, duration_us, notes })
    }

    /// Returns what a place has, as one index, and the generations that it is made of.
    fn index(
        &self,
        depot: &dyn Depot,
        place: &str,
        strategy: Strategy,
    ) -> Result<(Index, Vec<Digest>), Error> {
        let pointer = depot.pointer()?;
        let heads: Vec<Generation> = heads(&pointer.generations).into_iter().cloned().collect();
        let indexes = load(depot, place, &heads)?;
        Ok((union(indexes, strategy), heads.into_iter().map(|head| head.digest).collect()))
    }

    /// What others see who wait for a cache.
    fn who(&self, what: &str) -> String {
        format!("process {}, kiln cache {what}", std::process::id())
    }

    /// A tag that no other generation has.
    fn tag(&self, time: i64) -> String {
        let mut random = [0_u8; 8];
        if ring::rand::SystemRandom::new().fill(&mut random).is_err() {
            // The process's number and the time make two writers differ, too.
            random = (u64::from(std::process::id()) << 32 | time.cast_unsigned() & 0xffff_ffff).to_le_bytes();
        }
        generation_tag(&self.name, &stamp(time), &Digest::of(&random).hex()[..10])
    }
}

/// A time as tags of generations have it.
fn stamp(time: i64) -> String {
    let time = jiff::Timestamp::from_second(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Reads the indexes of generations, newest first. One that is gone meanwhile counts only if it is the only one.
fn load(depot: &dyn Depot, place: &str, generations: &[Generation]) -> Result<Vec<Index>, Error> {
    let mut indexes = Vec::new();
    for generation in generations {
        let read = || -> Result<Index, Error> {
            let carry = |error| Error::Carry(CarryFailure::Place { place: place.to_owned(), error });
            let manifest = depot.get(&generation.digest, generation.size, true)?;
            let (_, (digest, size)) = Generation::read(&manifest).map_err(carry)?;
            if size > MAX_INDEX {
                let reason = format!("its index has {size} bytes");
                return Err(carry(kiln_carry::CarryError::Damaged { reason }));
            }
            kiln_carry::read(&depot.get(&digest, size, false)?).map_err(carry)
        };
        match read() {
            Ok(index) => indexes.push(index),
            Err(error) if generations.len() == 1 || matches!(error, Error::Interrupted) => return Err(error),
            Err(error) => {
                // Somebody let go of it between the pointer and now, or it is damaged: the others are as good.
                if indexes.is_empty() && generation.digest == generations[generations.len() - 1].digest {
                    return Err(error);
                }
            }
        }
    }
    Ok(indexes)
}

fn tag_name(place: &CarryPlace) -> String {
    match place {
        CarryPlace::Registry(name) => name.tag.clone().unwrap_or_else(|| "latest".to_owned()),
        CarryPlace::Directory { tag, .. } | CarryPlace::Archive { tag, .. } => tag.clone(),
    }
}

fn interrupted<T>(result: Result<T, Error>, cancel: &Cancel) -> Result<T, Error> {
    match result {
        Err(_) if cancel.is_cancelled() => Err(Error::Interrupted),
        result => result,
    }
}
