//! Images on their way between registries, layouts, archives and the store; skopeo is the judge.

use std::fs::File;
use std::io::Write as _;

use kiln_core::Digest;
use kiln_testkit::image::{TestImage, tar_of};
use kiln_testkit::registry::{FakeRegistry, Fault};
use kiln_testkit::tools::{run, tool};

use crate::place::{Place, Ran, text_image};
use crate::user::for_each_user;

const FILES: &str = "RUN echo x > /file\nLABEL a=b\n";

/// Builds `demo:1`; returns the place and the digest.
fn built(user: crate::user::User) -> (Place, String) {
    let place = Place::with(user, FILES);
    let digest = place.build(&["-t", "demo:1"]).ok().digest();
    (place, digest)
}

fn on(place: &Place, store: &str, args: &[&str]) -> Ran {
    Ran::of(&mut place.command_on(store, args))
}

/// Runs kiln with bytes on standard input.
fn fed(place: &Place, args: &[&str], bytes: &[u8]) -> Ran {
    place.file("fed", "");
    File::create(place.path("fed")).and_then(|mut file| file.write_all(bytes)).expect("a file");
    Ran::of(place.command(args).stdin(File::open(place.path("fed")).expect("a file")))
}

#[test]
fn an_image_keeps_its_digest_on_a_way_through_all_places() {
    for_each_user(|user| {
        let (place, digest) = built(user);
        let registry = FakeRegistry::start();
        let (one, two) = (format!("{}/team/one:1", registry.host()), format!("{}/two:1", registry.host()));
        assert_eq!(place.kiln(&["push", "demo:1", &one]).ok().out().trim(), digest);
        let ways = [
            [format!("docker://{one}"), "oci-archive:a.tar:1".to_owned()],
            ["oci-archive:a.tar".to_owned(), "oci:layout:v1".to_owned()],
            ["oci:layout:v1".to_owned(), format!("docker://{two}")],
            [format!("docker://{two}"), "back:1".to_owned()],
            ["back:1".to_owned(), "docker-archive:d.tar:back:1".to_owned()],
            ["docker-archive:d.tar".to_owned(), "again:1".to_owned()],
        ];
        for [from, to] in &ways {
            let ran = on(&place, "other", &["copy", from, to]).ok();
            assert_eq!(ran.out().trim(), digest, "{from} to {to}: {ran}");
        }
        assert_eq!(on(&place, "third", &["pull", "-q", &one]).ok().out().trim(), digest);
        let ran = on(&place, "third", &["run", "--rm", &one, "cat", "/file"]).ok();
        assert_eq!(ran.out(), "x\n");
        let Some(skopeo) = tool("skopeo") else { return };
        for source in ["oci-archive:a.tar", "oci:layout:v1"] {
            let args = ["inspect", "--format", "{{.Digest}}", source];
            assert_eq!(
                Ran::of(&mut place.as_user(skopeo.get_program(), "store", &args)).ok().out().trim(),
                digest
            );
        }
        place.fsck();
    });
}

#[test]
fn an_unchanged_push_asks_once_for_each_thing_and_sends_nothing() {
    for_each_user(|user| {
        let (place, _) = built(user);
        let registry = FakeRegistry::start();
        let name = format!("{}/demo:1", registry.host());
        place.kiln(&["push", "demo:1", &name]).ok();
        registry.lines();
        place.kiln(&["push", "demo:1", &name]).ok();
        let asked = registry.lines();
        // What the manifest names is where it is: nobody asks for that.
        assert_eq!(asked, ["HEAD /v2/demo/manifests/1"]);
        // Another tag of it is one manifest more.
        place.kiln(&["push", "demo:1", &format!("{}/demo:2", registry.host())]).ok();
        let asked = registry.lines();
        let sent: Vec<_> = asked.iter().filter(|line| !line.starts_with("HEAD")).collect();
        assert!(
            sent.len() == 1 && sent[0].starts_with("PUT") && sent[0].contains("/manifests/2"),
            "{asked:#?}"
        );
    });
}

