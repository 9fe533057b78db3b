//! Build contexts of each kind, what is left out of them, and `kiln context ls`.

use std::io::Write as _;
use std::process::Stdio;

use kiln_testkit::git::{GitServer, TestRepository};

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// `kiln ARGS` with these bytes on standard input.
pub(crate) fn fed(place: &Place, args: &[&str], input: &[u8]) -> Ran {
    let mut command = place.command(args);
    command.env("SOURCE_DATE_EPOCH", "1000000000");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Who refuses early does not read: that is no failure of the test.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it is ours");
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const BUILD: [&str; 2] = ["build", "--progress=plain"];

pub(crate) fn built(place: &Place, args: &[&str], input: &[u8]) -> Ran {
    fed(place, &[&BUILD, args].concat(), input)
}

#[test]
fn a_dockerfile_on_standard_input_alone_has_no_files() {
    for_each_user(|user| {
        let place = Place::new(user);
        let one = built(&place, &["-"], b"FROM scratch\nCOPY <<E /e\nheredoc\nE\n").ok();
        let other =
            built(&place, &["-"], b"FROM scratch\nCOPY . /\nCOPY a* /\nCOPY <<E /e\nheredoc\nE\n").ok();
        assert_ne!(one.digest(), other.digest());
        built(&place, &["-"], b"FROM scratch\nCOPY a.txt /\n").code(2).says(&[
            "Dockerfile:2",
            "a.txt",
            "the build context is empty",
        ]);
        built(&place, &["-f", "other", "-"], b"FROM scratch\n")
            .code(2)
            .says(&["standard input", "another Dockerfile"]);
        built(&place, &["-f", "-", "-"], b"FROM scratch\n")
            .code(2)
            .says(&["both the context and the Dockerfile"]);
        built(&place, &["-"], b"").code(2).says(&["no instructions"]);
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn a_dockerfile_on_standard_input_goes_with_a_directory() {
    for_each_user(|user| {
        let place = Place::with(user, "COPY a /a\n");
        place.file("context/a", "x");
        place.file("context/Dockerfile.dockerignore", "a\n");
        let text = place.read("context/Dockerfile");
        let ran = built(&place, &["-f", "-", "context"], text.as_bytes()).ok();
        // It is no file, so nothing is beside it.
        place.build(&[]).code(2).says(&["line 1 of Dockerfile.dockerignore"]);
        place.file("context/Dockerfile.dockerignore", "");
        assert_eq!(place.build(&[]).ok().digest(), ran.digest());
    });
}

#[test]
fn dockerfiles_have_three_usual_names_and_may_be_elsewhere() {
    for_each_user(|user| {
        let place = Place::new(user);
        let names = ["Containerfile", "dockerfile", "Dockerfile"];
        for name in names {
            place.file(&format!("named/{name}"), &format!("FROM scratch\nLABEL name={name}\n"));
            let ran = built(&place, &["named"], b"").ok();
            let by_name = built(&place, &["-f", &format!("named/{name}"), "named"], b"").ok();
            assert_eq!(by_name.digest(), ran.digest(), "{name}");
        }
        place.file("elsewhere/other", "FROM scratch\nCOPY a /a\n");
        place.file("context/a", "x");
        place.kiln(&["build", "-f", "elsewhere/other", "context"]).ok();
        place.file("elsewhere/other.dockerignore", "a\n");
        place
            .kiln(&["build", "-f", "elsewhere/other", "context"])
            .code(2)
            .says(&["line 1 of other.dockerignore"]);
    });
}

#[test]
fn named_directories_have_ignore_files_of_their_own() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY --from=more . /more\nRUN --mount=type=bind,from=more,target=/m test -e /m/kept && test ! -e /m/dropped && test ! -e /more/dropped && test -e /more/x.md\n",
        );
        place.file("more/kept", "x");
        place.file("more/dropped", "x");
        place.file("more/x.md", "x");
        place.file("more/.dockerignore", "dropped\n");
        place.file("context/.dockerignore", "*.md\n");
        place.file("context/Dockerfile.dockerignore", "kept\n");
        place.build(&["--build-context", "more=more"]).ok();
    });
}

