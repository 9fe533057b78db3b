//! A single id, and as many as a step likes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_core::ExitStatus;

use crate::support::{Place, Ran, bind, rungs};

/// Who has a single id here.
pub(crate) fn single() -> impl Iterator<Item = Place> {
    rungs().iter().filter(|rung| !rung.has_range()).map(|rung| {
        let place = Place::new(*rung);
        for name in ["root/tmp", "root/home"] {
            std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o1777)).unwrap();
        }
        place
    })
}

pub(crate) fn record(path: &Path) -> Option<String> {
    let mut buffer = [0; 80];
    let length = rustix::fs::lgetxattr(path, "user.kiln.stat", &mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Gives something in the image to whom everything else there belongs.
fn own(place: &Place, name: &str) {
    let (uid, gid) = place.rung.ids();
    std::os::unix::fs::lchown(place.path(name), Some(uid), Some(gid)).unwrap();
}

/// Runs a script as root, and asserts what it writes.
#[track_caller]
fn writes(place: &Place, script: &str, expected: &str) -> Ran {
    let ran = place.run(&place.spec(&format!("set -e; {script}")));
    assert_eq!(ran.ok(), expected, "{script}: {}", ran.stderr);
    ran
}

#[test]
fn an_owner_is_shown_and_recorded() {
    for place in single() {
        let script = "touch f; chown 5:6 f; stat -c %u:%g f; chown :7 f; chown 8 f; stat -c %u:%g f; mkdir d; chown 9:9 d
            mv f d/g; stat -c %u:%g d d/g; ln d/g h; stat -c %u:%g h; chown 0:0 d; ls -lnd d | cut -c1-30; cat < h > copy
            stat -c %u:%g copy; ls -ln / | grep -c ' 8 .* 7 '";
        writes(&place, script, "5:6\n8:7\n9:9\n8:7\n8:7\ndrwxr-xr-x    2 0        0    \n0:0\n1\n");
        let of = |name: &str| record(&place.path("upper").join(name));
        assert_eq!(of("h").as_deref(), Some("8:7:100644"));
        assert_eq!(of("d/g").as_deref(), Some("8:7:100644"));
        assert_eq!((of("d"), of("copy")), (None, None));
    }
}

#[test]
fn a_file_of_the_image_is_given_away_and_keeps_its_content() {
    for place in single() {
        own(&place, "root/bin/ls");
        let script = "chown 1000:1001 /etc/group; stat -c '%u:%g %a' /etc/group; head -1 /etc/group; \
            chown 3 /bin; stat -c %u:%g /bin; chown -h 4 /bin/ls; stat -c %u:%g /bin/ls; ls -ld /bin/ls | cut -c1-10";
        writes(&place, script, "1000:1001 644\nroot:x:0:\n3:0\n4:0\nlrwxrwxrwx\n");
        assert_eq!(place.upper(), ["bin", "bin/ls", "etc", "etc/group"]);
    }
}

#[test]
fn giving_a_file_away_takes_its_set_id_bits() {
    for place in single() {
        writes(
            &place,
            "touch f; chmod 6755 f; chown 5 f; stat -c %a f; chmod 4755 f; stat -c '%a %u' f; mkdir d; chmod 2775 d; chown 5:6 d; stat -c %a d",
            "755\n4755 5\n2775\n",
        );
    }
}

#[test]
fn devices_are_made_and_shown() {
    for place in single() {
        let script = "mknod -m 660 b b 8 17; chown 0:6 b; mknod c c 1 3; mknod p p; ls -ln | grep ' [bcp]$' | cut -c1-42; stat -c '%F %t %T' b c p
            mknod w c 0 0 2> /dev/null || echo refused; test -b b; test -c c; mv b e; ls -ln e | cut -c1-42";
        let expected = "brw-rw----    1 0        6           8,  17\ncrw-r--r--    1 0        0           1,   3\n\
            prw-r--r--    1 0        0                0\nblock special file 8 11\ncharacter special file 1 3\nfifo 0 0\nrefused\n\
            brw-rw----    1 0        6           8,  17\n";
        let expected: Vec<String> = expected.lines().map(|line| line.chars().take(42).collect()).collect();
        let ran = place.run(&place.spec(script));
        assert_eq!(ran.ok().lines().collect::<Vec<_>>(), expected, "{ran:?}");
        assert_eq!(record(&place.path("upper/e")).as_deref(), Some("0:6:60660:8:17"));
        assert_eq!(std::fs::symlink_metadata(place.path("upper/c")).unwrap().len(), 0);
    }
}

#[test]
fn users_make_files_of_their_own() {
    for place in single() {
        let mut spec = place.spec(
            "id; echo x > f; echo y >> f; mkdir -p d/e; ln -s f l; mknod p p; (umask 077; echo > private)
            stat -c '%n %u:%g %a' f d/e l p private; cat f; chgrp 77 f; stat -c %u:%g f
            chown 5 f 2> /dev/null || echo no; chgrp 5 f 2> /dev/null || echo no; chown 1000 /etc/group 2> /dev/null || echo no
            mknod b b 8 0 2> /dev/null || echo no; echo z > /tmp/new; stat -c %u:%g /tmp/new /etc/group
            echo > /etc/new || echo no; mkdir /etc/d 2>&1; mkdir /etc 2>&1; echo > /home/link",
        );
        std::os::unix::fs::symlink("/tmp/target", place.path("root/home/link")).unwrap();
        spec.cwd = "/home/ann".to_owned();
        place.dir_at("root/home/ann");
        for name in ["root/home/ann", "root/tmp"] {
            std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o1777)).unwrap();
        }
        spec.user = "ann".to_owned();
        let ran = place.run(&spec);
        let expected = "uid=1000(ann) gid=1001(ann) groups=77(extra)\nf 1000:1001 644\nd/e 1000:1001 755\nl 1000:1001 777\n\
            p 1000:1001 644\nprivate 1000:1001 600\nx\ny\n1000:77\nno\nno\nno\nno\n1000:1001\n0:0\nno\nmkdir: can't create directory '/etc/d': Permission denied\n\
            mkdir: can't create directory '/etc': File exists\n";
        assert_eq!(ran.ok(), expected, "{ran:?}");
        assert_eq!(record(&place.path("upper/tmp/target")).as_deref(), Some("1000:1001:100644"));
    }
}

