//! How images are written: compression, media types, annotations, names.

use kiln_testkit::tools::{run, tool};
use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

const IMAGE: &str = "RUN echo x > /file && ln -s file /link\nLABEL who=kiln\nCMD [\"cat\", \"/file\"]\n";

/// A layout's blob as JSON.
fn blob(place: &Place, layout: &str, digest: &Value) -> Value {
    let digest = digest.as_str().expect("a digest").replace(':', "/");
    serde_json::from_str(&place.read(&format!("{layout}/blobs/{digest}"))).expect("JSON")
}

/// The manifest that a layout's only entry names, and its configuration.
fn image(place: &Place, layout: &str) -> (Value, Value) {
    let index: Value = serde_json::from_str(&place.read(&format!("{layout}/index.json"))).expect("JSON");
    let manifest = blob(place, layout, &index["manifests"][0]["digest"]);
    let config = blob(place, layout, &manifest["config"]["digest"]);
    (manifest, config)
}

fn layer_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["mediaType"].as_str().expect("a type")).collect()
}

#[test]
fn each_compression_is_read_by_skopeo_umoci_and_kiln_and_has_the_same_diff_ids() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        let ways = [
            ("gzip", "compression=gzip,compression-level=9", "application/vnd.oci.image.layer.v1.tar+gzip"),
            ("zstd", "compression=zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
            ("plain", "compression=uncompressed", "application/vnd.oci.image.layer.v1.tar"),
            ("docker", "oci-mediatypes=false", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ];
        // All of them in one build: the layers are packed once in each way.
        let outputs: Vec<String> =
            ways.iter().map(|(name, keys, _)| format!("type=oci,tar=false,dest={name},{keys}")).collect();
        let flags: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output]).collect();
        place.build(&flags).ok();
        let (_, expected) = image(&place, "gzip");
        for (name, _, media_type) in ways {
            let (manifest, config) = image(&place, name);
            assert_eq!(layer_types(&manifest), [media_type, media_type], "{name}");
            assert_eq!(config, expected, "{name}: diff ids and all else");
            if let Some(mut skopeo) = tool("skopeo") {
                let copied = format!("dir:copied-{name}");
                skopeo.current_dir(place.path("")).args(["copy", "-q", &format!("oci:{name}"), &copied]);
                run(&mut skopeo);
            }
            // Debian's umoci knows neither docker's media types nor zstd.
            if let Some(mut umoci) = tool("umoci").filter(|_| matches!(name, "gzip" | "plain")) {
                umoci.current_dir(place.path("")).args(["unpack", "--image"]);
                // umoci wants a name; skopeo gives one.
                let Some(mut skopeo) = tool("skopeo") else { return };
                let named = format!("named-{name}");
                skopeo.current_dir(place.path("")).args(["copy", "-q", &format!("oci:{name}")]);
                run(skopeo.arg(format!("oci:{named}:x")));
                umoci.args([format!("{named}:x"), format!("unpacked-{name}")]);
                if user == User::Caller {
                    umoci.arg("--rootless");
                }
                run(&mut umoci);
                assert_eq!(place.read(&format!("unpacked-{name}/rootfs/file")), "x\n", "{name}");
            }
            place.file("context/Dockerfile", "FROM base\nRUN grep x /file && test -L /link\n");
            let base = format!("base=oci-layout://{name}");
            place.kiln(&["--root", "other", "build", "--build-context", &base, "context"]).ok();
        }
    });
}

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// The JSON behind a layer's list of contents, found by way of its last 51 bytes with gzip and tar.
fn toc(place: &Place, layout: &str, layer: &Value) -> Value {
    let path = place
        .path(&format!("{layout}/blobs/{}", layer["digest"].as_str().expect("a digest").replace(':', "/")));
    let script = r#"set -e; size=$(stat -c %s "$1"); at=$(tail -c 35 "$1" | head -c 16); at=$((0x$at))
        tail -c +$((at + 1)) "$1" | gzip -dc | tar -xO stargz.index.json >toc.json; sha256sum <toc.json | cut -d ' ' -f 1"#;
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(place.path("")).args(["-c", script, "sh"]).arg(path);
    let digest = run(&mut shell);
    assert_eq!(layer["annotations"][TOC_DIGEST], format!("sha256:{}", digest.trim()));
    serde_json::from_str(&place.read("toc.json")).expect("JSON")
}

