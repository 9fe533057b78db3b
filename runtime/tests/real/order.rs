//! Directories in another order: what programs do with them gives the same as ever, but for that.
#![cfg(target_arch = "x86_64")]

use kiln_core::DirectoryOrder::{self, Reversed, Shuffled};
use kiln_core::{MountSpecKind, RunSpec, Security};

use crate::isolation::with_perl;
use crate::old_programs::{Code, MEMORY, TEXT, Value, run_spec};
use crate::support::{Place, bind, mount, rungs};

fn in_order(order: Option<DirectoryOrder>, spec: RunSpec) -> RunSpec {
    RunSpec { directory_order: order, ..spec }
}

/// A place with `/d` of 40 files in the image.
fn place(rung: crate::support::Rung) -> Place {
    let place = Place::new(rung);
    place.dir_at("root/d");
    for number in 0..40 {
        place.file_at(&format!("root/d/file-{number}"), "x");
    }
    place
}

/// What a script prints that is given to a shell with the machine's own programs, with the image's ones first.
#[track_caller]
fn says(place: &Place, order: Option<DirectoryOrder>, script: &str) -> String {
    let ran = place.run(&in_order(order, with_perl(place, script)));
    let out = ran.ok().to_owned();
    assert_eq!(ran.stderr, "", "{script}");
    place.clear();
    out
}

/// Perl that reads a directory by getdents64(2) itself, in pieces of any size: names with the positions behind them.
const ENTRIES: &str = r#"
    sub entries {
        my ($fd, $size) = @_; my $b = "\0" x $size; my $n = syscall(217, $fd, $b, $size); die "getdents: $!\n" if $n < 0;
        my @r; for (my $at = 0; $at < $n;) {
            my ($ino, $off, $len, $kind) = unpack("Q Q S C", substr($b, $at)); push @r, [unpack("Z*", substr($b, $at + 19)), $off, $ino, $kind]; $at += $len;
        } return @r;
    }
    sub whole { my ($fd, $size) = @_; my @all; while (my @some = entries($fd, $size)) { push @all, @some } return @all }
    sub names { join(" ", map { $_->[0] } @_) }
    sub at { my ($fd, $to) = @_; syscall(8, $fd, $to, 0) == $to or die "lseek: $!" }
    sub dir { sysopen(my $f, $_[0], 0200000) or die "$_[0]: $!"; $f }
"#;

fn perl(script: &str) -> String {
    assert!(!script.contains('\''), "it stands in quotes");
    format!("perl -e '{ENTRIES}{script}'")
}

#[test]
fn what_the_kernel_lists_first_is_last() {
    for &rung in rungs() {
        let place = place(rung);
        // A directory of the image, one of both, and one of the step's.
        let script = "touch /tmp/a /tmp/b /tmp/c; mkdir /etc/new; find /d; find /tmp; find /etc";
        let shown =
            |order| -> Vec<String> { says(&place, order, script).lines().map(str::to_owned).collect() };
        let (plain, reversed, shuffled) =
            (shown(None), shown(Some(Reversed)), shown(Some(Shuffled { key: 3 })));
        let of = |lines: &[String], top: &str| -> Vec<String> {
            lines.iter().filter(|line| line.starts_with(&format!("{top}/"))).cloned().collect()
        };
        for (top, count) in [("/d", 40), ("/tmp", 3)] {
            let (plain, mut reversed) = (of(&plain, top), of(&reversed, top));
            assert_eq!(plain.len(), count, "{plain:?}");
            reversed.reverse();
            assert_eq!(plain, reversed, "{rung:?} {top}");
        }
        assert_ne!(of(&plain, "/d"), of(&shuffled, "/d"), "{rung:?}");
        assert_ne!(of(&reversed, "/d"), of(&shuffled, "/d"), "{rung:?}");
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        assert_eq!(sorted(plain.clone()), sorted(reversed), "{rung:?}");
        assert_eq!(sorted(plain), sorted(shuffled), "{rung:?}");
    }
}

