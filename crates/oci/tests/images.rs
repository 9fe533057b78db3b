//! Documents: what is written, what is read, what is refused.

use std::collections::BTreeMap;

use kiln_core::{Digest, History, ImageConfig, Layer, Platform};
use kiln_oci::{
    AssembleOptions, Attestation, BlobInfo, Document, MAX_DOCUMENT, MediaTypes, OciError, assemble,
    attested_index, index, load, matches, media,
};

const LAYER: &str = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","size":5}"#;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn layer(byte: u8, media_type: &str) -> Layer {
    Layer {
        media_type: media_type.to_owned(),
        digest: Digest::from_bytes([byte; 32]),
        size: 5,
        diff_id: Digest::from_bytes([byte + 1; 32]),
        annotations: Default::default(),
    }
}

#[test]
fn bytes_are_those_of_buildkit() {
    let config: ImageConfig = serde_json::from_str(
        r#"{"os":"linux","architecture":"amd64","moby.buildkit.buildinfo.v1":"eA==","config":{
            "Shell":["/bin/sh"],"Labels":{"b":"1","a":"2"},"Env":["PATH=/bin"],"Healthcheck":{"Test":["NONE"]},
            "ArgsEscaped":true,"OnBuild":["RUN true"]},"rootfs":null,"history":null}"#,
    )
    .unwrap();
    let options = AssembleOptions {
        annotations: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
        ..AssembleOptions::default()
    };
    let image = assemble(config, &[layer(0x11, media::OCI_LAYER_GZIP)], &options).unwrap();
    let text = String::from_utf8(image.config.bytes.clone()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"architecture":"amd64","config":{"Env":["PATH=/bin"],"Labels":{"a":"2","b":"1"},"#,
            r#""Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN true"],"Shell":["/bin/sh"],"ArgsEscaped":true},"#,
            r#""moby.buildkit.buildinfo.v1":"eA==","os":"linux","rootfs":{"type":"layers","diff_ids":["#,
            r#""sha256:1212121212121212121212121212121212121212121212121212121212121212"]}}"#
        )
    );
    let manifest = String::from_utf8(image.manifest.bytes.clone()).unwrap();
    let expected = format!(
        r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "{}",
    "size": {}
  }},
  "layers": [
    {{
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
      "size": 5
    }}
  ],
  "annotations": {{
    "a": "1",
    "b": "2"
  }}
}}"#,
        image.config.digest,
        image.config.bytes.len()
    );
    assert_eq!(manifest, expected);

    let index = index(&[&image], &BTreeMap::new());
    let expected = format!(
        r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "{}",
      "size": {},
      "platform": {{
        "architecture": "amd64",
        "os": "linux"
      }}
    }}
  ]
}}"#,
        image.manifest.digest,
        image.manifest.bytes.len()
    );
    assert_eq!(String::from_utf8(index.bytes).unwrap(), expected);
}

#[test]
fn layers_get_the_names_of_the_family() {
    let config = || ImageConfig::scratch(&platform("linux/amd64"));
    let docker = AssembleOptions { media_types: MediaTypes::Docker, ..AssembleOptions::default() };
    let cases = [
        (&docker, media::OCI_LAYER_GZIP, Some(media::DOCKER_LAYER_GZIP)),
        (&docker, media::OCI_LAYER, Some(media::DOCKER_LAYER)),
        (&docker, media::OCI_LAYER_ZSTD, None),
        (&AssembleOptions::default(), media::DOCKER_LAYER_GZIP, Some(media::OCI_LAYER_GZIP)),
        (&AssembleOptions::default(), media::OCI_LAYER_ZSTD, Some(media::OCI_LAYER_ZSTD)),
        (&AssembleOptions::default(), "application/x-what", None),
    ];
    for (options, given, expected) in cases {
        let image = assemble(config(), &[layer(1, given)], options);
        match expected {
            Some(expected) => assert_eq!(image.unwrap().layers[0].media_type, expected),
            None => assert!(matches!(image, Err(OciError::MediaType { .. })), "{given}"),
        }
    }
}

