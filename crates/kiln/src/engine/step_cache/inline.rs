//! Records inside an image's own configuration: `--cache-to type=inline`. The image's layers are those of the records, so
//! there is nothing else to write, and only what the image consists of can be there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Digest, ImageConfig, Snapshot, StepId};
use kiln_oci::LoadedImage;
use kiln_solver::StepRecord;
use kiln_store::LayerOptions;
use serde::{Deserialize, Serialize};

use super::StepCache;
use super::import::parts_of;
use super::record::{Entry, Facts, Packing, StepLayer, newer};
use crate::engine::chain::chain;

/// The key of a configuration that they are under. BuildKit's are under `moby.buildkit.cache.v0`, and kiln does not read those.
const KEY: &str = "vnd.kiln.steps";

/// All records of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inline {
    version: u32,
    /// What file times in the layers were clamped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Layers of the image that it starts from.
    base: usize,
    /// How the layers above were packed.
    packing: Vec<String>,
    steps: Vec<InlineStep>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InlineStep {
    key: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    definitions: Vec<Digest>,
    title: String,
    created: u64,
    duration_us: u64,
    /// Which of the layers above the base are its snapshot's: from here, so many.
    layers: (usize, usize),
}

/// What steps left, until the image is put together.
#[derive(Default)]
pub(super) struct Notes(Mutex<HashMap<StepId, (StepRecord, Vec<Digest>)>>);

impl Notes {
    pub(super) fn add(&self, id: StepId, record: &StepRecord, definitions: Vec<Digest>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.insert(id, (record.clone(), definitions));
    }
}

impl StepCache<'_> {
    /// Puts the records of what an image consists of into its configuration, if they are wanted there.
    pub(crate) fn write_inline(
        &self,
        config: &mut ImageConfig,
        rootfs: Option<StepId>,
        snapshot: &Snapshot,
        base: usize,
        options: &LayerOptions,
    ) {
        config.extra.remove(KEY);
        let Some(notes) = &self.inline else { return };
        let notes = notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = snapshot.layers.get(base..).unwrap_or_default();
        let parts = parts_of(self.graph, &Vec::from_iter(rootfs));
        let steps = self.graph.iter().filter(|(id, _)| parts.contains(id)).filter_map(|(id, _)| {
            let (record, definitions) = notes.get(&id)?;
            let layers = &record.snapshot.layers;
            // A linked copy has no base, and is somewhere in the middle.
            let above = match chain(self.graph, Some(id)).base {
                Some(_) => layers.get(base..)?,
                None => layers,
            };
            let start =
                (0..=own.len().checked_sub(above.len())?).find(|start| own[*start..].starts_with(above))?;
            Some(InlineStep {
                key: record.key,
                definitions: definitions.clone(),
                title: record.title.clone(),
                created: record.created,
                duration_us: record.duration_us,
                layers: (start, above.len()),
            })
        });
        let packing = vec![options.compression.version(); own.len()];
        let inline = Inline { version: 1, epoch: options.epoch, base, packing, steps: steps.collect() };
        if let Ok(value) = serde_json::to_value(inline) {
            config.extra.insert(KEY.to_owned(), value);
        }
    }
}

/// Reads the records of an image. Those of layers with other times than this build's would have are none.
///
/// # Errors
/// It has some that this kiln cannot read: why.
pub(super) fn read(image: &LoadedImage, epoch: Option<u64>) -> Result<Vec<Entry>, String> {
    let Some(value) = image.image.extra.get(KEY) else { return Ok(Vec::new()) };
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(1) => {}
        Some(version) => return Err(newer(version)),
        None => return Err("its records have no version".to_owned()),
    }
    let inline: Inline = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    if inline.epoch.is_some() && inline.epoch != epoch {
        return Ok(Vec::new());
    }
    let own = image.layers.get(inline.base..).unwrap_or_default();
    let entry = |step: &InlineStep| {
        let (start, count) = step.layers;
        let layers = own.get(start..)?.get(..count)?;
        let packing = inline.packing.get(start..)?.get(..count)?;
        let layers: Vec<StepLayer> = layers
            .iter()
            .zip(packing)
            .map(|(layer, packing)| StepLayer { layer: layer.clone(), packing: packing.clone() })
            .collect();
        let packing =
            |layer: &StepLayer| Packing { diff_id: layer.layer.diff_id, packing: layer.packing.clone() };
        let facts = Facts {
            version: 1,
            key: step.key,
            definitions: step.definitions.clone(),
            title: step.title.clone(),
            created: step.created,
            duration_us: step.duration_us,
            layers: layers.iter().map(packing).collect(),
            parts: None,
            line: None,
        };
        Some(Entry { facts, layers, manifest: None, epoch: inline.epoch })
    };
    Ok(inline.steps.iter().filter_map(entry).collect())
}
