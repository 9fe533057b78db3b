use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn set(path: &Path, seconds: u64) {
    fs::File::open(path).unwrap().set_modified(time(seconds)).unwrap();
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// A lower layer with /etc/conf (time 10), and an upper as overlay leaves it after /etc/conf/stub was made at time 20.
struct Case {
    dir: tempfile::TempDir,
    stubs: Stubs,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for side in ["lower", "upper"] {
            fs::create_dir_all(dir.path().join(side).join("etc/conf")).unwrap();
        }
        fs::create_dir(dir.path().join("upper/etc/conf/stub")).unwrap();
        let mut stubs = Stubs::default();
        stubs.made(Path::new("etc/conf"), "stub".as_ref(), Time(10, 0), Time(20, 0));
        let this = Self { dir, stubs };
        for (path, seconds) in [
            ("lower/etc/conf", 10),
            ("lower/etc", 5),
            ("lower", 1),
            ("upper/etc/conf", 20),
            ("upper/etc", 5),
            ("upper", 1),
        ] {
            set(&this.path(path), seconds);
        }
        this
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn remove(&self) {
        self.stubs.remove(&self.path("upper"), &[self.path("lower")]).unwrap();
    }
}

#[test]
fn unchanged_copies_go_with_the_stub() {
    let case = Case::new();
    case.remove();
    assert_eq!(fs::read_dir(case.path("upper")).unwrap().count(), 0);
    assert_eq!(modified(&case.path("upper")), time(1));
}

#[test]
fn what_the_step_did_stays() {
    // What the step did, what must be left, and the time of /etc/conf if that is left.
    type Did = fn(&Case);
    let cases: [(&str, Did, &[&str], Option<u64>); 7] = [
        (
            "used the stub",
            |case| fs::write(case.path("upper/etc/conf/stub/x"), "").unwrap(),
            &["etc/conf/stub/x"],
            Some(10),
        ),
        (
            "changed a file beside it",
            |case| {
                fs::write(case.path("upper/etc/conf/file"), "").unwrap();
                set(&case.path("upper/etc/conf"), 20);
            },
            &["etc/conf/file"],
            Some(10),
        ),
        (
            "made a file beside it",
            |case| {
                fs::write(case.path("upper/etc/conf/file"), "").unwrap();
                set(&case.path("upper/etc/conf"), 30);
            },
            &["etc/conf/file"],
            Some(30),
        ),
        ("touched the parent", |case| set(&case.path("upper/etc/conf"), 30), &["etc/conf"], Some(30)),
        (
            "changed the parent's mode",
            |case| {
                fs::set_permissions(case.path("upper/etc/conf"), fs::Permissions::from_mode(0o700)).unwrap()
            },
            &["etc/conf"],
            Some(10),
        ),
        (
            "made the parent anew",
            |case| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(case.path("upper/etc/conf"), "user.overlay.opaque", b"y", flags)
                    .unwrap();
            },
            &["etc/conf"],
            Some(10),
        ),
        (
            "put something above",
            |case| fs::write(case.path("upper/etc/own"), "").unwrap(),
            &["etc/own"],
            None,
        ),
    ];
    for (what, did, left, expected) in cases {
        let case = Case::new();
        did(&case);
        case.remove();
        for path in left {
            assert!(case.path("upper").join(path).exists(), "{what}: {path}");
        }
        let conf = case.path("upper/etc/conf");
        assert_eq!(conf.exists().then(|| modified(&conf)), expected.map(time), "{what}");
        assert_eq!(case.path("upper/etc/conf/stub").exists(), what == "used the stub", "{what}");
    }
}

#[test]
fn stubs_below_stubs_and_files() {
    let case = Case::new();
    fs::create_dir(case.path("upper/etc/conf/stub/deep")).unwrap();
    fs::write(case.path("upper/etc/conf/empty"), "").unwrap();
    set(&case.path("upper/etc/conf"), 40);
    let mut stubs = case.stubs.clone();
    stubs.made(Path::new("etc/conf/stub"), "deep".as_ref(), Time(20, 0), Time(21, 0));
    stubs.made(Path::new("etc/conf"), "empty".as_ref(), Time(20, 0), Time(40, 0));
    stubs.made(Path::new("etc/conf"), "gone".as_ref(), Time(40, 0), Time(40, 0));
    Case { dir: case.dir, stubs }.remove_all();
}

impl Case {
    fn remove_all(self) {
        self.remove();
        assert_eq!(fs::read_dir(self.path("upper")).unwrap().count(), 0);
    }
}

#[test]
fn parents_of_no_layer_stay() {
    // A directory that the step's own mount made nowhere else: nothing to compare it with.
    let case = Case::new();
    fs::remove_dir_all(case.path("lower/etc")).unwrap();
    case.remove();
    assert!(case.path("upper/etc/conf").exists() && !case.path("upper/etc/conf/stub").exists());
}

#[test]
fn links_that_a_step_left_lead_nowhere() {
    // Where the stub's directories were, the step puts links to directories of the host's with the same names in them.
    for linked in ["etc", "etc/conf"] {
        let case = Case::new();
        let outside = case.path("outside");
        for path in [outside.clone(), outside.join("conf")] {
            fs::create_dir_all(path.join("stub")).unwrap();
        }
        for path in [outside.clone(), outside.join("conf")] {
            set(&path, 20);
        }
        fs::remove_dir_all(case.path("upper").join(linked)).unwrap();
        symlink(&outside, case.path("upper").join(linked)).unwrap();
        case.remove();
        for path in [outside.clone(), outside.join("conf")] {
            assert!(path.join("stub").exists(), "{linked}: {path:?}");
            assert_eq!(modified(&path), time(20), "{linked}: {path:?}");
        }
    }
}
