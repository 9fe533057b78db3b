// A test that cannot run here says why.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use kiln_core::{IgnoreList, Selection};

use super::*;
use crate::tree::tests::plant;
use crate::tree::{DigestRule, SourceTree, TreeError};

pub(super) fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// A source, an image below and a fresh layer.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) unpack: Unpack,
}

impl World {
    pub(super) fn new(source: &[&str], parent: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "parent", "layer"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let world = Self { dir, unpack: Unpack::Never };
        plant(&world.at("source"), source);
        plant(&world.at("parent"), parent);
        world
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn select(&self, path: &str) -> Result<CopyInput, TreeError> {
        self.selected(&Selection::wildcard(path))
    }

    pub(super) fn selected(&self, selection: &Selection) -> Result<CopyInput, TreeError> {
        let root = self.at("source");
        let tree = SourceTree::context(open(&root), root, IgnoreList::default(), None);
        Ok(CopyInput::Files(tree.select(selection)?))
    }

    pub(super) fn copy_with(
        &self,
        sources: &[&str],
        dest: &str,
        change: impl FnOnce(&mut CopyRules),
    ) -> Result<CopyReport, CopyError> {
        let inputs: Vec<CopyInput> =
            sources.iter().map(|path| self.select(path)).collect::<Result<_, _>>()?;
        self.copy_inputs(&inputs, dest, change, None)
    }

    pub(super) fn copy_inputs(
        &self,
        inputs: &[CopyInput],
        dest: &str,
        change: impl FnOnce(&mut CopyRules),
        reuse: Option<&Reuse>,
    ) -> Result<CopyReport, CopyError> {
        let mut rules = rules();
        change(&mut rules);
        let parent = open(&self.at("parent"));
        let clean = dest.trim_end_matches('/');
        copy(&CopyRequest {
            layer: &self.at("layer"),
            parent: Some(parent.as_fd()),
            inputs,
            dest: if clean.is_empty() { "/" } else { clean },
            dest_is_dir: dest.ends_with('/'),
            unpack: self.unpack,
            rules: &rules,
            reuse,
            cancel: &Cancel::new(),
        })
    }

    fn copy(&self, sources: &[&str], dest: &str) -> Result<Vec<String>, CopyError> {
        self.copy_with(sources, dest, |_| {}).map(|_| listing(&self.at("layer")))
    }
}

/// Rules under which whoever runs the tests can make what is asked.
fn rules() -> CopyRules {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    CopyRules { owner: Some(owner), keep_owners: false, chmod: None, epoch: None, ids: Ids::Full }
}

/// Lists a tree as `path/`, `path=content` and `path -> target`, sorted.
pub(super) fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, below: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            let (text, stat) = (path.display(), root.join(&path).symlink_metadata().unwrap());
            if stat.is_dir() {
                out.push(format!("{text}/"));
                walk(root, &path, out);
            } else if stat.is_symlink() {
                out.push(format!("{text} -> {}", fs::read_link(root.join(&path)).unwrap().display()));
            } else {
                out.push(format!("{text}={}", fs::read_to_string(root.join(&path)).unwrap()));
            }
        }
    }
    let mut out = Vec::new();
    walk(root, Path::new(""), &mut out);
    out.sort();
    out
}

