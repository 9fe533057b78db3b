//! As much of SQLite's file format (<https://www.sqlite.org/fileformat2.html>) as reading a table whole needs: the schema,
//! table b-trees, records, overflow pages. A crate for it would be SQLite itself, in C.

use std::collections::HashSet;

use crate::tree::{Opened, part};

const MAGIC: &[u8] = b"SQLite format 3\0";

/// A record that is larger is no package's.
const LARGEST_RECORD: u64 = 64 << 20;

/// A value of a row.
pub(super) enum Column {
    /// A text or a blob.
    Bytes(Vec<u8>),
    /// A number that is whole.
    Integer(u64),
    /// Anything else: of no use here.
    Other,
}

/// Gives each row of a table to `row`.
///
/// # Errors
/// Why the file cannot be read, in words. Rows before that were given.
pub(super) fn table(file: &dyn Opened, name: &str, row: &mut dyn FnMut(&[Column])) -> Result<(), String> {
    let head = part(file, 0, 100).filter(|head| head.starts_with(MAGIC)).ok_or("it is no SQLite database")?;
    let page_size = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65536,
        size => u64::from(size),
    };
    if page_size < 512 || !page_size.is_power_of_two() {
        return Err(format!("its pages of {page_size} bytes are none of SQLite's"));
    }
    let database = Database { file, page_size, usable: page_size - u64::from(head[20]).min(page_size - 480) };
    let mut root = None;
    database.rows(1, &mut |columns| {
        let is = |at: usize, wanted: &str| matches!(columns.get(at), Some(Column::Bytes(text)) if text == wanted.as_bytes());
        if let (true, true, Some(Column::Integer(page))) = (is(0, "table"), is(1, name), columns.get(3)) {
            root = Some(*page);
        }
    })?;
    database.rows(root.ok_or_else(|| format!("it has no table {name}"))?, row)
}

struct Database<'a> {
    file: &'a dyn Opened,
    page_size: u64,
    /// What of a page is used.
    usable: u64,
}

impl Database<'_> {
    fn page(&self, number: u64) -> Result<Vec<u8>, String> {
        let position = number.checked_sub(1).and_then(|before| before.checked_mul(self.page_size));
        position
            .and_then(|position| part(self.file, position, self.page_size as usize))
            .ok_or_else(|| format!("it has no page {number}: it is cut off or damaged"))
    }

    /// Walks a table's tree, each page once.
    fn rows(&self, root: u64, row: &mut dyn FnMut(&[Column])) -> Result<(), String> {
        const LEAF: u8 = 0x0d;
        const INNER: u8 = 0x05;
        let damaged = |number: u64| format!("its page {number} is damaged");
        let mut seen = HashSet::new();
        let mut todo = vec![root];
        while let Some(number) = todo.pop() {
            if !seen.insert(number) {
                return Err(damaged(number));
            }
            let page = self.page(number)?;
            // The first page begins with the file's header.
            let head = if number == 1 { 100 } else { 0 };
            let kind = page[head];
            let cells = usize::from(u16::from_be_bytes([page[head + 3], page[head + 4]]));
            let pointers = head + if kind == INNER { 12 } else { 8 };
            let cell = |at: usize| {
                let pointer = page.get(pointers + at * 2..pointers + at * 2 + 2)?;
                page.get(usize::from(u16::from_be_bytes([pointer[0], pointer[1]]))..)
            };
            let child = |bytes: &[u8]| Some(u64::from(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?)));
            match kind {
                INNER => {
                    // Last first: the stack turns it round.
                    todo.push(child(&page[head + 8..]).ok_or_else(|| damaged(number))?);
                    for at in (0..cells).rev() {
                        todo.push(cell(at).and_then(child).ok_or_else(|| damaged(number))?);
                    }
                }
                LEAF => {
                    for at in 0..cells {
                        let record = self.record(cell(at).ok_or_else(|| damaged(number))?)?;
                        row(&columns(&record).ok_or_else(|| damaged(number))?);
                    }
                }
                _ => return Err(damaged(number)),
            }
        }
        Ok(())
    }

    /// Reads a cell's record, of which a long one goes on in pages of its own.
    fn record(&self, cell: &[u8]) -> Result<Vec<u8>, String> {
        let damaged = || "one of its records is damaged".to_owned();
        let (size, rest) = varint(cell).ok_or_else(damaged)?;
        let (_row, rest) = varint(rest).ok_or_else(damaged)?;
        if size > LARGEST_RECORD.min(self.file.size()) {
            return Err(damaged());
        }
        let here = self.local(size) as usize;
        let mut record = rest.get(..here).ok_or_else(damaged)?.to_vec();
        let mut next = rest.get(here..here + 4).map_or(0, be32);
        // As long as it is of use it grows, so a circle of pages ends.
        while (record.len() as u64) < size {
            if next == 0 {
                return Err(damaged());
            }
            let page = self.page(next)?;
            let take = (size - record.len() as u64).min(self.usable - 4) as usize;
            record.extend_from_slice(&page[4..4 + take]);
            next = be32(&page[..4]);
        }
        Ok(record)
    }

    /// How many bytes of a record are in the tree's own page.
    fn local(&self, size: u64) -> u64 {
        let usable = self.usable;
        let most = usable - 35;
        if size <= most {
            return size;
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let some = least + (size - least) % (usable - 4);
        if some <= most { some } else { least }
    }
}

/// Takes a record apart: the types, then the values.
fn columns(record: &[u8]) -> Option<Vec<Column>> {
    let (head, _) = varint(record)?;
    let head = usize::try_from(head).ok()?;
    let mut types = record.get(..head)?;
    types = varint(types)?.1;
    let mut values = record.get(head..)?;
    let mut columns = Vec::new();
    while !types.is_empty() {
        let (kind, rest) = varint(types)?;
        types = rest;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => (kind - 12) / 2,
        };
        let (value, rest) = values.split_at_checked(usize::try_from(size).ok()?)?;
        values = rest;
        columns.push(match kind {
            1..=6 => Column::Integer(crate::readers::elf::number(value, true)),
            12.. => Column::Bytes(value.to_vec()),
            _ => Column::Other,
        });
    }
    Some(columns)
}

/// Reads a number of one to nine bytes, the first of which are most significant.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        if at == 8 {
            return Some((value << 8 | u64::from(*byte), &bytes[9..]));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

fn be32(bytes: &[u8]) -> u64 {
    crate::readers::elf::number(&bytes[..4], true)
}
