//! The index: what is written is read, and nothing harmful is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::path::PathBuf;

use kiln_carry::{
    CarryError, Chunk, Entry, Fit, Frame, Generation, Index, Kind, Pack, Pointer, Strategy, Tree, fit,
    generation_tag, heads, is_generation_of, keep_packs, read, union, write,
};
use kiln_core::Digest;
use proptest::prelude::*;

fn entry(kind: Kind, time: i64) -> Entry {
    Entry { kind, mode: 0o644, uid: 0, gid: 0, mtime: (time, 7), used: None, xattrs: BTreeMap::new() }
}

fn chunk(text: &str) -> Chunk {
    Chunk { id: Digest::of(text.as_bytes()), length: u32::try_from(text.len()).unwrap() }
}

/// A pack that pretends to hold these.
fn pack(texts: &[&str]) -> Pack {
    let frame = Frame { size: 9, chunks: texts.iter().map(|text| chunk(text)).collect() };
    Pack { digest: Digest::of(texts.concat().as_bytes()), size: 9, frames: vec![frame] }
}

fn file(text: &str, time: i64) -> Entry {
    let (size, chunks) =
        if text.is_empty() { (0, vec![]) } else { (text.len() as u64, vec![chunk(text).id]) };
    entry(Kind::File { size, chunks }, time)
}

/// A tree of files by path; directories are made.
fn tree(id: &str, saved: i64, files: &[(&str, Entry)]) -> Tree {
    let mut entries = BTreeMap::from([(PathBuf::new(), entry(Kind::Directory, 0))]);
    for (path, file) in files {
        for parent in PathBuf::from(path).ancestors().skip(1) {
            entries.entry(parent.to_owned()).or_insert_with(|| entry(Kind::Directory, 0));
        }
        entries.insert(path.into(), file.clone());
    }
    Tree { id: id.to_owned(), scope: "global".to_owned(), saved, targets: vec![], entries }
}

fn index(trees: Vec<Tree>, packs: Vec<Pack>) -> Index {
    Index { trees, packs }
}

fn lines(lines: &[&str]) -> Vec<u8> {
    let mut to = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for line in lines {
        writeln!(to, "{line}").unwrap();
    }
    to.finish().unwrap()
}

const HEAD: &str = r#"{"format":"kiln cache index","version":1}"#;
const CACHE: &str = r#"{"cache":"pip","scope":"global","saved":1,"targets":[]}"#;
const ROOT: &str = r#"{"p":"","t":"d","m":493,"s":[0,0]}"#;

#[test]
fn every_kind_of_entry_is_read_as_it_was_written() {
    let mut odd = file("abc", 5);
    odd.xattrs.insert(b"user.\xff".to_vec(), vec![0, b'%', 255]);
    odd.used = Some(99);
    (odd.uid, odd.gid, odd.mode) = (1000, 50, 0o4755);
    let files = [
        ("a/100%", odd),
        ("a/empty", file("", 1)),
        ("a/hard", entry(Kind::Hard { to: "a/100%".into() }, 5)),
        ("a/link", entry(Kind::Link { target: "../../etc/passwd".into() }, 2)),
        ("a/pipe", entry(Kind::Fifo, 2)),
        ("a b/\u{202e}\n", file("xyz", -3)),
    ];
    let index = index(vec![tree("../../etc", 4, &files), tree("x", 1, &[])], vec![pack(&["abc", "xyz"])]);
    assert_eq!(read(&write(&index).unwrap()), Ok(index));
}

