//! Where results go, and where inputs come from besides the context.

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::process::Command;

use kiln_testkit::tools::{run, tool};

use crate::images::entries;
use crate::place::{Place, Ran};
use crate::user::for_each_user;

const IMAGE: &str = "RUN echo x > /file && ln -s file /link && chmod 700 /file\nCMD [\"cat\", \"/file\"]\n";

#[test]
fn a_docker_archive_is_read_by_skopeo() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        place.build(&["-t", "demo:1", "-o", "type=docker,dest=image.tar"]).ok();
        let Some(mut skopeo) = tool("skopeo") else { return };
        skopeo.current_dir(place.path("")).args(["inspect", "docker-archive:image.tar:demo:1"]);
        assert!(run(&mut skopeo).contains("\"Architecture\""));
    });
}

#[test]
fn files_go_to_a_directory_or_a_tar() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        place.build(&["-o", "type=local,dest=files", "-o", "type=tar,dest=files.tar"]).ok();
        assert_eq!(place.read("files/file"), "x\n");
        assert_eq!(std::fs::read_link(place.path("files/link")).expect("a link").to_str(), Some("file"));
        let names = entries(File::open(place.path("files.tar")).expect("a tar"));
        assert!(names["file"].mode == 0o700 && names["link"].link.as_deref() == Some("file"), "{names:?}");
        let streamed = place.build(&["-o", "-"]).ok();
        assert_eq!(entries(streamed.stdout.as_slice()).len(), names.len());
        let streamed = place.build(&["-o", "type=oci"]).ok();
        assert!(entries(streamed.stdout.as_slice()).contains_key("index.json"));
    });
}

#[test]
fn what_is_no_file_is_written_into_and_a_link_stays_one() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        let pipe = place.path("pipe");
        assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status().expect("mkfifo").success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || std::fs::read(pipe).expect("a tar"))
        };
        place.build(&["-o", &format!("type=tar,dest={}", pipe.display())]).ok();
        assert!(entries(reader.join().expect("a reader").as_slice()).contains_key("file"));
        assert!(std::fs::symlink_metadata(&pipe).expect("a pipe").file_type().is_fifo());
        std::fs::write(place.path("real.tar"), "").expect("a file");
        std::os::unix::fs::symlink("real.tar", place.path("link.tar")).expect("a link");
        place.build(&["-o", "type=tar,dest=link.tar"]).ok();
        assert!(entries(File::open(place.path("real.tar")).expect("a tar")).contains_key("file"));
        assert!(std::fs::symlink_metadata(place.path("link.tar")).expect("a link").is_symlink());
    });
}

#[test]
fn digests_go_to_files() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        let ran = place.build(&["-t", "demo", "--iidfile", "iid", "--metadata-file", "meta.json"]).ok();
        let meta: serde_json::Value = serde_json::from_str(&place.read("meta.json")).expect("JSON");
        assert_eq!(meta["containerimage.digest"], ran.digest());
        assert_eq!(meta["containerimage.config.digest"], place.read("iid"));
        // buildx writes it whether or not anything is attached; a build argument's value is in mode=max alone.
        let provenance = &meta["buildx.build.provenance"];
        assert_eq!(provenance["buildDefinition"]["externalParameters"]["configSource"]["path"], "Dockerfile");
        assert!(
            provenance["runDetails"]["metadata"]["buildkit_metadata"]["source"].is_null(),
            "{provenance}"
        );
        for (asked, there) in [("max", true), ("disabled", false)] {
            let mut command = place.build_command("store", &["--metadata-file", "meta.json"]);
            Ran::of(command.env("BUILDX_METADATA_PROVENANCE", asked)).ok();
            let meta: serde_json::Value = serde_json::from_str(&place.read("meta.json")).expect("JSON");
            let provenance = &meta["buildx.build.provenance"];
            let source = &provenance["runDetails"]["metadata"]["buildkit_metadata"]["source"];
            assert_eq!((provenance.is_object(), source.is_object()), (there, there), "{asked}: {provenance}");
        }
        assert!(meta["image.name"].as_str().expect("a name").ends_with("demo:latest"), "{meta}");
        let quiet = place.kiln(&["build", "-q", "context"]).ok();
        assert!(quiet.stderr.is_empty() && quiet.out().starts_with("sha256:"), "{quiet}");
        let json = place.kiln(&["build", "--progress=json", "--no-cache", "context"]).ok();
        for line in json.stderr.lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(event["v"] == 1 && event["event"].is_string(), "{line}");
        }
    });
}

#[test]
fn further_contexts_are_directories_layouts_and_images() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        place
            .build(&[
                "-t",
                "local-base",
                "-o",
                "type=image",
                "-o",
                "type=oci,dest=layout,tar=false",
                "-o",
                "type=oci,dest=layout.tar",
            ])
            .ok();
        place.file("other/file", "from other");
        place.dockerfile(
            "FROM base\nCOPY --from=other file /other\nRUN grep x /file && grep 'from other' /other\n",
        );
        for base in ["oci-layout://layout", "oci-layout://layout.tar", "docker-image://local-base"] {
            place.build(&["--build-context", &format!("base={base}"), "--build-context", "other=other"]).ok();
        }
        place.dockerfile("FROM local-base\nRUN grep x /file\n");
        place.build(&["--registry-mirror", "docker.io=http://127.0.0.1:1"]).ok();
    });
}

/// Where the second build of the same finds its layers packed, the first one has written them into the archive while it packed.
#[test]
fn an_archive_is_the_same_whether_it_was_begun_while_layers_were_packed() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN head -c 3000000 /dev/urandom > /one\nRUN echo two > /two\nENV A=b\nRUN head -c 2000000 /dev/urandom > /three\n",
        );
        for kind in ["oci", "docker"] {
            for level in ["1", "3"] {
                let output = |dest: &str| {
                    format!("type={kind},dest={dest},compression=gzip,compression-level={level}")
                };
                place.file("ahead.tar", "what was there before");
                place.build(&["-o", &output("ahead.tar")]).ok();
                place.build(&["-o", &output("after.tar")]).ok();
                let streamed = place.build(&["-o", &output("-")]).ok().stdout;
                let read = |name: &str| std::fs::read(place.path(name)).expect("an archive");
                assert!(read("ahead.tar") == read("after.tar"), "{kind} {level}");
                assert!(read("after.tar") == streamed, "{kind} {level}");
                let names = entries(streamed.as_slice());
                assert!(names.contains_key("index.json") && names.len() > 8, "{names:?}");
            }
        }
        // Two outputs at once: only one of them is begun.
        place
            .build(&[
                "-o",
                "type=oci,dest=a.tar,compression-level=4",
                "-o",
                "type=oci,dest=b.tar,compression-level=4",
            ])
            .ok();
        assert!(
            std::fs::read(place.path("a.tar")).expect("one")
                == std::fs::read(place.path("b.tar")).expect("one")
        );
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn a_build_that_fails_leaves_nothing_of_its_archive() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo x > /file\nRUN false\n");
        place.directory("out");
        place.build(&["-o", "type=oci,dest=out/image.tar"]).code(1);
        assert_eq!(std::fs::read_dir(place.path("out")).expect("a directory").count(), 0);
    });
}
