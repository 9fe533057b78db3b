//! What both displays say in the same words.

use kiln::Digest;

/// `waiting for cache "apt", held by process 4711`.
pub(super) fn waiting(id: &str, holder: &str) -> String {
    format!("waiting for cache {id:?}, held by {holder}")
}

/// `base image is old (line 3)`.
pub(super) fn warning(message: &str, lines: Option<(usize, usize)>) -> String {
    match lines {
        Some((first, _)) => format!("{message} (line {first})"),
        None => message.to_owned(),
    }
}

/// `exported image sha256:... as demo:latest`.
pub(super) fn exported(output: &str, digest: Option<Digest>, names: &[String]) -> String {
    let digest = digest.map_or(String::new(), |digest| format!(" {digest}"));
    let names = if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
    format!("exported {output}{digest}{names}")
}

/// A title may hold a heredoc's or a long command's line ends, and what moves the cursor.
pub(super) fn one_line(title: &str) -> String {
    printable(&title.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What a terminal would show of a line in the end: a carriage return overwrites what is before it.
pub(super) fn overwritten(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n']).rsplit('\r').next().unwrap_or(line)
}

/// Leaves out control characters and escape sequences: a step's own would move our cursor.
pub(super) fn printable(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            // <https://www.ecma-international.org/publications-and-standards/standards/ecma-48/>: CSI ends by a letter.
            '\x1b' => {
                if chars.clone().next() == Some('[') {
                    chars.find(|c| ('\x40'..='\x7e').contains(c) && *c != '[');
                }
            }
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}
