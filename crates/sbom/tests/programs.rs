//! Programs made by hand, with what Go's linker and cargo-auditable leave in them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use kiln_sbom::{Inventory, MemoryTree, inventory};

/// A 64-bit program: a header, a loaded writable segment over all of it, the sections.
fn program(sections: &[(&str, &[u8])], named: bool) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let mut file = vec![0; 64 + 56];
    let mut names = vec![0];
    let mut rows = vec![[0; 64]];
    for (name, bytes) in sections {
        file.resize(file.len().next_multiple_of(16), 0);
        rows.push(row(names.len(), BASE + file.len() as u64, file.len(), bytes.len()));
        names.extend(name.bytes().chain([0]));
        file.extend_from_slice(bytes);
    }
    let data = file.len() as u64;
    rows.push(row(0, 0, file.len(), names.len()));
    file.extend_from_slice(&names);
    let table = file.len() as u64;
    if named {
        rows.iter().for_each(|row| file.extend_from_slice(row));
    }
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..58].copy_from_slice(&[56, 0, 1, 0]);
    if named {
        file[40..48].copy_from_slice(&table.to_le_bytes());
        let (count, last) = (rows.len() as u16, rows.len() as u16 - 1);
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&count.to_le_bytes());
        file[62..64].copy_from_slice(&last.to_le_bytes());
    }
    let segment = &mut file[64..64 + 56];
    segment[0] = 1;
    segment[4] = 6;
    segment[16..24].copy_from_slice(&BASE.to_le_bytes());
    segment[32..40].copy_from_slice(&data.to_le_bytes());
    file
}

fn row(name: usize, address: u64, position: usize, size: usize) -> [u8; 64] {
    let mut row = [0; 64];
    row[..4].copy_from_slice(&(name as u32).to_le_bytes());
    row[4] = 1;
    row[16..24].copy_from_slice(&address.to_le_bytes());
    row[24..32].copy_from_slice(&(position as u64).to_le_bytes());
    row[32..40].copy_from_slice(&(size as u64).to_le_bytes());
    row
}

const MODULES: &str = "path\texample.com/App\nmod\texample.com/App\t(devel)\t\n\
    dep\tgithub.com/BurntSushi/toml\tv1.3.2\th1:abc=\ndep\tgolang.org/x/old\tv0.1.0\n=>\tgolang.org/x/new\tv0.2.0\th1:d=\n\
    build\tCGO_ENABLED=0\n";

fn marked() -> Vec<u8> {
    [&[0x30; 16], MODULES.as_bytes(), &[0xf9; 16]].concat()
}

fn counted(text: &[u8]) -> Vec<u8> {
    let (mut size, mut out) = (text.len(), Vec::new());
    while size >= 0x80 {
        out.push(size as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
    [out.as_slice(), text].concat()
}

/// As Go writes it since 1.18.
fn inline_info() -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    info.extend(counted(b"go1.22.1 X:boringcrypto"));
    info.extend(counted(&marked()));
    info
}

fn look(file: Vec<u8>) -> Inventory {
    let mut tree = MemoryTree::default();
    tree.add("usr/bin/app", file);
    inventory(&tree)
}

fn purls(found: &Inventory) -> Vec<String> {
    found.packages.iter().map(|package| package.purl(None)).collect()
}

const GO: [&str; 4] = [
    "pkg:golang/example.com/app",
    "pkg:golang/github.com/burntsushi/toml@v1.3.2",
    "pkg:golang/golang.org/x/new@v0.2.0",
    "pkg:golang/stdlib@1.22.1",
];

#[test]
fn modules_of_go_are_read_from_their_section() {
    let found = look(program(&[(".text", b"code"), (".go.buildinfo", &inline_info())], true));
    assert_eq!(purls(&found), GO);
    assert_eq!(found.packages[1].name, "github.com/BurntSushi/toml", "as it is written");
    assert_eq!(found.notes, []);
}

#[test]
fn modules_of_go_are_found_without_a_section_table() {
    let found = look(program(&[(".text", b"0123456789abcdef0"), (".go.buildinfo", &inline_info())], false));
    assert_eq!(purls(&found), GO);
}

#[test]
fn modules_of_older_go_are_behind_pointers() {
    // The strings come first, so that their addresses are known: sections begin at multiples of 16 behind the headers.
    let (version, modules) = (b"go1.17.5".as_slice(), marked());
    let at = |before: usize| 0x40_0000 + 64 + 56 + 8 + before as u64;
    let mut strings = version.to_vec();
    strings.resize(16, 0);
    strings.extend_from_slice(&modules);
    strings.resize(strings.len().next_multiple_of(16), 0);
    let headers = strings.len();
    for (address, size) in [(at(0), version.len()), (at(16), modules.len())] {
        strings.extend(address.to_le_bytes());
        strings.extend((size as u64).to_le_bytes());
    }
    let mut info = b"\xff Go buildinf:\x08\x00".to_vec();
    info.extend(at(headers).to_le_bytes());
    info.extend(at(headers + 16).to_le_bytes());
    let found = look(program(&[(".data", &strings), (".go.buildinfo", &info)], true));
    assert_eq!(purls(&found), [GO[0], GO[1], GO[2], "pkg:golang/stdlib@1.17.5"]);
}

#[test]
fn crates_are_read_from_what_cargo_auditable_leaves() {
    let json = r#"{"packages": [
        {"name": "app", "version": "0.1.0", "source": "local", "root": true, "dependencies": [1]},
        {"name": "adler", "version": "1.0.2", "source": "crates.io"},
        {"name": "cc", "version": "1.0.83", "source": "crates.io", "kind": "build"},
        {"name": "fork", "version": "0.2.0", "source": "git+https://example.com/fork"}]}"#;
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(json.as_bytes()).expect("memory takes it");
    let packed = packed.finish().expect("memory takes it");
    let found = look(program(&[(".dep-v0", &packed)], true));
    assert_eq!(
        purls(&found),
        [
            "pkg:cargo/adler@1.0.2",
            "pkg:cargo/app@0.1.0",
            "pkg:cargo/fork@0.2.0?vcs_url=git%2Bhttps:%2F%2Fexample.com%2Ffork"
        ]
    );
    let cut = look(program(&[(".dep-v0", &packed[..packed.len() / 2])], true));
    assert_eq!(cut.packages, []);
    assert_eq!(cut.notes.len(), 1);
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; 64 << 20]).expect("memory takes it");
    let packed = packed.finish().expect("memory takes it");
    let found = look(program(&[(".dep-v0", &packed)], true));
    assert_eq!(found.notes[0].reason, "its list of crates cannot be unpacked, or is too large");
}