#[test]
fn a_directory_with_set_group_id_gives_its_group() {
    for place in single() {
        let script = "mkdir g; chgrp 77 g; chmod 2775 g; touch g/f; mkdir g/d; ln -s x g/l; mknod g/p p; mkdir g/d/e; cd g; touch h
            stat -c '%n %u:%g %a' f d l p d/e h; cd ..; mkdir plain; touch plain/f; stat -c %u:%g plain/f";
        writes(
            &place,
            script,
            "f 0:77 644\nd 0:77 2755\nl 0:77 777\np 0:77 644\nd/e 0:77 2755\nh 0:77 644\n0:0\n",
        );
    }
}

#[test]
fn links_are_reported_by_their_place_in_the_layer() {
    for place in single() {
        let mut spec = place.spec(
            "mkdir d; ln -s x d/l; chown -h 5:6 d/l; mv d/l d/m; mknod p p; chown 7 p; ln -s y plain; ln -s z gone; chown -h 9 gone; rm gone
            stat -c %u:%g d/m p plain old; chown -h 0:0 old; stat -c %u:%g old kept",
        );
        std::os::unix::fs::symlink("t", place.path("root/old")).unwrap();
        std::os::unix::fs::symlink("t", place.path("root/kept")).unwrap();
        own(&place, "root/old");
        own(&place, "root/kept");
        spec.link_owners =
            [("old".into(), (3, 4)), ("kept".into(), (8, 8)), ("absent".into(), (1, 1))].into();
        let ran = place.run_as("links", &spec);
        let expected = "5:6\n7:0\n0:0\n3:4\n0:0\n8:8\n{\"d/m\": (5, 6), \"old\": (0, 0), \"p\": (7, 0)}\n";
        assert_eq!(ran.ok(), expected, "{ran:?}");
    }
}

