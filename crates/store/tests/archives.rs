//! `ADD` of archives: where entries go, over what, and what they cannot do.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IgnoreList, Selection, Unpack};
use kiln_store::copy::{CopyError, CopyInput, CopyReport, CopyRequest, CopyRules, copy};
use kiln_store::tree::{DigestRule, SourceTree};
use kiln_store::{ArchiveError, EntryProblem, Ids};
use support::{entry, list, store, tar, unpack};

/// A source directory, an image and a layer over it.
struct World {
    _dir: tempfile::TempDir,
    store: kiln_store::Store,
    source: PathBuf,
    layer: PathBuf,
    image: PathBuf,
    owner: Option<(u32, u32)>,
}

impl World {
    fn new(ids: Ids, image: &str) -> Self {
        let (dir, store) = store(ids);
        let image = store.layer_dir(&unpack(&store, &tar(image)).unwrap());
        let (source, layer) = (dir.path().join("source"), dir.path().join("made/layer"));
        fs::create_dir(&source).unwrap();
        fs::create_dir_all(&layer).unwrap();
        Self { _dir: dir, store, source, layer, image, owner: None }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.source.join(name), bytes).unwrap();
    }

    fn add_with(&self, source: &str, dest: &str, cancel: &Cancel) -> Result<CopyReport, CopyError> {
        let tree = SourceTree::context(
            File::open(&self.source).unwrap().into(),
            &self.source,
            IgnoreList::default(),
            None,
        );
        let selected = tree.select(&Selection::wildcard(source))?;
        selected.digest(DigestRule::COPY).unwrap();
        let parent = File::open(&self.image).unwrap();
        let clean = dest.trim_end_matches('/');
        let report = copy(&CopyRequest {
            layer: &self.layer,
            parent: Some(parent.as_fd()),
            inputs: &[CopyInput::Files(selected)],
            dest: if clean.is_empty() { "/" } else { clean },
            dest_is_dir: dest.ends_with('/'),
            unpack: Unpack::Archives,
            rules: &CopyRules {
                owner: self.owner,
                keep_owners: false,
                chmod: None,
                epoch: None,
                ids: self.store.ids(),
            },
            reuse: None,
            cancel,
        })?;
        report.link_owners.write(self.layer.parent().unwrap()).unwrap();
        Ok(report)
    }

    /// Adds a source and lists the layer, without times of what is only made on the way.
    fn add(&self, source: &str, dest: &str) -> Result<String, CopyError> {
        self.add_with(source, dest, &Cancel::new())?;
        Ok(list(&self.layer).replace(" mtime=315532800", ""))
    }
}

const IMAGE: &str = "\
dir etc 711
file etc/old 600 old
dir d 755
file d/x 644 x
dir d/sub 755
file d/sub/y 644 y
file f 644 f
dir usr 755
dir usr/lib 755
file usr/lib/old 644 old
link lib -> usr/lib
link abs -> /usr/lib
link up -> ../../../usr
link loop -> loop";

#[test]
fn every_kind_of_entry_arrives() {
    let lines = "\
dir etc 700 uid=1 gid=2 mtime=5
file etc/a 4755 hello uid=3 gid=4 mtime=6
hard etc/b => etc/a
file etc/c 0 z xattr:user.x=y
dir etc/e 500 xattr:user.z=w
file etc/e/f 444 inside
link etc/g -> ../nowhere uid=5 gid=6 mtime=7
fifo etc/p 622 uid=8 mtime=8";
    for ids in support::kinds() {
        let world = World::new(ids, "dir old");
        world.put("a.tar", &tar(&format!("{lines}\nchar etc/null 666 1:3\nblock etc/sda 660 8:0")));
        let report = world.add_with("a.tar", "/x/", &Cancel::new()).unwrap();
        let expected: String = lines
            .lines()
            .map(|line| line.replacen("etc", "x/etc", 1).replace("=> etc", "=> x/etc") + "\n")
            .collect();
        let listed = list(&world.layer).replace(" mtime=315532800", "");
        assert_eq!(format!("{listed}\n"), format!("dir x 755\n{expected}"), "{ids:?}");
        assert_eq!(
            (report.left_out, report.files, report.bytes),
            (2, 6, 12),
            "{ids:?}: devices are left out"
        );
    }
}

