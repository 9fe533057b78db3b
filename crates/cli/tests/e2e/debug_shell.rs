//! Failed steps: what they left is kept, entered, pruned.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// Runs with this text as standard input.
fn with_input(place: &Place, args: &[&str], input: &str) -> Ran {
    let mut command = place.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kiln starts");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("kiln reads it");
    let output = child.wait_with_output().expect("it is ours");
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What `kiln debug ls --json` lists.
fn kept(place: &Place) -> Vec<Value> {
    let text = place.kiln(&["debug", "ls", "--json"]).ok().out();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_failed_step_is_entered_with_all_that_it_had() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS first\nCOPY bin /bin\nRUN echo before > /before\n\
             FROM scratch AS other\nCOPY bin/busybox /busybox\n\
             FROM first\n\
             ENV colour=blue\nWORKDIR /srv\nRUN mkdir -p /etc && echo 'app:x:7:8::/home/app:/bin/sh' > /etc/passwd\n\
             RUN --mount=type=cache,target=/cache --mount=type=bind,from=other,target=/other \
             --mount=type=tmpfs,target=/tmp --mount=type=secret,id=token,target=/token \
             --mount=type=bind,source=note,target=/note \
             echo cached > /cache/file && echo half > half && touch /tmp/gone && false\n\
             RUN true\n",
        );
        place.file("context/note", "a note\n");
        place.file("token", "a-long-secret");
        let secret = format!("id=token,src={}", place.text("token"));
        let ran = place.build(&["--secret", &secret]).code(1).says(&["hint: `kiln debug shell`"]);
        assert!(
            ran.stderr.trim_end().ends_with("opens a shell in what the step left"),
            "the last line: {ran}"
        );
        let script = "pwd; cat half /before /cache/file /note; echo $colour; test -x /other/busybox && echo bound\n\
                      test -e /tmp/gone || echo empty; test -e /token || echo no secret; echo mine > half; echo more >> /cache/file\n";
        let ran = with_input(&place, &["debug", "shell"], script).ok();
        assert_eq!(ran.out(), "/srv\nhalf\nbefore\ncached\na note\nblue\nbound\nempty\nno secret\n", "{ran}");
        let ran = ran.says(&[
            "as it failed: exit code 1",
            "cache \"/cache\" at /cache\n",
            "bind at /other\n",
            "changes are thrown away",
        ]);
        ran.says(&["secret \"token\" at /token is not there: give it again with --secret id=token"]);
        let args =
            ["debug", "shell", "--secret", &secret, "-q", "--", "cat", "/token", "half", "/cache/file"];
        let ran = place.kiln(&args).ok();
        assert_eq!((&*ran.out(), &*ran.stderr), ("a-long-secrethalf\ncached\nmore\n", ""));
        place.kiln(&["debug", "shell", "last", "--", "sh", "-c", "exit 7"]).code(7);
        place.kiln(&["debug", "shell", "--before", "--", "test", "-e", "half"]).code(1);
        if user.has_range() {
            assert_eq!(place.kiln(&["debug", "shell", "-u", "app", "--", "id", "-u"]).ok().out(), "7\n");
        }
        place.fsck();
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn a_step_without_a_shell_gets_kilns_own() {
    for_each_user(|user| {
        let place = Place::new(user);
        // As distroless: one program, and nothing to look with.
        place.dockerfile(
            "FROM scratch\nCOPY bin/busybox /app/false\nENV PATH=/app who=me\nWORKDIR /data\nCOPY note note\n\
             RUN [\"false\", \"--version\"]\nRUN echo never\n",
        );
        place.file("context/note", "a note\nof two lines\n");
        place.build(&[]).code(1);
        let script = "pwd\nls -a\ncat note && head -n 1 note\nstat note\necho $who \"${who}\" '$who'\n\
                      cd /app; ls; false; echo $?; nosuch || echo not found: $?\nexit 3\n";
        let ran = with_input(&place, &["debug", "shell"], script).code(3);
        let out = ran.out();
        assert!(
            out.starts_with(
                "/data\nnote\na note\nof two lines\na note\npath   note\ntype   file\nsize   20\n"
            ),
            "{ran}"
        );
        assert!(out.ends_with("me me $who\nfalse\n1\nnot found: 127\n"), "{ran}");
        ran.says(&["the image has no shell that starts (/bin/sh: "]);
        // What the step could not even start is entered all the same.
        place.dockerfile("FROM scratch\nCOPY note /dir/note\nRUN make\n");
        place.build(&[]).code(1).says(&["/bin/sh: "]);
        let ran = with_input(&place, &["debug", "shell"], "find /dir\nls | cat\nls -l /dir/none\n").code(1);
        assert_eq!(ran.out(), "/dir\n/dir/note\n", "{ran}");
        ran.says(&["no pipes", "ls: /dir/none: no such file or directory"]);
        let args = ["debug", "shell", "-q", "--builtin", "--", "cat", "/dir/note"];
        assert_eq!(place.kiln(&args).ok().out(), "a note\nof two lines\n");
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn three_are_kept_of_a_step_the_newest_and_prune_takes_them() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.kiln(&["debug", "shell"]).code(2).says(&["no failed step is kept"]);
        for step in ["a", "b", "b", "c", "d"] {
            place.base(&format!("RUN echo {step} > /file; exit 1\n"));
            place.build(&[]).code(1);
        }
        let titles: Vec<String> = kept(&place).iter().map(|step| step["title"].to_string()).collect();
        let expected = ["d", "c", "b"];
        assert!(
            titles.len() == 3 && titles.iter().zip(expected).all(|(t, e)| t.contains(&format!("echo {e} "))),
            "{titles:?}"
        );
        let oldest = kept(&place)[2]["name"].as_str().expect("a name").to_owned();
        assert_eq!(place.kiln(&["debug", "shell", "-q", &oldest, "--", "cat", "/file"]).ok().out(), "b\n");
        let usage: Value = serde_json::from_str(&place.kiln(&["du", "--json"]).ok().out()).expect("JSON");
        assert!(usage["failed"].as_u64() > Some(0), "{usage}");
        place.fsck();
        assert!(place.kiln(&["prune"]).ok().out().contains("failed steps"));
        assert_eq!(kept(&place), [] as [Value; 0]);
        place.kiln(&["debug", "shell", &oldest]).code(2).says(&["there is no step", "kiln debug ls"]);
        place.fsck();
        place.base("RUN echo e > /file; exit 1\n");
        let ran = place.build(&["--on-error=discard"]).code(1);
        ran.lacks(&["kiln debug shell"]);
        assert_eq!(kept(&place), [] as [Value; 0]);
        place.build(&["--on-error=shell"]).code(2).says(&["there is no terminal"]);
    });
}

#[test]
fn building_again_goes_on_from_the_failed_step() {
    for_each_user(|user| {
        let place =
            Place::with(user, "RUN echo one > /one\nRUN echo two >> /one; cat /one; test -e /no\nRUN true\n");
        place.build(&[]).code(1).prints(&["one", "two"]);
        // What the failed step wrote is not what it starts from.
        let ran = place.build(&[]).code(1).prints(&["one", "two"]);
        assert_eq!((ran.count("CACHED"), ran.stderr.matches(" two\n").count()), (2, 1), "{ran}");
        place.base("RUN echo one > /one\nRUN echo two >> /one; cat /one\nRUN true\n");
        let ran = place.build(&[]).ok();
        assert_eq!((ran.count("CACHED"), ran.count("DONE") > 0), (2, true), "{ran}");
    });
}

#[test]
fn what_a_failed_step_wrote_of_a_secret_is_not_kept() {
    for_each_user(|user| {
        let place =
            Place::with(user, "RUN --mount=type=secret,id=token cp /run/secrets/token /copy; exit 1\n");
        place.file("token", "a-long-secret");
        let secret = format!("id=token,src={}", place.text("token"));
        place.build(&["--secret", &secret]).code(1).says(&["is not kept: secret \"token\" is in /copy"]);
        assert_eq!(kept(&place), [] as [Value; 0]);
        let found =
            std::process::Command::new("grep").args(["-r", "a-long-secret", &place.text("store")]).output();
        assert_eq!(found.expect("grep").stdout, b"", "nothing of it is in the store");
    });
}

#[test]
fn five_that_fail_at_once_are_kept_in_order() {
    for_each_user(|user| {
        let place = Place::new(user);
        for number in 0..5 {
            let text = format!("{}RUN echo {number} > /file; exit 1\n", crate::place::BASE);
            place.file(&format!("context/{number}.Dockerfile"), &text);
        }
        let builds: Vec<_> =
            (0..5).map(|number| place.start(&["-f", &format!("context/{number}.Dockerfile")])).collect();
        for build in builds {
            build.wait().code(1);
        }
        let names: Vec<String> =
            kept(&place).iter().filter_map(|step| Some(step["name"].as_str()?.to_owned())).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        for name in names {
            place.kiln(&["debug", "shell", &name, "--", "test", "-s", "/file"]).ok();
        }
        place.fsck();
        place.is_quiet();
    });
}
