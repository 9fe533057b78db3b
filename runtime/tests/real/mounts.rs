//! What is mounted, and what a mount leaves behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use kiln_core::{ExitStatus, MountSpecKind};
use kiln_runtime::{RunError, Stage};

use crate::support::{Place, bind, lower_of, mount, rungs};

#[test]
fn binds_are_writable_or_not() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        place.file_at("cache/old", "kept");
        let file = place.file_at("file", "one file");
        let mut spec = place.spec(
            "cat /cache/old; echo new > /cache/new; cat /ro/old; echo x > /ro/x || echo refused; cat /etc/file; \
             mount -o remount,rw,bind /ro || echo refused; ls -l /cache/new | grep -c 'root *root'",
        );
        spec.mounts =
            vec![bind("/cache", &cache, false), bind("/ro", &cache, true), bind("/etc/file", &file, true)];
        spec.args[2] = spec.args[2].replace("grep -c 'root *root'", "wc -l");
        assert_eq!(place.run(&spec).ok(), "keptkeptrefused\none filerefused\n1\n", "{rung:?}");
        assert_eq!(fs::read_to_string(cache.join("new")).unwrap(), "new\n");
        assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?}");
    }
}

#[test]
fn tmpfs_and_files() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec(
            "echo x > /t/x; stat -c %a /t; dd if=/dev/zero of=/t/big bs=1k count=200 2>/dev/null || echo full; \
             cat /etc/apt/apt.conf.d/99; stat -c %a /etc/apt/apt.conf.d/99; echo x > /etc/apt/apt.conf.d/99 || echo no",
        );
        spec.mounts = vec![
            mount("/t", MountSpecKind::Tmpfs { size: Some(100 * 1024) }),
            mount("/etc/apt/apt.conf.d/99", MountSpecKind::File { content: "hi\n".to_owned(), mode: 0o640 }),
        ];
        assert_eq!(place.run(&spec).ok(), "1777\nfull\nhi\n640\nno\n", "{rung:?}");
        assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?}");
    }
}

#[test]
fn layers_are_bound_with_and_without_scratch() {
    for &rung in rungs() {
        let place = Place::new(rung);
        for (name, content) in [("a", "low"), ("b", "high")] {
            place.dir_at(name);
            place.dir_at(&format!("{name}/sub"));
            place.file_at(&format!("{name}/sub/same"), content);
            place.file_at(&format!("{name}/sub/{name}"), content);
        }
        let lower = vec![place.path("a"), place.path("b")];
        let scratch = (place.dir_at("su"), place.dir_at("sw"));
        let layers = |lower: &[_], path: &str, scratch| MountSpecKind::Layers {
            lower: lower.to_vec(),
            path: path.to_owned(),
            scratch,
        };
        let mut spec = place.spec(
            "ls /one /two /all; cat /two/same /file /w/same; echo x > /two/x || echo refused; echo x > /w/x && rm /w/a && ls /w; \
             ls /none | wc -l",
        );
        spec.mounts = vec![
            mount("/one", layers(&lower[..1], "/sub", None)),
            mount("/two", layers(&lower, "/sub", None)),
            mount("/all", layers(&lower, "/", None)),
            mount("/file", layers(&lower, "/sub/a", None)),
            mount("/w", layers(&lower, "/sub", Some(scratch))),
            mount("/none", layers(&[], "/", None)),
        ];
        let expected =
            "/all:\nsub\n\n/one:\na\nsame\n\n/two:\na\nb\nsame\nhighlowhighrefused\nb\nsame\nx\n0\n";
        assert_eq!(place.run(&spec).ok(), expected, "{rung:?}");
        assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?}");
        assert!(place.path("su/sub/x").exists() && !place.path("a/sub/x").exists());
    }
}

#[test]
fn scratch_throws_changes_away() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let context = place.dir_at("context");
        place.file_at("context/f", "given\n");
        let scratch = (place.dir_at("su"), place.dir_at("sw"));
        let mut spec = place.spec("cat /src/f; rm /src/f; echo y > /src/g; ls /src");
        spec.mounts = vec![mount("/src", MountSpecKind::Scratch { source: context.clone(), scratch })];
        assert_eq!(place.run(&spec).ok(), "given\ng\n", "{rung:?}");
        assert!(context.join("f").exists() && !context.join("g").exists());
    }
}

#[test]
fn targets_stay_inside() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        let outside = place.dir_at("outside");
        let up = format!("{}{}", "../".repeat(12), outside.strip_prefix("/").unwrap().display());
        symlink(&outside, place.path("root/absolute")).unwrap();
        symlink(&up, place.path("root/relative")).unwrap();
        symlink("loop", place.path("root/loop")).unwrap();
        for target in ["/absolute", "/relative/deep", "/../../up", &format!("/{up}/x")] {
            place.clear();
            let mut spec = place.spec("echo here > $TARGET/file");
            spec.env.push(("TARGET".to_owned(), target.to_owned()));
            spec.mounts = vec![bind(target, &cache, false)];
            place.run(&spec).ok();
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{rung:?} {target}");
            assert_eq!(fs::read_to_string(cache.join("file")).unwrap(), "here\n");
            fs::remove_file(cache.join("file")).unwrap();
            // Even the stubs below what the links named are gone again.
            assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?} {target}");
        }
        for target in ["/loop/x", "/etc/passwd/x", "/loop"] {
            place.clear();
            let mut spec = place.spec("true");
            spec.mounts = vec![bind(target, &cache, false)];
            let failed = place.run(&spec).result;
            assert!(
                matches!(&failed, Err(RunError::Init(failure)) if failure.stage == Stage::MountPoint),
                "{target} {failed:?}"
            );
        }
    }
}

