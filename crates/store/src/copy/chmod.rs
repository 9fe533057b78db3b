//! `--chmod`: octal, or symbolic as chmod(1) reads it, without a umask.

use kiln_core::Chmod;

use super::CopyError;

/// A mode change, ready to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Set(u32),
    Clauses(Vec<Clause>),
}

/// One operator with what it works on: `ug+rX` is one, `u=rw+x` two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// 0o4700 for `u`, 0o2070 for `g`, 0o1007 for `o`.
    who: u32,
    operator: char,
    perms: String,
}

impl Change {
    pub(super) fn new(chmod: &Chmod) -> Result<Self, CopyError> {
        match chmod {
            Chmod::Octal(mode) => Ok(Self::Set(mode & 0o7777)),
            Chmod::Symbolic(text) => {
                parse(text).map(Self::Clauses).ok_or_else(|| CopyError::BadMode { text: text.clone() })
            }
        }
    }

    /// Returns the new permission bits of a file or directory.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Set(mode) => *mode,
            Self::Clauses(clauses) => clauses.iter().fold(mode & 0o7777, |mode, c| c.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let bits = self.perms.chars().fold(0, |bits, perm| {
            bits | match perm {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (mode >> 6 & 7) * 0o111,
                'g' => (mode >> 3 & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => 0,
            }
        }) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

fn parse(text: &str) -> Option<Vec<Clause>> {
    let mut clauses = Vec::new();
    for part in text.split(',') {
        let start = part.find(['+', '-', '='])?;
        let (who, mut rest) = part.split_at(start);
        let mut mask = 0;
        for c in who.chars() {
            mask |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let who = if mask == 0 { 0o7777 } else { mask };
        while let Some(operator) = rest.chars().next() {
            let after = &rest[1..];
            let end = after.find(['+', '-', '=']).unwrap_or(after.len());
            let perms = &after[..end];
            let copies = perms.len() == 1 && matches!(perms, "u" | "g" | "o");
            if !copies && !perms.chars().all(|c| "rwxXst".contains(c)) {
                return None;
            }
            clauses.push(Clause { who, operator, perms: perms.to_owned() });
            rest = &after[end..];
        }
    }
    Some(clauses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_are_those_of_chmod_1() {
        // (change, mode before, directory, mode after); the last column is what coreutils' chmod makes of it.
        let table = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("u=s", 0o755, false, 0o4055),
            ("g=u", 0o740, false, 0o770),
            ("o=", 0o777, false, 0o770),
            ("u=rw+x", 0o000, false, 0o700),
            ("a=rX", 0o001, false, 0o555),
        ];
        for (text, before, is_dir, after) in table {
            let change = Change::new(&Chmod::Symbolic(text.to_owned())).unwrap();
            let got = change.apply(before, is_dir);
            assert_eq!(got, after, "{text} on {before:o}: {got:o}");
        }
        for bad in ["x", "z+r", "u+q", "", "u=rw,,", "ug"] {
            assert!(Change::new(&Chmod::Symbolic(bad.to_owned())).is_err(), "{bad}");
        }
    }
}
