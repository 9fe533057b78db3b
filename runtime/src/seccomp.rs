//! Which system calls a sandboxed step may make: data/seccomp, as a program for the kernel (seccomp(2)).
//!
//! The program is a search tree over the numbers: ten comparisons or so decide a call, and the kernel asks it once
//! for each number when it is installed, to learn which calls need no asking (Linux 5.11).

use std::borrow::Cow;
use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_USER_NOTIF, sock_filter,
};

use crate::notify::Answers;

#[cfg(test)]
mod tests;

const TABLE: &str = include_str!("../data/seccomp");
const NOTIFIED: &str = include_str!("../data/notified");
/// What kiln answers besides to list directories in another order.
const LISTING: [&str; 2] = ["getdents", "getdents64"];

/// Numbers from here on are of another kind: arm's private calls, and x32's, which no kernel needs.
const PRIVATE: u32 = 0x1_0000;

/// Where the kernel puts what a program looks at: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A way to call the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abi {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit: u32,
    /// Where data/seccomp has its numbers.
    column: usize,
}

const AMD64: Abi = Abi { audit: 0xc000_003e, column: 1 };
const I386: Abi = Abi { audit: 0x4000_0003, column: 2 };
const ARM64: Abi = Abi { audit: 0xc000_00b7, column: 3 };
const ARM: Abi = Abi { audit: 0x4000_0028, column: 4 };

/// The ways to call a machine's kernel: its own, and that of its 32-bit programs.
const HOST: [Abi; 2] = if cfg!(target_arch = "aarch64") { [ARM64, ARM] } else { [AMD64, I386] };
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("data/seccomp needs a column for this machine");

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Allow,
    Errno(u16),
    /// Allowed if one of the conditions holds for this argument.
    If(u32, Vec<Condition>),
    /// Answered by kiln; with a condition for this argument, only then, and otherwise allowed.
    Notify(Option<(u32, Condition)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Equals(u32),
    Below(u32),
    /// None of these bits.
    Without(u32),
    /// One of these bits.
    With(u32),
}

const REFUSED: Action = Action::Errno(1);
const UNKNOWN: Action = Action::Errno(38);

/// This machine's programs.
pub(crate) struct Filters {
    plain: Vec<sock_filter>,
    /// In which kiln answers what data/notified names.
    notified: Vec<sock_filter>,
}

impl Filters {
    pub(crate) fn new() -> Self {
        let of = |ids| program(&HOST, &names(Answers { ids, order: None }));
        Self { plain: of(false), notified: of(true) }
    }

    /// Returns the one for a step; what only `kiln verify` asks for is made for it.
    pub(crate) fn choose(&self, answers: Answers) -> Cow<'_, [sock_filter]> {
        match answers {
            Answers { ids: false, order: None } => self.plain.as_slice().into(),
            Answers { ids: true, order: None } => self.notified.as_slice().into(),
            Answers { order: Some(_), .. } => program(&HOST, &names(answers)).into(),
        }
    }
}

/// A system call that kiln answers, as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notified {
    /// `AUDIT_ARCH_*`.
    pub(crate) audit: u32,
    pub(crate) number: u32,
    pub(crate) name: &'static str,
}

/// Returns all calls of this machine that kiln may be asked about.
pub(crate) fn notified(answers: Answers) -> Vec<Notified> {
    let names = names(answers);
    let mut calls = Vec::new();
    for abi in HOST {
        let columns = TABLE.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        calls.extend(columns.filter_map(|words| {
            let (name, _) = names.get_key_value(words.first()?)?;
            let number = parse_number(words.get(abi.column)?)?;
            Some(Notified { audit: abi.audit, number, name })
        }));
    }
    calls
}

/// The names of the calls that kiln answers, with their conditions.
fn names(answers: Answers) -> Names {
    let ids = NOTIFIED.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split_once(' ') {
        Some((name, condition)) => (name, parse_condition(condition)),
        None => (line, None),
    });
    let listing = LISTING.into_iter().map(|name| (name, None));
    let listing = listing.filter(|_| answers.order.is_some());
    ids.filter(|_| answers.ids).chain(listing).collect()
}

fn program(abis: &[Abi], notified: &Names) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for abi in abis {
        let mut body = vec![load(NUMBER)];
        body.extend(tree(&ranges(*abi, notified)));
        program.extend([jump(BPF_JEQ, abi.audit, 1, 0), skip(body.len())]);
        program.extend(body);
    }
    program.push(answer(SECCOMP_RET_KILL_PROCESS));
    program
}

type Names = BTreeMap<&'static str, Option<(u32, Condition)>>;

/// The rows of the table that have a number there, by number.
fn rows(abi: Abi, notified: &Names) -> Vec<(u32, Action)> {
    let mut rows: Vec<_> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = words.get(abi.column).and_then(|word| parse_number(word))?;
            Some((
                number,
                match notified.get(words[0]) {
                    Some(condition) => Action::Notify(*condition),
                    None => parse_action(&words[5..]),
                },
            ))
        })
        .collect();
    rows.sort_unstable_by_key(|(number, _)| *number);
    rows
}