#[test]
fn a_base_that_nobody_looks_into_is_mounted_and_not_fetched() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let image = text_image(&[("etc/one", "one")]);
        registry.put("base", "1", &image);
        let layer = image.image.layers[0].digest;
        let place = Place::new(user);
        place.file("context/new", "new");
        let host = registry.host();
        place.dockerfile(&format!("FROM {host}/base:1\nENV A=b\nCOPY --link new /new\n"));
        let (one, two) = (format!("{host}/app:1"), format!("{host}/app:2"));
        let digest = place.build(&["-t", &one, "-t", &two, "-o", "type=registry"]).ok().digest();
        let asked = registry.lines();
        let fetched = format!("GET /v2/base/blobs/{layer}");
        assert!(!asked.iter().any(|line| line.contains(&fetched)), "{asked:#?}");
        assert!(asked.iter().any(|line| line.contains("mount=") && line.contains("from=base")), "{asked:#?}");
        for tag in ["1", "2"] {
            let (_, bytes) = registry.manifest("app", tag).expect("it was pushed");
            assert_eq!(Digest::of(&bytes).to_string(), digest);
        }
        assert_eq!(registry.blob("app", layer).map(|blob| Digest::of(&blob)), Some(layer));
        assert_eq!(place.kiln(&["images", "-q"]).ok().out(), "");
        // Files need it after all, and then it comes.
        place.dockerfile(&format!("FROM {host}/base:1\nCOPY new /etc/\n"));
        place.build(&["-o", "type=local,dest=files"]).ok();
        assert_eq!(
            (place.read("files/etc/one"), place.read("files/etc/new")),
            ("one".to_owned(), "new".to_owned())
        );
        place.fsck();
    });
}

#[test]
fn a_build_is_pushed_beside_other_outputs_and_needs_a_name() {
    for_each_user(|user| {
        let place = Place::with(user, FILES);
        let registry = FakeRegistry::start();
        let name = format!("{}/demo:1", registry.host());
        let digest = place.build(&["--push", "-t", &name, "-o", "type=oci,dest=a.tar"]).ok().digest();
        assert_eq!(
            registry.manifest("demo", "1").map(|(_, bytes)| Digest::of(&bytes).to_string()),
            Some(digest)
        );
        place.build(&["--push"]).code(2).says(&["a name is needed to push"]);
        let dead = place.build(&["--push", "-t", "127.0.0.1:1/demo"]).code(4);
        dead.says(&["127.0.0.1:1"]);
    });
}

#[test]
fn archives_of_others_are_loaded_from_files_and_pipes() {
    for_each_user(|user| {
        let (place, digest) = built(user);
        place.kiln(&["save", "-o", "kiln.tar", "demo:1"]).ok();
        let loaded = on(&place, "other", &["load", "-q", "-i", "kiln.tar"]).ok();
        assert_eq!(loaded.out(), "Loaded image: demo:1\n");
        let piped = place.kiln(&["save", "demo:1"]).ok().stdout;
        assert_eq!(piped, std::fs::read(place.path("kiln.tar")).expect("a file"));
        let Some(skopeo) = tool("skopeo") else { return };
        for to in ["docker-archive:skopeo.tar:theirs:1", "oci-archive:skopeo-oci.tar:theirs:2"] {
            let args = ["copy", "--quiet", "docker-archive:kiln.tar:demo:1", to];
            Ran::of(&mut place.as_user(skopeo.get_program(), "store", &args)).ok();
        }
        for (file, program) in [("skopeo.tar", "gzip"), ("skopeo-oci.tar", "zstd")] {
            let Some(mut packer) = tool(program) else { continue };
            run(packer.args(["-q", "-k"]).arg(place.path(file)));
        }
        for (file, name) in [
            ("skopeo.tar", "theirs:1"),
            ("skopeo.tar.gz", "theirs:1"),
            ("skopeo-oci.tar", "theirs:2"),
            ("skopeo-oci.tar.zst", "theirs:2"),
        ] {
            let bytes = std::fs::read(place.path(file)).expect("it was made");
            for ran in [place.kiln(&["load", "-q", "-i", file]), fed(&place, &["load", "-q"], &bytes)] {
                assert_eq!(ran.ok().out(), format!("Loaded image: {name}\n"), "{file}");
            }
            assert_eq!(place.run(name, "cat /file"), "x\n", "{file}");
        }
        // Docker's archive has no manifest and plain layers; packed as kiln packs, they are the same blobs again.
        assert!(place.kiln(&["images", "--digests"]).ok().out().contains(&digest[7..19]));
        assert!(place.half_made().is_empty());
        place.fsck();
    });
}

