//! Nodes become stages.

use crate::document::{self, Document};
use crate::instruction::{self, Parsed, no_trigger};
use crate::node::{Node, error};
use crate::{Diagnostic, Dockerfile, Instruction, Located, Severity, Span, Stage};

/// Reads a Dockerfile. It never fails and goes on behind an error, so that a writer sees all of them at once; what an
/// error concerns is left out of the result. With an [error](Severity::Error) among the diagnostics nothing must be
/// built. <https://docs.docker.com/reference/dockerfile/>
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let Document { directives, nodes, mut diagnostics, .. } = document::read(text);
    let mut file = Dockerfile { directives, ..Dockerfile::default() };
    let mut from_seen = false;
    for node in nodes {
        let is_from = node.name.value.eq_ignore_ascii_case("FROM");
        match instruction::read(&node, &mut diagnostics) {
            Some(Parsed::From(from)) => {
                file.stages.push(Stage { from: located(node, from), instructions: Vec::new() });
            }
            Some(Parsed::Instruction(instruction)) => match (file.stages.last_mut(), instruction) {
                (Some(stage), instruction) => stage.instructions.push(located(node, instruction)),
                (None, Instruction::Arg(args)) => file.global_args.push(located(node, args)),
                // a broken FROM was told already
                (None, _) if from_seen => {}
                (None, _) => {
                    let name = node.name.value.to_ascii_uppercase();
                    diagnostics.push(error(format!("{name} must come after a FROM"), node.name.span));
                }
            },
            None => {}
        }
        from_seen |= is_from;
    }
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    if file.stages.is_empty() && !failed {
        let mut error = error("the file has no FROM".to_owned(), Span { start: text.len(), end: text.len() });
        error.help = Some("begin with `FROM image` or `FROM scratch`".to_owned());
        diagnostics.push(error);
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    (file, diagnostics)
}

/// Reads the text of a trigger (ONBUILD) out of an image's configuration: one instruction and the bodies of its heredocs.
///
/// # Errors
/// The first thing that is wrong with it. Its place is one in `text`.
pub fn parse_trigger(text: &str) -> Result<Located<Instruction>, Diagnostic> {
    let Document { nodes, mut diagnostics, .. } = document::read(text);
    let whole = Span { start: 0, end: text.len() };
    let read = match <[Node; 1]>::try_from(nodes) {
        Ok([node]) => match no_trigger(&node) {
            Some(error) => return Err(error),
            None => instruction::read(&node, &mut diagnostics).map(|parsed| (node, parsed)),
        },
        Err(nodes) => {
            let message = format!("a trigger is one instruction, here are {}", nodes.len());
            diagnostics.push(error(message, whole));
            None
        }
    };
    match (diagnostics.into_iter().find(|one| one.severity == Severity::Error), read) {
        (None, Some((node, Parsed::Instruction(instruction)))) => Ok(located(node, instruction)),
        (Some(error), _) => Err(error),
        (None, _) => Err(error("a trigger is one instruction".to_owned(), whole)),
    }
}

/// Cuts a Dockerfile into nodes without understanding them, as BuildKit's parser does.
///
/// # Errors
/// The first thing that BuildKit's parser refuses too.
pub fn parse_nodes(text: &str) -> Result<Vec<Node>, Diagnostic> {
    let document = document::read(text);
    match document.diagnostics.into_iter().find(|diagnostic| diagnostic.severity == Severity::Error) {
        Some(error) => Err(error),
        None => Ok(document.nodes),
    }
}

fn located<T>(node: Node, value: T) -> Located<T> {
    Located { value, span: node.span, lines: node.lines, text: node.text, comments: node.comments }
}
