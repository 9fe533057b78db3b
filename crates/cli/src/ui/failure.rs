//! How a failure is shown: where, what, the last words of the step, what to do next.

use kiln::Error;

use super::note;
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
                    note(line);
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
            other => note(format_args!("error: {other}")),
        },
    }
    for hint in failure.hint().into_iter().chain(failure.look().map(str::to_owned)) {
        note(format_args!("hint: {hint}"));
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
