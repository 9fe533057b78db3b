//! Failed steps: what they left is kept, entered, pruned.

use std::io::{Read as _, Write as _};
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
fn steps(place: &Place) -> Vec<Value> {
    let text = place.kiln(&["debug", "ls", "--json"]).ok().out();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Those that failed.
fn kept(place: &Place) -> Vec<Value> {
    steps(place).into_iter().filter(|step| !step["failed"].is_null()).collect()
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

#[test]
fn each_step_of_the_last_build_can_be_entered_and_compared() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS first\nCOPY bin /bin\n\
             RUN mkdir -p /d/sub /etc && echo old > /d/old && echo longer > /d/kept && chmod 600 /d/kept && ln -s old /d/link\n\
             FROM first AS second\nENV name=value\n\
             RUN rm -r /d/sub /d/link && mv /d/old /d/new && echo more >> /d/kept && chmod 644 /d/kept && mkdir /d/link\n\
             RUN --mount=type=bind,from=first,target=/first ls /first/d > /list\n",
        );
        place.build(&[]).ok();
        let show = |step: &str, command: &[&str]| {
            place.kiln(&[&["debug", "shell", "-q", step, "--"][..], command].concat()).ok().out()
        };
        // As a failed one, but nothing is left out: it ended.
        assert_eq!(show(":6", &["ls", "/d"]), "kept\nlink\nnew\n");
        assert_eq!(show("second 2", &["cat", "/first/d/kept", "/list"]), "longer\nkept\nlink\nold\nsub\n");
        let ran = place.kiln(&[
            "debug",
            "shell",
            "-q",
            "--before",
            "Dockerfile:6",
            "--",
            "sh",
            "-c",
            "ls /d; echo $name",
        ]);
        assert_eq!(ran.ok().out(), "kept\nlink\nold\nsub\nvalue\n");
        // All the same when all of it comes from the cache; and a COPY has files, if no process.
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 4, "{ran}");
        assert_eq!(show("first 1", &["test", "-x", "/bin/busybox"]), "");
        let steps = steps(&place);
        let lines: Vec<u64> = steps.iter().filter_map(|step| step["lines"][0].as_u64()).collect();
        assert_eq!(lines, [2, 3, 6, 7]);
        let id = steps[2]["name"].as_str().expect("a name");
        assert_eq!(show(id, &["cat", "/d/new"]), "old\n");
        place.kiln(&["debug", "shell", ":5"]).code(2).says(&["there is no step \":5\"", "kiln debug ls"]);
        place.kiln(&["debug", "shell"]).code(2).says(&["no failed step is kept"]);
        assert_eq!(
            place.kiln(&["debug", "diff", ":6"]).ok().out(),
            "C /d\nC /d/kept  7 B -> 12 B, 0600 -> 0644\nC /d/link  link -> directory, 0755\nA /d/new  file, 4 B, 0644, 0:0\n\
             D /d/old\nD /d/sub\n"
        );
        let changes: Value =
            serde_json::from_str(&place.kiln(&["debug", "diff", ":6", "--format=json"]).ok().out())
                .expect("JSON");
        assert_eq!(
            (&changes[1]["before"]["size"], &changes[1]["after"]["mode"]),
            (&7.into(), &0o644.into()),
            "{changes}"
        );
        assert!(changes[4]["path"] == "/d/old" && changes[4]["after"].is_null(), "{changes}");
        place.fsck();
        place.kiln(&["prune", "--all"]).ok();
        assert_eq!(kept(&place), [] as [Value; 0]);
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn a_diff_shows_what_a_failed_step_had_changed_until_then() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir -p /etc /a && echo x > /a/file\n\
             RUN rm -r /a && mkdir /a && echo y > /a/other && mkfifo /pipe && ln -s nowhere /dangling; exit 3\n",
        );
        place.build(&[]).code(1);
        let expected = "C /a\nD /a/file\nA /a/other  file, 2 B, 0644, 0:0\nA /dangling  link, 0:0\nA /pipe  fifo, 0644, 0:0\n";
        assert_eq!(place.kiln(&["debug", "diff"]).ok().out(), expected);
        assert_eq!(
            place.kiln(&["debug", "diff", "3"]).ok().out(),
            expected,
            "by its number in the last build"
        );
        assert_eq!(place.kiln(&["debug", "diff", ":4"]).ok().out(), expected, "by its line");
    });
}

