//! A tar from elsewhere, read entry by entry and passed on as it is. So blocks end in it where they would if it were made
//! here, and a blob that is packed another way and back is the blob that it was.

use tar::{Header, PaxExtensions};

use super::header::BLOCK;
use crate::error::ArchiveError;

/// Headers of one entry may have so many bytes; no path or attribute comes near.
const MOST: usize = 1 << 20;

/// The headers that stand before a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// Of an entry, and how many bytes its content has.
    Entry(Vec<u8>, u64),
    /// The tar's end, or something that this does not know: what was read of it. What follows is no entry any more.
    Other(Vec<u8>),
}

/// Reads the headers of the next entry. `read` fills what it is given, but at the stream's end.
pub(super) fn next(
    read: &mut impl FnMut(&mut [u8]) -> Result<usize, ArchiveError>,
) -> Result<Headers, ArchiveError> {
    let mut head = Vec::new();
    let mut size = None;
    loop {
        let Some(at) = extend(&mut head, BLOCK, read)? else { return Ok(Headers::Other(head)) };
        let header = Header::from_byte_slice(&head[at..]);
        let sum: u32 = head[at..].iter().map(|&byte| u32::from(byte)).sum();
        let own: u32 = head[at + 148..at + 156].iter().map(|&byte| u32::from(byte)).sum();
        let sound = header.cksum().is_ok_and(|expected| expected == sum - own + 8 * u32::from(b' '));
        let (Ok(length), true) = (header.entry_size(), sound) else { return Ok(Headers::Other(head)) };
        let kind = header.entry_type();
        let before = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if !before {
            return Ok(Headers::Entry(head, size.unwrap_or(length)));
        }
        let (local, length) = (kind.is_pax_local_extensions(), usize::try_from(length).unwrap_or(usize::MAX));
        if length > MOST || head.len() > MOST {
            return Ok(Headers::Other(head));
        }
        let Some(at) = extend(&mut head, length.next_multiple_of(BLOCK), read)? else {
            return Ok(Headers::Other(head));
        };
        if local {
            size = PaxExtensions::new(&head[at..at + length])
                .flatten()
                .filter(|record| record.key_bytes() == b"size")
                .find_map(|record| record.value().ok()?.parse().ok());
        }
    }
}

/// Adds so many bytes and returns where they begin; nothing if there are not so many.
fn extend(
    head: &mut Vec<u8>,
    more: usize,
    read: &mut impl FnMut(&mut [u8]) -> Result<usize, ArchiveError>,
) -> Result<Option<usize>, ArchiveError> {
    let at = head.len();
    head.resize(at + more, 0);
    let mut filled = at;
    while filled < head.len() {
        match read(&mut head[filled..])? {
            0 => {
                head.truncate(filled);
                return Ok(None);
            }
            count => filled += count,
        }
    }
    Ok(Some(at))
}

/// Returns what an entry's content takes: whole blocks.
pub(super) fn padded(size: u64) -> u64 {
    // What no tar can hold is more than is there, too.
    size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::super::header::{Item, encode};
    use super::*;

    /// Takes a tar apart, by reads of so many bytes.
    fn parts(tar: &[u8], most: usize) -> Vec<(usize, Option<u64>)> {
        let mut left = tar;
        let mut found = Vec::new();
        loop {
            let mut read = |buffer: &mut [u8]| {
                let count = buffer.len().min(left.len()).min(most);
                buffer[..count].copy_from_slice(&left[..count]);
                left = &left[count..];
                Ok(count)
            };
            match next(&mut read).unwrap() {
                Headers::Entry(head, size) => {
                    found.push((head.len(), Some(size)));
                    left = &left[usize::try_from(padded(size)).unwrap().min(left.len())..];
                }
                Headers::Other(head) => {
                    found.push((head.len(), None));
                    return found;
                }
            }
        }
    }

    #[test]
    fn entries_are_those_that_were_written() {
        let long = "d/".repeat(200);
        let items = [
            Item { name: b"d/", flag: b'5', ..Item::default() },
            Item { name: b"d/f", flag: b'0', size: 1000, ..Item::default() },
            Item { name: long.as_bytes(), flag: b'5', ..Item::default() },
            Item { name: b"huge", flag: b'0', size: 1 << 40, ..Item::default() },
        ];
        let mut tar = Vec::new();
        let mut expected = Vec::new();
        for item in &items {
            let head = encode(item);
            expected.push((head.len(), Some(item.size)));
            tar.extend_from_slice(&head);
            // The last one is cut off: a tar that holds it would not fit here.
            tar.resize(tar.len() + usize::try_from(padded(item.size.min(2048))).unwrap(), 0);
        }
        expected.push((0, None));
        for most in [1, 100, 512, 5000] {
            assert_eq!(parts(&tar, most), expected, "{most}");
        }
        assert!(expected[2].0 > BLOCK && expected[3].0 > BLOCK, "they have headers of PAX");
    }

    #[test]
    fn what_is_no_entry_is_given_back_as_it_is() {
        let mut broken = encode(&Item { name: b"f", flag: b'0', ..Item::default() });
        broken[200] = b'x';
        let cut = &encode(&Item { name: "d/".repeat(200).as_bytes(), flag: b'5', ..Item::default() })[..600];
        let mut far = Header::new_ustar();
        far.set_entry_type(tar::EntryType::XHeader);
        far.set_size(1 << 33);
        far.set_cksum();
        for (bytes, length) in
            [(&[0; 1024][..], 512), (&broken, 512), (cut, 600), (b"text", 4), (b"", 0), (far.as_bytes(), 512)]
        {
            assert_eq!(parts(bytes, 300), [(length, None)]);
        }
    }
}
