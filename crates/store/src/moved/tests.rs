//! What a step may have done to what was moved, and where a crash may have come.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_core::{MOVED_ASIDE, MOVED_JOURNAL, Moved};
use tempfile::TempDir;

use super::put_back;

/// A step's directory with a tree, and a cache that was put to /a/c where a file `old` was.
struct Scene {
    dir: TempDir,
}

impl Scene {
    /// Stops after so many of the two renames.
    fn new(renames: usize) -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a directory") };
        for name in ["step/tree/a/c", "step/aside", "cache/data"] {
            fs::create_dir_all(this.at(name)).expect("a directory");
        }
        fs::write(this.at("step/tree/a/c/old"), "old").expect("a file");
        fs::write(this.at("cache/data/kept"), "kept").expect("a file");
        let made = fs::metadata(this.at("cache/data")).expect("it is there");
        this.journal(&[
            Moved::Root { path: this.at("step/tree") },
            Moved::Put {
                source: this.at("cache/data"),
                target: "a/c".into(),
                aside: this.at("step/aside/1"),
                identity: (made.dev(), made.ino()),
            },
        ]);
        for (from, to) in
            [("step/tree/a/c", "step/aside/1"), ("cache/data", "step/tree/a/c")].iter().take(renames)
        {
            fs::rename(this.at(from), this.at(to)).expect("it is moved");
        }
        this
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn journal(&self, lines: &[Moved]) {
        let lines: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).expect("JSON")).collect();
        // The last line is only half written.
        let text = format!("{}\n{{\"put\":{{\"sour", lines.join("\n"));
        fs::write(self.at("step").join(MOVED_JOURNAL), text).expect("a file");
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    /// All is where it belongs.
    #[track_caller]
    fn is_back(&self) {
        put_back(&self.at("step")).expect("it can be moved back");
        assert_eq!(self.read("cache/data/kept").as_deref(), Some("kept"));
        assert_eq!(self.read("step/tree/a/c/old").as_deref(), Some("old"));
        assert!(!self.at("step").join(MOVED_JOURNAL).exists() && !self.at("step").join(MOVED_ASIDE).exists());
        put_back(&self.at("step")).expect("nothing is left to do");
    }
}

#[test]
fn everything_is_moved_back_wherever_it_was_stopped() {
    for renames in 0..=2 {
        Scene::new(renames).is_back();
    }
}

#[test]
fn what_is_no_steps_has_nothing_to_move_back() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("blob"), "half").expect("a file");
    fs::create_dir(dir.path().join("layer")).expect("a directory");
    super::put_all_back(dir.path()).expect("there is nothing to do");
}

#[test]
fn moving_back_goes_on_where_it_was_killed() {
    let scene = Scene::new(2);
    fs::rename(scene.at("step/tree/a/c"), scene.at("cache/data")).expect("the first half");
    scene.is_back();
}

#[test]
fn what_a_step_took_elsewhere_is_found() {
    let scene = Scene::new(2);
    fs::rename(scene.at("step/tree/a"), scene.at("step/tree/b")).expect("a step may");
    put_back(&scene.at("step")).expect("it can be moved back");
    assert_eq!(scene.read("cache/data/kept").as_deref(), Some("kept"));
    assert_eq!(scene.read("step/tree/b/c/old").as_deref(), Some("old"));
}

#[test]
fn a_link_in_the_way_leads_nowhere() {
    let scene = Scene::new(2);
    fs::create_dir(scene.at("outside")).expect("a directory");
    fs::rename(scene.at("step/tree/a/c"), scene.at("step/tree/gone")).expect("a step may");
    fs::remove_dir(scene.at("step/tree/a")).expect("a step may");
    symlink(scene.at("outside"), scene.at("step/tree/a")).expect("a step may");
    put_back(&scene.at("step")).expect("it can be moved back");
    assert_eq!(scene.read("cache/data/kept").as_deref(), Some("kept"));
    assert_eq!(fs::read_dir(scene.at("outside")).expect("a directory").count(), 0);
}

#[test]
fn what_a_step_removed_is_gone_and_nothing_else() {
    let scene = Scene::new(2);
    fs::remove_dir_all(scene.at("step/tree/a/c")).expect("a step may");
    put_back(&scene.at("step")).expect("it can be moved back");
    assert!(!scene.at("cache/data").exists());
    assert_eq!(scene.read("step/tree/a/c/old").as_deref(), Some("old"));
}

#[test]
fn a_cache_shares_no_file_with_the_step_afterwards() {
    let scene = Scene::new(2);
    fs::hard_link(scene.at("step/tree/a/c/kept"), scene.at("step/tree/link")).expect("a step may");
    fs::hard_link(scene.at("step/tree/a/c/kept"), scene.at("step/tree/a/c/twice")).expect("a step may");
    scene.is_back();
    let inode = |name: &str| fs::metadata(scene.at(name)).expect("it is there").ino();
    assert_ne!(inode("cache/data/kept"), inode("step/tree/link"));
    assert_eq!(inode("cache/data/kept"), inode("cache/data/twice"));
    assert_eq!(fs::read_dir(scene.at("cache/data")).expect("a directory").count(), 2);
}

#[test]
fn times_of_directories_stay_the_steps() {
    let scene = Scene::new(2);
    let dir = fs::File::open(scene.at("step/tree/a")).expect("a directory");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    dir.set_modified(long_ago).expect("it is ours");
    scene.is_back();
    assert_eq!(fs::metadata(scene.at("step/tree/a")).expect("it is there").modified().ok(), Some(long_ago));
}

#[test]
fn names_that_a_step_gave_to_a_made_file_are_removed() {
    let scene = Scene::new(0);
    let secret = scene.at("step/aside/2");
    fs::write(&secret, "secret").expect("a file");
    fs::write(scene.at("step/tree/place"), "").expect("a file");
    let metadata = fs::metadata(&secret).expect("it is there");
    scene.journal(&[
        Moved::Root { path: scene.at("step/tree") },
        Moved::Put {
            source: secret.clone(),
            target: "place".into(),
            aside: scene.at("step/aside/3"),
            identity: (metadata.dev(), metadata.ino()),
        },
        Moved::Place { path: "place".into() },
    ]);
    fs::rename(scene.at("step/tree/place"), scene.at("step/aside/3")).expect("it is moved");
    fs::rename(&secret, scene.at("step/tree/place")).expect("it is moved");
    fs::hard_link(scene.at("step/tree/place"), scene.at("step/tree/a/stolen")).expect("a step may");
    put_back(&scene.at("step")).expect("it can be moved back");
    let left = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
    assert_eq!(left(&scene.at("step/tree")), 1);
    assert_eq!(left(&scene.at("step/tree/a")), 1);
}