#[test]
fn entries_go_over_what_the_image_has() {
    // Archive, destination, what the layer then holds.
    let table: &[(&str, &str, &str, &str)] = &[
        ("a new directory", "file a 644 1", "/n/m", "dir n 755\ndir n/m 755\nfile n/m/a 644 1"),
        (
            "the root's own entry says nothing",
            "dir ./ 700 uid=7\nfile a 644 1",
            "/etc",
            "dir etc 711\nfile etc/a 644 1",
        ),
        (
            "names are below the destination",
            "file /a 644 1\nfile ./b/../c 644 2",
            "/n",
            "dir n 755\nfile n/a 644 1\nfile n/c 644 2",
        ),
        (
            "no parents in the archive",
            "file a/b/c 644 1 uid=5",
            "/",
            "dir a 755\ndir a/b 755\nfile a/b/c 644 1 uid=5",
        ),
        ("a file over a file", "file old 644 new", "/etc", "dir etc 711\nfile etc/old 644 new"),
        (
            "a directory with its own mode",
            "dir d 700 uid=3\nfile d/z 644",
            "/",
            "dir d 700 uid=3\nfile d/z 644",
        ),
        ("a directory that is only named", "file d/z 644", "/", "dir d 755\nfile d/z 644"),
        ("a file over a directory", "file d 644 1", "/", "file d 644 1"),
        ("a link over a directory", "link d -> f", "/", "link d -> f"),
        ("a directory over a file", "dir f 755\nfile f/a 644", "/", "dir f 755\nfile f/a 644"),
        ("a directory over a link", "dir lib 755\nfile lib/a 644", "/", "dir lib 755\nfile lib/a 644"),
        ("through a link", "file lib/a 644", "/", "dir usr 755\ndir usr/lib 755\nfile usr/lib/a 644"),
        (
            "through an absolute link",
            "file abs/a 644",
            "/",
            "dir usr 755\ndir usr/lib 755\nfile usr/lib/a 644",
        ),
        (
            "the destination is a link",
            "file a 644",
            "/lib",
            "dir usr 755\ndir usr/lib 755\nfile usr/lib/a 644",
        ),
        (
            "links are followed below the destination",
            "link e -> /etc\nfile e/a 644",
            "/n",
            "dir n 755\nlink n/e -> /etc\ndir n/etc 755\nfile n/etc/a 644",
        ),
        (
            "links that lead out stay inside",
            "link u -> ../../up\nfile u/a 644",
            "/n",
            "dir n 755\nlink n/u -> ../../up\ndir n/up 755\nfile n/up/a 644",
        ),
        (
            "an old directory stays away",
            "file d 644 1\ndir d 755\nfile d/z 644",
            "/",
            "dir d 755\nopaque d\nfile d/z 644",
        ),
        (
            "also below",
            "file d 644 1\nfile d 644 2\ndir d 755\ndir d/sub 700",
            "/",
            "dir d 755\nopaque d\ndir d/sub 700",
        ),
        (
            "the last of a name wins",
            "dir n 755\nfile n/a 644 1\nfile n 644 2\nfile n 600 3",
            "/",
            "file n 600 3",
        ),
        (
            "whiteouts are files",
            "file .wh.etc 644\nfile d/.wh..wh..opq 644",
            "/",
            "file .wh.etc 644\ndir d 755\nfile d/.wh..wh..opq 644",
        ),
        (
            "a hard link takes the place of a directory",
            "file a 644 1\nhard d => a",
            "/",
            "file a 644 1\nhard d => a",
        ),
        ("a hard link to itself", "file a 644 1\nhard ./a => a", "/", "file a 644 1"),
        ("a device does not take a file's place", "char f 666 1:3\nfile a 644", "/", "file a 644"),
    ];
    for (what, archive, dest, expected) in table {
        let world = World::new(Ids::Single, IMAGE);
        world.put("a", &tar(archive));
        let owned = |listed: String| listed.replace(" uid=0", "");
        assert_eq!(world.add("a", dest).map(owned).unwrap(), *expected, "{what}");
    }
}