/// A condition that cannot be read refuses: the tests hold each row against that.
fn parse_action(words: &[&str]) -> Action {
    match words {
        [] => Action::Allow,
        [only] if only.starts_with("errno=") => only["errno=".len()..].parse().map_or(REFUSED, Action::Errno),
        conditions => {
            let parsed: Option<Vec<_>> = conditions.iter().map(|word| parse_condition(word)).collect();
            match parsed {
                Some(parsed) if parsed.iter().all(|(argument, _)| *argument == parsed[0].0) => {
                    Action::If(parsed[0].0, parsed.into_iter().map(|(_, condition)| condition).collect())
                }
                _ => REFUSED,
            }
        }
    }
}

fn parse_condition(word: &str) -> Option<(u32, Condition)> {
    let (argument, rest) = word.split_at_checked(1)?;
    let argument = argument.parse().ok()?;
    let condition = if let Some(mask) = rest.strip_prefix('&') {
        match mask.strip_suffix("=0") {
            Some(mask) => Condition::Without(parse_number(mask)?),
            None => Condition::With(parse_number(mask)?),
        }
    } else if let Some(value) = rest.strip_prefix('=') {
        Condition::Equals(parse_number(value)?)
    } else {
        Condition::Below(parse_number(rest.strip_prefix('<')?)?)
    };
    Some((argument, condition))
}

fn parse_number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// All numbers, as ranges that are named by their first one, with what becomes of each.
fn ranges(abi: Abi, notified: &Names) -> Vec<(u32, Action)> {
    let rows = rows(abi, notified);
    let newest = rows.iter().map(|(number, _)| *number).filter(|number| *number < PRIVATE).max().unwrap_or(0);
    let unlisted = |number: u32| if number <= newest { REFUSED } else { UNKNOWN };
    let mut ranges: Vec<(u32, Action)> = Vec::new();
    let mut add = |first: u32, action: Action| {
        if ranges.last().is_none_or(|(_, before)| *before != action) {
            ranges.push((first, action));
        }
    };
    let mut next = 0;
    for (number, action) in rows {
        if next < number {
            add(next, unlisted(next));
        }
        if number > newest && next <= newest {
            add(newest + 1, UNKNOWN);
        }
        add(number, action);
        next = number + 1;
    }
    add(next, UNKNOWN);
    ranges
}

fn tree(ranges: &[(u32, Action)]) -> Vec<sock_filter> {
    match ranges {
        [] => leaf(&UNKNOWN),
        [(_, action)] => leaf(action),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let first_of_right = right[0].0;
            let left = tree(left);
            // A conditional jump reaches 255 instructions.
            let mut program = match u8::try_from(left.len()) {
                Ok(length) => vec![jump(BPF_JGE, first_of_right, length, 0)],
                Err(_) => vec![jump(BPF_JGE, first_of_right, 0, 1), skip(left.len())],
            };
            program.extend(left);
            program.extend(tree(right));
            program
        }
    }
}

fn leaf(action: &Action) -> Vec<sock_filter> {
    match action {
        Action::Allow => vec![answer(SECCOMP_RET_ALLOW)],
        Action::Errno(errno) => vec![answer(SECCOMP_RET_ERRNO | u32::from(*errno))],
        Action::If(argument, conditions) => {
            let low = ARGUMENTS + 8 * argument;
            let refuse = answer(SECCOMP_RET_ERRNO | 1);
            let mut program = Vec::new();
            if !conditions.iter().any(|condition| matches!(condition, Condition::Without(_))) {
                program.extend([load(low + 4), jump(BPF_JEQ, 0, 1, 0), refuse]);
            }
            program.push(load(low));
            for (number, condition) in conditions.iter().enumerate() {
                // Over the conditions that are left, and the refusal.
                let allow = u8::try_from(conditions.len() - number).unwrap_or(0);
                program.push(test(*condition, allow));
            }
            program.extend([refuse, answer(SECCOMP_RET_ALLOW)]);
            program
        }
        Action::Notify(None) => vec![answer(SECCOMP_RET_USER_NOTIF)],
        // The lower half is enough: the kernel looks at no more of a limit's number, nor of flags.
        Action::Notify(Some((argument, condition))) => vec![
            load(ARGUMENTS + 8 * argument),
            test(*condition, 1),
            answer(SECCOMP_RET_ALLOW),
            answer(SECCOMP_RET_USER_NOTIF),
        ],
    }
}

/// Skips so many instructions if the condition holds, else none.
fn test(condition: Condition, instructions: u8) -> sock_filter {
    match condition {
        Condition::Equals(value) => jump(BPF_JEQ, value, instructions, 0),
        Condition::Below(value) => jump(BPF_JGE, value, 0, instructions),
        Condition::Without(mask) => jump(BPF_JSET, mask, 0, instructions),
        Condition::With(mask) => jump(BPF_JSET, mask, instructions, 0),
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, value, then, otherwise)
}

fn skip(instructions: usize) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, u32::try_from(instructions).unwrap_or(u32::MAX), 0, 0)
}

fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}