#[test]
fn a_copy_that_fails_leaves_nothing_to_enter() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo a > /a; exit 1\n");
        place.build(&[]).code(1);
        place.dockerfile(
            "FROM scratch AS first\nCOPY bin /bin\nRUN echo b > /b\nFROM first\nCOPY --from=first /nosuch /c\n",
        );
        place.build(&[]).code(2).lacks(&["kiln debug shell"]);
        let ran = place.kiln(&["debug", "shell"]).code(2);
        ran.says(&[
            "the last build failed in [stage-1 1/1] COPY --from=first /nosuch /c",
            "only what RUN leaves is kept",
        ]);
        assert_eq!(place.kiln(&["debug", "shell", "-q", ":3", "--", "cat", "/b"]).ok().out(), "b\n");
    });
}

#[test]
fn a_terminal_is_a_terminal_and_shells_open_by_themselves() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN --mount=type=cache,target=/cache echo half > /half; exit 5\n");
        // As a person does: looks for the prompt, types, and leaves.
        let typed = |command: &str, input: &str| {
            let mut script = place.as_user("script", "store", &["-qec", command, "/dev/null"]);
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = script.spawn().expect("script starts");
            let mut out = child.stdout.take().expect("it is piped");
            let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
            while !shown.windows(2).any(|two| two == b"# ") {
                match out.read(&mut bytes) {
                    Ok(length) if length > 0 => shown.extend_from_slice(&bytes[..length]),
                    _ => break,
                }
            }
            child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
            out.read_to_end(&mut shown).expect("a pipe can be read");
            (child.wait().expect("it is ours").code(), String::from_utf8_lossy(&shown).into_owned())
        };
        let kiln = place.text("kiln");
        let (code, shown) = typed(
            &format!("{kiln} build --on-error=shell context"),
            "cat /half; test -t 0 && echo a-$((1+1))-terminal\nexit\n",
        );
        assert_eq!(code, Some(1), "the build's: {shown}");
        assert!(shown.contains("a-2-terminal") && shown.contains("as it failed: exit code 5"), "{shown}");
        let (code, shown) = typed(&format!("{kiln} debug shell"), "test -t 1 && cat /half\nexit 9\n");
        assert_eq!(code, Some(9), "{shown}");
        assert!(shown.contains("cache \"/cache\" at /cache"), "{shown}");
        let (code, shown) = typed(&format!("{kiln} debug shell --builtin"), "id\nexit 4\n");
        assert_eq!(code, Some(4), "{shown}");
        assert!(shown.contains("kiln's own shell; `help`") && shown.contains("uid=0 gid=0"), "{shown}");
        place.is_quiet();
    });
}

#[test]
fn killed_while_a_step_fails_the_store_is_whole() {
    for_each_user(|user| {
        let place = Place::new(user);
        for lines in 0..3 {
            place.base(&format!(
                "RUN seq 1 300 | while read n; do echo {lines} > /f$n; done; echo end; exit 1\n"
            ));
            let mut build = place.start(&[]);
            // From here on it is kept; how far that is when it is killed is chance.
            assert!(build.until(" end\n"), "{}", build.seen);
            build.lines(lines % 3);
            build.signal(rustix::process::Signal::KILL);
            build.wait();
            place.wait_until_quiet();
            place.fsck();
            // What is listed is whole.
            for step in kept(&place) {
                let name = step["name"].as_str().expect("a name");
                place.kiln(&["debug", "shell", "-q", name, "--", "test", "-s", "/f300"]).ok();
            }
        }
        place.build(&[]).code(1);
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.fsck();
        place.is_quiet();
    });
}