/// A tar of plain files and links.
fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).expect("memory");
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).expect("memory");
    }
    tar.into_inner().expect("memory")
}

#[test]
fn a_hostile_archive_is_refused_and_nothing_of_it_stays() {
    for_each_user(|user| {
        let place = Place::new(user);
        let layer = tar_of(&[("a", "a")]);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(&layer)
        );
        let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        let list = |config: &str, layer: &str, tag: &str| {
            format!(r#"[{{"Config":"{config}","RepoTags":["{tag}"],"Layers":["{layer}"]}}]"#).into_bytes()
        };
        let good = list(&config_name, "x/layer.tar", "demo:1");
        let wrong_name = format!("{}.json", "0".repeat(64));
        let mut cut = archive(&[("manifest.json", &good), (&config_name, config.as_bytes())], &[]);
        let mut header = tar::Header::new_gnu();
        header.set_path("x/layer.tar").expect("a short name");
        header.set_size(1 << 40);
        header.set_cksum();
        cut.truncate(cut.len() - 1024);
        cut.extend_from_slice(header.as_bytes());
        cut.extend_from_slice(&layer);
        let rows: Vec<(Vec<u8>, &str)> = vec![
            (
                archive(&[("manifest.json", &good), (&config_name, config.as_bytes())], &[]),
                "no file x/layer.tar",
            ),
            (
                archive(
                    &[("manifest.json", &good), (&config_name, config.as_bytes()), ("x/layer.tar", b"other")],
                    &[],
                ),
                "other contents than its image says",
            ),
            (
                archive(
                    &[
                        ("manifest.json", &list(&wrong_name, "x/layer.tar", "demo:1")),
                        (&wrong_name, config.as_bytes()),
                        ("x/layer.tar", &layer),
                    ],
                    &[],
                ),
                "has other bytes",
            ),
            (
                archive(
                    &[
                        ("manifest.json", &list(&config_name, "x/layer.tar", "../demo:1")),
                        (&config_name, config.as_bytes()),
                        ("x/layer.tar", &layer),
                    ],
                    &[],
                ),
                "not an image reference",
            ),
            (
                archive(
                    &[("manifest.json", &good), (&config_name, config.as_bytes())],
                    &[("x/layer.tar", "../../../../../../etc/passwd")],
                ),
                "no file x/layer.tar",
            ),
            (cut, "longer than the archive"),
            (archive(&[("manifest.json", &vec![b' '; 9 << 20])], &[]), "more than 8388608 bytes"),
            (archive(&[("a", b"a")], &[]), "neither oci-layout and index.json nor docker's manifest.json"),
        ];
        for (bytes, words) in rows {
            let ran = fed(&place, &["load"], &bytes);
            assert!(matches!(ran.code, Some(2 | 4)), "{ran}");
            ran.says(&[words]);
            assert_eq!(place.kiln(&["images", "-qa"]).ok().out(), "", "{words}");
            assert!(place.half_made().is_empty());
        }
        // The same through a link that stays inside, as docker writes it.
        let linked = archive(
            &[("manifest.json", &good), (&config_name, config.as_bytes()), ("y/layer.tar", &layer)],
            &[("x/layer.tar", "../y/layer.tar")],
        );
        assert_eq!(fed(&place, &["load", "-q"], &linked).ok().out(), "Loaded image: demo:1\n");
        place.fsck();
    });
}