#[test]
fn history_has_as_many_layers_as_there_are() {
    let line = |text: &str, empty_layer| History {
        created_by: Some(text.to_owned()),
        empty_layer,
        ..History::default()
    };
    // (lines, layers) -> which lines have a layer afterwards
    let cases: [(&[bool], usize, &[bool]); 5] = [
        (&[], 2, &[]),
        (&[true, false], 2, &[true, true, false]),
        (&[true, true, false], 2, &[true, true, false]),
        (&[true, true, true], 2, &[true, true, false]),
        (&[false], 1, &[true, false]),
    ];
    for (with_layer, layers, expected) in cases {
        let mut config = ImageConfig::scratch(&platform("linux/amd64"));
        config.history = with_layer.iter().map(|with| line("x", !with)).collect();
        let layers = vec![layer(1, media::OCI_LAYER); layers];
        let image = assemble(config, &layers, &AssembleOptions::default()).unwrap();
        let config: ImageConfig = serde_json::from_slice(&image.config.bytes).unwrap();
        let actual: Vec<bool> = config.history.iter().map(|line| !line.empty_layer).collect();
        assert_eq!(actual, expected, "{with_layer:?}");
    }
}

/// What comes in odd must go out meaning the same, and again the same bytes.
#[test]
fn odd_configurations_round_trip() {
    let cases = [
        r#"{"architecture":"amd64","os":"linux"}"#,
        r#"{"architecture":"arm64","variant":"v8","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        r#"{"architecture":"amd64","os":"linux","os.version":"1","container":"abc","container_config":{"Cmd":null,"Image":""},"docker_version":"18.09","id":"x","config":{"Hostname":"","AttachStdin":false,"Cmd":null,"Entrypoint":[],"Env":null,"Volumes":null,"ExposedPorts":{"80/tcp":{}},"Labels":null,"OnBuild":null,"MacAddress":null,"StopTimeout":10}}"#,
        r#"{"architecture":"amd64","os":"linux","created":null,"author":null,"config":{"User":null,"WorkingDir":null,"StopSignal":null,"Healthcheck":{"Interval":3000000000000000000,"Test":["CMD","x"]}},"history":[{"created_by":"a \u0026\u0026 <b>","empty_layer":true},{}]}"#,
    ];
    for case in cases {
        let config: ImageConfig =
            serde_json::from_str(case).unwrap_or_else(|error| panic!("{case}: {error}"));
        let image = assemble(config.clone(), &[], &AssembleOptions::default()).unwrap();
        let mut back: ImageConfig = serde_json::from_slice(&image.config.bytes).unwrap();
        assert_eq!(assemble(back.clone(), &[], &AssembleOptions::default()).unwrap(), image);
        back.history.clone_from(&config.history);
        assert_eq!(back, config, "{case}");
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(case).unwrap(), serde_json::from_slice(&image.config.bytes).unwrap());
        for key in ["container_config", "os.version", "docker_version", "id"] {
            assert_eq!(before.get(key), after.get(key), "{case}");
        }
    }
}

