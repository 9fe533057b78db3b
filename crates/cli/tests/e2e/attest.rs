//! What packages an image holds, and what is written beside it.

use serde_json::Value;

use crate::place::Place;
use crate::user::for_each_user;

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

const PURLS: [&str; 3] =
    ["pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12", "pkg:npm/left-pad@1.3.0", "pkg:pypi/six@1.16.0"];

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
fn what_cannot_be_read_is_told_and_is_a_failure_if_asked_for() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY <<EOF /var/lib/rpm/Packages\nberkeley\nEOF\nRUN mkdir /six-1.dist-info && mkfifo /six-1.dist-info/METADATA \\\n\
             && ln -s /../../../../etc/hostname /etc-hostname && mkdir -p /var/lib/dpkg && ln -s /dev/zero /var/lib/dpkg/status\n",
        );
        place.build(&["-t", "demo"]).ok();
        place.kiln(&["sbom", "demo"]).ok().says(&["/var/lib/rpm/Packages: an rpm database that is a Berkeley DB"]);
        place.kiln(&["sbom", "--strict", "demo"]).code(2).says(&["--strict: not all"]);
    });
}
