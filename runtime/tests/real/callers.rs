//! Callers that make it hard to answer them, where there is a single id: many at once, with memory that is not there, or that
//! changes while they wait. Where something may not differ, the kernel's own answers are asked for on the other rungs.
#![cfg(target_arch = "x86_64")]

use std::os::unix::fs::MetadataExt as _;

use crate::isolation::with_perl;
use crate::notify::{record, single};
use crate::support::{Place, rungs};

/// Perl that begins with a page that can be shared and `put(TEXT, ADDRESS)`, which writes to any place in memory.
const MEMORY: &str = r#"
    sub page { my $p = syscall(9, 0, 4096 * $_[0], 3, 0x21, -1, 0); $p > 0 or die "mmap: $!"; $p }
    open($text, "+>", "/tmp/text") or die; $text->autoflush(1);
    sub put { my ($what, $where) = @_; seek($text, 0, 0); print $text $what; syscall(17, fileno($text), $where, length $what, 0) }
"#;

fn perl(place: &Place, script: &str) -> String {
    let ran = place.run(&with_perl(place, &format!("perl -MIO::Handle -e '{MEMORY}{script}'")));
    assert!(ran.result.is_ok(), "{ran:?}");
    assert_eq!(ran.stderr, "", "{script}");
    ran.stdout
}

/// 16 threads of one process, 20,000 calls: each is answered, and for the one who asked.
#[test]
fn many_threads_are_answered_at_once() {
    for place in single() {
        let script = r#"
            use threads;
            sub calls {
                my $n = shift; my ($path, $status, $wrong) = ("/tmp/f$n", "\0" x 144, 0);
                open(my $file, ">", $path) or die; close $file;
                for my $i (1 .. 625) {
                    syscall(92, $path, 0 + $n, $i) == 0 or $wrong++;
                    syscall(6, $path, $status) == 0 or $wrong++;
                    my ($uid, $gid) = unpack("x28 L L", $status);
                    $wrong++ if $uid != $n || $gid != $i;
                }
                return $wrong;
            }
            my @threads = map { threads->create(\&calls, $_) } 1 .. 16;
            print $_->join, "\n" for @threads;
        "#;
        assert_eq!(perl(&place, script), "0\n".repeat(16));
        assert_eq!(record(&place.path("upper/tmp/f16")).as_deref(), Some("16:625:100644"));
    }
}

/// Addresses where nothing is, texts that run into such a place or end just before it, results that cannot be written: as the
/// kernel has it, for files with and without a record, for root and for others. (The second page is there, and closed: one that was
/// given back would be the next that is asked for.)
#[test]
fn what_memory_lacks_is_an_error_as_the_kernels() {
    let script = r#"
        sub errno { my $n = shift; my $r = syscall($n, @_); $r < 0 ? $! + 0 : "ok" }
        my ($stat, $lstat, $open, $chown, $mkdir, $symlink, $openat, $fstatat, $execve) = (4, 6, 2, 92, 83, 88, 257, 262, 59);
        my $pages = page(2); syscall(10, $pages + 4096, 4096, 0) == 0 or die; my $end = $pages + 4096;
        my ($status, $target, $link) = (page(1), "x", "/tmp/l"); my $constant = page(1); syscall(10, $constant, 4096, 1) == 0 or die;
        open(my $f, ">", "/tmp/owned") or die; open($f, ">", "/tmp/plain") or die;
        my ($owned, $plain) = ("/tmp/owned", "/tmp/plain"); syscall($chown, $owned, 5, 6);
        sub all {
            my @found;
            for my $at (0, 8, -1, $end, 1 << 47) {
                push @found, errno($stat, $at, $status), errno($lstat, $at, $status), errno($open, $at, 0x41, 0644), errno($chown, $at, 7, 7),
                    errno($mkdir, $at, 0755), errno($symlink, $at, $link), errno($symlink, $target, $at), errno($openat, -100, $at, 0x41, 0644),
                    errno($fstatat, -100, $at, $status, 0), errno($execve, $at, 0, 0);
            }
            put("/tmp/plain", $end - 10);
            push @found, errno($stat, $end - 10, $status), errno($mkdir, $end - 10, 0755), errno($chown, $end - 10, 7, 7);
            put("/tmp/owned\0", $end - 11);
            push @found, errno($stat, $end - 11, $status), errno($mkdir, $end - 11, 0755);
            for my $to (0, -1, $end, $end - 100, $constant) {
                push @found, errno($lstat, $owned, $to), errno($lstat, $plain, $to), errno($fstatat, -100, $owned, $to, 0);
            }
            print "@found\n";
        }
        all();
        # Another user than root.
        syscall(106, 1001); syscall(105, 1000); all();
    "#;
    let found = rungs().iter().map(|&rung| {
        let place = Place::new(rung);
        std::fs::set_permissions(
            place.path("root/tmp"),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        (rung, perl(&place, script))
    });
    let found: Vec<_> = found.collect();
    let (_, kernels) = &found[0];
    assert_eq!(kernels.lines().count(), 2, "{kernels}");
    assert!(kernels.contains("14 14") && kernels.contains("ok"), "{kernels}");
    for (rung, answers) in &found {
        assert_eq!(answers, kernels, "{rung:?}");
    }
}

/// Another process writes over the path while its owner asks: the answer is all about one of the files, and whatever is done is
/// done to one of them. The third is a link that leads out of the root, if it is followed from elsewhere. (All have a record:
/// where there is nothing to add, the kernel reads the path again and answers about what it finds then.)
#[test]
fn a_path_that_changes_while_it_is_looked_up_means_one_file() {
    for place in single() {
        let canary = place.file_at("canary", "x");
        let before = canary.metadata().unwrap();
        let script = r#"
            sub make { my ($name, $size, $owner) = @_; open(my $f, ">", $name) or die; print $f "x" x $size; close $f; syscall(92, $name, $owner, $owner) }
            make("/tmp/a", 1, 11); make("/tmp/b", 2, 22);
            symlink("../../../canary", "/tmp/c") or die; make("/canary", 3, 44);
            my $path = page(1); put("/tmp/a\0", $path);
            my $child = fork;
            if (!$child) { while (1) { put($_, $path + 5) for "b", "c", "a" } }
            my ($status, %seen) = ("\0" x 144);
            for (my $n = 0; $n < 3000 || keys %seen < 3; $n++) {
                if (syscall(4, $path, $status) < 0) { $seen{"error " . ($! + 0)}++; next }
                my ($uid, $gid, $size) = unpack("x28 L L x12 Q", $status); $seen{"$size $uid $gid"}++;
            }
            print "$_\n" for sort keys %seen;
            syscall(92, $path, 33, 33) for 1 .. 300;
            kill 9, $child; wait;
            print join(" ", (stat $_)[4, 5]), "\n" for "/tmp/a", "/tmp/b", "/canary";
        "#;
        let printed = perl(&place, script);
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[..3], ["1 11 11", "2 22 22", "3 44 44"], "{printed}");
        assert_eq!(lines.len(), 6, "{printed}");
        for (line, was) in lines[3..].iter().zip(["11 11", "22 22", "44 44"]) {
            assert!([was, "33 33"].contains(line), "{printed}");
        }
        let after = canary.metadata().unwrap();
        let told = |meta: &std::fs::Metadata| (meta.uid(), meta.gid(), meta.ctime(), meta.ctime_nsec());
        assert_eq!((told(&after), record(&canary)), (told(&before), None));
    }
}
