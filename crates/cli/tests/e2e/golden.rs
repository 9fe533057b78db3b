//! A fixed set of images and their digests. They hold on every rung, for every user, and on any number of processors.
//!
//! A digest here changes with the bytes of layers or documents: with the compressor's version, the form of tars, the order of
//! members in JSON. Such a change makes everybody's images new ones, so it has to be meant; CHANGELOG.md says so then.

use crate::place::{Place, Ran};
use crate::rungs::rungs;
use crate::user::User;

/// Files that a step makes, by tools that are in no layer: those differ from machine to machine.
const TOOLS: &str = "FROM scratch AS tools\nCOPY bin /bin\nFROM scratch\n";
const RUN: &str = "RUN --mount=from=tools,source=/bin,target=/bin ";

const EMPTY: &str = "FROM scratch\nLABEL a=b\nCMD [\"x\"]\n";
const COPIED: &str = "FROM scratch\nENV A=1\nWORKDIR /srv\nCOPY --chown=7:8 --chmod=640 a dir ./\nCOPY --link a /linked\n\
                      ADD a /added\n";
const MADE: [&str; 2] = [
    "mkdir -p /d/e /gone && seq 1 20000 > /d/n && ln -s n /d/l && ln /d/n /d/h && mkfifo /d/p && chmod 640 /d/h && seq 1 5 > /d/o && \
     touch /gone/x /moved && chmod 4711 /moved && chmod 1777 /d/e\n",
    "rm -r /gone && mv /moved /d/m && echo more >> /d/o && chmod 700 /d\nUSER 5\n",
];
/// Several of the compressor's blocks.
const BIG: &str = "seq 1 900000 > /big && seq 900000 -1 1 > /other\n";

fn place(user: User) -> Place {
    let place = Place::with(user, "");
    place.file("context/a", "content of a\n");
    place.mode("context/a", "content of a\n", 0o644);
    place.mode("context/dir/script", "#!/bin/sh\n", 0o755);
    place.link("context/dir/link", "script");
    place.mode("context/dir/secret", "x", 0o600);
    place
}

/// Builds on every rung, on one processor and on all, and compares.
#[track_caller]
fn holds(dockerfile: &str, form: &str, digest: &str) {
    for rung in rungs() {
        let place = place(rung.user);
        place.dockerfile(dockerfile);
        for processors in ["0", "0-1023"] {
            let output = format!("type=oci,dest=image-{processors},tar=false{form}");
            let kiln = place.path("kiln");
            let start = ["--cpu-list", processors, kiln.to_str().expect("UTF-8"), "build", "--no-cache"];
            let more = ["--progress=plain", "-o", &output, "context"];
            let args = [&start, rung.args, &more].concat();
            let mut command = place.as_user("taskset", "store", &args);
            let ran = Ran::of(command.env("SOURCE_DATE_EPOCH", "1000000000")).ok();
            assert_eq!(ran.digest(), digest, "{} on processors {processors}", rung.name);
        }
    }
}

#[test]
fn an_image_without_layers() {
    holds(EMPTY, "", "sha256:d04c415fb3d2ac32da1f1dc7222a20cbaf8ac167c90cd0df13efc52a639d0621");
}

#[test]
fn copied_files() {
    holds(COPIED, "", "sha256:7d1d6f80b961eb38246f58729b51468836a58be6bf0c4a99e77cff6d630616fa");
}

#[test]
fn what_steps_make_and_delete() {
    let dockerfile = format!("{TOOLS}{RUN}{}{RUN}{}", MADE[0], MADE[1]);
    holds(&dockerfile, "", "sha256:30189e4cd244f7597d1e644520d3db84449814d0d05e1a177644a704dba35a22");
    holds(
        &dockerfile,
        ",compression=uncompressed",
        "sha256:1ed5cf0c4075c0772eee85f6e52ef9d90fd329b7da0752f53aff08cfa35c9dd2",
    );
    holds(
        &dockerfile,
        ",compression=zstd",
        "sha256:ca77aa2f9eba7ef44c009f4c37a86b26aa40bae10db9c79366a5e2a2c1d7f8af",
    );
}

#[test]
fn layers_of_several_blocks() {
    let dockerfile = format!("{TOOLS}{RUN}{BIG}");
    holds(&dockerfile, "", "sha256:138ccd71af20341d09f5a17bd4a6fdc97128e9be30c925794a7dae8fc5c7f0e0");
    holds(
        &dockerfile,
        ",compression=gzip,compression-level=9,force-compression=true",
        "sha256:15afe0c0bf6e0a14f354acda5322adaa225c9bcff47dd73d6a98543620dd3537",
    );
    holds(
        &dockerfile,
        ",compression=zstd,compression-level=7,oci-mediatypes=true",
        "sha256:522c879cdefe40760203563938166f5c4db99710dc4239f1c2138b3ac286fc69",
    );
}
