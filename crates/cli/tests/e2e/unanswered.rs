//! A single id on a machine where nobody may answer system calls: what needs no other ids works, what does is refused with the
//! reason. Such a machine is made by a filter around kiln.
#![cfg(target_arch = "x86_64")]

use std::process::Command;

use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::{User, skip, users};

/// Perl that gives itself a filter, and then runs its arguments: `install(FLAGS, INSTRUCTION...)`, each of code, two jumps, and a
/// number (seccomp(2)).
const PERL: &str = r#"
    sub install {
        my ($flags, @program) = @_; my $code = pack("(S C C L)*", @program);
        my $all = pack("S x6 P", @program / 4, $code);
        syscall(157, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
        my $got = syscall(317, 1, $flags, $all); $got >= 0 or die "seccomp: $!";
    }
    sub run { my $status = system(@ARGV); exit($status & 127 ? 128 + ($status & 127) : $status >> 8) }
"#;

/// As docker's profile had it once: a filter may be installed, a listener not.
const REFUSED: &str = "install(0, 0x20,0,0,0, 0x15,0,3,317, 0x20,0,0,24, 0x45,0,1,8, 0x06,0,0,0x00050001, 0x06,0,0,0x7fff0000); run()";

/// As in a sandbox whose maker listens itself: there can be one listener only (EBUSY).
const TAKEN: &str = "install(8, 0x06,0,0,0x7fff0000); run()";

fn machines() -> Vec<(Place, &'static str, &'static str)> {
    if !users().contains(&User::Plain) {
        skip("a machine without answers: it needs kiln-plain");
        return Vec::new();
    }
    let reasons = [
        (REFUSED, "seccomp user notification is refused"),
        (TAKEN, "somebody answers this process's own system calls already"),
    ];
    reasons.into_iter().map(|(filter, reason)| (Place::new(User::Plain), filter, reason)).collect()
}

fn kiln(place: &Place, filter: &str, args: &[&str]) -> Command {
    let (script, kiln) = (format!("{PERL}{filter}"), place.text("kiln"));
    place.as_user("perl", "store", &[&["-e", &script, &kiln], args].concat())
}

fn build(place: &Place, filter: &str, dockerfile: &str) -> Ran {
    place.base(dockerfile);
    Ran::of(&mut kiln(place, filter, &["build", "--progress=plain", "context"]))
}

#[test]
fn doctor_says_who_answers_no_calls_and_why() {
    for (place, filter, reason) in machines() {
        let text = Ran::of(&mut kiln(&place, filter, &["doctor", "--json"])).ok().out();
        let rungs: Value = serde_json::from_str(&text).expect("JSON");
        let ids = rungs.as_array().and_then(|rungs| rungs.iter().find(|rung| rung["what"] == "user ids"));
        let ids = ids.unwrap_or_else(|| panic!("{text}"));
        let said = |field: &str, words: &str| ids[field].as_str().is_some_and(|text| text.contains(words));
        assert!(said("chosen", "a single id: RUN as root only"), "{ids}");
        assert!(said("reason", reason), "{ids}");
        assert!(said("raise", "usermod"), "{ids}");
    }
}

#[test]
fn what_needs_no_other_ids_is_built() {
    for (place, filter, _) in machines() {
        let dockerfile = "RUN --mount=type=cache,target=/c echo x > /c/f && cat /c/f > /made && test $(id -u) = 0\n\
            COPY --chown=5:6 file /owned\nRUN chown 0:0 /made && chmod 4755 /made && grep x /made /owned\n";
        place.file("context/file", "x\n");
        build(&place, filter, dockerfile).ok().prints(&["/made:x", "/owned:x"]);
        place.fsck();
    }
}

#[test]
fn what_needs_other_ids_is_refused_with_the_reason() {
    for (place, filter, _) in machines() {
        let ran = build(&place, filter, "RUN touch /f && chown 5:6 /f\n").code(1);
        ran.says(&["/f: Invalid argument", "this needs more than one user id: see `kiln doctor`"]);
        place.link("context/bin/mknod", "busybox");
        let ran = build(&place, filter, "RUN mknod /b b 8 0\n").code(1);
        ran.says(&["/b: Operation not permitted"]);
        let ran = build(&place, filter, "USER 1000:1001\nRUN true\n").code(3);
        ran.says(&["user 1000:1001", "only a single id can be used here"]);
    }
}