/// On merged directories, on those of one layer, on a tree, in memory: all of a position's uses.
#[test]
fn positions_are_as_posix_has_them() {
    let script = r#"
        for my $top ("/d", "/merged", "/tmp/own", "/memory") {
            my $f = dir($top); my $fd = fileno($f);
            my @all = whole($fd, 65536); my $all = names(@all);
            print "$top: ", scalar(@all), "\n"; die "position" if grep { $_->[1] < 1 || $_->[1] > 0x7fffffff } @all;
            die "the end" if entries($fd, 65536);
            at($fd, 0); die "rewound" if names(whole($fd, 65536)) ne $all;
            for my $size (32, 48, 64, 500) { at($fd, 0); die "size $size" if names(whole($fd, $size)) ne $all }
            for my $n (0 .. $#all) {
                at($fd, $all[$n][1]); die "position of $n" if names(whole($fd, 200)) ne names(@all[$n + 1 .. $#all]);
            }
            my ($b, $none) = ("\0" x 4096, 0); at($fd, 0); my @first = entries($fd, 64);
            print "small ", (syscall(217, $fd, $b, 16) < 0 ? $! + 0 : "ok"), " nowhere ", (syscall(217, $fd, 8, 4096) < 0 ? $! + 0 : "ok"), "\n";
            die "an error moves nothing" if names(@first, whole($fd, 4096)) ne $all;
            # One open file, two descriptors, two processes.
            at($fd, 0); open(my $copy, "<&", $f) or die; my @one = entries($fd, 200); my @two = entries(fileno($copy), 200);
            if (my $child = fork) { waitpid($child, 0); die if $? } else { entries($fd, 200); exit 0 }
            my $three = (entries($fd, 200))[0]; my @skipped = @all; my $told = names(@one, @two);
            die "copies" if substr($all, 0, length $told) ne $told; die "forked" if $three->[0] eq (split / /, substr($all, 1 + length $told))[0];
            # Two open files.
            my $g = dir($top); at($fd, 0); my @mine = entries($fd, 200); die "apart" if names(whole(fileno($g), 300)) ne $all; die "still" if names(@mine, whole($fd, 300)) ne $all;
            opendir(my $h, $top) or die; readdir $h; readdir $h; my $there = telldir $h; my $next = readdir $h; readdir $h for 1 .. 5; seekdir($h, $there);
            die "seekdir" if readdir($h) ne $next; rewinddir $h; my @names = readdir $h; die "rewinddir" if "@names" ne $all; closedir $h;
        }
        my ($b, $file) = ("\0" x 4096, "/etc/passwd"); open(my $f, "<", $file) or die; sysopen(my $p, "/d", 010000000 | 0200000) or die;
        print join(" ", map { syscall(217, $_, $b, 4096) < 0 ? $! + 0 : "ok" } fileno($f), fileno($p), 77, -1), "\n";
        mkdir "/tmp/gone"; my $g = dir("/tmp/gone"); rmdir "/tmp/gone"; print syscall(217, fileno($g), $b, 4096) < 0 ? $! + 0 : "ok", "\n";
    "#;
    for &rung in rungs() {
        let place = place(rung);
        place.dir_at("root/merged");
        for number in 0..20 {
            place.file_at(&format!("root/merged/low-{number}"), "x");
        }
        let make = "mkdir /tmp/own; for n in 1 2 3 4 5 6 7 8 9; do touch /merged/up-$n /tmp/own/x-$n /memory/m-$n; mkdir /tmp/own/d-$n; ln -s x /memory/l-$n; done; rm /merged/low-3; ";
        let expected = "/d: 42\nsmall 22 nowhere 14\n/merged: 30\nsmall 22 nowhere 14\n/tmp/own: 20\nsmall 22 nowhere 14\n\
                        /memory: 20\nsmall 22 nowhere 14\n20 9 9 9\n2\n";
        let script = format!("{make}{}", perl(script));
        for order in [Reversed, Shuffled { key: 9 }] {
            let mut spec = in_order(Some(order), with_perl(&place, &script));
            spec.mounts.push(mount("/memory", MountSpecKind::Tmpfs { size: None }));
            let ran = place.run(&spec);
            assert_eq!(ran.stderr, "", "{order:?}");
            assert_eq!(ran.ok(), expected, "{order:?}");
            place.clear();
        }
        // And where the directories are those of a file system itself.
        let mut spec = in_order(Some(Reversed), with_perl(&place, &script));
        spec.rootfs = place.spec_on_tree("").rootfs;
        spec.mounts.push(mount("/memory", MountSpecKind::Tmpfs { size: None }));
        let ran = place.run(&spec);
        assert_eq!(ran.stderr, "");
        assert_eq!(ran.ok(), expected);
    }
}

/// 4,000 files, taken away while they are listed: by programs that read all first, and by those that do not.
#[test]
fn what_is_removed_while_it_is_read_is_removed() {
    let delete = perl(
        r#"my $f = dir("/tmp/d"); my %seen; while (my @some = entries(fileno($f), 4096)) { for (@some) { my $n = $_->[0]; next if $n =~ /^\.\.?$/; $seen{$n}++ and die "$n twice"; unlink "/tmp/d/$n" or die } }
           opendir(my $d, "/tmp/d") or die; print scalar(keys %seen), " ", scalar(() = readdir $d), "\n"; rmdir "/tmp/d" or die"#,
    );
    let script = format!(
        "make() {{ mkdir /tmp/d && cd /tmp/d && seq 1 4000 | busybox xargs touch && cd /; }}
         make; rm -r /tmp/d; make; /usr/bin/rm -r /tmp/d; make; /usr/bin/find /tmp/d -delete
         make; {delete}; ls /tmp"
    );
    for &rung in rungs() {
        assert_eq!(says(&Place::new(rung), Some(Reversed), &script), "4000 2\n", "{rung:?}");
    }
}

/// The listings that are kept are not for ever: who reads a directory while a thousand others are read finds his place again, also
/// if what he saw last is gone.
#[test]
fn who_was_forgotten_misses_nothing() {
    let script = perl(
        r#"mkdir "/tmp/d"; for (1 .. 3000) { open(my $f, ">", "/tmp/d/f$_") or die }
           sub busy { for (1 .. 1100) { my $e = dir("/etc"); entries(fileno($e), 4096) } }
           my $f = dir("/tmp/d"); my @first = entries(fileno($f), 32768); busy(); my @rest = whole(fileno($f), 32768);
           my %seen; $seen{$_->[0]}++ for @first, @rest; print scalar(@first) > 500 ? "many" : "few", " ", scalar(@first) + @rest, " ", scalar(keys %seen), "\n";
           my $g = dir("/tmp/d"); @first = entries(fileno($g), 32768); unlink "/tmp/d/$_->[0]" for @first; busy(); @rest = whole(fileno($g), 32768);
           %seen = (); $seen{$_->[0]}++ for @first, @rest; print scalar(keys %seen), "\n";"#,
    );
    for &rung in rungs() {
        assert_eq!(says(&Place::new(rung), Some(Reversed), &script), "many 3002 3002\n3002\n", "{rung:?}");
    }
}

/// A new file is seen by whoever begins anew.
#[test]
fn what_is_made_is_seen_from_the_beginning_on() {
    let script = "mkdir d; for n in 1 2 3 4 5; do touch d/$n; set -- d/*; echo $#; rm d/$n; touch d/x$n; find d | wc -l; done";
    for &rung in rungs() {
        let expected = "1\n2\n2\n3\n3\n4\n4\n5\n5\n6\n";
        assert_eq!(says(&Place::new(rung), Some(Reversed), script), expected, "{rung:?}");
    }
}

/// Many processes, many threads of one, other users: each reads its own.
#[test]
fn many_read_at_once() {
    let threads = perl(
        r#"use threads; sub count { my $all = 0; for (1 .. 30) { my $f = dir("/d"); $all += whole(fileno($f), 300) } $all }
           my @all = map { threads->create(\&count) } 1 .. 8; print $_->join, "\n" for @all;"#,
    );
    let script = format!(
        "for n in 1 2 3 4 5 6 7 8; do (for m in 1 2 3 4 5; do [ $(find /d | wc -l) = 41 ] || echo wrong; done) & done; wait; {threads}"
    );
    for &rung in rungs() {
        let place = place(rung);
        assert_eq!(says(&place, Some(Reversed), &script), "1260\n".repeat(8), "{rung:?}");
        if !rung.has_range() {
            continue;
        }
        let plain = place.run(&place.spec("find /d"));
        place.clear();
        let mut spec = in_order(Some(Reversed), place.spec("find /d"));
        spec.user = "ann".to_owned();
        let (plain, other): (Vec<_>, _) =
            (plain.ok().lines().skip(1).map(str::to_owned).collect(), place.run(&spec));
        assert_eq!(other.ok().lines().skip(1).collect::<Vec<_>>(), plain.iter().rev().collect::<Vec<_>>());
    }
}

/// /proc and /sys have the order that programs expect there; a step that may do everything has no filter.
#[test]
fn other_lists_are_the_kernels() {
    for &rung in rungs() {
        let place = place(rung);
        let script =
            "find /proc/sys/kernel /proc/self/fdinfo /sys/kernel -maxdepth 1; find /proc/self/ns /dev/pts";
        assert_eq!(says(&place, None, script), says(&place, Some(Reversed), script), "{rung:?}");
        let insecure =
            RunSpec { security: Security::Insecure, ..in_order(Some(Reversed), place.spec("find /d")) };
        let insecure = place.run(&insecure);
        place.clear();
        assert_eq!(insecure.ok(), place.run(&place.spec("find /d")).ok(), "{rung:?}");
    }
}

/// Who has a step's filter has no second one that asks: so it shows.
#[test]
fn nobody_is_asked_about_a_step_that_is_to_be_as_ever() {
    let script = perl(
        r#"syscall(157, 38, 1, 0, 0, 0) == 0 or die; my $allow = pack("S C C L", 6, 0, 0, 0x7fff0000); my $p = pack("S x6 P", 1, $allow);
           print syscall(317, 1, 8, $p) < 0 ? $! + 0 : "free", "\n";"#,
    );
    for &rung in rungs() {
        let place = Place::new(rung);
        let plain = if rung.has_range() { "free\n" } else { "16\n" };
        assert_eq!(says(&place, None, &script), plain, "{rung:?}");
        assert_eq!(says(&place, Some(Reversed), &script), "16\n", "{rung:?}");
    }
}

/// getdents and getdents64 of 32-bit programs, and what they get on seeking back.
#[test]
fn old_programs_see_the_same_order() {
    use Value::{Kept, Number};
    const PIECE: u32 = 0x200;
    // Opens /d, reads a piece of getdents(2) three times, goes back to the beginning, reads three of getdents64(2).
    let mut code = Code::default().call(5, &[Number(TEXT), Number(0o200_000), Number(0)]).keep();
    for (number, call) in (0..).zip([141, 141, 141, 220, 220, 220]) {
        let at = MEMORY + number * PIECE;
        if number == 3 {
            code = code.call(19, &[Kept, Number(0), Number(0)]);
        }
        code = code.call(call, &[Kept, Number(at), Number(PIECE - 4)]).store(at + PIECE - 4);
    }
    let program =
        code.call(4, &[Number(1), Number(MEMORY), Number(6 * PIECE)]).call(1, &[Number(0)]).program("/d");
    for &rung in rungs() {
        let place = place(rung);
        let told = |order| -> Option<[Vec<String>; 2]> {
            let spec = in_order(order, place.spec("/bin/old > /out"));
            run_spec(&place, &program, &spec)?;
            let bytes = std::fs::read(place.path("upper/out")).unwrap();
            place.clear();
            let mut names = [Vec::new(), Vec::new()];
            for (number, piece) in bytes.chunks_exact(PIECE as usize).enumerate() {
                let length = i32::from_le_bytes(piece[piece.len() - 4..].try_into().unwrap());
                let mut rest = &piece[..usize::try_from(length).unwrap()];
                let (head, size) = if number < 3 { (10, 8) } else { (19, 16) };
                while !rest.is_empty() {
                    let length = usize::from(u16::from_le_bytes([rest[size], rest[size + 1]]));
                    let name = rest[head..length].split(|&byte| byte == 0).next().unwrap();
                    names[number / 3].push(String::from_utf8(name.to_vec()).unwrap());
                    rest = &rest[length..];
                }
            }
            Some(names)
        };
        let (Some(plain), Some(mut reversed)) = (told(None), told(Some(Reversed))) else { return };
        assert_eq!(plain[0].len(), 42, "{plain:?}");
        reversed.iter_mut().for_each(|names| names.reverse());
        assert_eq!(plain[0], reversed[0], "{rung:?}");
        assert_eq!(plain[1], reversed[1], "{rung:?}");
        assert_eq!(plain[0], plain[1]);
    }
}

/// Each entry has the number and the kind that the kernel gives it.
#[test]
fn numbers_and_kinds_are_the_files() {
    let script = format!(
        "mkdir /d/new; ln -s x /d/link; {}",
        perl(
            r#"print map { "$_->[0] $_->[2] $_->[3]\n" } sort { $a->[0] cmp $b->[0] } whole(fileno(dir("/d")), 4096)"#
        )
    );
    for &rung in rungs() {
        let place = place(rung);
        // Of what is new, the kinds only.
        let shown = |order| says(&place, order, &script);
        let numbered = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("file-")).map(str::to_owned).collect()
        };
        let (plain, reversed) = (shown(None), shown(Some(Reversed)));
        assert_eq!(numbered(&plain), numbered(&reversed), "{rung:?}");
        assert_eq!(numbered(&plain).len(), 40);
        let kinds = |text: &str| -> Vec<(String, String)> {
            let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            words.map(|words| (words[0].to_owned(), words[2].to_owned())).collect()
        };
        assert_eq!(kinds(&plain), kinds(&reversed), "{rung:?}");
    }
}