#[test]
fn files_are_imported_with_a_configuration() {
    for_each_user(|user| {
        let place = Place::new(user);
        let tar = place.as_user("tar", "store", &["-C", "context", "-cf", "root.tar", "bin"]).status();
        assert!(tar.expect("tar").success());
        let args =
            ["import", "-q", "-m", "by hand", "-c", "ENV A=b", "-c", "CMD [\"sh\", \"-c\", \"echo $A\"]"];
        place.kiln(&[&args[..], &["root.tar", "made:1"]].concat()).ok();
        assert_eq!(place.kiln(&["run", "--rm", "made:1"]).ok().out(), "b\n");
        assert!(place.kiln(&["inspect", "made:1"]).ok().out().contains("linux"));
        place.kiln(&["import", "-c", "RUN true", "root.tar"]).code(2).says(&["RUN true", "only CMD"]);
        place.kiln(&["import", "-c", "CMD [", "-c", "EXPOSE x", "root.tar"]).code(2);
        place.file("no.tar", "text");
        place.kiln(&["import", "no.tar", "bad:1"]).code(4);
        assert!(!place.kiln(&["images"]).ok().out().contains("bad"));
        place.fsck();
    });
}

#[test]
fn an_index_joins_what_was_built_apart() {
    for_each_user(|user| {
        let place = Place::new(user);
        let registry = FakeRegistry::start();
        let of = |platform: &str, text: &str| {
            TestImage::new(platform, kiln_oci::MediaTypes::Oci, &[&[("f", text)]])
        };
        let (amd, arm, newer) = (of("linux/amd64", "1"), of("linux/arm64", "2"), of("linux/arm64", "3"));
        for (tag, image) in [("amd", &amd), ("arm", &arm), ("newer", &newer)] {
            registry.put("app", tag, image);
        }
        let name = |tag: &str| format!("{}/app:{tag}", registry.host());
        let place_of = |tag: &str| format!("docker://{}", name(tag));
        // At the registry nothing moves but manifests.
        registry.lines();
        place.kiln(&["index", "create", &place_of("all"), &place_of("amd"), &place_of("arm")]).ok();
        let asked = registry.lines();
        assert!(!asked.iter().any(|line| line.contains("POST") || line.contains("PATCH")), "{asked:#?}");
        assert!(registry.manifest("app", "all").is_some_and(|(kind, _)| kind == kiln_oci::media::OCI_INDEX));
        // In the store, one after the other.
        let made = place.kiln(&["index", "create", "--annotation", "k=v", "all:1", &name("amd")]).ok();
        place.kiln(&["index", "join", "all:1", &place_of("arm")]).ok();
        place.kiln(&["index", "join", "all:1", &name("newer")]).code(2).says(&["linux/arm64", "two images"]);
        let joined = place.kiln(&["index", "join", "--amend", "all:1", &name("newer")]).ok();
        assert_ne!(made.out(), joined.out());
        let shown = place.kiln(&["images"]).ok().out();
        assert!(shown.contains("linux/amd64,linux/arm64"), "{shown}");
        // As buildx imagetools has it: names by flags.
        let tagged =
            place.kiln(&["index", "create", "-t", "b:1", "-t", "b:2", &name("amd"), &name("newer")]).ok();
        for name in ["b:1", "b:2"] {
            let shown = place.kiln(&["inspect", "--raw", name]).ok().stdout;
            assert_eq!(Digest::of(&shown).to_string(), tagged.out().trim());
        }
        place.kiln(&["index", "create", "b:1"]).code(2).says(&["no images"]);
        place.kiln(&["save", "--format=oci-archive", "-o", "all.tar", "all:1"]).ok();
        let arm = place.kiln(&["copy", "--platform=linux/arm64", "oci-archive:all.tar", "arm:1"]).ok();
        assert_eq!(arm.out().trim(), newer.image.manifest.digest.to_string());
        place
            .kiln(&["copy", "--platform=linux/s390x", "all:1", "no:1"])
            .code(2)
            .says(&["linux/s390x", "linux/arm64"]);
        place.kiln(&["save", "-o", "no.tar", "--platform=linux/s390x", "all:1"]).code(2);
        assert!(!place.path("no.tar").exists());
        place.fsck();
    });
}