#[test]
fn what_is_hostile_is_refused_by_its_path() {
    let table = [
        ("../a", "f"),
        ("/etc/passwd", "f"),
        ("a/../b", "f"),
        ("a//b", "f"),
        ("./a", "f"),
        ("a/", "d"),
        ("a%00b", "f"),
        ("no/parent", "f"),
    ];
    for (path, kind) in table {
        let bad = format!(r#"{{"p":"{path}","t":"{kind}","m":420,"s":[0,0]}}"#);
        let error = read(&lines(&[HEAD, CACHE, ROOT, &bad])).unwrap_err();
        assert!(matches!(&error, CarryError::Hostile { .. }), "{path}: {error}");
    }
    let through =
        [r#"{"p":"l","t":"l","m":511,"s":[0,0],"l":"/etc"}"#, r#"{"p":"l/x","t":"f","m":420,"s":[0,0]}"#];
    let error = read(&lines(&[HEAD, CACHE, ROOT, through[0], through[1]])).unwrap_err();
    assert!(error.to_string().contains("lies in what is no directory"), "{error}");
    for bad in [
        r#"{"p":"h","t":"h","m":420,"s":[0,0],"l":"../../etc/shadow"}"#,
        r#"{"p":"h","t":"h","m":420,"s":[0,0],"l":"z"}"#,
        r#"{"p":"l","t":"l","m":420,"s":[0,0],"l":""}"#,
        r#"{"p":"m","t":"f","m":99999,"s":[0,0]}"#,
        r#"{"p":"m","t":"f","m":420,"s":[0,1000000000]}"#,
    ] {
        let error = read(&lines(&[HEAD, CACHE, ROOT, bad])).unwrap_err();
        assert!(matches!(error, CarryError::Hostile { .. }), "{bad}: {error}");
    }
}

#[test]
fn what_does_not_add_up_is_damaged() {
    let digest = Digest::of(b"x");
    let pack = |size: u64, frame: u32, length: u64| {
        format!(
            r#"{{"pack":"{digest}","size":{size},"frames":[{{"size":{frame},"chunks":[["{digest}",{length}]]}}]}}"#
        )
    };
    let good = pack(9, 9, 3);
    let one = |c: &str, z: u64| format!(r#"{{"p":"f","t":"f","m":420,"s":[0,0],"z":{z},"c":{c}}}"#);
    assert!(read(&lines(&[HEAD, &good, CACHE, ROOT, &one("[0]", 3)])).is_ok());
    let rows: [(&[&str], &str); 9] = [
        (&[HEAD, &good, CACHE, ROOT, &one("[1]", 3)], "a chunk that no pack has"),
        (&[HEAD, &good, CACHE, ROOT, &one("[0]", 4)], "do not add up to its size"),
        (&[HEAD, &pack(9, 8, 3), CACHE, ROOT], "do not add up to it"),
        (&[HEAD, &pack(1 << 40, 9, 3), CACHE, ROOT], "larger than a pack may be"),
        (&[HEAD, &pack(9, 9, 4_000_000_000), CACHE, ROOT], "larger than one may be"),
        (&[HEAD, CACHE], "no root"),
        (&[HEAD, CACHE, ROOT, ROOT], "there before"),
        (&[HEAD, CACHE, ROOT, CACHE, ROOT], "twice"),
        (&[HEAD, ROOT], "an entry of no cache"),
    ];
    for (text, message) in rows {
        let error = read(&lines(text)).unwrap_err();
        assert!(
            matches!(error, CarryError::Damaged { .. }) && error.to_string().contains(message),
            "{error}"
        );
    }
}

#[test]
fn something_else_is_named_as_that() {
    for bytes in [&b""[..], b"hello", &lines(&[]), &lines(&["hello"]), &lines(&[CACHE])] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, CarryError::Foreign { .. }), "{error}");
    }
    let newer = lines(&[r#"{"format":"kiln cache index","version":2}"#]);
    assert_eq!(read(&newer), Err(CarryError::Newer { found: 2, known: 1 }));
    let image = br#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:","size":0},"layers":[]}"#;
    assert!(matches!(Pointer::read(image), Err(CarryError::Foreign { .. })));
    let image = br#"{"schemaVersion":2,"layers":[]}"#;
    assert!(matches!(Pointer::read(image), Err(CarryError::Foreign { .. })));
}

#[test]
fn a_cut_index_is_damaged_wherever_it_is_cut() {
    let files: Vec<(String, Entry)> = (0..200).map(|n| (format!("f{n}"), file("abc", n))).collect();
    let files: Vec<(&str, Entry)> =
        files.iter().map(|(path, entry)| (path.as_str(), entry.clone())).collect();
    let whole = write(&index(vec![tree("a", 1, &files)], vec![pack(&["abc"])])).unwrap();
    for end in (0..whole.len()).step_by(7) {
        assert!(read(&whole[..end]).is_err(), "cut after {end}");
    }
}

#[test]
fn writers_at_one_time_are_merged_or_the_newest_is_taken() {
    let a = index(
        vec![tree("pip", 10, &[("same", file("abc", 1)), ("a", file("aaa", 2)), ("both", file("old", 3))])],
        vec![pack(&["abc", "aaa", "old"])],
    );
    let b = index(
        vec![tree("pip", 11, &[("same", file("abc", 1)), ("b", file("bbb", 2)), ("both", file("new", 4))])],
        vec![pack(&["abc", "bbb", "new"])],
    );
    for order in [vec![a.clone(), b.clone()], vec![b.clone(), a.clone()]] {
        let merged = union(order.clone(), Strategy::Merge);
        let names: Vec<_> = merged.trees[0].entries.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["", "a", "b", "both", "same"]);
        assert_eq!(merged.trees[0].entries[&PathBuf::from("both")], file("new", 4));
        assert_eq!(read(&write(&merged).unwrap()).as_ref(), Ok(&merged));
        let newest = union(order, Strategy::Newest);
        assert_eq!(newest.trees, b.trees);
    }
}

proptest! {
    /// Whatever trees are merged, the result can be written and read: no entry without its parent, no broken hard link.
    #[test]
    fn a_union_is_sound(
        trees in prop::collection::vec(
            (0_i64..5, prop::collection::vec(("[ab](/[ab]){0,3}", 0..4_u8, 0_i64..5), 0..8)),
            1..4,
        )
    ) {
        let indexes: Vec<Index> = trees
            .into_iter()
            .map(|(saved, items)| {
                let mut made = tree("c", saved, &[]);
                for (path, kind, time) in items {
                    let path = PathBuf::from(path);
                    let parents: Vec<PathBuf> = path.ancestors().skip(1).map(Into::into).collect();
                    let fits = parents.iter().all(|parent| {
                        made.entries.get(parent).is_none_or(|entry| entry.kind == Kind::Directory)
                    });
                    if !fits || made.entries.keys().any(|other| other.starts_with(&path)) {
                        continue;
                    }
                    let hard = made.entries.iter().find(|(other, entry)| {
                        **other < path && matches!(entry.kind, Kind::File { .. })
                    });
                    let new = match (kind, hard) {
                        (0, Some((to, _))) => entry(Kind::Hard { to: to.clone() }, time),
                        (1, _) => entry(Kind::Link { target: "x".into() }, time),
                        (2, _) => entry(Kind::Directory, time),
                        _ => file("abc", time),
                    };
                    for parent in parents {
                        made.entries.entry(parent).or_insert_with(|| entry(Kind::Directory, 0));
                    }
                    made.entries.insert(path, new);
                }
                index(vec![made], vec![pack(&["abc"])])
            })
            .collect();
        for strategy in [Strategy::Merge, Strategy::Newest] {
            let all = union(indexes.clone(), strategy);
            let back = read(&write(&all).unwrap());
            prop_assert_eq!(back, Ok(all));
        }
    }

    #[test]
    fn bytes_that_are_no_index_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
        let _ = Pointer::read(&bytes);
        let _ = Generation::read(&bytes);
    }

    #[test]
    fn lines_that_are_none_are_refused_without_panic(line in "\\PC{0,60}") {
        prop_assert!(read(&lines(&[HEAD, CACHE, ROOT, &line])).is_err());
    }
}

