//! Base layers: what tars become on disk, and what they cannot do.

mod support;

use kiln_core::Digest;
use kiln_store::{EntryProblem, Ids, StoreError, UnpackOptions};
use support::{PLAIN, entry, list, store, tar, unpack};

/// Everything a tar can hold, in both kinds of stores.
#[test]
fn every_kind_of_entry_arrives() {
    let lines = "\
char dev/null 666 1:3 mtime=9
dir etc 700 uid=1 gid=2 mtime=5
file etc/a 4755 hello uid=3 gid=4 mtime=6
hard etc/b => etc/a
file etc/c 0 z xattr:user.x=y
file etc/d 640 cap gid=7 xattr:security.capability=\u{1}\u{0}\u{0}\u{2}\u{0}\u{2}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}
dir etc/e 500
file etc/e/f 444 inside
link etc/g -> ../nowhere uid=5 gid=6 mtime=7
fifo etc/p 622 uid=8 mtime=8
block etc/s 660 8:1 gid=6";
    for ids in support::kinds() {
        let (_dir, store) = store(ids);
        let layer = unpack(&store, &tar(lines)).unwrap();
        let listed = list(&store.layer_dir(&layer));
        assert_eq!(listed, format!("dir dev 755\n{lines}"), "{ids:?}");
    }
}

/// A tar, and what becomes of it.
#[test]
fn odd_tars_become_sound_trees() {
    let cases: &[(&str, &str, &str)] = &[
        ("no parents", "file a/b/c 644 x", "dir a 755\ndir a/b 755\nfile a/b/c 644 x"),
        (
            "absolute, dots, slashes",
            "file /a 644 x\nfile ./b//c 644 y\ndir d/./",
            "file a 644 x\ndir b 755\nfile b/c 644 y\ndir d 755",
        ),
        (
            "the last one wins",
            "file a 644 x\nfile a 600 yy\ndir a 711\nfile a/b 644\nlink a -> c",
            "link a -> c",
        ),
        (
            "directories merge",
            "dir a 700\nfile a/b 644 x\ndir a 711 uid=3",
            "dir a 711 uid=3\nfile a/b 644 x",
        ),
        (
            "links are followed inside",
            "dir usr/lib\nlink lib -> usr/lib\nfile lib/x 644 y",
            "link lib -> usr/lib\ndir usr 755\ndir usr/lib 755\nfile usr/lib/x 644 y",
        ),
        (
            "absolute links too",
            "dir usr\nlink l -> /usr\nfile l/x 644 y",
            "link l -> /usr\ndir usr 755\nfile usr/x 644 y",
        ),
        (
            "a link out of the tree leads to its root",
            "dir tmp\nlink l -> ../../../../tmp\nfile l/kiln-escaped 644 y",
            "link l -> ../../../../tmp\ndir tmp 755\nfile tmp/kiln-escaped 644 y",
        ),
        (
            "a directory over a link",
            "dir usr\nlink l -> usr\ndir l 700\nfile l/x 644",
            "dir l 700\nfile l/x 644\ndir usr 755",
        ),
        ("whiteouts", "file .wh.a 0\nfile d/.wh.b 0", "gone a\ndir d 755\ngone d/b"),
        ("opaque", "dir d\nfile d/.wh..wh..opq 0\nfile d/x 644", "dir d 755\nopaque d\nfile d/x 644"),
        (
            "deleted and made anew",
            "file .wh.d 0\ndir d 700\nfile d/x 644",
            "dir d 700\nopaque d\nfile d/x 644",
        ),
        (
            "deleted and made anew, the other way round",
            "dir d 700\nfile d/x 644\nfile .wh.d 0",
            "dir d 700\nopaque d\nfile d/x 644",
        ),
        (
            "deleted and made anew without saying so",
            "file .wh.d 0\nfile d/x 644",
            "dir d 755\nopaque d\nfile d/x 644",
        ),
        ("a file deleted and made anew", "file .wh.f 0\nfile f 644 x", "file f 644 x"),
        ("aufs left these", "file .wh..wh.plnk 0\nfile a 644", "file a 644"),
        ("a device like a whiteout", "char a 644 0:0", "char a 644 0:0"),
        ("a link to itself", "file a 644 x\nhard a => ./a", "file a 644 x"),
        (
            "hard link over something",
            "file a 644 x\ndir b\nfile b/c 644\nhard b => a",
            "file a 644 x\nhard b => a",
        ),
        ("hard link to a link", "link a -> /etc/passwd\nhard b => a", "link a -> /etc/passwd\nhard b => a"),
        (
            "private xattrs mean nothing",
            "file a 644 x xattr:user.kiln.stat=7:7:100644 xattr:user.overlay.redirect=/etc",
            "file a 644 x xattr:user.kiln.stat=7:7:100644 xattr:user.overlay.redirect=/etc",
        ),
        (
            "PAX names",
            "file x 644 y path=long/näme\nlink l -> x linkpath=tö",
            "link l -> tö\ndir long 755\nfile long/näme 644 y",
        ),
    ];
    for ids in support::kinds() {
        let (_dir, store) = store(ids);
        for (what, lines, expected) in cases {
            let layer = unpack(&store, &tar(lines)).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(list(&store.layer_dir(&layer)), *expected, "{what} ({ids:?})");
        }
    }
}

