//! `--chmod`: octal bits, or the symbolic form of chmod(1).
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/chmod.html>

use kiln_core::Chmod;

/// Reads a mode; the error says what is expected.
pub(super) fn read(text: &str) -> Result<Chmod, &'static str> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        return mode.map(Chmod::Octal).ok_or("octal modes reach from 0 to 07777");
    }
    if text.split(',').all(is_clause) {
        return Ok(Chmod::Symbolic(text.to_owned()));
    }
    Err("write octal bits such as 0755, or clauses such as u=rwX,go=rX")
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn is_clause(clause: &str) -> bool {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !rest.starts_with(['-', '+', '=']) {
        return false;
    }
    rest.split(['-', '+', '=']).skip(1).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't'))
    })
}
