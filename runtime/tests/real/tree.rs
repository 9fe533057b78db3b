//! A root file system that is one directory, as where overlay cannot be mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use kiln_core::{ExitStatus, MountSpecKind};

use crate::support::{Place, bind, mount, rungs};

/// Names, types, modes, times and link targets of all that is in the root.
fn listing(place: &Place) -> Vec<String> {
    let output = std::process::Command::new("find")
        .arg(place.path("root"))
        .args(["-printf", "%P %y %m %T@ %l\n"])
        .output()
        .unwrap();
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn changes_are_in_the_directory() {
    for &rung in rungs() {
        let place = Place::new(rung);
        place.dir_at("root/home/gone");
        let script = "echo own > /etc/own; rm -r /home/gone; ls /dev/null /proc/self/status /etc/hosts; \
                      mknod /tmp/fifo p; cat /tmp/fifo & echo through > /tmp/fifo; wait; mount | head -n 1 | grep -c nodev";
        let ran = place.run(&place.spec_on_tree(script));
        assert_eq!(ran.ok(), "/dev/null\n/etc/hosts\n/proc/self/status\nthrough\n1\n", "{rung:?}");
        assert_eq!(fs::read_to_string(place.path("root/etc/own")).unwrap(), "own\n");
        assert!(!place.path("root/home/gone").exists(), "{rung:?}");
        for stub in ["dev", "proc", "sys", "etc/hosts", "etc/resolv.conf"] {
            assert!(!place.path("root").join(stub).exists(), "{rung:?}: {stub}");
        }
        let seconds = |path: &str| fs::metadata(place.path(path)).unwrap().mtime();
        assert_eq!(seconds("root"), 1_000_000_000, "{rung:?}: nothing but stubs was made in it");
        assert_ne!(seconds("root/etc"), 1_000_000_000, "{rung:?}: a file was made in it");
    }
}

#[test]
fn mount_points_leave_nothing() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        symlink("etc/real", place.path("root/way")).unwrap();
        place.dir_at("root/etc/real");
        let before = listing(&place);
        let mut spec = place.spec_on_tree("stat -c %Y / /etc; touch /a/b/c/x /way/in/x; cat /n/file");
        spec.mounts = vec![
            bind("/a/b/c", &cache, false),
            bind("/way/in", &cache, false),
            mount("/n/file", MountSpecKind::File { content: "content\n".to_owned(), mode: 0o644 }),
            // Over one in which a mount point was made.
            mount("/a/b", MountSpecKind::Tmpfs { size: None }),
        ];
        spec.args[2] = spec.args[2].replace("/a/b/c/x ", "");
        let seconds = |path: &str| fs::metadata(place.path(path)).unwrap().mtime();
        let expected = format!("{}\n{}\ncontent\n", seconds("root"), seconds("root/etc"));
        assert_eq!(place.run(&spec).ok(), expected, "{rung:?}");
        assert!(cache.join("x").exists(), "{rung:?}");
        assert_eq!(before, listing(&place), "{rung:?}");
    }
}

#[test]
fn what_the_step_made_of_a_mount_point_stays() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        let mut spec = place.spec_on_tree("touch /srv/own; touch -d @1000 /srv; touch /opt/x; rm /opt/x");
        spec.mounts = vec![bind("/srv/cache", &cache, false), bind("/opt/cache", &cache, false)];
        spec.cwd = "/work/dir".to_owned();
        place.run(&spec).ok();
        assert!(place.path("root/srv/own").exists() && !place.path("root/srv/cache").exists(), "{rung:?}");
        assert_eq!(fs::metadata(place.path("root/srv")).unwrap().mtime(), 1000, "{rung:?}");
        assert!(place.path("root/opt").exists(), "{rung:?}: the step changed it, as overlay would have it");
        assert!(place.path("root/work/dir").exists(), "{rung:?}");
    }
}

#[test]
fn part_of_a_tree_and_read_only_roots() {
    for &rung in rungs() {
        let place = Place::new(rung);
        place.dir_at("other");
        place.dir_at("other/sub");
        place.file_at("other/sub/file", "part");
        let own = place.dir_at("own");
        place.file_at("own/file", "own");
        let layers = |lower: &[_], path: &str, scratch| MountSpecKind::Layers {
            lower: lower.to_vec(),
            path: path.to_owned(),
            scratch,
        };
        let mut spec = place.spec_on_tree("cat /part/file /own/file; echo x > /own/file; touch /x || exit 3");
        spec.mounts = vec![
            mount("/part", layers(&[place.path("other")], "/sub", None)),
            mount("/own", layers(&[], "/", Some((own.clone(), place.dir_at("unused"))))),
        ];
        spec.read_only = true;
        let ran = place.run(&spec);
        assert_eq!((ran.stdout.as_str(), ran.result), ("partown", Ok(ExitStatus::Code(3))), "{rung:?}");
        assert_eq!(fs::read_to_string(own.join("file")).unwrap(), "x\n", "{rung:?}");
    }
}