#[test]
fn hostile_archives_are_refused() {
    let entry_problem = |archive: &str| {
        let world = World::new(Ids::Single, IMAGE);
        world.put("a", &tar(archive));
        match world.add("a", "/n/") {
            Err(CopyError::Archive { path, error: ArchiveError::Entry { problem, .. } })
                if path == Path::new("a") =>
            {
                problem
            }
            other => panic!("{archive}: {other:?}"),
        }
    };
    type Is = fn(&EntryProblem) -> bool;
    let table: &[(&str, Is)] = &[
        ("file ../x 644", |p| matches!(p, EntryProblem::DotDot)),
        ("file a/../../x 644", |p| matches!(p, EntryProblem::DotDot)),
        ("hard a => ../etc/old", |p| matches!(p, EntryProblem::DotDot)),
        ("hard a => /etc/old", |p| matches!(p, EntryProblem::LinkTarget { .. })),
        ("hard a => b\nfile b 644", |p| matches!(p, EntryProblem::LinkTarget { .. })),
        ("dir d\nhard a => d", |p| matches!(p, EntryProblem::LinkToDirectory { .. })),
        ("hard a => .", |p| matches!(p, EntryProblem::LinkToDirectory { .. })),
        ("dir d\nfile d/x 644\nhard d => d/x", |p| matches!(p, EntryProblem::LinkTarget { .. })),
        ("file f 644\nfile f/x 644", |p| matches!(p, EntryProblem::Parent { .. })),
        ("link l -> l\nfile l/x 644", |p| matches!(p, EntryProblem::Parent { .. })),
    ];
    for (archive, is) in table {
        let problem = entry_problem(archive);
        assert!(is(&problem), "{archive}: {problem}");
    }
    // The image's own file was not touched through any of them.
    let world = World::new(Ids::Single, IMAGE);
    world.put("a", &tar("link e -> ../../../../etc\nfile e/old 644 pwned"));
    world.add("a", "/n/").unwrap();
    assert_eq!(fs::read(world.image.join("etc/old")).unwrap(), b"old");
    assert!(!world.layer.join("etc").exists());
}

