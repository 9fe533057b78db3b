//! docker, of which the daemon is started by the test.

use std::fs;

use super::{FORMS, IMAGE, PRINTS, debian, elsewhere, only_new_layers_are_loaded};
use crate::engines::Docker;
use crate::place::{Place, Ran};
use crate::user::User;

/// zstd is left out: Debian's docker is older than its support in registries' images.
#[test]
fn docker_reads_what_kiln_pushed_and_kiln_what_docker_pushed() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    let Some((_registry, host)) = debian() else { return };
    place.base(IMAGE);
    for (form, output) in &FORMS[..2] {
        let name = format!("{host}/{form}:1");
        let digest = place.build(&["-t", &name, "-o", output, "--iidfile", "iid"]).ok().digest();
        docker.ok(&["pull", "-q", &name]);
        let shown = docker.ok(&[
            "image",
            "inspect",
            "--format={{.Id}} {{index .RepoDigests 0}} {{.Config.User}}",
            &name,
        ]);
        assert_eq!(shown, format!("{} {host}/{form}@{digest} 5:6", place.read("iid")));
        assert_eq!(
            Ran::of(docker.command().args(["run", "--rm", "--network=none", &name])).ok().out(),
            PRINTS
        );
        let theirs = format!("{host}/docker/{form}:1");
        docker.ok(&["tag", &name, &theirs]);
        docker.ok(&["push", "-q", &theirs]);
        elsewhere(&place, &["pull", "-q", &theirs]).ok();
        assert_eq!(elsewhere(&place, &["run", "--rm", &theirs]).ok().out(), PRINTS);
        docker.ok(&["image", "rm", &name, &theirs]);
    }
}

/// Images into docker and out of it; what it has is not sent again.
#[test]
fn images_go_into_docker_and_come_back() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    place.base("RUN echo x > /file\nCMD [\"cat\", \"/file\"]\n");
    let host = docker.host();
    let kiln = |args: &[&str]| Ran::of(place.command(args).env("DOCKER_HOST", &host));
    let mut build = place.build_command("store", &["-t", "demo:1", "--load", "--iidfile", "iid"]);
    Ran::of(build.env("DOCKER_HOST", &host)).ok();
    let inspect = |name: &str| {
        Ran::of(docker.command().args(["image", "inspect", "--format={{.Id}}", name]))
            .ok()
            .out()
            .trim()
            .to_owned()
    };
    assert_eq!(inspect("demo:1"), place.read("iid"));
    // It has the image: only a name is added.
    let mut build = place.build_command("store", &["-t", "demo:2", "--load"]);
    Ran::of(build.env("DOCKER_HOST", &host)).ok();
    assert_eq!(inspect("demo:2"), place.read("iid"));
    assert_eq!(Ran::of(docker.command().args(["run", "--rm", "--network=none", "demo:1"])).ok().out(), "x\n");
    // Out again, over the socket and through a pipe, with what kiln writes and docker writes.
    kiln(&["copy", "docker-daemon:demo:1", "back:1"]).ok();
    let saved = Ran::of(docker.command().args(["save", "demo:1", "demo:2", "base:1"])).ok().stdout;
    fs::write(place.path("saved.tar"), saved).expect("a file");
    let loaded = kiln(&["load", "-q", "-i", "saved.tar"]).ok().out();
    assert_eq!(loaded.lines().count(), 3, "{loaded}");
    for name in ["back:1", "demo:1", "demo:2"] {
        assert_eq!(place.kiln(&["run", "--rm", name]).ok().out(), "x\n", "{name}");
    }
    let built = place.build(&["-t", "piped:1", "-o", "type=docker"]).ok().stdout;
    fs::write(place.path("piped.tar"), built).expect("a file");
    let input = fs::File::open(place.path("piped.tar")).expect("a file");
    Ran::of(docker.command().arg("load").stdin(input)).ok();
    assert_eq!(inspect("piped:1"), place.read("iid"));
    only_new_layers_are_loaded(&place, &docker.host(), &inspect);
    let script = "test -e /one && test -e /two && test -x /bin/ls";
    let run = ["run", "--rm", "--network=none", "localhost/demo:3", "/bin/sh", "-c", script];
    docker.ok(&run);
}