#[test]
fn caps_leave_the_least_recently_used_behind() {
    let used = |mut entry: Entry, time| {
        entry.used = Some(time);
        entry
    };
    let files = [
        ("old/unread", file("1234", 10)),
        ("old/read", used(file("1234", 10), 90)),
        ("new", file("1234", 50)),
        ("newhard", entry(Kind::Hard { to: "new".into() }, 50)),
    ];
    let names = |trees: &[Tree]| -> Vec<String> {
        trees[0].entries.keys().skip(1).map(|path| path.display().to_string()).collect()
    };
    let mut trees = [tree("a", 1, &files)];
    assert_eq!(fit(&mut trees, &Fit { since: Some(20), bytes: None }), (1, 4));
    assert_eq!(names(&trees), ["new", "newhard", "old", "old/read"]);
    assert_eq!(fit(&mut trees, &Fit { since: None, bytes: Some(7) }), (1, 4));
    assert_eq!(names(&trees), ["old", "old/read"]);
    assert_eq!(fit(&mut trees, &Fit { since: None, bytes: Some(0) }), (1, 4));
    assert_eq!(names(&trees), [] as [&str; 0]);
    assert_eq!(fit(&mut trees, &Fit::default()), (0, 0));
}

fn generation(name: &str, time: i64, parents: &[&str]) -> Generation {
    let parents: BTreeSet<Digest> = parents.iter().map(|parent| Digest::of(parent.as_bytes())).collect();
    Generation { digest: Digest::of(name.as_bytes()), size: 9, time, tag: format!("t.{name}"), parents }
}

