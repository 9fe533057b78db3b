//! What packages an image holds, and what is written beside it.

use std::process::Command;

use kiln_testkit::tools::{run, tool};
use serde_json::{Value, json};

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user, skip};

/// An image with what several package managers leave: by hand, so that no network is needed.
const PACKAGES: &str = "\
COPY <<EOF /etc/os-release
ID=debian
VERSION_ID=12
EOF
COPY <<EOF /var/lib/dpkg/status
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
EOF
COPY <<EOF /venv/lib/six-1.16.0.dist-info/METADATA
Name: six
Version: 1.16.0
License: MIT
EOF
RUN mkdir -p /app/node_modules/left-pad && \\
    echo '{\"name\": \"left-pad\", \"version\": \"1.3.0\", \"license\": \"WTFPL\"}' > /app/node_modules/left-pad/package.json
";

const PURLS: [&str; 3] = [
    "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
    "pkg:pypi/six@1.16.0",
    "pkg:npm/left-pad@1.3.0",
];

fn purls(document: &Value) -> Vec<&str> {
    let packages = document["packages"].as_array().expect("a list of packages");
    let own = packages.iter().filter(|package| package["SPDXID"] != "SPDXRef-Root");
    own.filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str()).collect()
}

#[test]
fn the_packages_of_an_image_are_listed() {
    for_each_user(|user| {
        let place = Place::with(user, PACKAGES);
        place.build(&["-t", "demo"]).ok();
        let document: Value = serde_json::from_str(&place.kiln(&["sbom", "demo"]).ok().out()).expect("JSON");
        assert_eq!(purls(&document), PURLS);
        assert_eq!(document["name"], "demo:latest");
        let listed = place.kiln(&["sbom", "--list", "demo"]).ok().out();
        assert_eq!(listed.lines().collect::<Vec<_>>(), PURLS);
        place.kiln(&["sbom", "demo", "-o", "demo.spdx.json"]).ok();
        let written: Value = serde_json::from_str(&place.read("demo.spdx.json")).expect("JSON");
        assert_eq!(written, document, "the same image, the same document");
    });
}

#[test]
fn the_packages_of_a_whole_debian_are_those_that_its_own_dpkg_lists() {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bases/debian/oci");
    if !std::path::Path::new(base).exists() {
        return skip("packages of the Debian base: `make bases` makes it");
    }
    for_each_user(|user| {
        let place = Place::new(user);
        run(Command::new("cp").args(["-r", base]).arg(place.path("base")));
        place.kiln(&["copy", "-q", "oci:base", "debian:1"]).ok();
        let list = ["dpkg-query", "-W", "-f", "${Package}@${Version}?arch=${Architecture}\\n"];
        let theirs = place.kiln(&[&["run", "--rm", "debian:1"], &list[..]].concat()).ok().out();
        let mut theirs: Vec<String> =
            theirs.lines().map(|line| format!("pkg:deb/debian/{line}&distro=debian-12")).collect();
        let ours = place.kiln(&["sbom", "--list", "debian:1"]).ok().out();
        // Without the source package, where it has another name or version.
        let plain = |purl: &str| {
            let purl = purl.split("&upstream=").next().unwrap_or_default();
            purl.replace("%2B", "+").replace("%3A", ":")
        };
        let mut ours: Vec<String> = ours.lines().map(plain).collect();
        theirs.sort();
        ours.sort();
        assert!(ours.len() > 50, "{ours:#?}");
        assert_eq!(ours, theirs);
    });
}

#[test]
fn what_cannot_be_read_is_told_and_is_a_failure_if_asked_for() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY <<EOF /var/lib/rpm/Packages\nberkeley\nEOF\nRUN mkdir /six-1.dist-info && mkfifo /six-1.dist-info/METADATA \\\n\
             && ln -s /../../../../etc/hostname /etc-hostname && mkdir -p /var/lib/dpkg && ln -s /dev/zero /var/lib/dpkg/status\n",
        );
        place.build(&["-t", "demo"]).ok();
        place
            .kiln(&["sbom", "demo"])
            .ok()
            .says(&["/var/lib/rpm/Packages: an rpm database that is a Berkeley DB"]);
        place.kiln(&["sbom", "--strict", "demo"]).code(2).says(&["--strict: not all"]);
    });
}