#[test]
fn a_named_context_stands_for_a_stage_and_is_opened_only_if_needed() {
    for_each_user(|user| {
        let place = Place::new(user);
        place
            .dockerfile("FROM nowhere.invalid/image AS base\nRUN never\nFROM base\nCOPY --from=base /a /b\n");
        place.file("other/a", "x");
        place.file("other/.dockerignore", "[\n");
        // Its ignore file is broken, which shows when it is opened.
        place.build(&["--build-context", "base=other"]).code(2).says(&["other/.dockerignore", "["]);
        place.build(&["--build-context", "base=docker-image://scratch"]).code(2).says(&["/a", "empty"]);
        place.file("context/a", "x");
        place.dockerfile("FROM scratch\nCOPY a /\n");
        place.build(&["--build-context", "base=other"]).ok();
        place.file("other/.dockerignore", "");
        place
            .dockerfile("FROM nowhere.invalid/image AS base\nRUN never\nFROM base\nCOPY --from=base /a /b\n");
        place.build(&["--build-context", "base=other"]).ok();
        for (source, words) in
            [("x=-", "standard input"), ("x=target:y", "bake"), ("x=nowhere", "does not exist")]
        {
            place.build(&["--build-context", source]).code(2).says(&["--build-context", words]);
        }
    });
}

#[test]
fn context_ls_shows_what_is_sent_and_which_line_leaves_out_what() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("app/big", &"x".repeat(3000));
        place.file("app/src/a", &"x".repeat(1000));
        place.file("app/src/deep/b", &"x".repeat(1500));
        place.file("app/node_modules/x/y", &"x".repeat(5000));
        place.file("app/notes.md", "123");
        place.file("app/README.md", "12345");
        let ls = |args: &[&str]| place.kiln(&[&["context", "ls", "app"], args].concat());
        let out = ls(&[]).ok().out();
        assert_eq!(
            out,
            "SIZE     FILES   PATH\n5.0 kB   1       node_modules/\n3.0 kB   1       big\n2.5 kB   2       src/\n\
             5 B      1       README.md\n3 B      1       notes.md\n\nsent: 10.5 kB in 6 files\n\
             not sent: nothing, there is no .dockerignore\n"
        );
        place.file("app/.dockerignore", "# made by npm\nnode_modules\n*.md\n!README.md\nbuild/\n");
        let out = ls(&["--depth", "2"]).ok().out();
        assert_eq!(
            out,
            "SIZE     FILES   PATH\n3.0 kB   1       big\n1.5 kB   1       src/deep/\n1.0 kB   1       src/a\n\
             50 B     1       .dockerignore\n5 B      1       README.md\n\nsent: 5.6 kB in 5 files\n\
             not sent: 5.0 kB in 2 files, by .dockerignore\n  line 2, node_modules: 5.0 kB in 1 file\n  line 3, *.md: 3 B in 1 file\n\
             \x20 line 5, build/: 0 B in 0 files\n"
        );
        let out = ls(&["--all", "--sort=name"]).ok().out();
        assert!(out.contains("src/a\n") && out.contains("src/deep/b\n"), "{out}");
        let json: serde_json::Value = serde_json::from_str(&ls(&["--json"]).ok().out()).expect("JSON");
        assert_eq!(json["sent"]["files"], 5);
        assert_eq!(json["excluded"]["bytes"], 5003);
        assert_eq!(json["rules"][2]["brings_back"], true);

        let rows: &[(&str, i32, &str)] = &[
            ("node_modules/x", 1, "not sent, line 2 of .dockerignore excludes it: node_modules"),
            ("./src/../src/a", 0, "src/a: sent, no line excludes it"),
            (
                "README.md",
                0,
                "sent, line 4 of .dockerignore brings it back: !README.md (line 3 of .dockerignore excludes it: *.md)",
            ),
            ("src/b", 2, "not there; nearby: src/a"),
            ("build/x", 2, "not there; line 5 of .dockerignore would exclude it: build/"),
        ];
        for (path, code, words) in rows {
            let out = ls(&["--why", path]).code(*code).out();
            assert!(out.contains(words), "{path}: {out}");
        }
        // The ignore file of the Dockerfile that is named counts.
        place.file("app/ci.Dockerfile", "");
        place.file("app/ci.Dockerfile.dockerignore", "src\n");
        let out = ls(&["-f", "app/ci.Dockerfile", "--why", "src/a"]).code(1).out();
        assert!(out.contains("line 1 of ci.Dockerfile.dockerignore"), "{out}");
        // What is listed as sent is what a COPY takes.
        place.file("app/Dockerfile", "FROM scratch\nCOPY . /\n");
        let ran = place.kiln(&["build", "-o", "type=local,dest=out", "app"]);
        ran.ok();
        let mut copied: Vec<String> = Vec::new();
        files_below(&place.path("out"), "", &mut copied);
        copied.sort();
        let json: serde_json::Value =
            serde_json::from_str(&ls(&["--json", "--all", "--sort=name"]).ok().out()).expect("JSON");
        let listed: Vec<&str> = json["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["path"].as_str())
            .collect();
        assert_eq!(listed, copied);
    });
}