/// What it is, the tar, and why it is refused.
type Case = (&'static str, Vec<u8>, fn(&EntryProblem) -> bool);

#[test]
fn hostile_tars_are_refused_and_leave_nothing() {
    let long = "n".repeat(4096);
    let cases: Vec<Case> = vec![
        ("dot dot", tar("file a/../../x 644"), |p| matches!(p, EntryProblem::DotDot)),
        ("dot dot in a hard link", tar("hard a => ../../etc/passwd"), |p| matches!(p, EntryProblem::DotDot)),
        ("hard link out through a link", tar("link l -> /etc\nhard a => l/passwd"), |p| {
            matches!(p, EntryProblem::LinkTarget { .. })
        }),
        ("forward hard link", tar("hard a => b\nfile b 644"), |p| {
            matches!(p, EntryProblem::LinkTarget { .. })
        }),
        ("hard link to a directory", tar("dir d\nhard a => d"), |p| {
            matches!(p, EntryProblem::LinkToDirectory { .. })
        }),
        ("hard link to the root", tar("hard a => /"), |p| matches!(p, EntryProblem::LinkToDirectory { .. })),
        ("hard link to a deletion", tar("file .wh.b 0\nhard a => b"), |p| {
            matches!(p, EntryProblem::LinkTarget { .. })
        }),
        ("through a dangling link", tar("link l -> nowhere\nfile l/x 644"), |p| {
            matches!(p, EntryProblem::Parent { .. })
        }),
        ("through a file", tar("file f 644\nfile f/x 644"), |p| matches!(p, EntryProblem::Parent { .. })),
        ("through a loop", tar("link a -> b\nlink b -> a\nfile a/x 644"), |p| {
            matches!(p, EntryProblem::Parent { .. })
        }),
        ("root as a file", tar("file . 644"), |p| matches!(p, EntryProblem::Root)),
        ("opaque root", tar("file .wh..wh..opq 0"), |p| matches!(p, EntryProblem::OpaqueRoot)),
        ("whiteout of nothing", tar("file .wh. 0"), |p| matches!(p, EntryProblem::Name)),
        ("whiteout of the parent", tar("file d/.wh... 0"), |p| matches!(p, EntryProblem::Name)),
        ("a name beyond PATH_MAX", tar(&format!("file x 644 y path={long}")), |p| {
            matches!(p, EntryProblem::TooLong { .. })
        }),
        ("sparse", raw(b'S'), |p| matches!(p, EntryProblem::Sparse)),
        ("unknown type", raw(b'Z'), |p| matches!(p, EntryProblem::Kind { kind: 'Z' })),
        ("huge extended header", huge_extension(), |p| matches!(p, EntryProblem::TooLong { .. })),
        ("bad checksum", flipped(), |p| matches!(p, EntryProblem::Header { .. })),
        ("cut in a header", tar("file a 644 x")[..300].to_vec(), |p| matches!(p, EntryProblem::Truncated)),
        ("cut in content", tar("file a 644 x")[..512].to_vec(), |p| matches!(p, EntryProblem::Truncated)),
        ("empty link target", raw(b'2'), |p| matches!(p, EntryProblem::Header { .. })),
    ];
    for ids in support::kinds() {
        let (dir, store) = store(ids);
        for (what, bytes, expected) in &cases {
            match unpack(&store, bytes) {
                Err(StoreError::BadEntry { problem, .. }) if expected(&problem) => {}
                other => panic!("{what}: {other:?}"),
            }
            assert_empty(dir.path(), ids, what);
        }
    }
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let (dir, store) = store(support::kinds()[0]);
    let good = tar("file a 644 x");
    let id = Digest::of(&good);
    let wrong = Digest::of(b"other");
    let gzip = gzip(&good);
    let is = |result: Result<_, StoreError>, expected: fn(&StoreError) -> bool| {
        let error = result.unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_empty(dir.path(), store.ids(), &error.to_string());
    };
    is(store.unpack(&wrong, PLAIN, &good[..]), |e| matches!(e, StoreError::DiffIdMismatch { .. }));
    is(store.unpack(&id, "application/json", &good[..]), |e| matches!(e, StoreError::MediaType { .. }));
    is(store.unpack(&id, PLAIN, &gzip[..gzip.len() - 9]), |e| matches!(e, StoreError::Decompress { .. }));
    is(store.unpack(&id, PLAIN, Failing(&gzip[..30])), |e| matches!(e, StoreError::LayerRead { .. }));
    let few = UnpackOptions { max_bytes: 600, ..UnpackOptions::default() };
    is(store.unpack_with(&id, PLAIN, &gzip[..], &few), |e| matches!(e, StoreError::TooLarge { .. }));
    let few = UnpackOptions { max_entries: 0, ..UnpackOptions::default() };
    is(store.unpack_with(&id, PLAIN, &gzip[..], &few), |e| matches!(e, StoreError::TooLarge { .. }));
    let layer = store.unpack(&id, PLAIN, &gzip[..]).unwrap();
    assert_eq!(list(&store.layer_dir(&layer)), "file a 644 x");
}

#[test]
fn all_compressions_are_read_to_their_end() {
    let (_dir, store) = store(support::kinds()[0]);
    for (number, compress) in [gzip, zstd, |bytes: &[u8]| bytes.to_vec()].into_iter().enumerate() {
        // Bytes after the end of the archive count: they are in the diff id.
        let mut bytes = tar(&format!("file a 644 {number}"));
        bytes.extend([7; 5000]);
        let packed = compress(&bytes);
        let mut reader = &packed[..];
        let layer = store.unpack(&Digest::of(&bytes), PLAIN, &mut reader).unwrap();
        assert!(reader.is_empty());
        assert_eq!(list(&store.layer_dir(&layer)), format!("file a 644 {number}"));
    }
}

#[test]
fn threads_that_want_one_layer_get_it_from_one() {
    let (_dir, store) = store(support::kinds()[0]);
    let lines: String = (0..500).map(|n| format!("file d{}/f{n} 644 {n}\n", n % 7)).collect();
    let bytes = tar(&lines);
    let reads = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // Each with a store of its own, as different processes have.
                let store = kiln_store::Store::open(store.root(), store.ids()).unwrap();
                let counting = Counting(&bytes, &reads);
                let layer = store.unpack(&Digest::of(&bytes), PLAIN, counting).unwrap();
                assert!(store.layer_dir(&layer).join("d3/f3").is_file());
            });
        }
    });
    assert_eq!(reads.into_inner(), bytes.len());
}

