use std::time::Duration;

use kiln_core::{Digest, History, ImageConfig, ImageOp, Layer, LayerId, Op, Platform, Snapshot, StepId};
use kiln_frontend::{PlannedHistory, PlannedImage};
use kiln_oci::AssembleOptions;
use kiln_solver::{Finished, Solved, Verdict};

use super::assemble;

/// A line of the Dockerfile: its text; for a step whether it makes a layer, and when its record was made.
type Line = (&'static str, Option<(bool, u64)>);

fn id(number: usize) -> StepId {
    StepId::of(&Op::Image(ImageOp { manifest: Digest::of(number.to_string().as_bytes()) }))
}

fn layer(name: &str) -> Layer {
    Layer {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        digest: Digest::of(format!("{name} packed").as_bytes()),
        size: 10,
        diff_id: Digest::of(name.as_bytes()),
        annotations: Default::default(),
    }
}

/// Assembles; returns the diff ids' names, the history as text and `created`.
fn assembled(
    base: &[&str],
    lines: &[Line],
    epoch: Option<u64>,
) -> (Vec<String>, Vec<String>, Option<String>) {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let base_layers: Vec<Layer> = base.iter().map(|name| layer(name)).collect();
    let mut snapshot = Snapshot { layers: base.iter().map(|name| LayerId((*name).to_owned())).collect() };
    let mut solved = Solved::default();
    let mut history = Vec::new();
    let mut last = None;
    for (number, (text, step)) in lines.iter().enumerate() {
        let step = step.map(|(makes, created)| {
            if makes {
                snapshot = snapshot.with(LayerId((*text).to_owned()));
            }
            let finished = Finished {
                snapshot: snapshot.clone(),
                key: Digest::of(b"key"),
                created: Some(created),
                verdict: Verdict::Hit,
                duration: Duration::ZERO,
            };
            solved.results.insert(id(number), finished);
            id(number)
        });
        last = step.or(last);
        history.push(PlannedHistory { created_by: (*text).to_owned(), step });
    }
    let base_config = ImageConfig {
        created: Some("1999-01-01T00:00:00Z".to_owned()),
        history: base
            .iter()
            .map(|name| History { created_by: Some((*name).to_owned()), ..History::default() })
            .collect(),
        ..ImageConfig::scratch(&platform)
    };
    let planned = PlannedImage {
        platform: platform.clone(),
        rootfs: last,
        config: ImageConfig::scratch(&platform),
        history,
        base: (!base.is_empty()).then_some(base_config),
    };
    let mut pack = |made: &LayerId| Ok(layer(&made.0));
    let image =
        assemble(&planned, &base_layers, &solved, &mut pack, epoch, &AssembleOptions::default()).unwrap();

    let names: Vec<&str> = base.iter().copied().chain(lines.iter().map(|(text, _)| *text)).collect();
    let name = |digest: &Digest| {
        let found = names.iter().find(|name| Digest::of(name.as_bytes()) == *digest);
        (*found.expect("a layer of the table")).to_owned()
    };
    let line = |line: &History| {
        let created = line.created.as_deref().unwrap_or("-");
        let empty = if line.empty_layer { " empty" } else { "" };
        format!("{created} {}{empty}", line.created_by.as_deref().unwrap_or("-"))
    };
    let config: ImageConfig = serde_json::from_slice(&image.config.bytes).unwrap();
    (
        config.rootfs.diff_ids.iter().map(name).collect(),
        config.history.iter().map(line).collect(),
        config.created,
    )
}

const T1: u64 = 1_000_000_000;
const T2: u64 = 1_000_000_060;

#[test]
fn layers_follow_the_base_and_times_come_from_records() {
    let (layers, history, created) = assembled(
        &["base"],
        &[("ENV A=b", None), ("COPY", Some((true, T1))), ("CMD", None), ("RUN", Some((true, T2)))],
        None,
    );
    assert_eq!(layers, ["base", "COPY", "RUN"]);
    assert_eq!(
        history,
        [
            "- base",
            "2001-09-09T01:46:40Z ENV A=b empty",
            "2001-09-09T01:46:40Z COPY",
            "2001-09-09T01:46:40Z CMD empty",
            "2001-09-09T01:47:40Z RUN",
        ]
    );
    assert_eq!(created.as_deref(), Some("2001-09-09T01:47:40Z"));
}

#[test]
fn a_step_that_changed_nothing_is_an_empty_line() {
    let lines = [("RUN true", Some((false, T1))), ("RUN touch", Some((true, T2)))];
    let (layers, history, _) = assembled(&[], &lines, None);
    assert_eq!(layers, ["RUN touch"]);
    assert_eq!(history, ["2001-09-09T01:46:40Z RUN true empty", "2001-09-09T01:47:40Z RUN touch"]);
}

#[test]
fn an_epoch_is_every_time() {
    let lines = [("ENV A=b", None), ("RUN", Some((true, T2)))];
    let (_, history, created) = assembled(&[], &lines, Some(0));
    assert_eq!(history, ["1970-01-01T00:00:00Z ENV A=b empty", "1970-01-01T00:00:00Z RUN"]);
    assert_eq!(created.as_deref(), Some("1970-01-01T00:00:00Z"));
}

#[test]
fn an_image_without_a_step_is_as_old_as_its_base() {
    let (_, history, created) = assembled(&["base"], &[("ENV A=b", None)], None);
    assert_eq!(history, ["- base", "1999-01-01T00:00:00Z ENV A=b empty"]);
    assert_eq!(created.as_deref(), Some("1999-01-01T00:00:00Z"));
    let (layers, history, created) = assembled(&[], &[("ENV A=b", None)], None);
    assert_eq!((layers.len(), created), (0, None));
    assert_eq!(history, ["- ENV A=b empty"]);
}
