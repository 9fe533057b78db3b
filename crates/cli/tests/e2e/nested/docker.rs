//! kiln in `docker run`.

use std::fs;
use std::process::Command;

use super::builds_in;
use crate::engines::Docker;
use crate::place::{Place, Ran};
use crate::user::User;

#[test]
fn in_docker_without_its_filter() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    builds_in(&place, "/here", "/here/store", &|| docker.run(&["--security-opt", "seccomp=unconfined"]));
    // A user of the container's.
    fs::create_dir(place.path("theirs")).expect("a directory");
    std::os::unix::fs::chown(place.path("theirs"), Some(1000), Some(1000)).expect("root may");
    let user = ["--security-opt", "seccomp=unconfined", "--user", "1000:1000"];
    builds_in(&place, "/here", "/here/theirs/store", &|| docker.run(&user));
    // It may mount, but not exchange its root.
    builds_in(&place, "/here", "/here/admin", &|| docker.run(&["--cap-add", "SYS_ADMIN"]));
    // The store on the container's own overlay, which kernel's overlay cannot lie on.
    let mut command = docker.run(&["--security-opt", "seccomp=unconfined"]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/store", "/here/context"])).ok();
    ran.says(&["no overlay here"]);
    doctor_says(
        docker.run(&["--security-opt", "seccomp=unconfined"]),
        &[("user ids", "mapped"), ("isolation", "namespaces"), ("file system", "copy")],
    );
}

/// docker's own filter, and what it leaves root: no namespaces, nothing can be mounted.
#[test]
fn in_docker_as_it_comes() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    builds_in(&place, "/here", "/here/store", &|| docker.run(&[]));
    // The store in the container.
    let mut command = docker.run(&[]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/store", "/here/context"])).ok();
    ran.says(&["steps run in a chroot", "a seccomp filter is in force"]);
    doctor_says(
        docker.run(&[]),
        &[
            ("user ids", "root"),
            ("isolation", "chroot"),
            ("file system", "copy"),
            ("proc", "minimal"),
            ("network", "host"),
        ],
    );
    // An ordinary user of the container's has nothing to do it with, and is told what would help.
    fs::create_dir(place.path("theirs")).expect("a directory");
    std::os::unix::fs::chown(place.path("theirs"), Some(1000), Some(1000)).expect("root may");
    let mut command = docker.run(&["--user", "1000:1000"]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/here/theirs/store", "/here/context"]));
    ran.code(3).says(&["a seccomp filter is in force"]);
    // What comes out is what comes out everywhere.
    let here = place.build(&[]).ok().digest();
    let mut command = docker.run(&["-e", "SOURCE_DATE_EPOCH=1000000000"]);
    let there = Ran::of(command.args(["/here/kiln", "build", "--root", "/fresh", "/here/context"])).ok();
    assert_eq!(there.out().trim(), here);
}

#[track_caller]
fn doctor_says(mut command: Command, wanted: &[(&str, &str)]) {
    let ran = Ran::of(command.args(["/here/kiln", "--root", "/store", "doctor", "--json"])).ok();
    let rungs: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
    for (what, chosen) in wanted {
        let rung = rungs.as_array().expect("a list").iter().find(|rung| rung["what"] == **what);
        let found = rung.and_then(|rung| rung["chosen"].as_str()).unwrap_or_default();
        assert!(found.contains(chosen), "{what}: {found:?} is not {chosen:?}: {ran}");
    }
}
