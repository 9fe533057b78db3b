//! What kiln writes, held against the image specification's JSON schemas.

use std::process::Command;

use kiln_testkit::tools::tool;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// Checks layout directories; returns how many documents they have.
fn valid(place: &Place, layouts: &[&str]) -> Option<usize> {
    let mut python: Command = tool("/usr/bin/python3")?;
    python
        .current_dir(place.path(""))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/oci-schemas/validate"))
        .args(layouts);
    let ran = Ran::of(&mut python).ok();
    let out = ran.out();
    out.lines().last()?.split(' ').next()?.parse().ok()
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
        // An empty image has no layer: the schemas want one, and so does everybody who reads it.
        place.dockerfile("FROM scratch\nCMD [\"x\"]\n");
        place.build(&["-o", &output("four")]).ok();
        let Some(documents) = valid(&place, &["one", "three", "four"]) else { return };
        assert_eq!(documents, 4 + 9 + 4, "oci-layout, index.json; index, manifests, configurations");
    });
}
