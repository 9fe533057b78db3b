//! Tar headers as kiln writes them: ustar, with a PAX header before it for what does not fit.
//!
//! The same file gives the same bytes: no names of users, no access times, whole seconds, sorted PAX records.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>

use std::collections::BTreeMap;

/// One entry of a tar.
#[derive(Debug, Default)]
pub(crate) struct Item<'a> {
    /// Relative; directories end in a slash.
    pub(crate) name: &'a [u8],
    /// Type flag: `b'0'` file, `b'1'` hard link, `b'2'` symbolic link, `b'3'` character device, `b'4'` block device,
    /// `b'5'` directory, `b'6'` fifo.
    pub(crate) flag: u8,
    /// Target of a link.
    pub(crate) link: &'a [u8],
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Seconds.
    pub(crate) mtime: i64,
    /// Bytes that follow.
    pub(crate) size: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Bytes of a header and of what files are padded to.
pub(crate) const BLOCK: usize = 512;
/// Largest numbers of octal fields of 8 and 12 bytes.
const MAX_SHORT: u64 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;

/// Returns the headers of an entry: one, or three blocks and more where PAX is needed.
pub(crate) fn encode(item: &Item<'_>) -> Vec<u8> {
    let mut pax = BTreeMap::new();
    for (name, value) in &item.xattrs {
        pax.insert([b"SCHILY.xattr.", &name[..]].concat(), value.clone());
    }
    let (prefix, name) = match fit(item.name) {
        Some(fitting) => fitting,
        None => {
            pax.insert(b"path".to_vec(), item.name.to_vec());
            (&b""[..], item.name)
        }
    };
    if item.link.len() > 100 || !item.link.is_ascii() {
        pax.insert(b"linkpath".to_vec(), item.link.to_vec());
    }
    let mut fits = |key: &[u8], value: i64, limit: u64| match u64::try_from(value) {
        Ok(value) if value <= limit => value,
        _ => {
            pax.insert(key.to_vec(), value.to_string().into_bytes());
            0
        }
    };
    let numbers = Numbers {
        uid: fits(b"uid", item.uid.into(), MAX_SHORT),
        gid: fits(b"gid", item.gid.into(), MAX_SHORT),
        size: fits(b"size", item.size.cast_signed(), MAX_LONG),
        mtime: fits(b"mtime", item.mtime, MAX_LONG),
    };
    let mut out = Vec::with_capacity(BLOCK);
    if !pax.is_empty() {
        let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
        let name = [b"PaxHeaders.0/", item.name].concat();
        let size = records.len() as u64;
        let header = Item { flag: b'x', ..Item::default() };
        block(&mut out, &header, b"", &name, &Numbers { uid: 0, gid: 0, size, mtime: 0 });
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    block(&mut out, item, prefix, name, &numbers);
    out
}

struct Numbers {
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
}

fn block(out: &mut Vec<u8>, item: &Item<'_>, prefix: &[u8], name: &[u8], numbers: &Numbers) {
    let mut header = [0; BLOCK];
    text(&mut header[..100], name);
    octal(&mut header[100..108], u64::from(item.mode));
    octal(&mut header[108..116], numbers.uid);
    octal(&mut header[116..124], numbers.gid);
    octal(&mut header[124..136], numbers.size);
    octal(&mut header[136..148], numbers.mtime);
    header[156] = item.flag;
    text(&mut header[157..257], item.link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], u64::from(item.device.0));
    octal(&mut header[337..345], u64::from(item.device.1));
    text(&mut header[345..500], prefix);
    header[148..156].fill(b' ');
    let sum = header.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut header[148..155], sum);
    out.extend_from_slice(&header);
}

/// Prefix and name, if the header has room for them. Only ASCII means the same to all readers.
fn fit(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // Split at the last slash that leaves neither too long; a directory's own slash stays with its name.
    let within = &name[..name.len().min(156)];
    let slash = within.iter().rposition(|&byte| byte == b'/').filter(|&at| at > 0)?;
    let slash = if slash + 1 == name.len() {
        within[..slash].iter().rposition(|&byte| byte == b'/').filter(|&at| at > 0)?
    } else {
        slash
    };
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= 100).then_some((prefix, rest))
}

/// What of it fits and is ASCII: where it is not all, PAX has the whole.
fn text(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text.iter().filter(|byte| byte.is_ascii())) {
        *to = *from;
    }
}

/// Octal digits with leading zeros and a NUL at the end.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