#[test]
fn files_and_directories_go_where_docker_puts_them() {
    let source = ["f=1", "g=2", "d/a=3", "d/sub/b=4", "lf -> f", "ld -> d", "d/in -> ../f"];
    let parent =
        ["etc/passwd=p", "file=x", "to_dir -> etc", "to_new -> made/deep", "up -> ../../etc", "etc/sub/"];
    // Sources, destination, what the layer then holds.
    let table: [(&[&str], &str, &[&str]); 24] = [
        (&["f"], "/x", &["x=1"]),
        (&["/f"], "/x", &["x=1"]),
        (&["../../f"], "/x", &["x=1"]),
        (&["d/sub/"], "/x", &["x/", "x/b=4"]),
        (&["d/sub/../../f"], "/x", &["x=1"]),
        (&["f*"], "/x", &["x=1"]),
        (&["d*"], "/x", &["x/", "x/a=3", "x/in -> ../f", "x/sub/", "x/sub/b=4"]),
        (&["nosuch*"], "/x/", &[]),
        (&["f"], "/x/", &["x/", "x/f=1"]),
        (&["f"], "/", &["f=1"]),
        (&["f"], "/etc", &["etc/", "etc/f=1"]),
        (&["f"], "/etc/passwd", &["etc/", "etc/passwd=1"]),
        (&["f"], "/file", &["file=1"]),
        (&["f"], "/a/b/c", &["a/", "a/b/", "a/b/c=1"]),
        (&["f", "g"], "/a/", &["a/", "a/f=1", "a/g=2"]),
        (&["d"], "/x", &["x/", "x/a=3", "x/in -> ../f", "x/sub/", "x/sub/b=4"]),
        (&["d"], "/etc/", &["etc/", "etc/a=3", "etc/in -> ../f", "etc/sub/", "etc/sub/b=4"]),
        (&["lf"], "/x/", &["x/", "x/lf=1"]),
        (&["ld/sub"], "/x", &["x/", "x/b=4"]),
        // Links of the image are followed inside it; what they lead to is made if it is not there.
        (&["f"], "/to_dir/", &["etc/", "etc/f=1"]),
        (&["f"], "/to_dir", &["etc/", "etc/f=1"]),
        (&["f"], "/up/x", &["etc/", "etc/x=1"]),
        (&["f"], "/to_new", &["made/", "made/deep=1"]),
        (&["d/sub"], "/to_new/", &["made/", "made/deep/", "made/deep/b=4"]),
    ];
    for (sources, dest, expected) in table {
        let world = World::new(&source, &parent);
        assert_eq!(world.copy(sources, dest).unwrap(), expected, "{sources:?} to {dest}");
    }
}

#[test]
fn what_is_in_the_way_is_an_error() {
    let source = ["f=1", "g=1", "d/etc/x=1", "d2/file/x=1", "d3/etc=1"];
    let parent = ["etc/", "file=1", "a/f/", "loop -> loop", "link -> etc"];
    let file = |path: &str| CopyError::FileInTheWay { path: path.into() };
    let dir = |path: &str| CopyError::DirectoryInTheWay { path: path.into() };
    let table: [(&[&str], &str, CopyError); 9] = [
        (&["d"], "/file", file("/file")),
        (&["d"], "/file/", file("/file")),
        (&["f"], "/file/", file("/file")),
        (&["f"], "/file/x", file("/file")),
        (&["d2"], "/", file("/file")),
        (&["d3"], "/", dir("/etc")),
        (&["f"], "/a/", dir("/a/f")),
        (&["f"], "/loop", CopyError::LinkLoop { path: "/loop".into() }),
        (&["f", "g"], "/x", CopyError::SeveralIntoOne { path: "/x".into() }),
    ];
    for (sources, dest, expected) in table {
        let world = World::new(&source, &parent);
        assert_eq!(world.copy(sources, dest).unwrap_err(), expected, "{sources:?} to {dest}");
    }
    // A link in the image where the source has a directory is not followed: BuildKit refuses it as well.
    let world = World::new(&["d/link/x=1"], &parent);
    assert_eq!(world.copy(&["d"], "/").unwrap_err(), file("/link"));
}

#[test]
fn later_sources_win_over_earlier_ones() {
    let world = World::new(&["a/f=1", "a/d/x=1", "b/f=2", "b/d/x=2", "b/d/y=2"], &[]);
    assert_eq!(world.copy(&["a/f", "b/f"], "/o/").unwrap(), ["o/", "o/f=2"]);
    let world = World::new(&["a/f=1", "a/d/x=1", "b/f=2", "b/d/x=2", "b/d/y=2"], &[]);
    assert_eq!(world.copy(&["a", "b"], "/").unwrap(), ["d/", "d/x=2", "d/y=2", "f=2"]);
    let world = World::new(&["a/f=1", "b/f=2"], &[]);
    assert_eq!(
        world.copy(&["a", "b"], "/new/").unwrap(),
        ["new/", "new/f=2"],
        "the first source made the directory"
    );
}