#[test]
fn a_pointer_keeps_what_nothing_takes_the_place_of() {
    let all = [
        generation("a", 1, &[]),
        generation("b", 2, &["a"]),
        generation("other", 3, &["a"]),
        generation("c", 4, &["b"]),
    ];
    let mut pointer = Pointer::default();
    pointer.add(all.clone());
    pointer.add(all.clone());
    assert_eq!(Pointer::read(&pointer.write()).as_ref(), Ok(&pointer));
    let tags = |found: &[&Generation]| found.iter().map(|found| found.tag.clone()).collect::<Vec<_>>();
    assert_eq!(tags(&heads(&pointer.generations)), ["t.c", "t.other"]);
    let gone = pointer.trim(2);
    assert_eq!(tags(&gone.iter().collect::<Vec<_>>()), ["t.a", "t.b"]);
    assert_eq!(tags(&heads(&pointer.generations)), ["t.c", "t.other"]);
    let (manifest, config) = all[1].manifest((Digest::of(b"i"), 5), &[(Digest::of(b"p"), 6)]);
    let (read, index) = Generation::read(&manifest).unwrap();
    assert_eq!((read.parents, read.tag, read.time), (all[1].parents.clone(), all[1].tag.clone(), 2));
    assert_eq!((index, config), ((Digest::of(b"i"), 5), &b"{}"[..]));
    assert_eq!(Pointer::read(&manifest).unwrap().generations.len(), 1);
}

#[test]
fn tags_of_generations_are_known_by_their_form() {
    let long = "x".repeat(128);
    for name in ["main", "v1.2", &long] {
        let tag = generation_tag(name, "20261122T170102Z", "1f3a9c");
        assert!(tag.len() <= 128 && is_generation_of(&tag, name), "{tag}");
    }
    for tag in
        ["main", "main.1", "main.20261122T170102Z", "main.20261122T170102Z-", "main2.20261122T170102Z-a"]
    {
        assert!(!is_generation_of(tag, "main"), "{tag}");
    }
}

#[test]
fn packs_of_which_little_is_used_go() {
    let packs = [pack(&["aaaa", "bbbb"]), pack(&["cccc", "dddd", "eeee"]), pack(&["aaaa"]), pack(&["ffff"])];
    let set = |texts: &[&str]| texts.iter().map(|text| chunk(text).id).collect::<HashSet<_>>();
    assert_eq!(keep_packs(&packs, &set(&["aaaa", "cccc"]), &set(&[])), [true, false, false, false]);
    assert_eq!(keep_packs(&packs, &set(&["aaaa"]), &set(&["cccc"])), [true, true, false, false]);
    let many: Vec<Pack> = (0..30).map(|n| pack(&[&format!("{n:04}")])).collect();
    let live = (0..30).map(|n| chunk(&format!("{n:04}")).id).collect();
    assert_eq!(keep_packs(&many, &live, &set(&["0003"])).iter().filter(|keep| **keep).count(), 1);
    assert!(keep_packs(&many[..20], &live, &set(&[])).iter().all(|keep| *keep));
}
