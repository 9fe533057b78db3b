//! Nodes as text: the s-expressions of BuildKit's parser, and JSON lines. `kiln debug parse` prints them.

use std::fmt::Write;

use serde::Serialize;

use crate::{Diagnostic, Node, parse_nodes};

/// A file as s-expressions, see [`sexps`].
///
/// # Errors
/// What BuildKit's parser refuses too.
pub fn lines(text: &str) -> Result<String, Diagnostic> {
    parse_nodes(text).map(|nodes| sexps(&nodes))
}

/// A file as JSON lines, see [`json_lines`].
///
/// # Errors
/// What BuildKit's parser refuses too.
pub fn json(text: &str) -> Result<String, Diagnostic> {
    parse_nodes(text).map(|nodes| json_lines(&nodes))
}

/// One line an instruction: `(copy ["--from=a"] "x" "/y/")`.
pub fn sexps(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        sexp(&mut out, node);
        out.push('\n');
    }
    out
}

/// One JSON object a line: `cmd`, `start` and `end` (lines from 1), and `heredocs` with their bodies as written.
pub fn json_lines(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        let heredocs = node
            .heredocs
            .iter()
            .map(|heredoc| JsonHeredoc {
                name: &heredoc.name,
                content: &heredoc.content,
                expand: heredoc.expand,
                chomp: heredoc.chomp,
                fd: heredoc.fd,
            })
            .collect();
        let (start, end) = node.lines;
        let line = JsonNode { cmd: node.name.value.to_lowercase(), start, end, heredocs };
        out.push_str(&serde_json::to_string(&line).expect("strings and numbers are JSON"));
        out.push('\n');
    }
    out
}

#[derive(Serialize)]
struct JsonNode<'a> {
    cmd: String,
    start: usize,
    end: usize,
    heredocs: Vec<JsonHeredoc<'a>>,
}

#[derive(Serialize)]
struct JsonHeredoc<'a> {
    name: &'a str,
    content: &'a str,
    expand: bool,
    chomp: bool,
    fd: u32,
}

fn sexp(out: &mut String, node: &Node) {
    out.push('(');
    out.push_str(&node.name.value.to_lowercase());
    if !node.flags.is_empty() {
        out.push_str(" [");
        for (index, flag) in node.flags.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            quote(out, &flag.value);
        }
        out.push(']');
    }
    if let Some(child) = &node.child {
        out.push(' ');
        sexp(out, child);
    }
    for (index, arg) in node.args.iter().enumerate() {
        // a line of nothing but an escape character has no name to keep apart from
        if index > 0 || !node.name.value.is_empty() {
            out.push(' ');
        }
        quote(out, &arg.value);
    }
    out.push(')');
}

/// Appends a text as Go's `%q` writes it. <https://pkg.go.dev/strconv#Quote>
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => {
                out.push('\\');
                out.push(ch);
            }
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' '..='~' => out.push(ch),
            '\0'..='\x7f' => write!(out, "\\x{:02x}", u32::from(ch)).expect("a string takes all"),
            _ if is_printable(ch) => out.push(ch),
            '\u{80}'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(ch)).expect("a string takes all"),
            _ => write!(out, "\\U{:08x}", u32::from(ch)).expect("a string takes all"),
        }
    }
    out.push('"');
}

/// Whether a character is a letter, mark, number, sign or symbol: what the standard library leaves as it is when it
/// stands behind another character (in front, marks are escaped as well).
fn is_printable(ch: char) -> bool {
    let text: String = ['a', ch].iter().collect();
    text.escape_debug().count() == 2
}