/// Programs of the machine's that read directories in their own ways.
#[test]
fn real_programs_find_what_is_there() {
    let Some(python) = ["/usr/bin/python3", "/usr/bin/python3.13", "/usr/bin/python3.11"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        return crate::support::skip("python3 is not installed");
    };
    let script = format!(
        "mkdir -p t/a/b t/c; touch t/1 t/a/2 t/a/b/3 t/c/4
         {python} -S -c 'import os; print(sorted(e.name for e in os.scandir(\"t\")), sorted(os.listdir(\"/d\")) == sorted(e.name for e in os.scandir(\"/d\")), sum(len(f) for _, _, f in os.walk(\"t\")))
import shutil; shutil.rmtree(\"t/a\"); print(sorted(os.listdir(\"t\")))'
         /usr/bin/find t | sort; /usr/bin/du -a t | wc -l; /usr/bin/tar -cf - t | /usr/bin/tar -tf - | sort | head -1; /usr/bin/ls t; cp -r /d /e; /usr/bin/diff -r /d /e && echo same"
    );
    for &rung in rungs() {
        let place = place(rung);
        std::os::unix::fs::symlink("busybox", place.path("root/bin/cp")).unwrap();
        let plain = says(&place, None, &script);
        assert!(plain.ends_with("same\n"), "{plain}");
        assert_eq!(says(&place, Some(Reversed), &script), plain, "{rung:?}");
    }
}

#[test]
fn a_bind_mount_is_listed_in_that_order_too() {
    for &rung in rungs() {
        let place = place(rung);
        let spec = |order| {
            let mut spec = in_order(order, place.spec("cd /b; find ."));
            spec.mounts = vec![bind("/b", &place.path("root/d"), true)];
            spec
        };
        let plain = place.run(&spec(None));
        place.clear();
        let reversed = place.run(&spec(Some(Reversed)));
        let plain: Vec<_> = plain.ok().lines().skip(1).collect();
        assert_eq!(
            plain,
            reversed.ok().lines().skip(1).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>()
        );
    }
}
