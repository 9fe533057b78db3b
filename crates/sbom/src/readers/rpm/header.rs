//! A package's header, as rpm keeps it (<https://rpm-software-management.github.io/rpm/manual/format_header.html>): how many
//! entries and how many bytes of data, an index, the data.

use crate::package::Package;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENCE: u32 = 1014;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const SOURCE_RPM: u32 = 1044;

const INT32: u32 = 4;
const STRING: u32 = 6;
const I18N_STRING: u32 = 9;

/// More entries than any header has; rpm's own limit.
const MOST_ENTRIES: usize = 0xffff;

/// Reads the package that a header describes.
pub(super) fn package(blob: &[u8]) -> Option<Package> {
    let (entries, size) = (be32(blob, 0)? as usize, be32(blob, 4)? as usize);
    if entries > MOST_ENTRIES {
        return None;
    }
    let start = 8 + entries * 16;
    let data = blob.get(start..start.checked_add(size)?)?;
    let header = Header { index: blob.get(8..start)?, data };
    let version = format!("{}-{}", header.text(VERSION)?, header.text(RELEASE)?);
    let version = match header.number(EPOCH) {
        Some(epoch) => format!("{epoch}:{version}"),
        None => version,
    };
    Some(Package {
        architecture: header.text(ARCH),
        licence: header.text(LICENCE),
        supplier: header.text(VENDOR),
        from_organization: true,
        homepage: header.text(URL),
        upstream: header.text(SOURCE_RPM).filter(|source| source != "(none)"),
        ..super::new(header.text(NAME)?, version)
    })
}

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    /// Returns an entry's type and where its data begins.
    fn entry(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let entry = self.index.chunks_exact(16).find(|entry| be32(entry, 0) == Some(tag))?;
        Some((be32(entry, 4)?, self.data.get(be32(entry, 8)? as usize..)?))
    }

    fn text(&self, tag: u32) -> Option<String> {
        let (kind, data) = self.entry(tag)?;
        if !matches!(kind, STRING | I18N_STRING) {
            return None;
        }
        let end = data.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&data[..end]).into_owned()).filter(|text| !text.is_empty())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        let (kind, data) = self.entry(tag)?;
        (kind == INT32).then(|| be32(data, 0))?
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