#[test]
fn metadata_is_kept_and_directories_passed_through_stay_as_they_are() {
    let world = World::new(&["d/f=1", "d/s/g=2", "d/s -> x"][..2], &["etc/deep/"]);
    let chmod =
        |path: &str, mode| fs::set_permissions(world.at(path), PermissionsExt::from_mode(mode)).unwrap();
    let touch = |path: &str, secs| {
        File::open(world.at(path)).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    };
    chmod("source/d", 0o700);
    chmod("source/d/f", 0o4751);
    chmod("source/d/s", 0o2770);
    chmod("parent/etc", 0o711);
    chmod("parent/etc/deep", 0o1777);
    for (path, secs) in [
        ("source/d/f", 1001),
        ("source/d/s/g", 1002),
        ("source/d/s", 1003),
        ("parent/etc/deep", 1004),
        ("parent/etc", 1005),
    ] {
        touch(path, secs);
    }
    world.copy(&["d"], "/etc/deep/new/").unwrap();
    let stat = |path: &str| {
        let stat = fs::symlink_metadata(world.at("layer").join(path)).unwrap();
        (stat.mode() & 0o7777, stat.mtime())
    };
    assert_eq!(stat("etc"), (0o711, 1005));
    assert_eq!(stat("etc/deep"), (0o1777, 1004));
    // Made for the copy: 0755 whatever the source's mode, and a time that is the same in every build.
    assert_eq!(stat("etc/deep/new"), (0o755, 315_532_800));
    assert_eq!(stat("etc/deep/new/f"), (0o4751, 1001));
    assert_eq!(stat("etc/deep/new/s"), (0o2770, 1003));
    assert_eq!(stat("etc/deep/new/s/g").1, 1002);
}

#[test]
fn source_date_epoch_clamps_times_and_dates_what_has_none() {
    let world = World::new(&["d/old=1", "d/new=1"], &[]);
    let file = File::open(world.at("source/d/old")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(500)).unwrap();
    world.copy_with(&["d"], "/x", |rules| rules.epoch = Some(1000)).unwrap();
    let mtime = |path: &str| fs::metadata(world.at("layer").join(path)).unwrap().mtime();
    assert_eq!((mtime("x/old"), mtime("x/new"), mtime("x")), (500, 1000, 1000));
}

#[test]
fn chmod_goes_over_files_and_copied_directories() {
    let world = World::new(&["d/f=1", "d/s/x=1"], &[]);
    let chmod = |mode: Chmod| move |rules: &mut CopyRules| rules.chmod = Some(mode);
    world.copy_with(&["d"], "/o", chmod(Chmod::Octal(0o750))).unwrap();
    let mode = |path: &str| fs::metadata(world.at("layer").join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("o"), mode("o/f"), mode("o/s"), mode("o/s/x")), (0o755, 0o750, 0o750, 0o750));
}

#[test]
fn hard_links_stay_hard_links_and_pipes_pipes() {
    let world = World::new(&["d/a=1", "d/s/"], &[]);
    fs::hard_link(world.at("source/d/a"), world.at("source/d/s/b")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.at("source/d/p"), rustix::fs::Mode::from_raw_mode(0o620))
        .unwrap();
    fs::set_permissions(world.at("source/d/p"), PermissionsExt::from_mode(0o620)).unwrap();
    std::os::unix::net::UnixListener::bind(world.at("source/d/socket")).unwrap();
    let report = world.copy_with(&["d"], "/", |_| {}).unwrap();
    let inode = |path: &str| fs::metadata(world.at("layer").join(path)).unwrap().ino();
    assert_eq!(inode("a"), inode("s/b"));
    assert_eq!(report.left_out, 1);
    assert!(!world.at("layer/socket").exists());
    assert_eq!(fs::metadata(world.at("layer/p")).unwrap().mode(), 0o010_620);
}

