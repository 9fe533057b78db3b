//! Packs finished layers into blobs while later steps run.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Layer, LayerId, Snapshot, StepGraph, StepId};
use kiln_store::{LayerOptions, Twin};

use super::arrival::Unseen;
use super::build::Build;
use super::chain::Chain;
use super::finished::Packed;
use super::patience::Patience;
use super::reporter::{Reporter, Task};
use crate::Error;

/// Takes layers of the wanted images as their steps end. The store remembers what was packed before.
pub(crate) struct Packer {
    /// Steps whose layers become part of an image, each with the number of its base's layers: those on the way from a
    /// wanted root file system to its base. The base's own layers are blobs already.
    chain: HashMap<StepId, usize>,
    queue: Mutex<Queue>,
}

/// A layer that can be packed.
pub(crate) struct Queued {
    layer: LayerId,
    /// Its step ran in this build.
    new: bool,
}

struct Queue {
    sender: Option<Sender<Queued>>,
    seen: HashSet<LayerId>,
    ran: HashSet<StepId>,
}

impl Packer {
    /// Starts with the steps that the images' root file systems are made of; `depth` says how many layers the image
    /// of an image step has.
    pub(crate) fn new(
        graph: &StepGraph,
        wanted: &[StepId],
        depth: impl Fn(&kiln_core::Digest) -> usize,
    ) -> (Self, Receiver<Queued>) {
        let mut owners = HashMap::new();
        for id in wanted {
            let Chain { steps, base } = super::chain::chain(graph, Some(*id));
            let base = base.map_or(0, |manifest| depth(&manifest));
            owners.extend(steps.into_iter().map(|id| (id, base)));
        }
        let (sender, receiver) = channel();
        let queue = Queue { sender: Some(sender), seen: HashSet::new(), ran: HashSet::new() };
        (Self { chain: owners, queue: Mutex::new(queue) }, receiver)
    }

    /// A step runs: its layer will be a new one.
    pub(crate) fn started(&self, id: StepId) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).ran.insert(id);
    }

    /// A step's snapshot is known: its top layer can be packed. (A step that changed nothing shows the layer of an
    /// earlier one, or of the base.)
    pub(crate) fn settled(&self, id: StepId, snapshot: &Snapshot) {
        let Some(base) = self.chain.get(&id) else { return };
        let Some(layer) = snapshot.layers.get(*base..).and_then(<[LayerId]>::last) else { return };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.seen.insert(layer.clone())
            && let Some(sender) = &queue.sender
        {
            let _ = sender.send(Queued { layer: layer.clone(), new: queue.ran.contains(&id) });
        }
    }

    /// No more layers will come.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).sender = None;
    }
}

/// The packing that is left when all steps are done: a task of its own, if something is packed then.
pub(crate) struct Rest<'a> {
    reporter: &'a Reporter<'a>,
    state: Mutex<RestState<'a>>,
}

#[derive(Default)]
struct RestState<'a> {
    begun: bool,
    packing: bool,
    task: Option<Task<'a>>,
}

/// A layer is packed, until this goes.
pub(crate) struct Packing<'r, 'a>(&'r Rest<'a>);

impl<'a> Rest<'a> {
    pub(crate) fn new(reporter: &'a Reporter<'a>) -> Self {
        Self { reporter, state: Mutex::default() }
    }

    /// All steps are done.
    pub(crate) fn begin(&self) {
        self.change(|state| state.begun = true);
    }

    /// A layer is packed now, if it is not known already.
    pub(crate) fn packs(&self, packs: bool) -> Packing<'_, 'a> {
        self.change(|state| state.packing = packs);
        Packing(self)
    }

    /// Nothing is left.
    pub(crate) fn end_with<T>(&self, packed: &Result<T, Error>) {
        let task = self.state.lock().unwrap_or_else(PoisonError::into_inner).task.take();
        if let Some(task) = task {
            task.end_with(packed);
        }
    }

    fn change(&self, change: impl FnOnce(&mut RestState<'a>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.begun && state.packing && state.task.is_none() {
            state.task = Some(self.reporter.task("exporting layers"));
        }
    }
}

impl Drop for Packing<'_, '_> {
    fn drop(&mut self) {
        self.0.change(|state| state.packing = false);
    }
}

/// Packs what is queued until the queue is closed, in each way that an output asks for; one layer at a time, for packing
/// itself uses all processors. `made` is told of each that a step of this build made. `blob` packs, or knows the blob already.
pub(crate) fn pack(
    ways: &[LayerOptions],
    queue: Receiver<Queued>,
    made: impl Fn(&LayerOptions, &Layer),
    blob: &dyn Fn(&LayerId, &LayerOptions) -> Result<Layer, Error>,
) -> Result<Packed, Error> {
    let mut packed = Packed::new();
    for Queued { layer, new } in queue {
        for way in ways {
            let packed_blob = blob(&layer, way)?;
            if new {
                made(way, &packed_blob);
            }
            packed.insert((layer.clone(), *way), packed_blob);
        }
    }
    Ok(packed)
}

impl Build<'_> {
    /// Returns the blob of a layer, packed as wanted. One that is somewhere else in that form stays there.
    pub(super) fn layer_blob(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        self.blob_and_twin(layer, options, None, cancel)
    }

    /// The same, and where an archive is begun its bytes go there, too. To be said of one layer after the other, from the lowest up.
    pub(super) fn layer_ahead(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let twin = ahead.as_ref().and_then(|ahead| ahead.twin(options));
        let blob = self.blob_and_twin(layer, options, twin.clone(), cancel)?;
        if let (Some(ahead), Some(twin)) = (&*ahead, twin) {
            ahead.packed(&twin, &blob);
        }
        Ok(blob)
    }

    fn blob_and_twin(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        twin: Option<Twin>,
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        if let Some(blob) = self.cache.packed(layer, options) {
            return Ok(blob);
        }
        let snapshot = Snapshot { layers: vec![layer.clone()] };
        self.cache.present([&snapshot], &Unseen, cancel)?;
        let way = (layer, options);
        Patience::of(self.request).blob(&self.engine.store, way, twin, self.reporter, cancel)
    }

    /// Whether a layer's blob is there, so that nothing needs to be packed.
    pub(super) fn has_layer_blob(&self, layer: &LayerId, options: &LayerOptions) -> bool {
        self.cache.packed(layer, options).is_some()
            || self.engine.store.has_layer_blob(layer, options).unwrap_or(false)
    }
}
