//! Dates, and `kiln verify`.

use kiln_testkit::git::{DATE, TestRepository, git};

use crate::images::config;
use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// `kiln verify ARGS context`, without a date in the environment.
fn verify(place: &Place, args: &[&str]) -> Ran {
    let all: Vec<&str> =
        ["verify", "--progress=plain"].iter().chain(args).chain(&["context"]).copied().collect();
    place.kiln(&all)
}

#[test]
fn the_date_may_be_that_of_the_contexts_commit() {
    for_each_user(|user| {
        let place = Place::with(user, "COPY file /file\nRUN touch /made && test $SOURCE_DATE_EPOCH\n");
        place.file("context/file", "x");
        place.dockerfile("ARG SOURCE_DATE_EPOCH\nFROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY bin /bin\nRUN echo date $SOURCE_DATE_EPOCH\n");
        let build = |date: &str, layout: &str| {
            let output = format!("type=oci,dest={layout},tar=false");
            place.build(&[&format!("--source-date-epoch={date}"), "-o", &output])
        };
        let failed = build("git", "none").code(2);
        assert!(failed.stderr.contains("is no git repository (nor is it in one)"), "{failed}");
        // The context is a directory of the work tree; the user reads what root owns.
        git(&place.path("context"), &["init", "-q"]);
        git(&place.path("context"), &["add", "file"]);
        git(&place.path("context"), &["commit", "-q", "-m", "one"]);
        let ran = build("git", "by-commit").ok().prints(&[&format!("date {DATE}")]);
        assert_eq!(config(&place, "by-commit")["created"], "2023-11-14T22:13:20Z", "{ran}");
        let same = build(&DATE.to_string(), "by-number").ok();
        assert_eq!(same.digest(), ran.digest());
        let other = build("commit", "again").ok();
        assert_eq!(other.digest(), ran.digest());
        // The flag counts, not the variable that place.build sets.
        let failed = build("yesterday", "none").code(2);
        assert!(
            failed.stderr.contains("--source-date-epoch=yesterday: write seconds since 1970"),
            "{failed}"
        );
    });
}

#[test]
fn a_git_context_has_its_commits_date() {
    let root = tempfile::tempdir().expect("a directory");
    let repository = TestRepository::create(root.path(), "repo");
    repository.file("sub/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    repository.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    repository.commit("one");
    let server = kiln_testkit::git::GitServer::start(root.path());
    for_each_user(|user| {
        let place = Place::new(user);
        for context in [server.url("repo"), format!("{}#main:sub", server.url("repo"))] {
            let date = |date: &str, layout: &str| {
                let output = format!("type=oci,dest={layout},tar=false");
                place.kiln(&["build", "--source-date-epoch", date, "-o", &output, &context]).ok().digest()
            };
            assert_eq!(date("git", "a"), date(&DATE.to_string(), "b"), "{context}");
        }
        let failed = place.kiln(&["build", "--source-date-epoch=git", "-"]).code(2);
        assert!(failed.stderr.contains("no checkout of a commit"), "{failed}");
    });
}

#[test]
fn what_is_made_the_same_is_found_to_be_the_same() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY file /d/\nRUN seq 1 1000 > /n && ln -s n /l && mkdir /e\nUSER 7\nRUN id > /tmp/id || true\n",
        );
        place.file("context/file", "x");
        let ran = verify(&place, &["--runs=3"]).ok();
        assert!(ran.out().starts_with("3 builds with SOURCE_DATE_EPOCH=0 gave sha256:"), "{ran}");
        let built = place.build(&["--source-date-epoch=0"]).ok();
        assert!(ran.out().contains(&built.digest()), "{built}");
        assert_eq!(built.count("CACHED"), 4, "the first build is one like others: {built}");
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn what_differs_is_named_by_layer_path_and_field() {
    let rows = [
        // What the clock, the host's name, and chance leave.
        ("RUN date +%s > /stamp", "RUN /bin/sh -c date +%s > /stamp", "/stamp: content: byte "),
        ("RUN hostname > /name; mkdir /same", "RUN /bin/sh -c hostname", "/name: "),
        ("RUN mkdir /made-$(head -c 8 /dev/urandom | md5sum | head -c 8)", "RUN /bin/sh -c mkdir", "/made-"),
        (
            "RUN touch /f && chmod $(( $(date +%s) % 8 )) /f && chmod u+w /f; hostname | md5sum | head -c 1 > /x; date +%s >> /x",
            "RUN /bin/sh",
            "/",
        ),
    ];
    for_each_user(|user| {
        for (line, step, path) in rows {
            let place =
                Place::with(user, &format!("RUN echo same > /kept\n{line}\nRUN echo later > /later\n"));
            let ran = verify(&place, &[]).code(1);
            let out = ran.out();
            assert!(out.contains("layer 3 of 4: ") && out.contains(step), "{ran}");
            assert!(out.lines().any(|l| l.starts_with(&format!("  {path}"))), "{path}: {ran}");
            assert!(!out.contains("/kept") && out.contains("Later layers were not looked at"), "{ran}");
        }
    });
}