#[test]
fn heredocs_become_files() {
    let world = World::new(&[], &["etc/"]);
    let file = InlineFile { name: "EOF".to_owned(), content: "hello\n".to_owned(), mode: 0o644 };
    world.copy_inputs(&[CopyInput::Inline(file.clone())], "/etc/", |_| {}, None).unwrap();
    assert_eq!(listing(&world.at("layer")), ["etc/", "etc/EOF=hello\n"]);
    let world = World::new(&[], &["etc/"]);
    world.copy_inputs(&[CopyInput::Inline(file)], "/a/run.sh", |_| {}, None).unwrap();
    assert_eq!(listing(&world.at("layer")), ["a/", "a/run.sh=hello\n"]);
}

#[test]
fn sparse_and_large_files_arrive_whole() {
    use std::os::unix::fs::FileExt;
    let world = World::new(&["big="], &[]);
    let file = File::options().write(true).open(world.at("source/big")).unwrap();
    file.write_all_at(&[7; 100_000], 3 << 20).unwrap();
    file.write_all_at(b"end", 9 << 20).unwrap();
    file.set_len(12 << 20).unwrap();
    fs::write(world.at("source/dense"), vec![9; 1 << 20]).unwrap();
    world.copy_with(&["big", "dense"], "/o/", |_| {}).unwrap();
    for name in ["big", "dense"] {
        let (from, to) = (world.at("source").join(name), world.at("layer/o").join(name));
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap(), "{name}");
        let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
        assert!(blocks(&to) <= blocks(&from) + 64, "{name}: holes were filled");
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_reported() {
    let world = World::new(&["f=1"], &[]);
    let input = world.select("f").unwrap();
    fs::write(world.at("source/f"), "22").unwrap();
    let report = world.copy_inputs(&[input], "/", |_| {}, None).unwrap();
    assert_eq!(report.changed, [world.at("source/f")]);
    assert_eq!(listing(&world.at("layer")), ["f=22"]);
}

#[test]
fn unchanged_files_are_shared_with_the_layer_before() {
    let world = World::new(&["d/same=1", "d/other=1", "d/mode=1"], &[]);
    let digested = || {
        let input = world.select("d").unwrap();
        if let CopyInput::Files(selected) = &input {
            selected.digest(DigestRule::COPY).unwrap();
        }
        input
    };
    let report = world.copy_inputs(&[digested()], "/x", |_| {}, None).unwrap();
    assert_eq!((report.manifest.len(), report.reused), (3, 0));
    report.manifest.write(&world.at("manifest")).unwrap();
    fs::rename(world.at("layer"), world.at("before")).unwrap();
    fs::create_dir(world.at("layer")).unwrap();

    fs::write(world.at("source/d/other"), "2").unwrap();
    fs::set_permissions(world.at("source/d/mode"), PermissionsExt::from_mode(0o600)).unwrap();
    let reuse = Reuse::open(&world.at("before"), &world.at("manifest")).unwrap();
    let report = world.copy_inputs(&[digested()], "/x", |_| {}, Some(&reuse)).unwrap();
    assert_eq!((report.reused, report.files, report.manifest.len()), (1, 3, 3));
    assert_eq!(listing(&world.at("layer")), ["x/", "x/mode=1", "x/other=2", "x/same=1"]);
    let inode = |path: &str| fs::metadata(world.at(path)).unwrap().ino();
    assert_eq!(inode("before/x/same"), inode("layer/x/same"));
    assert_ne!(inode("before/x/mode"), inode("layer/x/mode"));

    let mut damaged = fs::read(world.at("manifest")).unwrap();
    damaged[50] ^= 1;
    fs::write(world.at("manifest"), damaged).unwrap();
    assert!(Reuse::open(&world.at("before"), &world.at("manifest")).is_none());
}

#[test]
fn owners_are_set_or_recorded() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let world = World::new(&["f=1", "d/l -> x"], &[]);
    world.copy_with(&["f", "d"], "/a/", |rules| rules.owner = Some((7, 8))).unwrap();
    for path in ["a", "a/f", "a/l"] {
        let stat = fs::symlink_metadata(world.at("layer").join(path)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (7, 8), "{path}");
    }
    let world = World::new(&["f=1", "d/l -> x"], &[]);
    let report = world
        .copy_with(&["f", "d"], "/a/", |rules| {
            rules.owner = Some((7, 8));
            rules.ids = Ids::Single;
        })
        .unwrap();
    for path in ["a", "a/f"] {
        let path = world.at("layer").join(path);
        let stat = rustix::fs::lstat(&path).unwrap();
        assert_eq!(stat.st_uid, 0);
        let owner = crate::owner::of_path(&path, &stat).unwrap();
        assert_eq!((owner.uid, owner.gid), (7, 8), "{path:?}");
    }
    assert_eq!(report.link_owners.0, BTreeMap::from([("a/l".into(), (7, 8))]));
}

