//! A real tree: this machine, held against what its own package managers say.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_sbom::{Ecosystem, Entry, FileTree, Kind, Opened, inventory};

/// Some directories of a machine as a tree.
struct Real {
    root: PathBuf,
    only: &'static [&'static str],
}

struct File(std::fs::File);

impl FileTree for Real {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let near = |path: &Path| {
            self.only.is_empty()
                || self.only.iter().any(|only| path.starts_with(only) || Path::new(only).starts_with(path))
        };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            let kind = match meta.file_type() {
                kind if kind.is_dir() => Kind::Directory,
                kind if kind.is_file() => {
                    Kind::File { size: meta.len(), executable: meta.permissions().mode() & 0o111 != 0 }
                }
                _ => Kind::Other,
            };
            if near(&dir.join(entry.file_name())) {
                entries.push(Entry { name: entry.file_name(), kind });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Opened + '_>> {
        Ok(Box::new(File(std::fs::File::open(self.root.join(path))?)))
    }
}

impl Opened for File {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |meta| meta.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }
}

#[test]
fn dpkg_agrees() {
    let format = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n";
    let Ok(output) = Command::new("dpkg-query").args(["-W", "-f", format]).output() else {
        return skip("dpkg-query is not there");
    };
    let listed = String::from_utf8(output.stdout).expect("dpkg writes UTF-8");
    let expected: BTreeSet<String> =
        listed.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect();
    if expected.is_empty() {
        return skip("dpkg-query lists nothing");
    }
    let tree = Real { root: "/".into(), only: &["etc/os-release", "var/lib/dpkg/status", "usr/share/doc"] };
    let found = inventory(&tree);
    let of = |package: &kiln_sbom::Package| {
        let architecture = package.architecture.clone().unwrap_or_default();
        format!("{} {} {architecture}", package.name, package.version)
    };
    let debs = found.packages.iter().filter(|package| package.ecosystem == Ecosystem::Deb);
    let found: BTreeSet<String> = debs.map(of).collect();
    assert_eq!(found, expected);
}

#[test]
fn pip_agrees() {
    let script = "import importlib.metadata as m, sysconfig\nprint(sysconfig.get_path('purelib'))\n\
        for d in m.distributions(path=[sysconfig.get_path('purelib')]): print(d.metadata['Name'], d.version)";
    let Ok(output) = Command::new("python3").args(["-c", script]).output() else {
        return skip("python3 is not there");
    };
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = listed.lines();
    let root = PathBuf::from(lines.next().unwrap_or_default());
    let expected: BTreeSet<String> = lines.map(str::to_owned).collect();
    if expected.is_empty() {
        return skip("python3 has no packages");
    }
    let names: Vec<PathBuf> = std::fs::read_dir(&root)
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "dist-info" || end == "egg-info"))
        .collect();
    let found = inventory(&Real { root, only: &[] });
    // Packages bring others inside of themselves; python3 does not list those.
    let own = |place: &String| Path::new(place).iter().count() <= 2;
    let found: BTreeSet<String> = found
        .packages
        .iter()
        .filter(|package| package.ecosystem == Ecosystem::Pypi && package.found_in.iter().any(own))
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    assert!(!names.is_empty());
    assert_eq!(found, expected);
}

#[expect(clippy::print_stderr, reason = "a test says why it does nothing")]
fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    eprintln!("skipped: {reason}");
}
