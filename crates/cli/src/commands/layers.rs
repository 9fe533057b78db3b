//! `kiln layers`, and `--max-layer-size` and `--max-image-size` wherever they are.

use std::process::ExitCode;

use kiln::{LayerReport, LayersReport, Platform, SizeLimits};

use super::machine_flags::size;
use super::start;
use crate::args::{Global, LayersArgs, SizeLimitArgs};
use crate::hints::Failure;
use crate::ui::{self, Table};

/// As much of a command as fits in a line beside the numbers.
const WIDTH: usize = 60;

/// Shows what is in an image's layers; then fails if it is larger than it may be.
pub(crate) fn layers(global: Global, args: &LayersArgs) -> Result<ExitCode, Failure> {
    let limits = limits(&args.limits)?;
    let name = args.image.parse().map_err(Failure::from_usage)?;
    let platform: Option<Platform> =
        args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?;
    let report = start(global)?.layers(&name, platform.as_ref(), args.top)?;
    let count = report.layers.len();
    let only = args.layer.map(|number| {
        let layer = number.checked_sub(1).and_then(|index| report.layers.get(index));
        layer.ok_or_else(|| Failure::usage(format!("--layer {number}: the image has layers 1 to {count}")))
    });
    match (only.transpose()?, args.json) {
        (Some(layer), true) => ui::print(serde_json::to_string_pretty(layer).unwrap_or_default()),
        (None, true) => ui::print(serde_json::to_string_pretty(&report).unwrap_or_default()),
        (Some(layer), false) => one(layer),
        (None, false) => all(&report),
    }
    report.check(&limits)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the limits.
pub(super) fn limits(args: &SizeLimitArgs) -> Result<SizeLimits, Failure> {
    let read = |flag: &str, text: &Option<String>| {
        let wrong = |reason: &str| {
            Failure::usage(format!("{flag} {}: {reason}", text.as_deref().unwrap_or_default()))
        };
        match text.as_deref().map(size).transpose().map_err(|reason| wrong(&reason))? {
            Some(None) => Err(wrong("an image of no size is none")),
            Some(limit) => Ok(limit),
            None => Ok(None),
        }
    };
    Ok(SizeLimits {
        layer: read("--max-layer-size", &args.max_layer_size)?,
        image: read("--max-image-size", &args.max_image_size)?,
    })
}

fn all(report: &LayersReport) {
    let mut table =
        Table::new(["LAYER", "SIZE", "UNPACKED", "ADDED", "CHANGED", "DELETED", "WASTED", "STEP"]);
    for layer in &report.layers {
        table.row([
            layer.number.to_string(),
            ui::bytes(layer.compressed),
            ui::bytes(layer.unpacked),
            layer.added.to_string(),
            layer.changed.to_string(),
            layer.deleted.to_string(),
            ui::bytes(layer.wasted),
            step(layer, WIDTH),
        ]);
    }
    ui::print(table);
    let LayersReport { compressed, visible, wasted, .. } = *report;
    ui::print(format_args!(
        "\n{} to send; {} of files to see; {} in layers that nobody sees",
        ui::bytes(compressed),
        ui::bytes(visible),
        ui::bytes(wasted)
    ));
    for layer in report.layers.iter().filter(|layer| layer.wasted > 0) {
        hidden(layer);
    }
    report.layers.iter().for_each(caches);
}

fn one(layer: &LayerReport) {
    ui::print(format_args!("layer {}: {}", layer.number, step(layer, usize::MAX)));
    ui::print(format_args!("digest {}, diff id {}", layer.digest, layer.diff_id));
    ui::print(format_args!(
        "{} compressed, {} unpacked; {} files added, {} changed, {} deleted; {} wasted",
        ui::bytes(layer.compressed),
        ui::bytes(layer.unpacked),
        layer.added,
        layer.changed,
        layer.deleted,
        ui::bytes(layer.wasted)
    ));
    let mut table = Table::new(["SIZE", "LARGEST FILES"]);
    for file in &layer.largest {
        table.row([ui::bytes(file.bytes), file.path.clone()]);
    }
    if !layer.largest.is_empty() {
        ui::print(format_args!("\n{table}"));
    }
    if layer.wasted > 0 {
        hidden(layer);
    }
    caches(layer);
}

/// What of a layer nobody sees.
fn hidden(layer: &LayerReport) {
    let mut table = Table::new(["SIZE", "HIDDEN BY", "FILE"]);
    for file in &layer.hidden {
        table.row([ui::bytes(file.file.bytes), format!("layer {}", file.by), file.file.path.clone()]);
    }
    ui::print(format_args!(
        "\nlayer {} wastes {}: later layers hide or delete that of it\n{table}",
        layer.number,
        ui::bytes(layer.wasted)
    ));
}

/// What could have stayed out of a layer, and how.
fn caches(layer: &LayerReport) {
    for left in &layer.caches {
        ui::print(format_args!(
            "\nlayer {} holds {} of {} in {}; this keeps it out:\n  RUN {} ...",
            layer.number,
            ui::bytes(left.bytes),
            if left.what == "temporary" {
                "temporary files".to_owned()
            } else {
                format!("what {} fetched", left.what)
            },
            left.path,
            left.mount
        ));
    }
}

fn step(layer: &LayerReport, width: usize) -> String {
    let text = layer.created_by.as_deref().unwrap_or("(not in the history)");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