#[test]
fn manifests_are_read_or_refused_by_name() {
    let config = Document::new(
        media::OCI_CONFIG,
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:2222222222222222222222222222222222222222222222222222222222222222"]}}"#.to_vec(),
    );
    let descriptor = |media_type: &str| {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
            config.digest,
            config.bytes.len()
        )
    };
    let (oci, docker) = (descriptor(media::OCI_CONFIG), descriptor(media::DOCKER_CONFIG));
    let foreign =
        LAYER.replace(media::OCI_LAYER_GZIP, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    // (Content-Type, document, what the failure says; nothing if it is read)
    let cases = [
        (media::OCI_MANIFEST, format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[{LAYER}]}}"#), ""),
        ("", format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[{LAYER}],"unknown":null}}"#), ""),
        (
            "application/json; charset=utf-8",
            format!(r#"{{"schemaVersion":2,"config":{docker},"layers":[{LAYER}]}}"#),
            "",
        ),
        (
            media::DOCKER_MANIFEST,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{docker},"layers":[{}]}}"#,
                media::DOCKER_MANIFEST,
                LAYER.replace(media::OCI_LAYER_GZIP, media::DOCKER_LAYER_GZIP)
            ),
            "",
        ),
        (media::OCI_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
        (media::DOCKER_SCHEMA1_SIGNED, r#"{"schemaVersion":1}"#.to_owned(), "schema 1"),
        (media::OCI_MANIFEST, "{".to_owned(), "manifest cannot be read"),
        (media::OCI_MANIFEST, "{}".to_owned(), "does not look like"),
        (
            media::OCI_INDEX,
            format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[{LAYER}]}}"#),
            "does not look like",
        ),
        (
            "",
            format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[],"manifests":[]}}"#),
            "both a manifest and an index",
        ),
        (
            media::OCI_MANIFEST,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{docker},"layers":[]}}"#,
                media::DOCKER_MANIFEST
            ),
            "but says it is",
        ),
        (
            "application/vnd.what",
            format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[]}}"#),
            "not supported",
        ),
        (
            "",
            format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[]}}"#),
            "the manifest has 0 layers, its configuration 1",
        ),
        ("", format!(r#"{{"schemaVersion":2,"config":{oci},"layers":[{foreign}]}}"#), "foreign"),
        (
            "",
            format!(r#"{{"schemaVersion":2,"config":{LAYER},"layers":[]}}"#),
            "the configuration has media type",
        ),
        (
            "",
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
                oci.replace("\"size\":", "\"size\":9")
            ),
            "where its descriptor says",
        ),
        (
            "",
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
                oci.replace("\"size\":", "\"size\":900000000")
            ),
            "at most",
        ),
        (
            "",
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, oci.replace("sha256:", "sha512:")),
            "manifest cannot be read",
        ),
        (
            "",
            r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
            "no image for linux/amd64; there is nothing",
        ),
    ];
    for (media_type, text, failure) in cases {
        let root = Document::new(media_type, text.clone().into_bytes());
        let loaded =
            load(root, &platform("linux/amd64"), &mut |_: &BlobInfo| Ok::<_, OciError>(config.bytes.clone()));
        match loaded {
            Ok(image) => {
                assert_eq!(failure, "", "{text}");
                assert_eq!(image.layers[0].diff_id, Digest::from_bytes([0x22; 32]));
            }
            Err(error) => {
                assert!(!failure.is_empty() && error.to_string().contains(failure), "{text}: {error}");
                let json = serde_json::to_string(&error).unwrap();
                assert_eq!(serde_json::from_str::<OciError>(&json).unwrap(), error);
            }
        }
    }
    const { assert!(MAX_DOCUMENT < 900_000_000) };
}

#[test]
fn platforms_match_older_variants_of_the_same_architecture() {
    let cases = [
        ("linux/amd64", "linux/amd64", true),
        ("linux/amd64", "linux/amd64/v1", true),
        ("linux/amd64", "linux/amd64/v2", false),
        ("linux/amd64/v3", "linux/amd64/v2", true),
        ("linux/arm64", "linux/arm64/v8", true),
        ("linux/arm64/v8", "linux/arm64", true),
        ("linux/arm64", "linux/arm64/v9", false),
        ("linux/arm64/v9.1", "linux/arm64/v8.2", true),
        ("linux/arm/v7", "linux/arm/v6", true),
        ("linux/arm/v6", "linux/arm/v7", false),
        ("linux/arm64", "linux/arm/v7", false),
        ("linux/amd64", "linux/386", false),
        ("linux/amd64", "windows/amd64", false),
        ("linux/riscv64", "linux/riscv64", true),
    ];
    for (wanted, offered, expected) in cases {
        assert_eq!(matches(&platform(wanted), &platform(offered)).is_some(), expected, "{wanted} {offered}");
    }
}