/// There is no snapshotter for it in Debian; the rules of its specification are held to by a script that has nothing of kiln's.
#[test]
fn estargz_holds_to_its_specification() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN for i in 1 2 3 4 5 6; do cat /bin/busybox; done >/big && ln /big /hard && mkfifo /fifo && : >/empty && \
             mkdir -m 1777 /d && printf x >'/d/\u{e4} b' && ln -s big /link && chmod 4755 /big\n\
             RUN rm /hard && mkdir -p /d/e && chown 5:6 /d/e\n",
        );
        let output = "type=oci,tar=false,dest=star,compression=estargz,compression-level=9";
        place.build(&["-o", output]).ok();
        let Some(mut python) = tool("/usr/bin/python3") else { return };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/estargz/validate");
        let ran = Ran::of(python.current_dir(place.path("")).args([script, "star"])).ok();
        assert!(ran.out().starts_with("star: 3 layers, "), "{ran}");
    });
}

#[test]
fn an_estargz_image_says_where_each_file_is_and_is_an_image_to_all_others() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        let outputs = ["type=oci,tar=false,dest=star,compression=estargz", "type=oci,tar=false,dest=gzip"];
        place
            .build(&[
                "-t",
                "star",
                "-o",
                outputs[0],
                "-o",
                outputs[1],
                "-o",
                "type=image,compression=estargz",
            ])
            .ok();
        let ((star, config), (_, plain)) = (image(&place, "star"), image(&place, "gzip"));
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert_eq!(layer_types(&star), [gzip, gzip]);
        assert_ne!(config["rootfs"], plain["rootfs"], "other tars");
        let toc = toc(&place, "star", &star["layers"][1]);
        let names: Vec<&str> = toc["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["name"].as_str())
            .collect();
        assert_eq!(names, [".no.prefetch.landmark", "file", "link"]);
        assert!(star["layers"][0]["annotations"]["io.containers.estargz.uncompressed-size"].is_string());
        if let Some(mut skopeo) = tool("skopeo") {
            run(skopeo.current_dir(place.path("")).args(["copy", "-q", "oci:star", "oci:named:x"]));
            if let Some(mut umoci) = tool("umoci") {
                umoci.current_dir(place.path("")).args(["unpack", "--image", "named:x", "unpacked"]);
                if user == User::Caller {
                    umoci.arg("--rootless");
                }
                run(&mut umoci);
                assert_eq!(place.read("unpacked/rootfs/file"), "x\n");
            }
        }
        assert_eq!(place.kiln(&["run", "star"]).ok().out(), "x\n");
        // As a base in another store it stays as it is, and what its manifest says of it, too.
        place.file("context/Dockerfile", "FROM base\nRUN grep x /file && echo y >/more\n");
        let over = ["--root", "other", "build", "--build-context", "base=oci-layout://star", "context"];
        let again = "type=oci,tar=false,dest=again,compression=estargz,force-compression=true";
        place.kiln(&[&over[..], &["-o", "type=oci,tar=false,dest=over", "-o", again]].concat()).ok();
        let ((over, _), (again, _)) = (image(&place, "over"), image(&place, "again"));
        for made in [&over, &again] {
            assert_eq!(
                made["layers"].as_array().expect("layers")[..2],
                star["layers"].as_array().expect("layers")[..]
            );
        }
        assert!(over["layers"][2].get("annotations").is_none());
        assert!(again["layers"][2]["annotations"][TOC_DIGEST].is_string());
        // A base of another kind becomes one if it is asked for: the same as if it had been made so.
        place.file("context/Dockerfile", "FROM base\n");
        let forced = "type=oci,tar=false,dest=forced,compression=estargz,force-compression=true";
        let base = "base=oci-layout://gzip";
        place.kiln(&["--root", "third", "build", "--build-context", base, "context", "-o", forced]).ok();
        let (forced, _) = image(&place, "forced");
        assert_eq!(forced["layers"], star["layers"]);
        place.fsck();
    });
}