#[test]
fn what_arrived_whole_before_a_kill_is_not_fetched_again() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let image = TestImage::new(
            "linux/amd64",
            kiln_oci::MediaTypes::Oci,
            &[&[("one", "one")], &[("two", &"two".repeat(9999))]],
        );
        registry.put("app", "1", &image);
        let [first, second] = [0, 1].map(|number| image.image.layers[number].digest.to_string());
        // The last one hangs: whatever else there is has come by then, or does not matter.
        registry.fault(second.clone(), 100, Fault::Hang(10));
        let place = Place::new(user);
        let name = format!("{}/app:1", registry.host());
        let mut running = place.spawn(&mut place.command(&["pull", "--progress=plain", &name]));
        assert!(running.until(&image.image.layers[0].digest.short()), "{}", running.seen);
        // It is whole when its file is there.
        let blob = place.path(&format!("store/blobs/sha256/{}", &first[7..]));
        while !blob.exists() {
            std::thread::yield_now();
        }
        running.signal(rustix::process::Signal::KILL);
        drop(running);
        assert_eq!(place.kiln(&["images", "-q"]).ok().out(), "");
        registry.lines();
        let registry_again = FakeRegistry::start();
        registry_again.put("app", "1", &image);
        let again = format!("{}/app:1", registry_again.host());
        place.kiln(&["pull", &again]).ok();
        let asked = registry_again.lines();
        assert!(!asked.iter().any(|line| line.contains(&first)), "{asked:#?}");
        assert!(asked.iter().any(|line| line.contains(&second)), "{asked:#?}");
        assert!(place.half_made().is_empty());
        place.fsck();
    });
}

#[test]
fn two_processes_push_one_image() {
    for_each_user(|user| {
        let (place, digest) = built(user);
        let registry = FakeRegistry::start();
        let name = format!("{}/demo:1", registry.host());
        let both = [0, 1].map(|_| place.spawn(&mut place.command(&["push", "-q", "demo:1", &name])));
        for running in both {
            running.wait().ok();
        }
        assert_eq!(
            registry.manifest("demo", "1").map(|(_, bytes)| Digest::of(&bytes).to_string()),
            Some(digest)
        );
        place.fsck();
    });
}

#[test]
fn names_are_given_and_an_engine_is_looked_for() {
    for_each_user(|user| {
        let (place, digest) = built(user);
        place.kiln(&["tag", "demo:1", "a:1", "127.0.0.1:1/b:2"]).ok();
        place.kiln(&["tag", &digest[7..19], "by:id"]).ok();
        let shown = place.kiln(&["images"]).ok().out();
        assert!(["a:1", "127.0.0.1:1/b:2", "by:id"].iter().all(|name| shown.contains(name)), "{shown}");
        place.kiln(&["tag", "nobody", "a:2"]).code(2).says(&["no image nobody"]);
        let mut command = place.build_command("store", &["-t", "demo:1", "--load"]);
        let ran = Ran::of(command.env("DOCKER_HOST", "unix:///no/such/socket")).code(3);
        ran.says(&["unix:///no/such/socket", "type=image"]);
        let mut command = place.command(&["copy", "demo:1", "docker-daemon:demo:1"]);
        Ran::of(command.env("DOCKER_HOST", "ssh://somewhere")).code(2).says(&["ssh:// is not supported"]);
        place.kiln(&["copy", "--preserve-digests", "demo:1", "docker-archive:a.tar"]).code(2);
        place.kiln(&["copy", "demo:1", "dir:/tmp/x"]).code(2).says(&["no transport dir"]);
    });
}
