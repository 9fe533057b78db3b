//! What kiln writes, held against the image specification's JSON schemas.

use std::process::Command;

use kiln_testkit::tools::tool;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// Checks layout directories.
fn validate(place: &Place, layouts: &[&str]) -> Option<Ran> {
    let mut python: Command = tool("/usr/bin/python3")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/oci-schemas/validate");
    Some(Ran::of(python.current_dir(place.path("")).arg(script).args(layouts)))
}

#[test]
fn layouts_hold_to_the_schemas() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "ENV A=1 B=\"two \\\"words\\\"\"\nLABEL one=1 \"two words\"='x \u{e4}'\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL 9\n\
             HEALTHCHECK --interval=5s CMD true\nUSER 12:13\nWORKDIR /srv\nONBUILD RUN true\nENTRYPOINT [\"/bin/echo\"]\nCMD a b\n\
             MAINTAINER me\nCOPY --link file /f\n",
        );
        place.file("context/file", "x");
        let output = |more: &str| format!("type=oci,dest={more},tar=false");
        place.build(&["-t", "a:1", "-t", "b.example/c:2", "-o", &output("one")]).ok();
        place.dockerfile("FROM scratch\nCOPY file /\n");
        place.build(&["--platform=linux/amd64,linux/arm64,linux/arm/v7", "-o", &output("three")]).ok();
        let Some(ran) = validate(&place, &["one", "three"]) else { return };
        // oci-layout, index.json; index, manifests, configurations.
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(ran.out().trim(), format!("{} documents, 0 wrong", 4 + 9), "{ran}");
        // An image without layers is written as docker does, though the schema wants one: nobody who reads images minds, and a layer
        // that nobody asked for would have to be explained. <https://github.com/opencontainers/image-spec/pull/1013>
        place.dockerfile("FROM scratch\nCMD [\"x\"]\n");
        place.build(&["-o", &output("four")]).ok();
        let Some(ran) = validate(&place, &["four"]) else { return };
        assert!(ran.out().contains(": layers: [] is too short\n4 documents, 1 wrong"), "{ran}");
    });
}
