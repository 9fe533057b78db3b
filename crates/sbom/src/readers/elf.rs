//! Programs: where Go and cargo-auditable leave what they were built from (elf(5)).

use std::path::Path;

use crate::readers::{cargo, go};
use crate::tree::{Opened, part};
use crate::walk::Look;

/// A file that is smaller holds no program of these.
pub(crate) const SMALLEST: u64 = 64;

/// Larger sections are not what they are called.
const LARGEST_SECTION: u64 = 64 << 20;

/// Looks into a file, if it is a program.
pub(crate) fn look(look: &mut Look<'_>, path: &Path) {
    let Some(file) = look.open(path) else { return };
    let Some(elf) = Elf::read(&*file) else { return };
    if let Some(section) = elf.section(&*file, ".dep-v0") {
        cargo::auditable(&mut look.found, path, &section);
    }
    go::program(&mut look.found, path, &*file, &elf);
}

/// What of a program is needed to find things in it.
pub(crate) struct Elf {
    pub(crate) sections: Vec<Part>,
    pub(crate) segments: Vec<Part>,
}

/// A section or a loaded segment.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) writable: bool,
    pub(crate) address: u64,
    pub(crate) position: u64,
    pub(crate) size: u64,
}

impl Elf {
    /// Reads the tables of a program; none if it is none.
    pub(crate) fn read(file: &dyn Opened) -> Option<Self> {
        let head = part(file, 0, 64)?;
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let (wide, big) = (head[4] == 2, head[5] == 2);
        let fields = Fields { bytes: &head, wide, big };
        let mut elf = Self { sections: Vec::new(), segments: Vec::new() };
        let (segments, sections) = (fields.word(28, 32)?, fields.word(32, 40)?);
        let (segment_size, segment_count) = (fields.half(42, 54)?, fields.half(44, 56)?);
        let (section_size, section_count) = (fields.half(46, 58)?, fields.half(48, 60)?);
        for row in rows(file, segments, segment_size, segment_count) {
            let row = Fields { bytes: &row, wide, big };
            let loaded = row.u32(0, 0) == Some(1);
            if let (true, Some(part)) = (loaded, row.segment()) {
                elf.segments.push(part);
            }
        }
        let names_at = usize::from(fields.half(50, 62)?);
        let rows: Vec<Vec<u8>> = rows(file, sections, section_size, section_count);
        let parts: Vec<Option<(u32, Part)>> =
            rows.iter().map(|row| Fields { bytes: row, wide, big }.section()).collect();
        let names = parts.get(names_at).and_then(|names| {
            let (_, names) = names.as_ref()?;
            bytes(file, names.position, names.size)
        });
        let names = names.unwrap_or_default();
        for (name, mut section) in parts.into_iter().flatten() {
            let name = names.get(name as usize..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            section.name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
            elf.sections.push(section);
        }
        Some(elf)
    }

    /// Reads a section by name.
    pub(crate) fn section(&self, file: &dyn Opened, name: &str) -> Option<Vec<u8>> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        bytes(file, section.position, section.size)
    }

    /// Reads from where a program would be in memory.
    pub(crate) fn at_address(&self, file: &dyn Opened, address: u64, size: u64) -> Option<Vec<u8>> {
        let holds = |part: &&Part| {
            address >= part.address
                && address.checked_add(size).is_some_and(|end| end <= part.address.saturating_add(part.size))
        };
        let segment = self.segments.iter().find(holds)?;
        bytes(file, segment.position.checked_add(address - segment.address)?, size)
    }
}

/// Reads a part of a program that is not too large.
pub(crate) fn bytes(file: &dyn Opened, position: u64, size: u64) -> Option<Vec<u8>> {
    if size > LARGEST_SECTION {
        return None;
    }
    part(file, position, usize::try_from(size).ok()?)
}

fn rows(file: &dyn Opened, position: u64, size: u16, count: u16) -> Vec<Vec<u8>> {
    let table = bytes(file, position, u64::from(size) * u64::from(count)).unwrap_or_default();
    if size == 0 { Vec::new() } else { table.chunks(usize::from(size)).map(<[u8]>::to_vec).collect() }
}

/// Fields of a header, at other places in 32-bit programs than in 64-bit ones.
struct Fields<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
}

impl Fields<'_> {
    fn number(&self, position: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(position..position + size)?;
        Some(number(bytes, self.big))
    }

    fn at(&self, narrow: usize, wide: usize) -> usize {
        if self.wide { wide } else { narrow }
    }

    fn half(&self, narrow: usize, wide: usize) -> Option<u16> {
        u16::try_from(self.number(self.at(narrow, wide), 2)?).ok()
    }

    fn u32(&self, narrow: usize, wide: usize) -> Option<u32> {
        u32::try_from(self.number(self.at(narrow, wide), 4)?).ok()
    }

    fn word(&self, narrow: usize, wide: usize) -> Option<u64> {
        self.number(self.at(narrow, wide), if self.wide { 8 } else { 4 })
    }

    fn segment(&self) -> Option<Part> {
        const WRITABLE: u32 = 2;
        Some(Part {
            name: String::new(),
            writable: self.u32(24, 4)? & WRITABLE != 0,
            address: self.word(8, 16)?,
            position: self.word(4, 8)?,
            // What is in the file; the rest of a segment is zeroes.
            size: self.word(16, 32)?,
        })
    }

    fn section(&self) -> Option<(u32, Part)> {
        /// A section without bytes in the file.
        const NOBITS: u32 = 8;
        const WRITABLE: u64 = 1;
        let empty = self.u32(4, 4)? == NOBITS;
        let part = Part {
            name: String::new(),
            writable: self.word(8, 8)? & WRITABLE != 0,
            address: self.word(12, 16)?,
            position: self.word(16, 24)?,
            size: if empty { 0 } else { self.word(20, 32)? },
        };
        Some((self.u32(0, 0)?, part))
    }
}

/// Reads a number of up to eight bytes.
pub(crate) fn number(bytes: &[u8], big: bool) -> u64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}
