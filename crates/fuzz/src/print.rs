//! Nodes as a Dockerfile: the plainest text that means the same, an instruction a line.

use std::fmt::Write as _;

use kiln_dockerfile::Node;

/// Writes nodes as a Dockerfile.
pub(crate) fn source(nodes: &[Node], escape: char) -> String {
    // The directive comes first in any case: a byte order mark or `#!` at the start of a file is dropped, and a name
    // may begin with either.
    let mut out = format!("# escape={escape}\n");
    for node in nodes {
        let mut line = String::new();
        instruction(&mut line, node);
        if node.name.value.is_empty() {
            // A last line of nothing but the escape character.
            let _ = writeln!(out, "{escape}");
            continue;
        }
        out.push_str(&line);
        // At the end of a file, and before white space beyond ASCII, an escape character continues nothing; and a CR
        // that belongs to a word is no line end.
        if line.trim_end_matches([' ', '\t']).ends_with(escape) || line.ends_with('\r') {
            out.push('\u{c}');
        }
        out.push('\n');
        for heredoc in &node.heredocs {
            out.push_str(&heredoc.content);
            let _ = writeln!(out, "{}", heredoc.name);
        }
    }
    out
}

fn instruction(out: &mut String, node: &Node) {
    if node.text.contains("<<") {
        // What stands between the words decides whether they announce a heredoc.
        return out.push_str(&node.text);
    }
    out.push_str(&node.name.value);
    for flag in &node.flags {
        out.push(' ');
        flag_word(out, &flag.value);
    }
    if let Some(child) = &node.child {
        out.push(' ');
        return instruction(out, child);
    }
    let args: Vec<&str> = node.args.iter().map(|arg| arg.value.as_str()).collect();
    if args == [""] && !node.json {
        // What follows an unknown name is not kept; what follows a flag keeps blanks at its end in it.
        return out.push_str(" ?");
    }
    if args.first().is_some_and(|first| first.starts_with("--")) {
        out.push_str(" --");
    }
    match node.name.value.to_ascii_uppercase().as_str() {
        "ENV" | "LABEL" => pairs(out, &args),
        "HEALTHCHECK" => match &args[..] {
            [kind, command @ ..] if node.json => {
                let _ = write!(out, " {kind} {}", json(command));
            }
            _ => words(out, &args),
        },
        _ if node.json => {
            let _ = write!(out, " {}", json(&args));
        }
        _ => words(out, &args),
    }
}

/// A flag's quotes and backslashes were removed; the backslash is its escape whatever the file's is.
fn flag_word(out: &mut String, text: &str) {
    for (at, ch) in text.char_indices() {
        if ch.is_whitespace() || matches!(ch, '\'' | '"' | '\\') || (at == 2 && text == "--") {
            out.push('\\');
        }
        out.push(ch);
    }
    if text == "--" || text.is_empty() {
        out.push_str("''");
    }
}

/// Name, value, and `=` or nothing for the old form.
fn pairs(out: &mut String, args: &[&str]) {
    for pair in args.chunks(3) {
        match pair {
            [name, value, "="] => {
                let _ = write!(out, " {name}={value}");
            }
            [name, value, _] => {
                // Two blanks: a name may end with an escape, which takes the first of them.
                let _ = write!(out, " {name}  {value}");
            }
            rest => words(out, rest),
        }
    }
}

/// Words that were no JSON array must not become one: a blank that has no place in JSON keeps them apart.
fn words(out: &mut String, args: &[&str]) {
    let looks_like_json = args.first().is_some_and(|first| first.starts_with('['));
    out.push(' ');
    out.push_str(&args.join(if looks_like_json { "\u{b}" } else { " " }));
}

fn json(args: &[&str]) -> String {
    let quoted: Vec<String> = args.iter().map(|arg| json_string(arg)).collect();
    format!("[{}]", quoted.join(", "))
}

fn json_string(text: &str) -> String {
    let mut out = String::from('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => {
                out.push('\\');
                out.push(ch);
            }
            // A line end would end the instruction.
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(ch));
            }
            _ => out.push(ch),
        }
    }
    out.push('"');
    out
}