#[test]
fn a_set_user_id_program_gives_its_owners_rights() {
    for place in single() {
        // It gives up rights that it was given, but as su and the like.
        std::fs::copy("/bin/busybox", place.path("root/tmp/su")).unwrap();
        own(&place, "root/tmp/su");
        std::fs::set_permissions(place.path("root/tmp/su"), std::fs::Permissions::from_mode(0o6755)).unwrap();
        place.file_at("root/etc/passwd", "root::0:0:root:/:/bin/sh\nann:x:1000:1001:Ann:/home:/bin/sh\n");
        let mut spec = place.spec(
            "/tmp/su root -c 'id -u; touch /tmp/f'; id -u; stat -c %u:%g /tmp/f; cp /tmp/su /tmp/plain; chmod 755 /tmp/su
            /tmp/su root -c id 2> /dev/null || echo no",
        );
        spec.user = "ann".to_owned();
        spec.args[2] = spec.args[2].replace("cp ", "busybox cp ");
        assert_eq!(place.run(&spec).ok(), "0\n1000\n0:0\nno\n");
        place.clear();
        // Root by a program of somebody else's is no root any more.
        let script =
            "chown 5:6 /tmp/su; chmod 6755 /tmp/su; /tmp/su root -c id 2> /dev/null || echo no; id -u";
        writes(&place, script, "no\n0\n");
    }
}

#[test]
fn su_changes_the_user_and_comes_back() {
    for place in single() {
        let script = "busybox su ann -c 'id; touch /tmp/a'; id -u; stat -c %u:%g /tmp/a";
        writes(&place, script, "uid=1000(ann) gid=1001(ann) groups=77(extra),1001(ann)\n0\n1000:1001\n");
    }
}

#[test]
fn what_is_read_only_stays_so() {
    for place in single() {
        let outside = place.dir_at("outside");
        std::fs::set_permissions(outside, std::fs::Permissions::from_mode(0o1777)).unwrap();
        place.file_at("outside/f", "x");
        let mut spec = place.spec("chown 5 /ro/f; mknod /ro/b b 8 0; busybox su ann -c 'touch /ro/new'; chown 5 /rw/f && stat -c %u /rw/f /ro/f");
        spec.mounts =
            vec![bind("/ro", &place.path("outside"), true), bind("/rw", &place.path("outside"), false)];
        let ran = place.run(&spec);
        assert_eq!(ran.ok(), "5\n5\n", "{ran:?}");
        assert_eq!(ran.stderr.matches("Read-only file system").count(), 3, "{ran:?}");
        assert_eq!(record(&place.path("outside/f")).as_deref(), Some("5:0:100644"));
    }
}

#[test]
fn proc_self_is_the_callers() {
    for place in single() {
        let script = "touch f; exec 5< f; chown 5:6 /proc/self/fd/5; stat -c %u:%g f; chown 7 /dev/fd/5; stat -c %u f
            cd /tmp; mkdir -p x/y; cd x/y; chown 8 /proc/self/cwd/../y; stat -c %u /tmp/x/y; chown 9 ../../../../../../f; stat -c %u /f
            chown 1 /proc/1/root/f 2> /dev/null || echo no; chown 1 /proc/1/fd/0 2> /dev/null || echo no; stat -c %u /f; chown 1000 /dev/stdout";
        writes(&place, script, "5:6\n7\n8\n9\nno\nno\n9\n");
    }
}