#[test]
fn a_build_that_differs_leaves_nothing_behind() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN date +%s%N > /stamp\n");
        let first = place.build(&[]).ok();
        let json = verify(&place, &["--json", "--source-date-epoch=1000000000"]).code(1).out();
        let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(report["digest"], first.digest(), "the cached build is the first");
        let layer = &report["difference"]["part"]["layer"];
        assert_eq!((&layer["number"], &layer["count"]), (&2.into(), &1.into()), "{json}");
        assert_eq!(layer["paths"][0]["field"], "content", "{json}");
        // What the others did is found by nobody.
        let again = place.build(&[]).ok();
        assert_eq!((again.digest(), again.count("CACHED")), (first.digest(), 2));
        let images = place.kiln(&["images", "--all", "--json"]).ok().out();
        assert_eq!(images.matches("\"digest\"").count(), 1, "{images}");
        place.fsck();
    });
}

#[test]
fn verify_keeps_nothing_and_says_so() {
    for_each_user(|user| {
        let place = Place::with(user, "");
        for args in [["-t", "a"], ["-o", "out"], ["--iidfile", "id"]] {
            let failed = verify(&place, &args).code(2);
            assert!(failed.stderr.contains("verify keeps no image"), "{failed}");
        }
        verify(&place, &["--runs=1"]).code(2);
    });
}

/// FIELD-like readers that take a directory's entries as they come, and those that sort them.
#[test]
fn a_step_that_takes_files_as_they_come_is_found() {
    let rows = [
        ("RUN find /d -type f > /out", "/out: content: byte "),
        ("RUN tar -cf /out -C /d .", "/out: content: byte "),
        // What the shell lists is sorted, what it is given by another is not.
        ("RUN find /d -type f | head -n 1 | tr -d '\\n' > /out && test -s /out", "/out: "),
        // In a directory of the image, of the step and of both.
        ("RUN find /bin > /out", "/out: content: byte "),
        ("RUN touch /d/z && find /d -type f > /out", "/out: content: byte "),
        ("RUN mkdir /new && touch /new/a /new/b && find /new > /out", "/out: content: byte "),
        ("RUN --mount=type=bind,target=/ctx find /ctx/d -type f > /out", "/out: content: byte "),
    ];
    for_each_user(|user| {
        for (line, path) in rows {
            let place = Place::with(user, &format!("COPY d /d\n{line}\nRUN echo later > /later\n"));
            for name in ["one", "two", "three", "four"] {
                place.file(&format!("context/d/{name}"), name);
            }
            let ran = verify(&place, &[]).code(1);
            let out = ran.out();
            let step = line.rsplit_once("RUN ").expect("it runs something").1;
            let step = step.rsplit_once("/ctx ").map_or(step, |(_, rest)| rest);
            assert!(out.contains("layer 3 of 4: RUN ") && out.contains(step), "{line}: {ran}");
            assert!(out.lines().any(|l| l.starts_with(&format!("  {path}"))), "{line}: {ran}");
            assert!(out.contains("varied: ") && out.contains("order of directories"), "{ran}");
        }
        let place = Place::with(
            user,
            "COPY d /d\nRUN find /d | sort > /out; cat /d/* > /all; for f in /d/*; do echo $f; done > /list; ls -l /d | wc -l > /count\n\
             RUN mkdir -p /t/a/b && touch /t/1 /t/a/2 /t/a/b/3 && mv /t/a /u && rm -r /t && cp -r /u /v\nUSER 7\nRUN find / -xdev 2> /dev/null | sort | md5sum > /tmp/sum || true\n",
        );
        for name in ["one", "two", "three", "four"] {
            place.file(&format!("context/d/{name}"), name);
        }
        let ran = verify(&place, &["--runs=3"]).ok();
        assert!(ran.out().contains("order of directories") && !ran.out().contains("not varied"), "{ran}");
        place.fsck();
    });
}

