//! Blobs that come in part, and layers that are not what their image says.

use kiln_core::{Digest, ImageConfig};
use kiln_oci::{Document, manifest};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{FakeRegistry, Fault, Seen};
use rustix::process::Signal;

use crate::place::{Place, Ran, text_image};
use crate::user::for_each_user;

/// Digits that hardly compress, as a file of this many MiB.
fn noise(megabytes: usize) -> String {
    let mut state = 1_u64;
    let mut text = String::with_capacity(megabytes << 20);
    while text.len() < megabytes << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text
}

/// An image with one layer over 16 MiB; its digest in hex and its bytes.
fn large() -> (TestImage, Digest, usize) {
    let image = text_image(&[("large", &noise(34))]);
    let layer = image.image.layers[0].clone();
    assert!(layer.size > 17 << 20, "{}", layer.size);
    (image, layer.digest, usize::try_from(layer.size).unwrap())
}

/// The parts of blobs that a store has: name and bytes.
fn parts(place: &Place) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(place.path("store/partial")) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect()
}

/// The lowest byte that was asked for of a blob.
fn lowest(seen: &[Seen], digest: Digest) -> u64 {
    let blob = format!("/blobs/{digest}");
    let asked = seen.iter().filter(|seen| seen.line.contains(&blob));
    let first = |seen: &Seen| match seen.range.as_deref().and_then(|range| range.split_once('=')) {
        Some((_, range)) => range.split('-').next().unwrap().parse().unwrap(),
        None => 0,
    };
    asked.map(first).min().expect("it was asked for")
}

#[test]
fn a_killed_pull_goes_on_in_the_next_process() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let (image, digest, size) = large();
        registry.put("base", "1", &image);
        let name = format!("{}/base:1", registry.host());
        let place = Place::new(user);
        place.dockerfile(&format!("FROM {name}\nCOPY bin /bin\nRUN test $(wc -c < /large) = {}\n", 34 << 20));
        // One that streams into the store, and one that unpacks on the way: each is killed with some of it there.
        let commands: [&[&str]; 2] = [&["pull", "-q", &name], &["build", "--progress=plain", "context"]];
        for args in commands {
            // The fourth part hangs; those before it arrive.
            registry.fault("bytes=12582912-", 1, Fault::Hang(100));
            let mut running = place.spawn(&mut place.command(args));
            while parts(&place).first().is_none_or(|(_, bytes)| *bytes < 8 << 20) {
                assert!(!running.ended(), "{args:?} ended");
                std::thread::yield_now();
            }
            running.signal(Signal::KILL);
            running.wait();
            let there = parts(&place);
            assert_eq!(there.len(), 1);
            assert_eq!(there[0].0, digest.hex());
            assert!(there[0].1 < size as u64);
            place.fsck();
            let du = place.kiln(&["du", "--json"]).ok().out();
            assert!(du.contains("\"other\""), "{du}");
            registry.lines();
            Ran::of(&mut place.command(args)).ok();
            let seen = registry.seen();
            assert!(lowest(&seen, digest) >= 8 << 20, "{args:?} went on where it was: {seen:#?}");
            assert_eq!(parts(&place), []);
            place.build(&[]).ok();
            place.fsck();
            place.kiln(&["prune", "--all", "--force"]).ok();
            place.kiln(&["rmi", &name]);
            place.kiln(&["prune", "--all", "--force"]).ok();
        }
    });
}

#[test]
fn a_part_that_is_wrong_is_fetched_anew_and_prune_knows_parts() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let (image, digest, _) = large();
        registry.put("base", "1", &image);
        let name = format!("{}/base:1", registry.host());
        let place = Place::new(user);
        place.kiln(&["images"]).ok();
        let part = format!("store/partial/{}", digest.hex());
        let wrong = "x".repeat(2 << 20);
        place.dockerfile(&format!("FROM {name}\nCOPY bin /bin\nRUN test $(wc -c < /large) = {}\n", 34 << 20));
        place.file(&part, &wrong);
        place.build(&[]).ok();
        assert_eq!(parts(&place), []);
        place.kiln(&["prune", "--all", "--force"]).ok();
        place.file(&part, &wrong);
        place.kiln(&["pull", "-q", &name]).ok();
        assert_eq!(parts(&place), []);
        place.fsck();
        place.file(&format!("store/partial/{}", "a".repeat(64)), &wrong);
        let ran = place.kiln(&["prune", "--force"]).ok();
        assert!(parts(&place).is_empty(), "{ran}");
    });
}

