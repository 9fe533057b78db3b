//! Secrets and privileges: in the step that asks for them, and nowhere else.

use std::fs;
use std::path::Path;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// In no other file of this machine.
const VALUE: &str = "s3cr3t-\u{e9}-value-of-this-test";

/// Files below `dir` that hold the secret, compressed ones unpacked.
fn holders(dir: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            holders(&path, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let mut plain = Vec::new();
            let gzip = std::process::Command::new("gzip").arg("-dc").arg(&path).output();
            if bytes.starts_with(&[0x1f, 0x8b]) {
                plain = gzip.expect("gzip").stdout;
            }
            let has = |bytes: &[u8]| bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
            if has(&bytes) || has(&plain) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[track_caller]
fn nowhere(place: &Place, ran: &Ran) {
    let mut found = Vec::new();
    holders(&place.path("store"), &mut found);
    assert_eq!(found, [] as [String; 0]);
    assert!(!ran.stderr.contains(VALUE) && !ran.out().contains(VALUE), "{ran}");
}

#[test]
fn a_secret_is_a_file_or_a_variable_and_is_nowhere_else() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=secret,id=a test \"$(wc -c < /run/secrets/a)\" = 28 && stat -c '%a %u:%g' /run/secrets/a && cat /run/secrets/a\n\
             RUN --mount=type=secret,id=a,target=/etc/deep/it,mode=0444 ! touch /etc/deep/it 2>/dev/null && cat /etc/deep/it >&2\n\
             RUN --mount=type=secret,id=b,env=B test ! -e /run/secrets/b && echo \"b is $B.\"\n\
             RUN --mount=type=secret,id=b,env=B,target=/b test \"$B\" = \"$(cat /b)\"\n\
             RUN test ! -e /etc/deep && test ! -e /run && test -z \"$B\"\n\
             RUN --mount=type=secret,id=none test ! -e /run/secrets/none && echo without\n",
        );
        place.file("token", VALUE);
        let mut command = place.command(&[
            "build",
            "--progress=json",
            "--secret",
            "id=a,src=token",
            "--secret=id=b,env=VALUE",
            "-o",
            "type=oci,dest=out.tar",
            "context",
        ]);
        let ran = Ran::of(command.env("VALUE", VALUE)).ok();
        assert!(ran.stderr.contains("b is ***.") && ran.stderr.contains("400 0:0"), "{ran}");
        assert!(ran.stderr.contains("without"), "{ran}");
        nowhere(&place, &ran);
        let mut found = Vec::new();
        fs::create_dir(place.path("out")).expect("a directory");
        fs::rename(place.path("out.tar"), place.path("out/out.tar")).expect("it was made");
        holders(&place.path("out"), &mut found);
        assert_eq!(found, [] as [String; 0]);
        // What it holds is in no key.
        let mut command =
            place.build_command("store", &["--secret=id=a,env=VALUE", "--secret=id=b,env=VALUE"]);
        let again = Ran::of(command.env("VALUE", "another")).ok();
        assert_eq!(again.count("CACHED"), 7, "{again}");
    });
}

#[test]
fn a_failing_step_shows_stars() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN --mount=type=secret,id=a cat /run/secrets/a; echo; exit 7\n");
        place.file("token", VALUE);
        let ran = place.build(&["--secret", "id=a,src=token"]).code(1).says(&["***", "exit code 7"]);
        nowhere(&place, &ran);
    });
}

#[test]
fn a_required_secret_that_was_not_given_is_told_of() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN --mount=type=secret,id=a,required true\n");
        place.build(&[]).code(2).says(&[
            "Dockerfile:3",
            "secret \"a\" is required",
            "--secret id=a,src=FILE",
        ]);
        place.file("token", VALUE);
        place.build(&["--secret", "id=a,src=nothing"]).code(2).says(&["cannot read nothing"]);
        place.build(&["--secret", "id=a,src=token"]).ok();
        let place = Place::with(user, "RUN --mount=type=secret,id=a,env=A true\n");
        place.file("zero", "a\0b");
        place.build(&["--secret", "id=a,src=zero"]).code(2).says(&["holds a zero byte"]);
    });
}

#[test]
fn insecure_steps_need_leave_and_have_what_kiln_has() {
    for_each_user(|user| {
        let dockerfile = "RUN ! mount -t tmpfs none /mnt 2>/dev/null && grep -q 'Seccomp:.*2' /proc/self/status\n\
                          RUN --security=insecure mkdir /mnt && mount -t tmpfs none /mnt && echo mounted\n";
        let place = Place::with(user, dockerfile);
        place.build(&[]).code(2).says(&["security.insecure"]);
        place.build(&["--allow", "security.insecure"]).ok().prints(&["mounted"]);
    });
}

#[test]
fn a_step_without_network_has_only_lo() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --network=none test \"$(ls /sys/class/net)\" = lo && test \"$(grep -c : /proc/net/dev)\" = 1\n",
        );
        place.build(&[]).ok();
    });
}

#[test]
fn a_secret_in_a_layer_fails_the_build() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=secret,id=a mkdir /d && echo \"token=$(cat /run/secrets/a)\" > /d/config\n",
        );
        place.file("token", VALUE);
        let build = ["--secret", "id=a,src=token"];
        let ran = place.build(&build).code(1).says(&[
            "Dockerfile:3",
            "secret \"a\" in /d/config",
            "--allow-secret-leak",
        ]);
        nowhere(&place, &ran);
        // Nothing of it was kept: not for a build without the secret either.
        place.base("RUN --mount=type=secret,id=a mkdir /d && echo \"token=$(cat /run/secrets/a)\" > /d/config\nRUN true\n");
        place.build(&build).code(1);
        place.build(&["--secret", "id=a,src=token", "--allow-secret-leak"]).ok();
        // Copied from the context.
        let place = Place::with(user, "COPY token /\n");
        place.file("token", VALUE);
        place.file("context/token", VALUE);
        place.build(&build).code(1).says(&["secret \"a\" in /token"]);
    });
}

#[test]
fn the_builds_network_and_machine() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN test \"$(ls /sys/class/net)\" = lo && grep '^10.0.0.2.db$' /etc/hosts && ulimit -n\n\
             RUN --network=host test -s /etc/hosts\n",
        );
        let flags = [
            "--network=none",
            "--allow=network.host",
            "--add-host=db:10.0.0.2",
            "--shm-size=1m",
            "--ulimit=nofile=99",
        ];
        place.build(&flags).ok().prints(&["99"]);
        assert_eq!(place.build(&flags).ok().count("CACHED"), 3);
        // They are in the key.
        place.build(&["--network=none", "--allow=network.host", "--add-host=db:10.0.0.3"]).code(1);
        place.build(&["--network=none"]).code(2).says(&["`--network=host` lets", "--allow network.host"]);
        place.build(&["--add-host=db"]).code(2).says(&["--add-host db", "NAME:ADDRESS"]);
    });
}