#[test]
fn a_docker_archive_of_each_form_is_loaded_by_podman_and_skopeo() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        let forms = [
            "compression=gzip",
            "compression=zstd",
            "compression=uncompressed",
            "compression=estargz",
            "oci-mediatypes=false",
        ];
        for (number, form) in forms.into_iter().enumerate() {
            let (tag, archive) = (format!("form:{number}"), format!("{number}.tar"));
            place.build(&["-t", &tag, "-o", &format!("type=docker,dest={archive},{form}")]).ok();
            if let Some(mut skopeo) = tool("skopeo") {
                let (from, to) = (format!("docker-archive:{archive}:{tag}"), format!("dir:copied-{number}"));
                run(skopeo.current_dir(place.path("")).args(["copy", "-q", &from, &to]));
            }
            // Without root it would need a session of its own.
            if let Some(mut podman) = tool("podman").filter(|_| user == User::Root) {
                podman.current_dir(place.path("")).args(["--root", "pod", "--runroot", "podrun"]);
                podman.args(["--storage-driver", "vfs", "load", "-q", "-i", &archive]);
                assert!(run(&mut podman).contains(&tag), "{form}");
            }
        }
    });
}

#[test]
fn a_base_stays_as_it_is_unless_forced() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        place.build(&["-t", "base", "-o", "type=image", "-o", "type=oci,tar=false,dest=base"]).ok();
        place.dockerfile("FROM base\nRUN echo y > /more\n");
        let (gzip, zstd) =
            ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd");
        place
            .build(&[
                "-t",
                "mixed",
                "-o",
                "type=oci,tar=false,dest=mixed,compression=zstd",
                "-o",
                "type=oci,tar=false,dest=forced,compression=zstd,force-compression=true",
                "-o",
                "type=image,compression=zstd,force-compression=true",
            ])
            .ok();
        let (base, _) = image(&place, "base");
        let ((mixed, config), (forced, forced_config)) = (image(&place, "mixed"), image(&place, "forced"));
        assert_eq!(layer_types(&mixed), [gzip, gzip, zstd]);
        assert_eq!(mixed["layers"][0], base["layers"][0]);
        assert_eq!(layer_types(&forced), [zstd; 3]);
        assert_eq!(config, forced_config, "the tars are the same, so is the configuration");
        // And back: gzip at the level it had gives the very blobs that it had.
        place.dockerfile("FROM mixed\n");
        place.build(&["-o", "type=oci,tar=false,dest=back,force-compression=true,compression-level=2"]).ok();
        let (back, _) = image(&place, "back");
        assert_eq!(
            back["layers"].as_array().expect("layers")[..2],
            base["layers"].as_array().expect("layers")[..]
        );
        place.fsck();
    });
}