/// An image whose configuration has the diff id of other files.
fn mismatched() -> TestImage {
    let (mut image, other) = (text_image(&[("a", "a")]), text_image(&[("b", "b")]));
    let text = String::from_utf8(image.image.config.bytes.clone()).unwrap();
    let (right, wrong) = (image.image.layers[0].diff_id, other.image.layers[0].diff_id);
    let config = Document::new(
        image.image.config.media_type.clone(),
        text.replace(&right.to_string(), &wrong.to_string()).into_bytes(),
    );
    let _: ImageConfig = serde_json::from_slice(&config.bytes).unwrap();
    let manifest = manifest(&config, &image.image.layers);
    image = image.with(&config).with(&manifest);
    image.image.config = config;
    image.image.manifest = manifest;
    image
}

#[test]
fn a_config_with_other_diff_ids_is_refused_by_registry_repository_and_digest() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let image = mismatched();
        registry.put("team/wrong", "1", &image);
        let name = format!("{}/team/wrong:1", registry.host());
        let blob = format!("{}/team/wrong@{}", registry.host(), image.image.layers[0].digest);
        let place = Place::new(user);
        let words = [blob.as_str(), "has other contents than its image says", "its publisher has to push"];
        place.dockerfile(&format!("FROM {name}\nRUN true\n"));
        place.build(&[]).code(4).says(&words);
        place.dockerfile(&format!("FROM scratch\nCOPY --from={name} /a /a\n"));
        place.build(&[]).code(4).says(&words);
        place.kiln(&["run", "--rm", &name, "/a"]).code(125).says(&words);
        // The store knows where it had the layer from; a copy knows the file.
        place.kiln(&["pull", "-q", &name]).ok();
        place.kiln(&["run", "--rm", &name, "/a"]).code(125).says(&words);
        place.kiln(&["copy", &name, "oci-archive:wrong.tar:1"]).ok();
        let on = |args: &[&str]| Ran::of(&mut place.command_on("other", args));
        let archive = "write the archive anew";
        // An archive is whole when it is read, and looked into: as it lies, and where it is unpacked first.
        let told = |ran: Ran, name: &str| {
            ran.code(2).says(&[&format!("{name}, blob sha256:"), words[1], archive]);
        };
        told(on(&["copy", "oci-archive:wrong.tar", "wrong:1"]), "wrong.tar");
        told(on(&["load", "-q", "-i", "wrong.tar"]), "wrong.tar");
        let packed = kiln_testkit::image::gzip(&std::fs::read(place.path("wrong.tar")).unwrap());
        std::fs::write(place.path("wrong.tar.gz"), packed).unwrap();
        told(on(&["load", "-q", "-i", "wrong.tar.gz"]), "wrong.tar.gz");
        told(on(&["copy", "oci-archive:wrong.tar.gz", "wrong:1"]), "wrong.tar.gz");
        let mut fed = place.command_on("other", &["load", "-q"]);
        told(Ran::of(fed.stdin(std::fs::File::open(place.path("wrong.tar")).unwrap())), "standard input");
        assert_eq!(on(&["images", "-q"]).ok().out(), "");
        // To a registry or another archive it goes as it is.
        place.kiln(&["copy", "oci-archive:wrong.tar", &format!("docker://{}/copy:1", registry.host())]).ok();
        let context = format!("wrong=oci-layout://{}", place.path("wrong.tar").display());
        place.dockerfile("FROM wrong\nRUN true\n");
        let ran = place.build(&["--build-context", &context]);
        assert!(ran.stderr.contains(words[1]) && ran.code != Some(0), "{ran}");
        // Docker's archive has plain layers: it is looked at when it is loaded.
        let files: Vec<(String, Vec<u8>)> = vec![
            ("config.json".to_owned(), image.image.config.bytes.clone()),
            ("layer.tar".to_owned(), kiln_testkit::image::tar_of(&[("a", "a")])),
            (
                "manifest.json".to_owned(),
                br#"[{"Config":"config.json","RepoTags":["wrong:2"],"Layers":["layer.tar"]}]"#.to_vec(),
            ),
        ];
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        std::fs::write(place.path("docker.tar"), tar.into_inner().unwrap()).unwrap();
        on(&["load", "-q", "-i", "docker.tar"]).code(2).says(&[
            "docker.tar: layer sha256:",
            words[1],
            archive,
        ]);
        assert!(!on(&["images"]).ok().out().contains("wrong:2"));
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}