const ATTESTED: &str = "\
ARG SHOWN=1
COPY app /app
COPY <<EOF /six-1.16.0.dist-info/METADATA
Name: six
Version: 1.16.0
EOF
LABEL who=kiln
";
const BOTH: [&str; 4] = ["--attest", "type=sbom", "--attest", "type=provenance,mode=max"];

fn attested(user: User) -> Place {
    let place = Place::with(user, ATTESTED);
    place.file("context/app/hello", "hello\n");
    place
}

fn build(place: &Place, more: &[&str]) -> Ran {
    place.build(&[&BOTH[..], more].concat()).ok()
}

/// Reads a document of a layout by its digest.
fn blob(place: &Place, layout: &str, digest: &Value) -> Value {
    let hex = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).expect("a digest");
    serde_json::from_str(&place.read(&format!("{layout}/blobs/sha256/{hex}"))).expect("JSON")
}

/// Returns the index of a layout's only image, and the statements beside the image.
fn statements(place: &Place, layout: &str) -> (Value, Vec<Value>) {
    let top: Value = serde_json::from_str(&place.read(&format!("{layout}/index.json"))).expect("JSON");
    let index = blob(place, layout, &top["manifests"][0]["digest"]);
    let manifest = blob(place, layout, &index["manifests"][1]["digest"]);
    let layers = manifest["layers"].as_array().expect("layers");
    let statements = layers.iter().map(|layer| {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let statement = blob(place, layout, &layer["digest"]);
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
        statement
    });
    let statements = statements.collect();
    (index, statements)
}

#[test]
fn attestations_stand_in_the_index_where_buildx_puts_them() {
    for_each_user(|user| {
        let place = attested(user);
        let plain = place.build(&["-o", "type=image"]).ok().digest();
        let built = build(
            &place,
            &[
                "-t",
                "demo",
                "-o",
                "type=image",
                "-o",
                "type=oci,dest=image,tar=false",
                "--metadata-file",
                "meta.json",
            ],
        );
        let (index, statements) = statements(&place, "image");
        let image = &index["manifests"][0];
        assert_eq!(image["digest"], plain.as_str(), "the image itself is what it is without");
        assert_eq!(index["manifests"][1]["platform"], json!({"architecture": "unknown", "os": "unknown"}));
        assert_eq!(
            index["manifests"][1]["annotations"],
            json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": plain,
            })
        );
        let kinds: Vec<_> = statements.iter().map(|statement| &statement["predicateType"]).collect();
        assert_eq!(kinds, ["https://spdx.dev/Document", "https://slsa.dev/provenance/v1"]);
        for statement in &statements {
            assert_eq!(statement["subject"][0]["digest"]["sha256"], plain["sha256:".len()..]);
            let name = statement["subject"][0]["name"].as_str().expect("a name");
            assert!(name.starts_with("pkg:docker/demo@latest?platform=linux%2F"), "{name}");
        }
        assert_eq!(purls(&statements[0]["predicate"]), ["pkg:pypi/six@1.16.0"]);
        // Those who look for an image do not see it.
        assert_eq!(place.run("demo", "cat /app/hello").trim(), "hello");
        place.builds("FROM demo\nRUN test -f /app/hello\n").ok();
        let listed: Value = serde_json::from_str(&place.kiln(&["images", "--format", "json"]).ok().out())
            .unwrap_or_else(|_| json!(place.kiln(&["images"]).ok().out()));
        assert!(!listed.to_string().contains("unknown"), "{listed}");
        let document: Value = serde_json::from_str(&place.kiln(&["sbom", "demo"]).ok().out()).expect("JSON");
        assert_eq!(purls(&document), ["pkg:pypi/six@1.16.0"]);
        let meta: Value = serde_json::from_str(&place.read("meta.json")).expect("JSON");
        assert_eq!(meta["buildx.build.provenance"], statements[1]["predicate"]);
        assert_eq!(meta["containerimage.digest"], built.digest().as_str());
        place.kiln(&["prune", "--force"]);
        place.fsck();
        let Some(mut skopeo) = tool("skopeo") else { return };
        skopeo.current_dir(place.path("")).args(["copy", "--quiet", "--all", "oci:image", "dir:copied"]);
        run(&mut skopeo);
        let mut skopeo = tool("skopeo").expect("it was there a moment ago");
        skopeo.current_dir(place.path("")).args(["inspect", "--format", "{{.Architecture}}", "oci:image"]);
        assert_ne!(run(&mut skopeo).trim(), "unknown");
    });
}