#[test]
fn annotations_stand_where_they_were_put() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/f", "x\n");
        place.dockerfile("FROM scratch\nCOPY f /f\nLABEL a=b\n");
        let platforms = "linux/amd64,linux/arm64";
        place
            .build(&[
                "--platform",
                platforms,
                "-t",
                "a",
                "-t",
                "b:1",
                "--annotation",
                "all=1",
                "--annotation",
                "index,manifest-descriptor[linux/arm64]:some=2",
                "--annotation",
                "index-descriptor:root=3",
                "-o",
                "type=oci,tar=false,dest=out,annotation[linux/amd64].all=4,\"name=c,d:2\"",
                "--iidfile",
                "iid",
                "--metadata-file",
                "meta.json",
            ])
            .ok();
        let layout: Value = serde_json::from_str(&place.read("out/index.json")).expect("JSON");
        let entries = layout["manifests"].as_array().expect("entries");
        let names: Vec<&str> = entries
            .iter()
            .filter_map(|entry| entry["annotations"]["io.containerd.image.name"].as_str())
            .collect();
        let library = "docker.io/library";
        assert_eq!(names, ["a:latest", "b:1", "c:latest", "d:2"].map(|name| format!("{library}/{name}")));
        assert!(entries.iter().all(|entry| entry["annotations"]["root"] == "3"), "{layout:#}");
        let index = blob(&place, "out", &entries[0]["digest"]);
        assert_eq!(index["annotations"], serde_json::json!({ "some": "2" }));
        let expected = [("amd64", "4", Value::Null), ("arm64", "1", serde_json::json!({ "some": "2" }))];
        for (entry, (architecture, all, beside)) in
            index["manifests"].as_array().expect("two").iter().zip(expected)
        {
            assert_eq!(entry["platform"]["architecture"], architecture);
            assert_eq!(entry["annotations"], beside);
            let manifest = blob(&place, "out", &entry["digest"]);
            assert_eq!(manifest["annotations"], serde_json::json!({ "all": all }));
            let config = blob(&place, "out", &manifest["config"]["digest"]);
            assert_eq!(config["config"]["Labels"], serde_json::json!({ "a": "b" }));
        }
        let meta: Value = serde_json::from_str(&place.read("meta.json")).expect("JSON");
        assert_eq!(place.read("iid"), entries[0]["digest"].as_str().expect("a digest"));
        assert_eq!(meta["containerimage.digest"], entries[0]["digest"]);
        assert_eq!(meta["containerimage.descriptor"]["annotations"], serde_json::json!({ "root": "3" }));
        assert_eq!(meta["containerimage.config.digest"], Value::Null);
        assert_eq!(meta["image.name"], names.join(","));
    });
}

#[test]
fn the_metadata_file_has_the_keys_of_buildx() {
    for_each_user(|user| {
        let place = Place::with(user, IMAGE);
        place
            .build(&["-t", "demo", "--annotation", "manifest-descriptor:a=b", "--metadata-file", "meta.json"])
            .ok();
        let meta: Value = serde_json::from_str(&place.read("meta.json")).expect("JSON");
        let keys: Vec<&String> = meta.as_object().expect("an object").keys().collect();
        assert_eq!(
            keys,
            [
                "buildx.build.provenance",
                "buildx.build.ref",
                "containerimage.config.digest",
                "containerimage.descriptor",
                "containerimage.digest",
                "image.name",
                "kiln.outcome"
            ]
        );
        let descriptor = &meta["containerimage.descriptor"];
        assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(descriptor["digest"], meta["containerimage.digest"]);
        assert_eq!(descriptor["annotations"], serde_json::json!({ "a": "b" }));
        assert_eq!(descriptor["platform"]["os"], "linux");
        assert!(descriptor["size"].as_u64().is_some_and(|size| size > 100), "{descriptor}");
        let parts: Vec<&str> = meta["buildx.build.ref"].as_str().expect("a text").split('/').collect();
        assert!(parts.len() == 3 && parts[2].len() == 25, "{parts:?}");
    });
}

#[test]
fn what_cannot_be_had_is_refused_before_a_step_runs() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo ran\n");
        let rows: [(&[&str], &str); 6] = [
            (&["-o", "type=oci,dest=o.tar,compression=estargz,oci-mediatypes=false"], "no estargz layers"),
            (&["--annotation", "index:a=b"], "annotation a is for an index"),
            (&["--annotation", "manifest[linux/s390x]:a=b"], "no image of that"),
            (&["-o", "type=oci,dest=o.tar,compression=zstd,oci-mediatypes=false"], "no zstd layers"),
            (&["-o", "type=oci,dest=o.tar,oci-mediatypes=false", "--annotation", "a=b"], "no annotations"),
            (&["-o", "type=oci,dest=o.tar,x=y"], "`x` is unknown"),
        ];
        for (flags, reason) in rows {
            place.build(flags).code(2).says(&[reason]).lacks(&["RUN echo ran"]);
            assert!(!place.path("o.tar").exists());
        }
        place.build(&["-o", "type=cacheonly"]).ok().says(&["RUN echo ran"]);
        assert_eq!(place.kiln(&["images", "-q"]).ok().out(), "");
    });
}