/// The order is another in verify's own builds only: a build lists as it ever did, and verify's first build is one.
#[test]
fn only_verify_lists_directories_in_another_order() {
    for_each_user(|user| {
        let dockerfile = "COPY d /d\nRUN find /d -type f && find /d -type f > /out\n";
        let place = Place::with(user, dockerfile);
        for name in ["one", "two", "three", "four", "five", "six"] {
            place.file(&format!("context/d/{name}"), name);
        }
        let plain = place.build(&["--source-date-epoch=0"]).ok();
        let json = verify(&place, &["--json", "--source-date-epoch=0"]).code(1).out();
        let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(report["digest"], plain.digest(), "{json}");
        let varied: Vec<_> =
            report["varied"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect();
        assert_eq!(varied, ["time", "clock", "umask", "jobs", "host-name", "directory-order"], "{json}");
        assert_eq!(report["same"], serde_json::json!([]), "{json}");
        let again = place.build(&["--source-date-epoch=0", "--no-cache"]).ok();
        assert_eq!(again.digest(), plain.digest());
    });
}

/// What kiln itself reads is sorted: the same files, made in another order on a file system that lists them as they were made.
#[test]
fn the_order_of_a_context_is_in_no_image() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY . /all\nCOPY d/*.txt /some/\nRUN --mount=type=bind,target=/ctx,source=d true\n",
        );
        let names = ["m.txt", "a.txt", "z.txt", "b.txt", "k"];
        let mut lists = Vec::new();
        let mut digests = Vec::new();
        for backwards in [false, true] {
            let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
            std::fs::set_permissions(memory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .expect("it is ours");
            let context = memory.path().join("context");
            let copied =
                std::process::Command::new("cp").arg("-a").arg(place.path("context")).arg(&context).status();
            assert!(copied.expect("cp").success());
            std::fs::create_dir(context.join("d")).expect("a directory");
            let mut order = names;
            if backwards {
                order.reverse();
            }
            for name in order {
                std::fs::write(context.join("d").join(name), name).expect("a file");
            }
            let listed = std::fs::read_dir(context.join("d")).expect("a directory").flatten();
            lists.push(listed.map(|entry| entry.file_name()).collect::<Vec<_>>());
            for store in [if backwards { "store-b" } else { "store-a" }, "store"] {
                let context = context.to_str().expect("ASCII");
                let args = ["build", "--progress=plain", "--source-date-epoch=0", context];
                let ran = Ran::of(&mut place.command_on(store, &args)).ok();
                digests.push(ran.digest());
                let cached = if backwards && store == "store" { 4 } else { 0 };
                assert_eq!(ran.count("CACHED"), cached, "the keys are the same: {ran}");
            }
        }
        assert_ne!(lists[0], lists[1], "a tmpfs lists what was made last first");
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    });
}
