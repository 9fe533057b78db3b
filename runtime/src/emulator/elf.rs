//! ELF files: what one says of itself, and the smallest program of an architecture. elf(5).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::table::{MAGIC, Row};

/// Where the small program lies: above what every machine keeps free (vm.mmap_min_addr), at a multiple of the largest page.
const BASE: u64 = 0x40_0000;
const LARGEST_PAGE: u64 = 0x1_0000;

const CLASS_64: u8 = 2;
const BIG_ENDIAN: u8 = 2;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// What a file is, as far as executing it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// Up to and with `e_machine`.
    pub(super) header: [u8; MAGIC],
    /// The program that loads it and its libraries; none if it is static.
    pub(super) interpreter: Option<String>,
}

/// Reads a file's headers. None if it is no ELF file.
pub(super) fn read(path: &Path) -> io::Result<Option<Elf>> {
    let file = File::open(path)?;
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let layout = Layout::of(&header);
    let interpreter = layout.interpreter(&file, &header)?;
    Ok(Some(Elf { header: header[..MAGIC].try_into().map_err(io::Error::other)?, interpreter }))
}

/// The smallest program of an architecture: a header, one segment, the table's code.
pub(super) fn program(row: &Row) -> Vec<u8> {
    let layout = Layout::of(&row.magic);
    let (header, segment) = if layout.wide { (64_u16, 56_u16) } else { (52, 32) };
    let begin = u64::from(header + segment);
    let end = begin + row.code.len() as u64;
    let mut out = row.magic.to_vec();
    layout.number(&mut out, 4, 1);
    for word in [BASE + begin, u64::from(header), 0] {
        layout.word(&mut out, word);
    }
    layout.number(&mut out, 4, u64::from(row.flags));
    for half in [header, segment, 1, 0, 0, 0] {
        layout.number(&mut out, 2, u64::from(half));
    }
    const READ_AND_EXECUTE: u64 = 5;
    layout.number(&mut out, 4, u64::from(PT_LOAD));
    if layout.wide {
        layout.number(&mut out, 4, READ_AND_EXECUTE);
    }
    for word in [0, BASE, BASE, end, end] {
        layout.word(&mut out, word);
    }
    if !layout.wide {
        layout.number(&mut out, 4, READ_AND_EXECUTE);
    }
    layout.word(&mut out, LARGEST_PAGE);
    out.extend_from_slice(&row.code);
    out
}

/// How numbers are written.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
    big: bool,
}

impl Layout {
    /// By the first bytes of a file.
    fn of(header: &[u8]) -> Self {
        Self { wide: header.get(4) == Some(&CLASS_64), big: header.get(5) == Some(&BIG_ENDIAN) }
    }

    fn word(self, out: &mut Vec<u8>, value: u64) {
        self.number(out, if self.wide { 8 } else { 4 }, value);
    }

    fn number(self, out: &mut Vec<u8>, size: usize, value: u64) {
        if self.big {
            out.extend_from_slice(&value.to_be_bytes()[8 - size..]);
        } else {
            out.extend_from_slice(&value.to_le_bytes()[..size]);
        }
    }

    fn read(self, bytes: &[u8], at: usize, size: usize) -> u64 {
        let field = bytes.get(at..at + size).unwrap_or_default();
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.big { field.iter().fold(0, add) } else { field.iter().rev().fold(0, add) }
    }

    /// What PT_INTERP says.
    fn interpreter(self, file: &File, header: &[u8]) -> io::Result<Option<String>> {
        // Longer names than the kernel takes (PATH_MAX) are no names.
        const LONGEST: u64 = 4096;
        let word = if self.wide { 8 } else { 4 };
        let (table, size, count) = if self.wide { (32, 54, 56) } else { (28, 42, 44) };
        let (begin, step) = (self.read(header, table, word), self.read(header, size, 2));
        let (offset_at, size_at) = if self.wide { (8, 32) } else { (4, 16) };
        for number in 0..self.read(header, count, 2) {
            let mut segment = [0; 56];
            let at = number.checked_mul(step).and_then(|skip| begin.checked_add(skip));
            let Some(at) = at else { return Ok(None) };
            let read = file.read_at(&mut segment, at)?;
            if read < if self.wide { 56 } else { 32 } {
                return Ok(None);
            }
            if self.read(&segment, 0, 4) != u64::from(PT_INTERP) {
                continue;
            }
            let length = self.read(&segment, size_at, word).min(LONGEST);
            let mut name = vec![0; usize::try_from(length).unwrap_or(0)];
            let read = file.read_at(&mut name, self.read(&segment, offset_at, word))?;
            name.truncate(read);
            let text = String::from_utf8_lossy(&name);
            return Ok(Some(text.trim_end_matches('\0').to_owned()));
        }
        Ok(None)
    }
}