#[test]
fn mount_points_leave_nothing() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        // Through a link nothing can be prepared: the stub is made, and must go, with the copies above it.
        symlink("home", place.path("root/link")).unwrap();
        let time = fs::metadata(place.path("root/home")).unwrap().mtime();
        let with = |script: &str| {
            place.clear();
            let mut spec = place.spec(script);
            spec.mounts = vec![bind("/link/deep/er", &cache, false), bind("/root/.cache/pip", &cache, false)];
            place.run(&spec).ok();
            place.upper()
        };
        assert_eq!(with("touch /link/deep/er/x"), Vec::<String>::new(), "{rung:?}");
        // What the step itself makes stays, and its parent keeps its time where only the stub changed it.
        assert_eq!(with("echo > /link/deep/mine"), ["home", "home/deep", "home/deep/mine"], "{rung:?}");
        assert_eq!(fs::metadata(place.path("upper/home")).unwrap().mtime(), time, "{rung:?}");
        assert_eq!(with("echo > /home/own"), ["home", "home/own"], "{rung:?}");
        assert_ne!(fs::metadata(place.path("upper/home")).unwrap().mtime(), time, "{rung:?}");
        assert_eq!(with("rm -r /home; stat /home/deep/er"), Vec::<String>::new(), "{rung:?}");
        assert_eq!(with("echo > /root/x"), ["root", "root/x"], "{rung:?}");
    }
}

#[test]
fn upper_holds_what_the_step_did() {
    for &rung in rungs() {
        let place = Place::new(rung);
        place.run(&place.spec("rm /etc/group; echo x > /tmp/new; mkdir /d; rm -r /home; mkdir /home")).ok();
        assert_eq!(place.upper(), ["d", "etc", "etc/group", "home", "tmp", "tmp/new"]);
        let whiteout = fs::symlink_metadata(place.path("upper/etc/group")).unwrap();
        assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0), "{rung:?}");
        let mut value = [0; 8];
        let length =
            rustix::fs::lgetxattr(place.path("upper/home"), "user.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..length], b"y");
    }
}

#[test]
fn scratch_image_and_two_hundred_layers() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let busybox = place.dir_at("tools");
        fs::copy("/bin/busybox", busybox.join("busybox")).unwrap();
        let mut spec = place.spec("");
        lower_of(&mut spec).clear();
        spec.mounts = vec![bind("/tools", &busybox, true)];
        spec.args = ["/tools/busybox", "touch", "/made"].map(str::to_owned).to_vec();
        place.run(&spec).ok();
        assert_eq!(place.upper(), ["made"], "{rung:?}");

        place.clear();
        let mut spec = place.spec("cat /n /long; ls /odd | wc -l");
        // Paths that fsconfig(2) does not take, or that overlay reads otherwise.
        let odd = place.dir_at("layer:with,odd\\name");
        place.dir_at("layer:with,odd\\name/odd");
        let long = (0..3).fold("long".to_owned(), |path, _| format!("{path}/{}", "x".repeat(120)));
        let long = place.dir_at(&long);
        fs::write(long.join("long"), "long\n").unwrap();
        lower_of(&mut spec).extend([odd, long]);
        for number in 0..200 {
            lower_of(&mut spec).push(place.dir_at(&format!("layer{number}")));
            place.file_at(&format!("layer{number}/n"), &format!("{number}\n"));
        }
        assert_eq!(place.run(&spec).ok(), "199\nlong\n0\n", "{rung:?}");
    }
}

#[test]
fn read_only_root() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let cache = place.dir_at("cache");
        let mut spec =
            place.spec("touch /x || echo no; touch /link/c/x && touch /dev/x && touch /tmp/x; exit 4");
        symlink("home", place.path("root/link")).unwrap();
        spec.mounts = vec![bind("/link/c", &cache, false)];
        spec.read_only = true;
        let ran = place.run(&spec);
        assert_eq!((ran.stdout.as_str(), &ran.result), ("no\n", &Ok(ExitStatus::Code(4))), "{ran:?}");
        assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?}");
        assert!(cache.join("x").exists());
    }
}

#[test]
fn views_merge() {
    for &rung in rungs() {
        let place = Place::new(rung);
        for name in ["a", "b"] {
            place.dir_at(name);
            place.file_at(&format!("{name}/{name}"), name);
            place.file_at(&format!("{name}/same"), name);
        }
        let (a, b) = (place.path("a"), place.path("b"));
        let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
        for (args, expected) in [
            (vec!["view", a, b], "a \"a\"\nb \"b\"\nsame \"b\"\nErr(ReadOnlyFilesystem)\n"),
            (vec!["view"], "Err(ReadOnlyFilesystem)\n"),
        ] {
            let output = place.runner(&args).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{rung:?} {output:?}");
        }
        let output = place.runner(&["view", b]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "b \"b\"\nsame \"b\"\nOk(())\n", "{rung:?}");
    }
}

#[test]
fn apt_is_told_of_a_single_id_where_nobody_answers_for_it() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let script = "cat /etc/apt/apt.conf.d/99kiln-single-id | grep -c Sandbox";
        let without = place.run(&place.spec(script));
        assert_eq!((without.stdout.as_str(), place.upper()), ("0\n", Vec::new()), "{rung:?}");
        place.clear();
        place.dir_at("root/etc/apt");
        place.dir_at("root/etc/apt/apt.conf.d");
        let with = place.run(&place.spec(script));
        assert_eq!((with.stdout.as_str(), place.upper()), ("0\n", Vec::new()), "{rung:?}");
    }
}