#[test]
fn provenance_says_what_was_asked_for_and_no_secret() {
    for_each_user(|user| {
        let place = attested(user);
        place.file("token", "very-secret-value");
        let inputs = ["--build-arg", "SHOWN=shown-value", "--label", "a=b", "--secret", "id=token,src=token"];
        for mode in ["max", "min"] {
            let attest = format!("type=provenance,mode={mode},builder-id=https://example.com/ci");
            let out = format!("type=oci,dest={mode},tar=false");
            let args = [&inputs[..], &["--attest", &attest, "-o", &out]].concat();
            Ran::of(place.build_command("store", &args).env_remove("SOURCE_DATE_EPOCH")).ok();
            let (_, statements) = statements(&place, mode);
            let text = statements[0].to_string();
            assert!(!text.contains("very-secret-value") && !text.contains(&place.text("")), "{text}");
            let predicate = &statements[0]["predicate"];
            let definition = &predicate["buildDefinition"];
            let request = &definition["externalParameters"]["request"];
            assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
            assert_eq!(request["locals"], json!([{"name": "context"}, {"name": "dockerfile"}]));
            assert_eq!(predicate["runDetails"]["builder"]["id"], "https://example.com/ci");
            assert!(predicate["runDetails"]["metadata"]["startedOn"].is_string());
            match mode {
                "max" => {
                    assert_eq!(request["args"]["build-arg:SHOWN"], "shown-value");
                    assert_eq!(request["args"]["label:a"], "b");
                    assert_eq!(request["secrets"], json!([{"id": "token", "optional": true}]));
                    let source =
                        &predicate["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"][0];
                    assert_eq!(source["filename"], "Dockerfile");
                    assert!(source["data"].as_str().is_some_and(|data| data.len() > 40));
                }
                _ => {
                    assert_eq!(request["args"], json!({}));
                    assert_eq!(request.get("secrets"), None);
                    assert!(!text.contains("shown-value"), "{text}");
                }
            }
        }
    });
}

#[test]
fn base_images_are_dependencies_by_digest() {
    for_each_user(|user| {
        let place = attested(user);
        let base = place.build(&["-t", "base:1"]).ok().digest();
        place.dockerfile("FROM base:1\nLABEL more=1\n");
        place.build(&["--provenance", "true", "-o", "type=oci,dest=image,tar=false"]).ok();
        let (_, statements) = statements(&place, "image");
        let dependencies = &statements[0]["predicate"]["buildDefinition"]["resolvedDependencies"];
        let uri = dependencies[0]["uri"].as_str().expect("a uri");
        assert!(uri.starts_with("pkg:docker/base@1?platform=linux%2F"), "{uri}");
        assert_eq!(dependencies[0]["digest"]["sha256"], base["sha256:".len()..]);
        let metadata = &statements[0]["predicate"]["runDetails"]["metadata"];
        assert_eq!(
            metadata["buildkit_completeness"]["resolvedDependencies"], true,
            "an image and nothing else"
        );
    });
}

