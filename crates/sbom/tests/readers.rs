//! Small trees with what each package manager leaves, and what is read from them.

use kiln_sbom::{Ecosystem, Inventory, MemoryTree, Package, inventory};

fn tree(files: &[(&str, &str)]) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for (path, text) in files {
        tree.add(*path, *text);
    }
    tree
}

fn purls(found: &Inventory) -> Vec<String> {
    found.packages.iter().map(|package| package.purl(found.distribution.as_ref())).collect()
}

fn only(found: &Inventory) -> &Package {
    assert_eq!(found.packages.len(), 1, "{found:#?}");
    &found.packages[0]
}

fn notes(found: &Inventory) -> Vec<String> {
    found.notes.iter().map(ToString::to_string).collect()
}

const BOOKWORM: (&str, &str) = (
    "etc/os-release",
    "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='Debian'\nVERSION_ID=\"12\"\nID=debian\n",
);

#[test]
fn dpkg_lists_what_is_installed() {
    let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\n\
        Source: glibc\nVersion: 2.36-9+deb12u4\nMaintainer: GNU Libc <debian-glibc@lists.debian.org>\n\
        Description: GNU C Library\n Contains the standard libraries.\n .\n Package: not-a-field\n\
        Homepage: https://www.gnu.org/software/libc/\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1.0\n\n\
        Package: gcc-12-base\nStatus: install ok triggers-pending\nArchitecture: amd64\n\
        Source: gcc-12 (12.2.0-14)\nVersion: 1:12.2.0-14\n";
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
        Files: *\nLicense: LGPL-2.1+\n Text of it.\n\nFiles: x\nLicense: GPL-2+ or Expat\n\nLicense: BSD-unused\n text\n";
    let found = inventory(&tree(&[
        BOOKWORM,
        ("var/lib/dpkg/status", status),
        ("usr/share/doc/libc6/copyright", copyright),
        ("usr/share/doc/gcc-12-base/copyright", "This is free software.\n"),
    ]));
    assert_eq!(
        purls(&found),
        [
            "pkg:deb/debian/gcc-12-base@1:12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc",
        ]
    );
    let libc = &found.packages[1];
    assert_eq!(libc.licence.as_deref(), Some("(GPL-2+ or Expat) AND LGPL-2.1+"));
    assert_eq!(libc.homepage.as_deref(), Some("https://www.gnu.org/software/libc/"));
    assert_eq!(libc.supplier.as_deref(), Some("GNU Libc <debian-glibc@lists.debian.org>"));
    assert_eq!(found.packages[0].licence, None);
    assert_eq!(found.notes, []);
}

#[test]
fn dpkg_of_an_image_without_dpkg_is_read_in_pieces() {
    let found = inventory(&tree(&[
        BOOKWORM,
        ("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\nArchitecture: all\n"),
        ("var/lib/dpkg/status.d/tzdata.md5sums", "0123  usr/share/zoneinfo/UTC\n"),
    ]));
    assert_eq!(purls(&found), ["pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12"]);
    assert!(only(&found).found_in.contains("var/lib/dpkg/status.d/tzdata"));
    assert_eq!(found.notes, []);
}

#[test]
fn apk_lists_what_is_installed() {
    let installed = "C:Q1abc=\nP:libcrypto3\nV:3.1.4-r5\nA:x86_64\nT:Crypto library\nU:https://www.openssl.org/\n\
        L:Apache-2.0\no:openssl\nm:Ariadne <ariadne@example.com>\nF:lib\nR:libcrypto.so.3\n\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\n";
    let found = inventory(&tree(&[
        ("usr/lib/os-release", "ID=alpine\nVERSION_ID=3.19.1\n"),
        ("lib/apk/db/installed", installed),
    ]));
    assert_eq!(
        purls(&found),
        [
            "pkg:apk/alpine/libcrypto3@3.1.4-r5?arch=x86_64&distro=alpine-3.19.1&upstream=openssl",
            "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19.1",
        ]
    );
    assert_eq!(found.packages[0].licence.as_deref(), Some("Apache-2.0"));
}

#[test]
fn python_packages_are_found_wherever_they_are() {
    let found = inventory(&tree(&[
        (
            "venv/lib/python3.11/site-packages/Flask_Login-0.6.3.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: Flask_Login\nVersion: 0.6.3\nLicense: MIT\n\nName: of the description\n",
        ),
        (
            "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO",
            "Name: six\nVersion: 1.16.0\nLicense: UNKNOWN\nClassifier: Intended Audience :: All\n\
             Classifier: License :: OSI Approved :: MIT License\n",
        ),
        ("opt/old-1.0.egg-info", "Name: old\nVersion: 1.0\n"),
        ("a/new-2.dist-info/METADATA", "Name: new\nVersion: 2\nLicense-Expression: MIT OR Apache-2.0\n"),
        ("b/bad-1.dist-info/METADATA", "no metadata\n"),
        ("c/empty-1.dist-info/RECORD", ""),
    ]));
    assert_eq!(
        purls(&found),
        ["pkg:pypi/flask-login@0.6.3", "pkg:pypi/new@2", "pkg:pypi/old@1.0", "pkg:pypi/six@1.16.0"]
    );
    let licences: Vec<_> = found.packages.iter().map(|package| package.licence.as_deref()).collect();
    assert_eq!(licences, [Some("MIT"), Some("MIT OR Apache-2.0"), None, Some("MIT License")]);
    assert_eq!(notes(&found), ["/b/bad-1.dist-info/METADATA: it names no Python package and version"]);
}

