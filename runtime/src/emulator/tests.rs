use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::table::{row, rows};
use super::*;

#[test]
fn every_line_of_the_table_is_read() {
    let names: Vec<&str> = rows().map(|row| row.architecture).collect();
    assert_eq!(names, ["amd64", "386", "arm64", "arm", "riscv64", "ppc64le", "s390x"]);
    assert!(rows().all(|row| row.programs.len() == 2 && !row.code.is_empty()));
}

/// The first 20 bytes of Debian's /bin/busybox (or true, of riscv64) of each architecture, static or not, by `xxd -l 20`.
#[test]
fn headers_of_real_programs_match_their_own_line_only() {
    let rows_of = [
        ("amd64", "7f454c4602010103000000000000000002003e00"),
        ("amd64", "7f454c4602010100000000000000000003003e00"),
        ("386", "7f454c4601010103000000000000000002000300"),
        ("arm64", "7f454c460201010300000000000000000200b700"),
        ("arm64", "7f454c460201010000000000000000000300b700"),
        ("arm", "7f454c4601010103000000000000000002002800"),
        ("riscv64", "7f454c460201010000000000000000000300f300"),
        ("ppc64le", "7f454c4602010103000000000000000002001500"),
        ("s390x", "7f454c4602020103000000000000000000020016"),
    ];
    for (architecture, hex) in rows_of {
        let header: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let found: Vec<&str> =
            rows().filter(|row| row.matches(&header)).map(|row| row.architecture).collect();
        assert_eq!(found, [architecture], "{hex}");
    }
    assert_eq!(rows().filter(|row| row.matches(b"#!/bin/sh\n--------------")).count(), 0);
    assert_eq!(rows().filter(|row| row.matches(b"\x7fELF")).count(), 0);
}

#[test]
fn small_programs_are_programs() {
    let dir = tempfile::tempdir().unwrap();
    for row in rows() {
        let path = dir.path().join(row.architecture);
        fs::write(&path, elf::program(&row)).unwrap();
        let read = elf::read(&path).unwrap().unwrap();
        assert!(row.matches(&read.header), "{}", row.architecture);
        assert_eq!(read.interpreter, None);
    }
}

#[test]
fn this_machine_runs_its_own_small_program() {
    let row = row(&Platform::host().architecture).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    fs::write(&path, elf::program(&row)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    for (args, code) in [(&[][..], 0), (&["a"], 1), (&["a", "b"], 2)] {
        let status = std::process::Command::new(&path).args(args).status().unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn what_cannot_be_an_emulator_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let host = Platform::host().architecture;
    let own = elf::program(&row(&host).unwrap());
    let other = elf::program(&rows().find(|row| row.architecture != host).unwrap());
    assert_eq!(check(&file("static", &own, 0o755)), Ok(()));
    // Debian's own tools are linked to the C library.
    let dynamic = check(Path::new("/bin/ls")).unwrap_err();
    assert!(dynamic.contains("is not static: it needs /lib"), "{dynamic}");
    let rows = [
        (
            file(
                "script",
                b"#!/bin/sh\nexec qemu-aarch64 \"$@\" # longer than any header of an ELF file is\n",
                0o755,
            ),
            "is no ELF program",
        ),
        (file("short", b"", 0o755), "is no ELF program"),
        (file("foreign", &other, 0o755), "is a program of another architecture"),
        (file("closed", &own, 0o644), "cannot be executed"),
        (dir.path().to_owned(), "cannot be read"),
        (dir.path().join("nowhere"), "cannot be read"),
    ];
    for (path, reason) in rows {
        let said = check(&path).unwrap_err();
        assert!(said.contains(reason), "{said}");
    }
}
