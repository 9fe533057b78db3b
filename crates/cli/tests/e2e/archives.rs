//! Build contexts that come as tars: from standard input, files and URLs.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use kiln_testkit::registry::{FakeRegistry, WebFile};
use kiln_testkit::tools::{run, tool};

use crate::contexts::{built, fed};
use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// Compressions by the flag of tar(1) and the end of a name.
const COMPRESSIONS: [(&str, &str, &str); 5] = [
    ("", "tar", "tar"),
    ("-z", "tar.gz", "gzip"),
    ("-j", "tar.bz2", "bzip2"),
    ("-J", "tar.xz", "xz"),
    ("--zstd", "tar.zst", "zstd"),
];

/// Packs a directory of the place with tar(1).
fn pack(place: &Place, flag: &str, program: &str, from: &str, to: &str) -> bool {
    if tool("tar").is_none() || tool(program).is_none() {
        return false;
    }
    let mut command = std::process::Command::new("tar");
    command.args([flag].into_iter().filter(|flag| !flag.is_empty()));
    run(command.arg("-cf").arg(place.path(to)).arg("-C").arg(place.path(from)).arg("."));
    true
}

/// Type, name, link target, content.
type OddEntry<'a> = (tar::EntryType, &'a str, &'a str, &'a str);

/// A tar of entries that no program would write.
fn odd_tar(entries: &[OddEntry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_device_major(0).and_then(|()| header.set_device_minor(0)).expect("GNU headers have them");
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("memory");
    }
    builder.into_inner().expect("memory")
}

#[test]
fn a_tar_is_worth_what_its_directory_is() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY . /all\nCOPY --chmod=700 src/*.sh /sh/\nRUN --mount=type=bind,target=/m test -e /m/src/a.sh && test ! -e /m/notes.md\n\
             RUN test -x /all/src/a.sh && test -L /all/link && test ! -e /all/notes.md\n",
        );
        place.mode("context/src/a.sh", "a", 0o755);
        place.file("context/src/deep/b", "b");
        place.file("context/notes.md", "x");
        place.file("context/.dockerignore", "*.md\n");
        place.link("context/link", "src");
        let directory = place.build(&[]).ok();
        for (flag, end, program) in COMPRESSIONS {
            let name = format!("context.{end}");
            if !pack(&place, flag, program, "context", &name) {
                continue;
            }
            let ran = built(&place, &[&name], b"").ok();
            assert_eq!((ran.digest(), ran.count("CACHED")), (directory.digest(), 5), "{end}: {ran}");
            let bytes = std::fs::read(place.path(&name)).expect("it was made");
            let ran = built(&place, &["-"], &bytes).ok();
            assert_eq!((ran.digest(), ran.count("CACHED")), (directory.digest(), 5), "{end}: {ran}");
        }
        // A file as standard input, where it was left: a program before kiln may have read some of it.
        let mut command = place.command(&["build", "-q", "-"]);
        let file = File::open(place.path("context.tar")).expect("it was made");
        assert_eq!(
            Ran::of(command.env("SOURCE_DATE_EPOCH", "1000000000").stdin(file)).ok().digest(),
            directory.digest()
        );
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn the_dockerfile_of_a_tar_is_inside_or_elsewhere() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("files/docker/app.Dockerfile", "FROM scratch\nCOPY a docker /\n");
        place.file("files/a", "x");
        place.file("files/docker/app.Dockerfile.dockerignore", "**/*.md\n");
        place.file("files/docker/x.md", "x");
        place.file("files/.dockerignore", "a\n");
        assert!(pack(&place, "", "tar", "files", "files.tar"), "tar is installed");
        let bytes = std::fs::read(place.path("files.tar")).expect("it was made");
        built(&place, &["-"], &bytes).code(2).says(&["there is no Dockerfile in standard input"]);
        built(&place, &["-f", "docker/Dockerfile", "-"], &bytes)
            .code(2)
            .says(&["docker/Dockerfile in standard input", "there is docker/app.Dockerfile"]);
        let one = built(&place, &["-f", "docker/app.Dockerfile", "-"], &bytes).ok();
        let other = built(&place, &["-f", "docker/app.Dockerfile", "files.tar"], b"").ok();
        assert_eq!(one.digest(), other.digest());
        let here = place.text("files/docker/app.Dockerfile");
        assert_eq!(built(&place, &["-f", &here, "-"], &bytes).ok().digest(), one.digest());
        let text = place.read("files/docker/app.Dockerfile");
        // Nothing is beside a text: the ignore file of the context counts.
        built(&place, &["-f", "-", "files.tar"], text.as_bytes()).code(2).says(&["line 1 of .dockerignore"]);
        built(&place, &["-f", "-", "-"], &bytes).code(2).says(&["both the context and the Dockerfile"]);
        built(&place, &["files/a"], b"").code(2).says(&["files/a is neither a directory nor a tar"]);
    });
}

