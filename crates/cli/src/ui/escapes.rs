//! What a step writes for a terminal: escape sequences and control characters.
//!
//! docker's plain display passes everything on. So colours pass here, which build logs of CI services show too. Whatever else
//! a terminal obeys is left out: moving the cursor, erasing, the window's title, the clipboard, answers that come in as if they were
//! typed. With those a step could change what other steps and kiln have said.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::CharIndices;

/// What to do with colours (SGR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    /// They stay, and end with the line.
    Keep,
    /// They go, and a tab is a space: every character takes the columns that it has.
    Drop,
}

/// Takes out what is not to reach the terminal.
pub(super) fn clean(line: &str, colours: Colours) -> Cow<'_, str> {
    let stays = |c: char| !c.is_control() || (c == '\t' && colours == Colours::Keep);
    if line.chars().all(stays) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut coloured = false;
    let mut chars = line.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let sequence = match c {
            '\x1b' => after_escape(&mut chars),
            // The same of one character: ECMA-48, 5.3.
            '\u{9b}' => Some(control_sequence(&mut chars)),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => {
                string(&mut chars);
                None
            }
            '\t' if colours == Colours::Drop => {
                out.push(' ');
                None
            }
            c if stays(c) => {
                out.push(c);
                None
            }
            _ => None,
        };
        if sequence != Some('m') || colours == Colours::Drop {
            continue;
        }
        let end = chars.peek().map_or(line.len(), |(end, _)| *end);
        let written = &line[start..end];
        let parameters = written.trim_start_matches(['\x1b', '[', '\u{9b}']).trim_end_matches('m');
        // Others that end so ask the terminal for something: `CSI > ... m`.
        if parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':') {
            out.push_str("\x1b[");
            out.push_str(parameters);
            out.push('m');
            coloured = !parameters.trim_matches('0').is_empty();
        }
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

type Chars<'a> = Peekable<CharIndices<'a>>;

/// What comes behind an escape character: <https://www.ecma-international.org/publications-and-standards/standards/ecma-48/>.
/// Returns a control sequence's last character.
fn after_escape(chars: &mut Chars<'_>) -> Option<char> {
    match chars.peek().map(|(_, c)| *c)? {
        '[' => {
            chars.next();
            return Some(control_sequence(chars));
        }
        ']' | 'P' | 'X' | '^' | '_' => {
            chars.next();
            string(chars);
        }
        ' '..='/' => {
            while chars.next_if(|(_, c)| matches!(c, ' '..='/')).is_some() {}
            chars.next_if(|(_, c)| matches!(c, '0'..='~'));
        }
        '0'..='~' => _ = chars.next(),
        _ => {}
    }
    None
}

/// Takes in a control sequence's parameters and its last character, which it returns. One that is broken off ends before what
/// cannot be a part of it.
fn control_sequence(chars: &mut Chars<'_>) -> char {
    while chars.next_if(|(_, c)| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|(_, c)| matches!(c, '@'..='~')).map_or('\0', |(_, last)| last)
}

/// Takes in a control string: to its end (ST, or BEL as xterm has it), or to the line's.
fn string(chars: &mut Chars<'_>) {
    while let Some((_, c)) = chars.next() {
        match c {
            '\x07' | '\u{9c}' => return,
            '\x1b' if chars.next_if(|(_, c)| *c == '\\').is_some() => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