struct Counting<'a>(&'a [u8], &'a std::sync::atomic::AtomicUsize);

impl std::io::Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.read(buffer)?;
        self.1.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        Ok(length)
    }
}

struct Failing<'a>(&'a [u8]);

impl std::io::Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::Error::other("the line went dead")),
            length => Ok(length),
        }
    }
}

fn raw(flag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, flag, b"a", b"", b"", 0o644, (0, 0, 0), None);
    out.extend([0; 1024]);
    out
}

fn huge_extension() -> Vec<u8> {
    let mut out = raw(b'L');
    let mut header = tar::Header::from_byte_slice(&out[..512]).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    out[..512].copy_from_slice(header.as_bytes());
    out
}

fn flipped() -> Vec<u8> {
    let mut out = raw(b'0');
    out[0] ^= 1;
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Nothing half-made is in the store: no layer, nothing in the scratch directories.
fn assert_empty(dir: &std::path::Path, ids: Ids, what: &str) {
    let store = dir.join("store");
    assert_eq!(std::fs::read_dir(store.join(ids.dir()).join("layers")).unwrap().count(), 0, "{what}");
    for scratch in std::fs::read_dir(store.join("tmp")).unwrap() {
        assert_eq!(std::fs::read_dir(scratch.unwrap().path()).unwrap().count(), 0, "{what}");
    }
    assert_eq!(
        std::fs::read_dir(store.join("locks"))
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name() != "recover")
            .count(),
        0,
        "{what}"
    );
}