#[test]
fn with_a_source_date_epoch_everything_is_the_same_again() {
    for_each_user(|user| {
        let place = attested(user);
        // Each build of these tests has one: 1000000000.
        let epoch = ["--no-cache", "-o"];
        let digests: Vec<String> = ["one", "two"]
            .iter()
            .map(|name| {
                let out = format!("type=oci,dest={name},tar=false");
                build(&place, &[&epoch[..], &[&out]].concat()).digest()
            })
            .collect();
        assert_eq!(digests[0], digests[1]);
        let (_, statements) = statements(&place, "one");
        assert_eq!(statements[0]["predicate"]["creationInfo"]["created"], "2001-09-09T01:46:40Z");
        let metadata = &statements[1]["predicate"]["runDetails"]["metadata"];
        assert!(metadata.get("startedOn").is_none() && metadata.get("invocationId").is_none(), "{metadata}");
    });
}

#[test]
fn files_have_their_statements_beside_them() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/hello", "hello\n");
        place.dockerfile("FROM scratch\nCOPY hello /hello\n");
        place.directory("out");
        place.file("outside", "untouched\n");
        place.link("out/sbom.spdx.json", "../outside");
        build(&place, &["-o", "type=local,dest=out", "-o", "type=tar,dest=out.tar"]);
        let provenance: Value = serde_json::from_str(&place.read("out/provenance.json")).expect("JSON");
        let hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(provenance["subject"], json!([{"name": "hello", "digest": {"sha256": hello}}]));
        let sbom: Value = serde_json::from_str(&place.read("out/sbom.spdx.json")).expect("JSON");
        assert_eq!(sbom["predicateType"], "https://spdx.dev/Document");
        assert_eq!(place.read("outside"), "untouched\n", "a link is replaced, not followed");
        let mut tar = Command::new("tar");
        let listed = run(tar.current_dir(place.path("")).args(["tf", "out.tar"]));
        assert!(listed.ends_with("hello\nsbom.spdx.json\nprovenance.json\n"), "{listed}");
        place.dockerfile("FROM scratch\nCOPY hello /provenance.json\n");
        place
            .build(&[&BOTH[..], &["-o", "type=local,dest=other"]].concat())
            .code(2)
            .says(&["provenance.json", "has a file of that name itself"]);
    });
}

#[test]
fn plain_files_leave_the_image_as_it_is() {
    for_each_user(|user| {
        let place = attested(user);
        let plain = place.build(&["-t", "demo"]).ok().digest();
        let files = ["--sbom-file", "demo.spdx.json", "--provenance-file", "demo.provenance.json"];
        let built = place.build(&[&files[..], &["-t", "demo"]].concat()).ok().digest();
        assert_eq!(built, plain);
        let sbom: Value = serde_json::from_str(&place.read("demo.spdx.json")).expect("JSON");
        assert_eq!(purls(&sbom), ["pkg:pypi/six@1.16.0"]);
        let statement: Value = serde_json::from_str(&place.read("demo.provenance.json")).expect("JSON");
        assert_eq!(statement["subject"][0]["digest"]["sha256"], plain["sha256:".len()..]);
        let listed: Value = serde_json::from_str(&place.kiln(&["sbom", "demo"]).ok().out()).expect("JSON");
        assert_eq!(listed, sbom, "afterwards it is the same list");
    });
}

#[test]
fn what_cannot_be_attested_is_refused() {
    for_each_user(|user| {
        let place = attested(user);
        place
            .build(&["--attest", "type=sbom", "-o", "type=docker,dest=image.tar"])
            .code(2)
            .says(&["docker's archive holds an image and nothing beside it", "type=oci"]);
        place
            .build(&["--attest", "type=provenance,version=v0.2"])
            .code(2)
            .says(&["version=v0.2: kiln writes SLSA provenance version v1 only"]);
        place.build(&["--attest", "type=sbom,generator=x"]).code(2).says(&["generator", "runs no scanner"]);
        place
            .build(&["--platform", "linux/amd64,linux/arm64", "--sbom-file", "x.json"])
            .code(2)
            .says(&["--sbom-file holds one image"]);
        assert!(!place.path("x.json").exists() && !place.path("image.tar").exists());
    });
}