#[test]
fn an_index_gives_the_best_match_and_lists_what_it_has() {
    let manifest = |architecture: &str| {
        let config = ImageConfig::scratch(&platform(architecture));
        assemble(config, &[], &AssembleOptions::default()).unwrap()
    };
    let images = ["linux/arm/v6", "linux/arm/v5", "linux/arm/v7", "linux/arm64"].map(manifest);
    let mut all = index(&images.iter().collect::<Vec<_>>(), &BTreeMap::new());
    // BuildKit's attestation of a platform, and one that says so by its annotation only.
    let text = String::from_utf8(all.bytes).unwrap().replacen(
        "\"manifests\": [",
        r#""manifests": [
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","size":1,"platform":{"architecture":"unknown","os":"unknown"}},
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","size":1,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}},"#,
        1,
    );
    all = Document::new(media::OCI_INDEX, text.into_bytes());
    let choose = |wanted: &str| {
        load(all.clone(), &platform(wanted), &mut |info: &BlobInfo| {
            let documents = images.iter().flat_map(|image| [&image.config, &image.manifest]);
            Ok::<_, OciError>(documents.clone().find(|d| d.digest == info.digest).unwrap().bytes.clone())
        })
    };
    for (wanted, expected) in [("linux/arm", 2), ("linux/arm/v6", 0), ("linux/arm/v5", 1), ("linux/arm64", 3)]
    {
        assert_eq!(choose(wanted).unwrap().manifest, images[expected].manifest, "{wanted}");
    }
    assert_eq!(
        choose("linux/amd64").unwrap_err(),
        OciError::NoPlatform {
            wanted: "linux/amd64".to_owned(),
            available: ["linux/arm/v6", "linux/arm/v5", "linux/arm/v7", "linux/arm64"]
                .map(str::to_owned)
                .to_vec(),
        }
    );
}

#[test]
fn attestations_stand_behind_the_images_as_buildkit_has_them() {
    let config: ImageConfig =
        serde_json::from_str(r#"{"os":"linux","architecture":"amd64","config":{},"rootfs":null}"#).unwrap();
    let image = assemble(config, &[layer(0x11, media::OCI_LAYER_GZIP)], &AssembleOptions::default()).unwrap();
    let statement = ("https://slsa.dev/provenance/v1".to_owned(), b"{}".to_vec());
    let attestation = Attestation::new(&image, vec![statement]);
    let digest = Digest::of(b"{}");
    assert_eq!(
        String::from_utf8_lossy(&attestation.config.bytes),
        format!(
            r#"{{"architecture":"unknown","config":{{}},"os":"unknown","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
        )
    );
    let manifest: serde_json::Value = serde_json::from_slice(&attestation.manifest.bytes).unwrap();
    assert_eq!(
        manifest["layers"],
        serde_json::json!([{
            "mediaType": "application/vnd.in-toto+json",
            "digest": digest.to_string(),
            "size": 2,
            "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"},
        }])
    );
    let root = attested_index(&[&image], std::slice::from_ref(&attestation), &BTreeMap::new());
    let json: serde_json::Value = serde_json::from_slice(&root.bytes).unwrap();
    assert_eq!(json["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        json["manifests"][1],
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": attestation.manifest.digest.to_string(),
            "size": attestation.manifest.bytes.len(),
            "annotations": {
                "vnd.docker.reference.digest": image.manifest.digest.to_string(),
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": {"architecture": "unknown", "os": "unknown"},
        })
    );
    let documents = [&image.manifest, &image.config];
    let mut fetch = |info: &BlobInfo| -> Result<Vec<u8>, OciError> {
        Ok(documents.iter().find(|one| one.digest == info.digest).expect("it is asked for").bytes.clone())
    };
    let loaded = load(root, &platform("linux/amd64"), &mut fetch).unwrap();
    assert_eq!(loaded.manifest.digest, image.manifest.digest);
    assert_eq!(attestation.documents().count(), 3);
}