#[test]
fn names_are_looked_up_in_the_image() {
    let world = World::new(&[], &["etc/passwd=root:x:0:0::/:\nwww:x:33:34::/:\n", "etc/group=www:x:35:\n"]);
    let view = open(&world.at("parent"));
    let look = |text: &str| lookup_owner(Some(view.as_fd()), text);
    let table = [
        ("7", (7, 7)),
        ("7:8", (7, 8)),
        ("www", (33, 34)),
        ("www:www", (33, 35)),
        ("www:0", (33, 0)),
        (":8", (0, 8)),
    ];
    for (text, owner) in table {
        assert_eq!(look(text), Ok(owner), "{text}");
    }
    let unknown = |name: &str, file: &str, file_missing| {
        Err(CopyError::UnknownName { name: name.to_owned(), file: file.to_owned(), file_missing })
    };
    assert_eq!(look("nosuch"), unknown("nosuch", "/etc/passwd", false));
    assert_eq!(look("0:nosuch"), unknown("nosuch", "/etc/group", false));
    assert_eq!(lookup_owner(None, "nosuch"), unknown("nosuch", "/etc/passwd", true));
    for bad in ["", "7:", "99999999999"] {
        assert!(look(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn workdir_makes_what_is_missing_and_nothing_else() {
    let world = World::new(&[], &["srv/app/", "file=1", "link -> srv"]);
    let make =
        |path: &str| make_dir(&world.at("layer"), Some(open(&world.at("parent")).as_fd()), path, &rules());
    for existing in ["/", "/srv/app", "/link/app"] {
        assert_eq!(make(existing), Ok(false), "{existing}");
        assert!(listing(&world.at("layer")).is_empty());
    }
    assert_eq!(make("/file/x"), Err(CopyError::FileInTheWay { path: "/file".into() }));
    assert_eq!(make("/link/new/deep"), Ok(true));
    assert_eq!(listing(&world.at("layer")), ["srv/", "srv/new/", "srv/new/deep/"]);
}

#[test]
fn trees_are_cloned_and_exported_as_they_are() {
    let world = World::new(&["a/f=1", "a/l -> f", "g=2"], &[]);
    fs::set_permissions(world.at("source/a"), PermissionsExt::from_mode(0o710)).unwrap();
    let source = || open(&world.at("source"));
    clone_tree(source(), Path::new("source"), &world.at("layer"), &Cancel::new()).unwrap();
    assert_eq!(listing(&world.at("layer")), listing(&world.at("source")));
    assert_eq!(fs::metadata(world.at("layer/a")).unwrap().mode() & 0o7777, 0o710);

    // An export goes over what is there.
    plant(&world.at("parent"), &["a/old=0", "g=0"]);
    export_tree(source(), Path::new("source"), &world.at("parent"), false, &Cancel::new()).unwrap();
    assert_eq!(listing(&world.at("parent")), ["a/", "a/f=1", "a/l -> f", "a/old=0", "g=2"]);
}

#[test]
fn an_interrupted_copy_says_so() {
    let world = World::new(&["f=1"], &[]);
    let (cancel, parent, input) = (Cancel::new(), open(&world.at("parent")), world.select("f").unwrap());
    cancel.cancel();
    let request = CopyRequest {
        layer: &world.at("layer"),
        parent: Some(parent.as_fd()),
        inputs: &[input],
        dest: "/",
        dest_is_dir: true,
        unpack: Unpack::Never,
        rules: &rules(),
        reuse: None,
        cancel: &cancel,
    };
    assert_eq!(copy(&request), Err(CopyError::Cancelled));
}