#[test]
fn a_hostile_tar_stays_where_it_is_unpacked() {
    use tar::EntryType::{Block, Link, Regular, Symlink};
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("secret", "secret");
        let dockerfile = (Regular, "Dockerfile", "", "FROM scratch\nCOPY . /\n");
        let refused: &[(&[OddEntry<'_>], &str)] = &[
            (&[(Regular, "../out", "", "x")], "`..`"),
            (&[(Regular, "a/../../out", "", "x")], "`..`"),
            (&[(Link, "hard", "/etc/passwd", "")], "hard link"),
            (&[(Link, "hard", "../../../../../../etc/passwd", "")], "`..`"),
        ];
        for (entries, words) in refused {
            let tar = odd_tar(&[&[dockerfile], *entries].concat());
            built(&place, &["-"], &tar).code(2).says(&["standard input cannot be unpacked", words]);
        }
        // These mean something inside.
        let tar = odd_tar(&[
            dockerfile,
            (Symlink, "up", "/../../../../..", ""),
            (Regular, "up/inside", "", "x"),
            (Regular, "/absolute", "", "x"),
            (Block, "disk", "", ""),
            (Regular, ".wh.kept", "", "x"),
        ]);
        let ran = fed(&place, &["build", "-o", "type=local,dest=out", "-"], &tar);
        ran.ok();
        for (name, there) in [("inside", true), ("absolute", true), ("disk", false), (".wh.kept", true)] {
            assert_eq!(place.path("out").join(name).exists(), there, "{name}");
        }
        // A Dockerfile, and an ignore file, that would be one of this machine's files.
        let secret = place.text("secret");
        let tar = odd_tar(&[(Symlink, "Dockerfile", &secret, "")]);
        built(&place, &["-"], &tar).code(2).says(&["there is no Dockerfile"]).lacks(&["secret\n"]);
        let tar = odd_tar(&[
            dockerfile,
            (Symlink, "a", &secret, ""),
            (Regular, "x/Dockerfile", "", "FROM scratch\nCOPY a /\n"),
        ]);
        built(&place, &["-f", "x/Dockerfile", "-"], &tar).code(2).says(&["\"a\" not found"]);
        let whole = odd_tar(&[dockerfile, (Regular, "big", "", &"x".repeat(5000))]);
        built(&place, &["-"], &whole[..4000])
            .code(2)
            .says(&["standard input cannot be unpacked", "ends in the middle"]);
        built(&place, &["-"], b"\x1f\x8b\x08 and no more").code(2).says(&["cannot be decompressed"]);
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn an_unpacked_context_vanishes_even_after_kill() {
    for_each_user(|user| {
        let place = Place::new(user);
        let tar = odd_tar(&[(tar::EntryType::Regular, "big", "", &"x".repeat(1 << 20))]);
        let mut command = place.command(&["build", "--progress=plain", "-"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kiln starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // More than a pipe holds: kiln has begun when this returns.
        stdin.write_all(&tar[..tar.len() / 2]).expect("kiln reads");
        assert!(!place.half_made().is_empty());
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        drop(stdin);
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn a_url_is_a_tar_or_a_dockerfile() {
    for_each_user(|user| {
        let place = Place::with(user, "COPY a /a\n");
        place.file("context/a", "x");
        let directory = place.build(&[]).ok();
        assert!(pack(&place, "-z", "gzip", "context", "context.tgz"), "tar and gzip are installed");
        let server = FakeRegistry::start();
        let bytes = std::fs::read(place.path("context.tgz")).expect("it was made");
        server.put_file("/context", WebFile::new(bytes).etag("\"one\""));
        server.put_file("/text", WebFile::new("FROM scratch\nCOPY context /\n"));
        let url = server.url("/context?token=secret");
        server.put_file("/context?token=secret", WebFile::new("never"));
        let ran = built(&place, &[&server.url("/context")], b"").ok();
        assert_eq!((ran.digest(), ran.count("CACHED")), (directory.digest(), 2), "{ran}");
        let again = built(&place, &[&server.url("/context")], b"").ok();
        assert_eq!(again.digest(), directory.digest());
        let out = fed(&place, &["build", "-o", "type=local,dest=out", &server.url("/text")], b"");
        out.ok();
        assert_eq!(place.read("out/context"), "FROM scratch\nCOPY context /\n");
        built(&place, &["-f", "other", &server.url("/text")], b"").code(2).says(&["another Dockerfile"]);
        built(&place, &["-f", "-", &server.url("/text")], b"FROM scratch\nCOPY context /x\n").ok();
        built(&place, &[&server.url("/nothing")], b"").code(4).says(&["404"]);
        built(&place, &[&url], b"").lacks(&["secret"]);
        built(&place, &["https://me:password@127.0.0.1/x"], b"").code(2).lacks(&["password@"]);
        built(&place, &["ftp://127.0.0.1/x"], b"").code(2).says(&["ftp://127.0.0.1/x", "an http URL"]);
    });
}

#[test]
fn a_named_url_is_fetched_when_a_step_needs_it() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("files/bin/busybox", "x");
        place.file("files/a", "named");
        place.file("files/b.md", "x");
        place.file("files/.dockerignore", "*.md\n");
        assert!(pack(&place, "", "tar", "files", "files.tar"), "tar is installed");
        let server = FakeRegistry::start();
        server.put_file("/files", WebFile::new(std::fs::read(place.path("files.tar")).expect("it was made")));
        let url = server.url("/files");
        for source in [url.as_str(), "files.tar", "files"] {
            place.base(
                "RUN --mount=type=bind,from=files,target=/m grep named /m/a && test ! -e /m/b.md\nCOPY --from=files a /a\n\
                 FROM files\nCOPY --from=0 /a /c\n",
            );
            let ran =
                place.build(&["--build-context", &format!("files={source}"), "-o", "type=local,dest=out"]);
            ran.ok();
            assert_eq!((place.read("out/a"), place.read("out/c")), ("named".to_owned(), "named".to_owned()));
            assert!(!place.path("out/b.md").exists());
        }
        server.seen();
        place.base("COPY Dockerfile /\n");
        place.build(&["--build-context", &format!("files={url}")]).ok();
        assert_eq!(server.lines(), [] as [String; 0]);
        place.base("COPY --from=files a /a\n");
        place
            .build(&["--build-context", &format!("files={}", server.url("/no"))])
            .code(4)
            .says(&["Dockerfile:3", "404"]);
    });
}

#[test]
fn context_ls_looks_into_tars_and_urls() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("files/a", "123");
        place.file("files/x/b.md", "12345");
        place.file("files/.dockerignore", "**/*.md\n");
        assert!(pack(&place, "", "tar", "files", "files.tar"), "tar is installed");
        let bytes = std::fs::read(place.path("files.tar")).expect("it was made");
        let server = FakeRegistry::start();
        server.put_file("/files.tar", WebFile::new(bytes.as_slice()));
        let expected = place.kiln(&["context", "ls", "files"]).ok().out();
        assert!(expected.contains("line 1, **/*.md: 5 B in 1 file"), "{expected}");
        assert_eq!(place.kiln(&["context", "ls", "files.tar"]).ok().out(), expected);
        assert_eq!(place.kiln(&["context", "ls", &server.url("/files.tar")]).ok().out(), expected);
        assert_eq!(fed(&place, &["context", "ls", "-"], &bytes).ok().out(), expected);
        let why = fed(&place, &["context", "ls", "-", "--why", "x/b.md"], &bytes).code(1).out();
        assert!(why.contains("line 1 of .dockerignore"), "{why}");
        assert!(place.half_made().is_empty());
    });
}
