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