#[test]
fn npm_packages_are_those_in_node_modules() {
    let found = inventory(&tree(&[
        ("app/package.json", r#"{"name": "app", "version": "1.0.0"}"#),
        (
            "app/node_modules/left-pad/package.json",
            r#"{"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}"#,
        ),
        (
            "app/node_modules/@angular/core/package.json",
            r#"{"name": "@angular/core", "version": "17.0.1", "license": {"type": "MIT"}, "author": {"name": "A", "email": "a@b.c"}}"#,
        ),
        // Not a package of its own.
        ("app/node_modules/left-pad/esm/package.json", r#"{"type": "module"}"#),
        (
            "app/node_modules/left-pad/node_modules/a/package.json",
            r#"{"name": "a", "version": "0.1.0", "licenses": [{"type": "MIT"}, {"type": "ISC"}]}"#,
        ),
        (
            "app/package-lock.json",
            r#"{"lockfileVersion": 3, "packages": {"": {"name": "app"},
             "node_modules/left-pad": {"version": "1.3.0", "resolved": "https://registry.example/left-pad-1.3.0.tgz"},
             "node_modules/absent": {"version": "9.9.9"}}}"#,
        ),
        // A bundle: what it was made from is told by its lock file alone.
        (
            "bundle/package-lock.json",
            r#"{"lockfileVersion": 3, "packages": {"node_modules/x": {"version": "1.0.0"}, "node_modules/x/node_modules/@s/y": {"version": "2.0.0"},
             "node_modules/linked": {"link": true}, "node_modules/tool": {"version": "3.0.0", "dev": true}}}"#,
        ),
        (
            "old/package-lock.json",
            r#"{"lockfileVersion": 1, "dependencies": {"p": {"version": "1.0.0", "dependencies": {"q": {"version": "2.0.0"}}}}}"#,
        ),
        ("bad/node_modules/z/package.json", "{"),
    ]));
    assert_eq!(
        purls(&found),
        [
            "pkg:npm/%40angular/core@17.0.1",
            "pkg:npm/%40s/y@2.0.0",
            "pkg:npm/a@0.1.0",
            "pkg:npm/left-pad@1.3.0",
            "pkg:npm/p@1.0.0",
            "pkg:npm/q@2.0.0",
            "pkg:npm/x@1.0.0",
        ]
    );
    let pad = &found.packages[3];
    assert_eq!(pad.download.as_deref(), Some("https://registry.example/left-pad-1.3.0.tgz"));
    assert_eq!(pad.licence.as_deref(), Some("WTFPL"));
    assert_eq!(pad.found_in.len(), 2);
    assert_eq!(found.packages[0].supplier.as_deref(), Some("A <a@b.c>"));
    assert_eq!(found.packages[2].licence.as_deref(), Some("MIT OR ISC"));
    assert_eq!(found.notes.len(), 1);
}

#[test]
fn cargo_lock_lists_crates() {
    let sum = "ab".repeat(32);
    let lock = format!(
        "# This file is automatically @generated by Cargo.\nversion = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\
         dependencies = [\n \"serde\",\n]\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{sum}\"\n\n[[package]]\n\
         name = \"fork\"\nversion = \"0.2.0\"\nsource = \"git+https://example.com/fork?branch=x#0123abcd\"\n\n\
         [[patch.unused]]\nname = \"unused\"\nversion = \"1.0.0\"\n"
    );
    let found = inventory(&tree(&[("src/Cargo.lock", lock.as_str())]));
    assert_eq!(
        purls(&found),
        [
            "pkg:cargo/app@0.1.0",
            "pkg:cargo/fork@0.2.0?vcs_url=git%2Bhttps:%2F%2Fexample.com%2Ffork%3Fbranch%3Dx%230123abcd",
            "pkg:cargo/serde@1.0.2",
        ]
    );
    assert_eq!(found.packages[2].checksum.as_ref().map(|sum| sum.hex.clone()), Some(sum));
}

#[test]
fn the_same_package_is_listed_once_with_all_its_places() {
    let metadata = "Name: six\nVersion: 1.16.0\n";
    let found = inventory(&tree(&[
        ("a/six-1.16.0.dist-info/METADATA", metadata),
        ("b/six-1.16.0.dist-info/METADATA", metadata),
        ("proc/1/root/six-1.16.0.dist-info/METADATA", metadata),
    ]));
    let places: Vec<&str> = only(&found).found_in.iter().map(String::as_str).collect();
    assert_eq!(places, ["a/six-1.16.0.dist-info/METADATA", "b/six-1.16.0.dist-info/METADATA"]);
    assert_eq!(only(&found).ecosystem, Ecosystem::Pypi);
}

#[test]
fn databases_that_cannot_be_read_are_named() {
    let found = inventory(&tree(&[
        ("var/lib/dpkg/status", "\u{1}\u{2}garbage"),
        ("lib/apk/db/installed", "garbage"),
        ("var/lib/rpm/Packages", "\0\0\0\0"),
        ("usr/lib/sysimage/rpm/Packages.db", "RpmP"),
        ("usr/share/rpm/rpmdb.sqlite", "SQLite format 2"),
    ]));
    assert_eq!(
        notes(&found),
        [
            "/lib/apk/db/installed: it is no database of apk",
            "/usr/lib/sysimage/rpm/Packages.db: an rpm database that is rpm's own ndb cannot be read; one that is SQLite can",
            "/usr/share/rpm/rpmdb.sqlite: it is no SQLite database",
            "/var/lib/dpkg/status: it is no status file of dpkg",
            "/var/lib/rpm/Packages: an rpm database that is a Berkeley DB cannot be read; one that is SQLite can",
        ]
    );
}

#[test]
fn a_tree_without_packages_holds_none() {
    let found = inventory(&tree(&[("bin/busybox", "\x7fELF")]));
    assert_eq!(found, Inventory::default());
}
