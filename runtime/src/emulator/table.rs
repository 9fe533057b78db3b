//! Which programs belong to an architecture, and what emulates them: runtime/data/emulators.

const EMULATORS: &str = include_str!("../../data/emulators");

/// Bytes of an ELF header that tell its architecture: up to and with `e_machine`.
pub(super) const MAGIC: usize = 20;

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// In Go's words.
    pub(crate) architecture: &'static str,
    pub(super) magic: [u8; MAGIC],
    /// Which bits of `magic` count.
    pub(super) mask: [u8; MAGIC],
    /// The program's `e_flags`: elf(5).
    pub(super) flags: u32,
    /// Instructions that exit with the number of arguments less one.
    pub(super) code: Vec<u8>,
    /// What its emulators are called, best first.
    pub(crate) programs: Vec<&'static str>,
}

impl Row {
    /// Whether a file that begins with `header` is a program of this architecture.
    pub(super) fn matches(&self, header: &[u8]) -> bool {
        header.len() >= MAGIC
            && header
                .iter()
                .zip(self.magic)
                .zip(self.mask)
                .all(|((byte, want), mask)| byte & mask == want & mask)
    }
}

/// Returns the table.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    EMULATORS.lines().filter(|line| !line.starts_with('#')).filter_map(parse)
}

/// Returns the line of an architecture.
pub(crate) fn row(architecture: &str) -> Option<Row> {
    rows().find(|row| row.architecture == architecture)
}

fn parse(line: &'static str) -> Option<Row> {
    let mut words = line.split_whitespace();
    Some(Row {
        architecture: words.next()?,
        magic: bytes(words.next()?)?.try_into().ok()?,
        mask: bytes(words.next()?)?.try_into().ok()?,
        flags: u32::from_str_radix(words.next()?, 16).ok()?,
        code: bytes(words.next()?)?,
        programs: words.collect(),
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}
