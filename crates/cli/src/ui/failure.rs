//! How a failure is shown: where, what, the last words of the step, what to do next.

use kiln::{Error, Oversized};

use super::escapes::{Colours, clean};
use super::{bytes, note};
use crate::hints::Failure;

/// Lines of a failed step's output that are shown again below the excerpt.
const TAIL: usize = 20;

/// Shows a failure.
pub(crate) fn show_failure(failure: &Failure) {
    match failure {
        Failure::Usage(message) => note(format_args!("error: {message}")),
        Failure::Engine(error) => match &**error {
            Error::Dockerfile { file, text, diagnostics } => super::show_diagnostics(file, text, diagnostics),
            Error::StepFailed { file, text, lines, title, tail, .. } => {
                note(format_args!("------\n > {title}:"));
                for line in tail.iter().skip(tail.len().saturating_sub(TAIL)) {
                    note(clean(line, Colours::Keep));
                }
                note("------");
                excerpt(file, text, *lines);
                note(format_args!("error: {error}"));
            }
            Error::Step { file, text, title, lines, error, .. } => {
                excerpt(file, text, *lines);
                note(format_args!("error: {title}: {error}"));
            }
            Error::Foreign { file, text, steps, missing } => {
                for (title, lines) in steps {
                    excerpt(file, text, *lines);
                    note(format_args!("{title}: there is no emulator for it"));
                }
                for missing in missing {
                    note(format_args!("error: {missing}"));
                }
            }
            Error::LayerSize { limit, layers, file, text } => {
                layers.iter().for_each(|layer| oversized(layer, file, text));
                let numbers: Vec<String> = layers.iter().map(|layer| layer.number.to_string()).collect();
                let limit = bytes(*limit);
                match &numbers[..] {
                    [one] => note(format_args!("error: layer {one} has more than --max-layer-size {limit}")),
                    all => note(format_args!(
                        "error: layers {} have more than --max-layer-size {limit} each",
                        all.join(", ")
                    )),
                }
            }
            Error::ImageSize { limit, bytes: all, layers, file, text } => {
                layers.iter().for_each(|layer| oversized(layer, file, text));
                let (all, limit) = (bytes(*all), bytes(*limit));
                note(format_args!("error: the image has {all}, more than --max-image-size {limit}"));
            }
            other => note(format_args!("error: {other}")),
        },
    }
    for hint in failure.hint().into_iter().chain(failure.look().map(str::to_owned)) {
        note(format_args!("hint: {hint}"));
    }
}

/// A layer that is too large: its step, and what is in it.
fn oversized(layer: &Oversized, file: &str, text: &str) {
    excerpt(file, text, layer.lines);
    let step = layer.step.as_deref().unwrap_or("(not in the history)");
    let Oversized { platform, number, of, digest, bytes: size, .. } = layer;
    note(format_args!(
        "{platform}, layer {number} of {of}, {}, {}: {}",
        digest.short(),
        bytes(*size),
        super::words::one_line(step)
    ));
    for file in &layer.largest {
        note(format_args!("{:>10}  {}", bytes(file.bytes), super::words::printable(&file.path)));
    }
}

/// The instruction's lines with two around them, marked as BuildKit marks them.
fn excerpt(file: &str, text: &str, lines: Option<(usize, usize)>) {
    let Some((first, last)) = lines else { return };
    note(format_args!("{file}:{first}"));
    note("--------------------");
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if number + 2 >= first && number <= last + 2 {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            note(format_args!("{number:>4} | {mark} {line}"));
        }
    }
    note("--------------------");
}