#[test]
fn another_root_directory_is_the_callers() {
    for place in single() {
        let script = "mkdir -p /new/bin /new/etc; cp /bin/busybox /new/bin/; ln -s /etc/link /new/l; touch /new/etc/link /etc/link
            chroot /new /bin/busybox chown 5 /l; stat -c %u /new/etc/link /etc/link; chroot /new /bin/busybox stat -c %u /l /etc/link
            chown 6 /etc/link; stat -c %u /new/etc/link /etc/link; chroot /new /bin/busybox chown 7 /../etc/link; stat -c %u /new/etc/link";
        writes(
            &place,
            &script.replace("cp ", "busybox cp ").replace("chroot ", "busybox chroot "),
            "5\n0\n0\n5\n5\n6\n7\n",
        );
    }
}

/// 8 processes at once: none hangs, none is answered for another.
#[test]
fn thousands_of_calls_at_once_are_answered() {
    for place in single() {
        let script = "for n in 1 2 3 4 5 6 7 8; do (touch f$n; i=0; while [ $i -lt 150 ]; do chown $n:$i f$n; \
            [ \"$(stat -c %u:%g f$n)\" = $n:$i ] || echo wrong; i=$((i+1)); done; echo done) & done; wait";
        writes(&place, script, &"done\n".repeat(8));
    }
}

/// Callers die while they are answered; children of a user are that user, however many.
#[test]
fn the_killed_are_not_waited_for() {
    for place in single() {
        let script = "busybox su ann -c 'for n in 1 2 3 4 5 6 7 8 9 10; do (while :; do touch /tmp/f$$; rm -f /tmp/f$$; done) & p=\"$p $!\"; done; \
            i=0; while [ $i -lt 50 ]; do [ $(id -u) = 1000 ] || echo wrong; i=$((i+1)); done; kill -9 $p; wait; echo ended'";
        let ran = place.run(&place.spec(script));
        assert_eq!(ran.ok(), "ended\n", "{ran:?}");
        place.clear();
        // Nobody waits for what is still busy when the step's process ends.
        let ran = place.run(&place.spec("(while :; do chown 5 /tmp; done) & exit 3"));
        assert_eq!(ran.result, Ok(ExitStatus::Code(3)), "{ran:?}");
    }
}

#[test]
fn limits_are_the_steps_own_again() {
    for place in single() {
        let script = "ulimit -x; busybox su ann -c 'ulimit -x; ulimit -x 5; ulimit -x; id -u'";
        writes(&place, script, "unlimited\nunlimited\nunlimited\n1000\n");
    }
}

/// Paths that are not there, not whole, or change while they are read: the call fails or not, and that is all.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_is_no_path_is_an_error() {
    for place in single() {
        let script = r#"
            my ($chown, $lstat, $mkdir) = (92, 6, 83);
            sub errno { my $n = shift; my $r = syscall($n, @_); return $r < 0 ? $! + 0 : 0 }
            print join(" ", errno($chown, 0, 5, 6), errno($chown, -1, 5, 6), errno($mkdir, 8, 0755)), "\n";
            my $long = "x" x 5000; print errno($chown, $long, 5, 6), "\n";
            my $empty = ""; print errno($chown, $empty, 5, 6), "\n";
            my $none = "/none"; print errno($chown, $none, 5, 6), "\n";
            my $stat = "\0" x 144; my $file = "/tmp"; print errno($chown, $file, 5, 6), " ", errno($lstat, $file, 1), "\n";
            print join(" ", errno(93, 77, 5, 6), errno(260, 77, $none . "x", 1, 1, 0), errno(260, -100, $file, 1, 1, 0x40)), "\n";
        "#;
        let spec = crate::isolation::with_perl(&place, &format!("perl -e '{script}'"));
        let ran = place.run(&spec);
        let (fault, toolong, noent, badf) = (14, 36, 2, 9);
        let expected =
            format!("{fault} {fault} {fault}\n{toolong}\n{noent}\n{noent}\n0 {fault}\n{badf} {noent} 22\n");
        assert_eq!(ran.ok(), expected, "{ran:?}");
    }
}
