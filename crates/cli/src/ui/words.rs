//! What both displays say in the same words.

use std::borrow::Cow;

use kiln::{Digest, StepWhy};

use super::escapes::{Colours, clean};

/// Bytes of a line from which on it is shown in pieces.
const LONGEST: usize = 64 * 1024;

/// `waiting for cache "apt", held by process 4711`.
pub(super) fn waiting(id: &str, holder: &str) -> String {
    format!("waiting for cache {id:?}, held by {holder}")
}

/// `waiting for process 4711, kiln build /src/app, for 12 s: it does the same`.
pub(super) fn waiting_for(holder: &str) -> String {
    format!("waiting for {holder}: it does the same")
}

/// Why a step ran: in one line, then what that leaves out, then what would help. Names of files and values come from anywhere.
pub(crate) fn reason(why: &StepWhy) -> Vec<String> {
    let details = why.details().into_iter().map(|line| format!("  {line}"));
    let hints = why.advice.iter().map(|advice| format!("hint: {}", crate::hints::advice(advice)));
    let lines = std::iter::once(why.summary()).chain(details).chain(hints);
    lines.map(|line| printable(&line).into_owned()).collect()
}

/// `runs because: ARG VERSION 1 -> 2 (first used here)`, and what follows it.
pub(super) fn runs_because(why: &StepWhy) -> Vec<String> {
    let mut lines = reason(why);
    if let Some(first) = lines.first_mut() {
        first.insert_str(0, "runs because: ");
    }
    lines
}

/// `base image is old (line 3)`.
pub(super) fn warning(message: &str, lines: Option<(usize, usize)>) -> String {
    match lines {
        Some((first, _)) => format!("{message} (line {first})"),
        None => message.to_owned(),
    }
}

/// `exported image sha256:... as demo:latest`, `pushed sha256:... as registry.lan/demo:1`.
pub(super) fn exported(output: &str, digest: Option<Digest>, names: &[String]) -> String {
    let digest = digest.map_or(String::new(), |digest| format!(" {digest}"));
    let names = if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
    match output {
        "type=registry" => format!("pushed{digest}{names}"),
        "type=image,push=true" => format!("exported image{digest}{names}, and pushed"),
        _ => format!("exported {output}{digest}{names}"),
    }
}

/// A title may hold a heredoc's or a long command's line ends, and what moves the cursor.
pub(crate) fn one_line(title: &str) -> String {
    printable(&title.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// What a terminal would show of a line in the end: a carriage return overwrites what is before it.
pub(super) fn overwritten(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n']).rsplit('\r').next().unwrap_or(line)
}

/// Leaves out control characters and escape sequences: a step's own would move our cursor.
pub(super) fn printable(line: &str) -> Cow<'_, str> {
    clean(line, Colours::Drop)
}

/// Puts text behind the beginning of a line, and gives what are whole lines then. A line without end comes in pieces.
pub(super) fn whole_lines(partial: &mut String, text: &str) -> String {
    partial.push_str(text);
    let end = match partial.rfind('\n') {
        Some(end) => end + 1,
        None if partial.len() >= LONGEST => partial.len(),
        None => 0,
    };
    let rest = partial.split_off(end);
    std::mem::replace(partial, rest)
}
