//! The engine: one store, opened by a process that has entered its namespaces.

mod agent;
mod ahead;
mod arrival;
mod attest;
mod bases;
mod blame;
mod build;
mod cache_places;
mod carry;
mod chain;
mod contexts;
mod debug;
mod definition;
mod explain;
mod export;
mod fetch;
mod files;
mod finished;
mod foreign;
mod git;
mod ids;
mod ignore_file;
mod image;
mod index;
mod last_copy;
mod layer_report;
mod layers;
mod leak;
mod listing;
mod manage;
mod needed;
mod network;
mod output;
mod packer;
mod patience;
mod planning;
mod progress;
mod recipe;
mod redact;
mod remote;
mod reporter;
mod run_image;
mod run_mounts;
mod run_step;
mod step_cache;
mod step_files;
mod to_file;
mod transfer;
mod trees;
mod verify;
mod worker;

use std::path::Path;

use kiln_runtime::{EnterOptions, Entered, IdMode, Isolation};
use kiln_store::cache_mount::{CacheMounts, CachePlace};
use kiln_store::{Ids, Store};

use crate::Error;
use trees::Trees;

pub use attest::{Sbom, SbomRequest};
pub use carry::{
    CarriedCache, CarryExport, CarryExportRequest, CarryImport, CarryImportRequest, CarryReport,
};
pub use debug::{EnterRequest, Entering, HeldStep, Side, StepMount, StepShell, StepSummary};
pub use explain::{BuildNote, BuildVerdict};
pub use ignore_file::ignore_list;
pub use layer_report::{CacheLeft, HiddenFile, LargeFile, LayerReport, LayersReport, Oversized, SizeLimits};
pub use listing::{ContextListing, ContextView, ListedFile, Rule, RuleUse, Why};
pub(crate) use manage::registry_config;
pub use manage::{
    BoundReport, CacheFilter, CachePruneReport, CachePruneRequest, CacheSummary, HistoryStep, ImageDetails,
    ImageFilter, ImagePruneReport, ImagePruneRequest, ImageSummary, ImagesRequest, NextToGo, PruneReport,
    PruneRequest, PrunedKind, PrunedThing, RemovedImage, StoreBound, history,
};
pub use recipe::Recipe;
pub use run_image::RunRequest;
pub use run_mounts::{RunMount, RunMountKind};
pub use transfer::{
    CopyOutcome, CopyRequest, ImportRequest, IndexRequest, LoadRequest, SaveFormat, SaveRequest, TagRequest,
};
pub use trees::Snapshotter;
pub use verify::{
    Circumstance, ImageDifference, PartDifference, PathDifference, Unvaried, VerifyReport, VerifyRequest,
};

/// Builds and manages images in one store. Made before the process has a second thread; used by any number of them.
#[derive(Debug)]
pub struct Engine {
    entered: Entered,
    store: Store,
    caches: CacheMounts,
    /// Places of caches that cannot be used here.
    out_of_reach: Vec<CachePlace>,
    trees: Trees,
}

impl Engine {
    /// Enters the namespaces and opens the store.
    ///
    /// # Errors
    /// The process has threads already, the machine has no user namespaces, or the store cannot be opened.
    pub fn start(root: &Path) -> Result<Self, Error> {
        Self::start_with(root, &EnterOptions::default())
    }

    /// The same with other namespaces than the best that there are.
    ///
    /// # Errors
    /// As [`start`](Self::start); or what is asked for cannot be had.
    pub fn start_with(root: &Path, options: &EnterOptions) -> Result<Self, Error> {
        // Made before entering: the directory belongs to the user, whatever ids are mapped inside.
        std::fs::create_dir_all(root).map_err(|error| kiln_core::IoError::new("create", root, &error))?;
        let entered = kiln_runtime::enter(options)?;
        let ids = match entered.ids() {
            IdMode::Single => Ids::Single,
            _ => Ids::Full,
        };
        let store = Store::open(root, ids)?;
        let mut caches = store.cache_mounts();
        if entered.isolation() == Isolation::Chroot {
            caches = caches.moving();
        }
        let trees = Trees::new(store.clone());
        Ok(Self { entered, store, caches, out_of_reach: Vec::new(), trees })
    }

    /// Uses this snapshotter and no other. Without, overlay is tried when it is first needed.
    #[must_use]
    pub fn snapshotter(mut self, snapshotter: Snapshotter) -> Self {
        self.trees.choose(snapshotter);
        self
    }
}
