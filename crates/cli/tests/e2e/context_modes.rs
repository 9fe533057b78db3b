//! `--context-modes`: checkouts made under another umask (moby#32816, devcontainers/cli#153).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::place::{BASE, Place, Ran};
use crate::user::for_each_user;

/// Two checkouts of the same files, `narrow` under umask 077 and `wide` under 002.
fn checkouts(place: &Place) {
    for (name, umask) in [("narrow", 0o077), ("wide", 0o002)] {
        for (path, mode) in [("src/a.py", 0o666), ("src/run", 0o777), ("src/deep/b", 0o666)] {
            place.mode(&format!("{name}/{path}"), path, mode & !umask);
        }
        // Where a tar has it.
        place.mode(&format!("{name}/Dockerfile"), BODY, 0o666 & !umask);
        // Bits that git does not keep, and which no umask makes.
        place.mode(&format!("{name}/src/setuid"), "s", 0o777 & !umask | 0o4000);
        for dir in ["src/deep", "src"] {
            let mode = fs::Permissions::from_mode(0o777 & !umask);
            fs::set_permissions(place.path(&format!("{name}/{dir}")), mode).expect("it is ours");
        }
    }
}

const BODY: &str = "FROM scratch\nCOPY --from=tools bin /bin\nCOPY src /src\nCOPY --chmod=o= src/run src/a.py /chosen/\nCOPY --from=other src/deep /other/\n\
                    RUN --mount=type=bind,target=/mnt stat -c '%a %n' /mnt/src /mnt/src/deep/b /mnt/src/run /mnt/src/setuid && \
                    stat -c '%a %n' /src/deep /src/a.py /src/run /src/setuid /chosen/run /chosen/a.py /other/b\n";

/// <https://github.com/moby/moby/issues/32816>, <https://github.com/devcontainers/cli/issues/153>: two umasks, two caches. FIELD P14.
#[test]
fn moby_32816_a_checkout_under_another_umask_hits_with_the_modes_of_git() {
    for_each_user(|user| {
        let place = Place::new(user);
        checkouts(&place);
        place.file("Dockerfile", BODY);
        let build = |context: &str, more: &[&str]| {
            let (tools, other) =
                ("--build-context=tools=context", format!("--build-context=other={context}"));
            let args = ["build", "--progress=plain", "-f", "Dockerfile", tools, &other];
            place.kiln(&[&args[..], more, &[context]].concat()).ok()
        };
        let git = ["--context-modes=git"];
        let first = build("narrow", &git).prints(&[
            "755 /mnt/src",
            "644 /mnt/src/deep/b",
            "755 /mnt/src/run",
            "755 /mnt/src/setuid",
            "755 /src/deep",
            "644 /src/a.py",
            "755 /src/run",
            "755 /src/setuid",
            "750 /chosen/run",
            "640 /chosen/a.py",
            "644 /other/b",
        ]);
        let again = build("wide", &git);
        assert_eq!(again.count("CACHED"), 5, "{}", again.stderr);
        assert_eq!(again.digest(), first.digest());

        // Without it both are what they are, and neither is the other.
        let wide = build("wide", &[]).prints(&["664 /mnt/src/deep/b", "664 /src/a.py", "4775 /src/setuid"]);
        assert_eq!(wide.count("CACHED"), 1, "{}", wide.stderr);
        let narrow =
            build("narrow", &[]).prints(&["600 /mnt/src/deep/b", "600 /src/a.py", "700 /chosen/run"]);
        assert_eq!(narrow.count("CACHED"), 1, "{}", narrow.stderr);
        assert_ne!(wide.digest(), narrow.digest());

        // The keys are of what counts, not of how it was asked for: what git would have made hits as it is.
        for (path, mode) in [
            ("src", 0o755),
            ("src/deep", 0o755),
            ("Dockerfile", 0o644),
            ("src/a.py", 0o644),
            ("src/run", 0o755),
            ("src/deep/b", 0o644),
        ] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(place.path(&format!("narrow/{path}")), mode).expect("it is ours");
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path("narrow/src/setuid"), mode).expect("it is ours");
        assert_eq!(build("narrow", &[]).digest(), first.digest());

        // A tar of it, with the modes of the wide umask, is worth the same.
        let tar = std::process::Command::new("tar")
            .args(["-C", &place.text("wide"), "-cf", &place.text("wide.tar"), "."])
            .status()
            .expect("tar");
        assert!(tar.success());
        place.own("wide.tar");
        assert_eq!(build("wide.tar", &git).digest(), first.digest());
        place.fsck();
    });
}

#[test]
fn the_mode_of_contexts_may_stand_in_the_environment_and_must_be_known() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(&format!("{BASE}COPY f /\nRUN stat -c %a /f\n"));
        place.mode("context/f", "f", 0o600);
        let mut command = place.command(&["build", "--progress=plain", "context"]);
        Ran::of(command.env("KILN_CONTEXT_MODES", "git")).ok().prints(&["644"]);
        place.build(&["--context-modes=as-is"]).ok().prints(&["600"]);
        place.build(&["--context-modes=octal"]).code(2).says(&["octal", "as-is, git"]);
    });
}
