//! What Go's linker leaves in programs, as `go version -m` shows it
//! (<https://pkg.go.dev/debug/buildinfo>; the format: <https://go.dev/src/debug/buildinfo/buildinfo.go>).

use std::path::Path;

use crate::found::Found;
use crate::package::{Ecosystem, Package};
use crate::readers::elf::{Elf, bytes, number};
use crate::tree::Opened;

const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER: usize = 32;
/// The header lies at a multiple of this.
const ALIGN: usize = 16;
/// Without a section of its own it is in the first bytes of the data.
const SEARCHED: u64 = 1 << 20;

pub(crate) fn program(found: &mut Found, path: &Path, file: &dyn Opened, elf: &Elf) {
    let Some((version, modules)) = build_info(file, elf) else { return };
    let toolchain = version.strip_prefix("go").unwrap_or(&version);
    let toolchain = toolchain.split(' ').next().unwrap_or_default();
    found.push(path, Package::new(Ecosystem::Golang, "stdlib", toolchain));
    let mut last: Option<Package> = None;
    for line in modules.lines() {
        let mut words = line.split('\t');
        let kind = words.next();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let module = Package::new(Ecosystem::Golang, name, plain(version));
        match kind {
            Some("mod" | "dep") => {
                if let Some(before) = last.replace(module) {
                    found.push(path, before);
                }
            }
            // What stands in for the module in the line before.
            Some("=>") => last = Some(module),
            _ => {}
        }
    }
    if let Some(last) = last {
        found.push(path, last);
    }
}

/// A module built from a working directory has no version.
fn plain(version: &str) -> &str {
    if version == "(devel)" { "" } else { version }
}

/// Returns the version of Go and the list of modules.
fn build_info(file: &dyn Opened, elf: &Elf) -> Option<(String, String)> {
    let info = elf.section(file, ".go.buildinfo").or_else(|| {
        let data = elf.segments.iter().find(|segment| segment.writable)?;
        bytes(file, data.position, data.size.min(SEARCHED))
    })?;
    let aligned = |at: &usize| info[*at..].starts_with(MAGIC) && info.len() - at >= HEADER;
    let at = (0..info.len()).step_by(ALIGN).find(aligned)?;
    let info = &info[at..];
    let (pointer, flags) = (usize::from(info[14]), info[15]);
    let (version, modules) = if flags & 2 != 0 {
        // Since Go 1.18: both follow, each with its length.
        let (version, rest) = counted(&info[HEADER..])?;
        (version.to_vec(), counted(rest).map(|(modules, _)| modules.to_vec()).unwrap_or_default())
    } else {
        let big = flags & 1 != 0;
        let string = |at: usize| text_at(file, elf, number(info.get(at..at + pointer)?, big), pointer, big);
        if !matches!(pointer, 4 | 8) {
            return None;
        }
        (string(16)?, string(16 + pointer).unwrap_or_default())
    };
    let version = String::from_utf8(version).ok()?;
    // The list stands between two marks of 16 bytes.
    let modules = match modules.len() {
        33.. if modules[modules.len() - 17] == b'\n' => &modules[16..modules.len() - 16],
        _ => &[],
    };
    Some((version, String::from_utf8_lossy(modules).into_owned()))
}

/// Follows a pointer to one of Go's strings: another pointer and a length.
fn text_at(file: &dyn Opened, elf: &Elf, address: u64, pointer: usize, big: bool) -> Option<Vec<u8>> {
    let header = elf.at_address(file, address, pointer as u64 * 2)?;
    let (data, size) = header.split_at(pointer);
    elf.at_address(file, number(data, big), number(size, big))
}

/// Splits off a text that its length stands before, in groups of seven bits.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut size: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        size |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let rest = &bytes[at + 1..];
            let size = usize::try_from(size).ok()?;
            return (size <= rest.len()).then(|| rest.split_at(size));
        }
    }
    None
}
