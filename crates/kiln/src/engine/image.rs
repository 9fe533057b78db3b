//! From a plan and its solution to images.

use kiln_core::{History, Layer, LayerId};
use kiln_frontend::PlannedImage;
use kiln_oci::{AssembleOptions, Image};
use kiln_solver::Solved;

use crate::Error;

/// Puts a planned image together: base layers and history first, then what its steps made.
///
/// A pure function of its arguments: times come from step records, or all from `epoch`
/// (docs/decisions/0002-image-times.md).
pub(crate) fn assemble(
    planned: &PlannedImage,
    base_layers: &[Layer],
    solved: &Solved,
    pack: &mut dyn FnMut(&LayerId) -> Result<Layer, Error>,
    epoch: Option<u64>,
    options: &AssembleOptions,
) -> Result<Image, Error> {
    let mut config = planned.config.clone();
    let mut layers = base_layers.to_vec();
    let mut history = planned.base.as_ref().map_or_else(Vec::new, |base| base.history.clone());
    let of_base = history.len();
    let mut time = epoch;
    let created_of_base = planned.base.as_ref().and_then(|base| base.created.clone());
    let snapshot =
        planned.rootfs.and_then(|id| solved.results.get(&id)).map(|f| f.snapshot.layers.as_slice());
    let own = snapshot.unwrap_or_default().get(base_layers.len()..).unwrap_or_default();
    let mut next = own.iter();
    let mut depth = base_layers.len();
    for line in &planned.history {
        let finished = line.step.and_then(|id| solved.results.get(&id));
        let mut empty_layer = true;
        if let Some(finished) = finished {
            // A step that changed nothing leaves the snapshot as deep as it was.
            if finished.snapshot.layers.len() > depth {
                depth = finished.snapshot.layers.len();
                if let Some(layer) = next.next() {
                    layers.push(pack(layer)?);
                    empty_layer = false;
                }
            }
            time = epoch.or(finished.created).or(time);
        }
        history.push(History {
            created: time.map(rfc3339),
            created_by: Some(line.created_by.clone()),
            author: None,
            comment: Some("kiln.dockerfile.v1".to_owned()),
            empty_layer,
        });
    }
    // Layers that no line of history claims: their steps' records are gone, their files are not.
    for layer in next {
        layers.push(pack(layer)?);
    }
    // What stands before the first step has that one's time, as BuildKit has it; where there is none, the base's.
    let first = history[of_base..].iter().find_map(|line| line.created.clone());
    let first = first.or_else(|| created_of_base.clone());
    for line in history[of_base..].iter_mut().filter(|line| line.created.is_none()) {
        line.created.clone_from(&first);
    }
    config.history = history;
    config.created = time.map(rfc3339).or(created_of_base);
    Ok(kiln_oci::assemble(config, &layers, options)?)
}

/// Returns seconds since 1970 as OCI writes times.
pub(super) fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