#[test]
fn damaged_archives_are_refused() {
    let whole = tar("file a 644 hello\nfile b 644 world");
    let add = |bytes: &[u8]| {
        let world = World::new(Ids::Single, IMAGE);
        world.put("a.tar", bytes);
        world.add("a.tar", "/n/")
    };
    let error = |bytes: &[u8]| match add(bytes) {
        Err(CopyError::Archive { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    let truncated = |error: ArchiveError| {
        assert!(matches!(error, ArchiveError::Entry { problem: EntryProblem::Truncated, .. }), "{error}");
    };
    truncated(error(&whole[..515]));
    truncated(error(&whole[..1024 + 100]));
    let mut damaged = whole.clone();
    damaged[1024 + 10] ^= 1;
    let problem = error(&damaged).to_string();
    assert!(problem.contains("checksum"), "{problem}");
    let gzip = gzip(&whole);
    let cut = error(&gzip[..gzip.len() - 12]);
    assert!(matches!(cut, ArchiveError::Decompress { .. }), "{cut}");
    let mut sparse = Vec::new();
    entry(&mut sparse, b'S', b"huge", b"", b"", 0o644, (0, 0, 0), None);
    let refused = error(&sparse);
    assert_eq!(refused.to_string(), "entry \"huge\": sparse files are not supported yet");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// `a/b` with `hello\n`, mode 0640, as `tar c` made it, and then as bzip2 and as xz (with the check named).
const COMPRESSED: [(&str, &[u8]); 5] = [
    ("bzip2", include_bytes!("data/ab.tar.bz2")),
    ("two bzip2 streams", include_bytes!("data/ab-parts.tar.bz2")),
    ("xz", include_bytes!("data/ab.tar.xz")),
    ("xz with sha256", include_bytes!("data/ab-sha256.tar.xz")),
    ("two xz streams", include_bytes!("data/ab-parts.tar.xz")),
];

#[test]
fn archives_are_told_by_content_whatever_their_compression() {
    let plain = tar("dir a 755\nfile a/b 640 hello");
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let gzip = gzip(&plain);
    let mut all: Vec<(&str, &[u8])> = vec![("plain", &plain), ("gzip", &gzip), ("zstd", &zstd)];
    all.extend(COMPRESSED);
    for (what, bytes) in all {
        let world = World::new(Ids::Single, IMAGE);
        world.put("any.name", bytes);
        assert_eq!(
            world.add("any.name", "/n").unwrap(),
            "dir n 755\ndir n/a 755\nfile n/a/b 640 hello",
            "{what}"
        );
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    let gzipped_text = gzip(b"not a tar, but longer than a header would be; ".repeat(40).as_slice());
    let cases: &[(&str, &[u8])] = &[
        ("text", b"hello"),
        ("empty", b""),
        ("zeros, which is a tar without entries", &[0; 10_240]),
        ("compressed text", &gzipped_text),
        ("a magic number and nothing behind it", b"\xfd7zXZ\0 and so on"),
        ("another", b"BZh9, said the bee"),
        ("a name alone", b"x.tar"),
    ];
    for (what, bytes) in cases {
        let world = World::new(Ids::Single, IMAGE);
        world.put("a.tar", bytes);
        world.add("a.tar", "/n").unwrap();
        assert_eq!(fs::read(world.layer.join("n")).unwrap(), *bytes, "{what}");
    }
    // Archives in a directory that is copied stay what they are, and links to them do not.
    let world = World::new(Ids::Single, IMAGE);
    world.put("a.tar", &tar("file a 644 1"));
    fs::create_dir(world.source.join("d")).unwrap();
    fs::rename(world.source.join("a.tar"), world.source.join("d/a.tar")).unwrap();
    std::os::unix::fs::symlink("d/a.tar", world.source.join("link")).unwrap();
    world.add("d", "/n").unwrap();
    assert!(world.layer.join("n/a.tar").is_file());
    let world = World { layer: world.source.join("../other/layer"), ..world };
    fs::create_dir_all(&world.layer).unwrap();
    assert_eq!(world.add("link", "/m").unwrap(), "dir m 755\nfile m/a 644 1");
}

#[test]
fn xz_that_wants_too_much_memory_is_refused() {
    let world = World::new(Ids::Single, IMAGE);
    // A block header that asks for a dictionary of 1.5 GiB.
    world.put("a", include_bytes!("data/huge-dictionary.tar.xz"));
    let error = world.add("a", "/n").unwrap_err().to_string();
    assert!(error.starts_with("a cannot be unpacked: it cannot be decompressed: "), "{error}");
}

#[test]
fn chown_is_for_all_entries_but_implied_parents() {
    for ids in support::kinds() {
        let world = World { owner: Some((7, 8)), ..World::new(ids, IMAGE) };
        world.put(
            "a",
            &tar("dir d 700 uid=1\nfile d/a 644 uid=2 gid=3\nlink l -> d uid=4\nfile i/b 644 uid=5"),
        );
        let expected = "\
dir n 755 uid=7 gid=8
dir n/d 700 uid=7 gid=8
file n/d/a 644  uid=7 gid=8
dir n/i 755
file n/i/b 644  uid=7 gid=8
link n/l -> d uid=7 gid=8";
        assert_eq!(world.add("a", "/n").unwrap(), expected, "{ids:?}");
    }
}

#[test]
fn a_wildcard_unpacks_each_archive_and_copies_the_rest() {
    let world = World::new(Ids::Single, IMAGE);
    world.put("1.tar", &tar("file a 644 1\nfile both 644 1"));
    world.put("2.tar", &gzip(&tar("file b 644 2\nfile both 644 2")));
    world.put("3.txt", b"text");
    let listed = world.add("*", "/n/").unwrap();
    let names: Vec<&str> = listed.lines().map(|line| line.split(" mtime").next().unwrap()).collect();
    assert_eq!(
        names,
        ["dir n 755", "file n/3.txt 644 text", "file n/a 644 1", "file n/b 644 2", "file n/both 644 2"]
    );
}

#[test]
fn an_interrupted_unpacking_says_so_and_a_file_in_the_way_is_an_error() {
    let world = World::new(Ids::Single, IMAGE);
    world.put("a", &tar("file a 644 1"));
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(world.add_with("a", "/n/", &cancel), Err(CopyError::Cancelled));
    assert_eq!(world.add_with("a", "/f", &Cancel::new()), Err(CopyError::FileInTheWay { path: "/f".into() }));
}
