//! `--chmod`: octal, or symbolic as BSD's setmode(3) reads it, which BuildKit uses, under umask 0:
//! <https://man.freebsd.org/cgi/man.cgi?query=setmode&sektion=3>. The sticky bit belongs to nobody, so that only `t`
//! changes it, and `X` looks at the mode before any clause. But `X` means the same behind `=` and `-` as behind `+`, as in
//! POSIX: BSD passes over it there, and `u=rwX,go=rX` would take all directories away.

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
    /// 0o4700 for `u`, 0o2070 for `g`, 0o0007 for `o`.
    who: u32,
    operator: char,
    perms: String,
}

const OTHERS: u32 = 0o0007;
const EVERYBODY: u32 = 0o6777;

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
            Self::Clauses(clauses) => {
                let before = mode & 0o7777;
                let may_run = is_dir || before & 0o111 != 0;
                clauses.iter().fold(before, |mode, clause| clause.apply(mode, may_run))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, may_run: bool) -> u32 {
        // `o+t` says nothing.
        let sticky = if self.who != OTHERS && self.perms.contains('t') { 0o1000 } else { 0 };
        let who = self.who | sticky;
        let bits = self.perms.chars().fold(0, |bits, perm| {
            bits | match perm {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if may_run => 0o111,
                's' => 0o6000,
                't' => sticky,
                'u' => (mode >> 6 & 7) * 0o111,
                'g' => (mode >> 3 & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => 0,
            }
        }) & who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !who | bits,
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
                'o' => OTHERS,
                'a' => EVERYBODY,
                _ => return None,
            };
        }
        let who = if mask == 0 { EVERYBODY } else { mask };
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
    fn symbolic_modes_are_those_of_setmode_3() {
        // (change, mode before, directory, mode after), by hand from the program's source; where coreutils' chmod makes
        // something else of it, that follows.
        let table = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            // No umask is taken off.
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o666),
            ("=r", 0o777, false, 0o444),
            ("go-w", 0o666, false, 0o644),
            ("u+rw,g+r,o-x,o+w", 0o511, true, 0o752),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o744, false, 0o755),
            ("a+X", 0o600, true, 0o711),
            ("a-X", 0o755, false, 0o644),
            // Whether something may be executed is asked before all clauses; 0o755 in coreutils.
            ("u+x,go+X", 0o644, false, 0o744),
            ("a-x,a+X", 0o755, false, 0o755),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("u=s", 0o755, false, 0o4055),
            ("o+s", 0o755, false, 0o755),
            ("a+s", 0o755, false, 0o6755),
            ("ug-s", 0o6755, false, 0o755),
            ("u=rwx", 0o4700, false, 0o700),
            // The sticky bit is nobody's: only `t` changes it.
            ("u+t", 0o755, false, 0o1755),
            ("o+t", 0o755, false, 0o755),
            ("o=", 0o1777, true, 0o1770),
            ("a=rx", 0o1777, true, 0o1555),
            ("=rx", 0o1777, true, 0o1555),
            ("-t", 0o1777, true, 0o777),
            ("a=rxt", 0o700, true, 0o1555),
            ("g=u", 0o740, false, 0o770),
            ("go=u-w", 0o740, false, 0o755),
            ("o=g", 0o750, false, 0o755),
            ("g-u", 0o770, false, 0o700),
            ("o+g", 0o750, false, 0o755),
            ("=u", 0o710, false, 0o777),
            ("o=", 0o777, false, 0o770),
            ("u+", 0o640, false, 0o640),
            ("u=rw+x", 0o000, false, 0o700),
            ("uo=rx", 0o070, false, 0o575),
            ("a=rX", 0o001, false, 0o555),
            ("ug+r-x", 0o110, false, 0o440),
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
