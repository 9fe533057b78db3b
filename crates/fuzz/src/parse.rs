//! The parser: it never panics, what it points at lies in the text, and printing what it read and reading that again
//! gives the same.

use kiln_dockerfile::print::{json_lines, sexps};
use kiln_dockerfile::{Severity, Span, parse, parse_nodes};

use crate::print::source;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, diagnostics) = parse(text);
    for diagnostic in &diagnostics {
        check_span(text, diagnostic.span);
        let edits = diagnostic.fix.iter().flat_map(|fix| &fix.edits);
        edits.for_each(|edit| check_span(text, edit.span));
    }
    let sorted = diagnostics.is_sorted_by_key(|diagnostic| diagnostic.span.start);
    assert!(sorted, "diagnostics stand in the order of the text");
    for located in file.stages.iter().flat_map(|stage| &stage.instructions) {
        check_span(text, located.span);
        assert!(located.lines.0 <= located.lines.1);
    }
    let Ok(nodes) = parse_nodes(text) else {
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error),
            "what the nodes' parser refuses is refused"
        );
        return;
    };
    let printed = source(&nodes, file.directives.escape);
    let again = match parse_nodes(&printed) {
        Ok(nodes) => nodes,
        Err(error) => panic!("{printed:?} is not read again: {}", error.message),
    };
    assert_same(&sexps(&nodes), &sexps(&again), &printed);
    assert_same(&heredocs(&json_lines(&nodes)), &heredocs(&json_lines(&again)), &printed);
}

/// Spans are cut out of the text by whoever shows them.
fn check_span(text: &str, span: Span) {
    assert!(text.get(span.start..span.end).is_some(), "{span:?} is a part of {text:?}");
}

/// Compares line by line, so that a failure shows the instruction and not the file.
fn assert_same(before: &str, after: &str, printed: &str) {
    for (before, after) in before.lines().zip(after.lines()) {
        assert_eq!(before, after, "printed: {printed:?}");
    }
    assert_eq!(before.lines().count(), after.lines().count(), "printed: {printed:?}");
}

/// JSON lines without the numbers of lines, which change when continuations are joined.
fn heredocs(lines: &str) -> String {
    lines.lines().filter_map(|line| Some(line.split_once("\"heredocs\"")?.1)).collect::<Vec<_>>().join("\n")
}