fn files_below(dir: &std::path::Path, path: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let name = format!("{path}{}", entry.file_name().to_string_lossy());
        match entry.file_type().expect("it is there").is_dir() {
            true => files_below(&entry.path(), &format!("{name}/"), found),
            false => found.push(name),
        }
    }
}

#[test]
fn a_heavy_context_gets_an_advice() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("app/.git/pack", &"x".repeat(1_100_000));
        place
            .kiln(&["context", "ls", "app"])
            .ok()
            .says(&["hint: .git is 1.1 MB", "add a line to .dockerignore: .git"]);
        place.file("app/.dockerignore", ".git\n");
        place.kiln(&["context", "ls", "app"]).ok().lacks(&["hint"]);
    });
}

#[test]
fn a_git_repository_is_a_context() {
    for_each_user(|user| {
        let root = tempfile::tempdir().expect("a directory");
        let repository = TestRepository::create(root.path(), "repo");
        repository
            .file("app/Dockerfile", "FROM scratch\nCOPY . /\n")
            .file("app/a", "one\n")
            .file("app/b.md", "x");
        repository.file("app/.dockerignore", "*.md\n").file("top", "x").commit("one");
        repository.git(&["tag", "v1"]);
        repository.file("app/a", "two\n").commit("two");
        let server = GitServer::start(root.path());
        let url = server.url("repo");
        let place = Place::new(user);
        let build = |args: &[&str]| {
            let _ = std::fs::remove_dir_all(place.path("out"));
            fed(&place, &[&["build", "-o", "type=local,dest=out"], args].concat(), b"")
        };
        build(&[&format!("{url}#v1:app")]).ok();
        assert_eq!(place.read("out/a"), "one\n");
        assert!(!place.path("out/b.md").exists() && !place.path("out/.git").exists());
        build(&["-f", "app/Dockerfile", &url]).ok();
        assert_eq!(place.read("out/app/a"), "two\n");
        assert!(place.path("out/app/b.md").exists(), "an ignore file deeper down means nothing");
        let keep = "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
        build(&["-f", "app/Dockerfile", "--build-arg", keep, &url]).ok();
        assert!(place.path("out/.git").exists());
        build(&[&url]).code(2).says(&["there is no Dockerfile in http://127.0.0.1"]);
        build(&[&format!("{url}#nothing")]).code(2).says(&["nothing"]);
        let with_password = url.replace("http://", "http://me:password@");
        build(&[&with_password]).code(2).says(&["GIT_AUTH_TOKEN"]).lacks(&["password@"]);

        place.dockerfile(
            "FROM repo AS one\nFROM scratch\nCOPY --from=one /a /from\nCOPY --from=repo a /copy\n",
        );
        let named = format!("repo={url}#v1:app");
        build(&["--build-context", &named, "context"]).ok();
        assert_eq!(
            (place.read("out/from"), place.read("out/copy")),
            ("one\n".to_owned(), "one\n".to_owned())
        );
        server.seen();
        place.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
        build(&["--build-context", &named, "context"]).ok();
        assert!(server.seen().is_empty(), "nothing needs it");
        let out = place.kiln(&["context", "ls", &format!("{url}#v1:app")]).ok().out();
        assert!(out.contains("line 1, *.md: 1 B in 1 file"), "{out}");
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}
