//! podman and buildah.

use std::fs::File;

use super::{FORMS, IMAGE, PRINTS, debian, elsewhere, for_podmans_users, only_new_layers_are_loaded};
use crate::engines::Podman;
use crate::place::{Place, Ran};

#[test]
fn podman_and_buildah_read_what_kiln_pushed() {
    for_podmans_users(|user| {
        let Some((_registry, host)) = debian() else { return };
        let place = Place::with(user, IMAGE);
        let podman = Podman::new(&place);
        for (form, output) in FORMS {
            let name = format!("{host}/{form}:1");
            let digest = place.build(&["-t", &name, "-o", output, "--iidfile", "iid"]).ok().digest();
            let id = podman.ok(&["pull", "-q", "--tls-verify=false", &name]);
            assert_eq!(format!("sha256:{id}"), place.read("iid"), "{form}");
            let shown = podman.ok(&[
                "image",
                "inspect",
                "--format",
                "{{.Digest}} {{.Config.User}} {{.Config.Env}}",
                &name,
            ]);
            assert_eq!(
                shown,
                format!(
                    "{digest} 5:6 [PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin A=b]"
                )
            );
            assert_eq!(podman.output(&name), PRINTS, "{form}");
            podman.ok(&["image", "rm", "-f", &id]);
            // buildah: a working container on it.
            let buildah = |args: &[&str]| Ran::of(podman.buildah().args(args)).ok().out().trim().to_owned();
            let container = buildah(&["from", "-q", "--tls-verify=false", &name]);
            let script = "cat /file; stat -c %u:%g:%a /mine";
            let run = ["run", "--isolation=chroot", &container, "/bin/sh", "-c", script];
            assert_eq!(buildah(&run), "x\ny\n5:6:4755", "{form}");
            let shown = buildah(&["inspect", "--type=image", "--format={{.FromImageDigest}}", &name]);
            assert_eq!(shown, digest, "{form}");
            buildah(&["rm", &container]);
            podman.ok(&["image", "rm", "-f", &id]);
        }
    });
}

#[test]
fn kiln_reads_what_podman_and_buildah_pushed() {
    for_podmans_users(|user| {
        let Some((_registry, host)) = debian() else { return };
        let place = Place::with(user, IMAGE);
        let podman = Podman::new(&place);
        let built = format!("{host}/built:1");
        place.build(&["-t", &built, "-o", "type=registry"]).ok();
        let buildah = |args: &[&str]| Ran::of(podman.buildah().args(args)).ok().out().trim().to_owned();
        // A layer of theirs on top.
        let container = buildah(&["from", "-q", "--tls-verify=false", &built]);
        buildah(&[
            "run",
            "--isolation=chroot",
            "--user=0",
            &container,
            "/bin/sh",
            "-c",
            "echo z >> /file; rm /hard",
        ]);
        for format in ["oci", "docker"] {
            buildah(&["commit", "-q", "--format", format, &container, &format!("made-{format}:1")]);
        }
        let three = ["run", "--rm", "--entrypoint=/bin/sh"];
        for (from, format) in [("made-oci:1", "oci"), ("made-docker:1", "v2s2"), ("made-oci:1", "v2s2")] {
            for program in ["podman", "buildah"] {
                let name = format!("{host}/{program}/{from}-{format}");
                let push = [
                    "push",
                    "-q",
                    "--tls-verify=false",
                    "--format",
                    format,
                    from,
                    &format!("docker://{name}"),
                ];
                match program {
                    "podman" => drop(podman.ok(&push)),
                    _ => drop(buildah(&push)),
                }
                elsewhere(&place, &["pull", "-q", &name]).ok();
                let script =
                    ["-c", "cat /file; stat -c %u:%g:%a /mine; test ! -e /hard; echo $? $(readlink /soft)"];
                let ran = elsewhere(&place, &[&three[..], &[&name], &script].concat()).ok();
                assert_eq!(ran.out(), "x\ny\nz\n5:6:4755\n0 file\n", "{name}");
                // As a base, too: a build looks at the registry by itself.
                place.dockerfile(&format!("FROM {name}\nUSER 0\nRUN grep z /file && test ! -e /hard\n"));
                place.build(&[]).ok();
            }
        }
        place.fsck();
    });
}

#[test]
fn archives_go_to_podman_and_come_from_it() {
    for_podmans_users(|user| {
        let place = Place::with(user, IMAGE);
        let podman = Podman::new(&place);
        place.build(&["-t", "localhost/demo:1", "-o", "type=docker,dest=built.tar", "--iidfile", "iid"]).ok();
        place.build(&["-t", "localhost/demo:1", "-t", "localhost/demo:2"]).ok();
        place.kiln(&["save", "--format=oci-archive", "-o", "oci.tar", "localhost/demo:1"]).ok();
        place.kiln(&["save", "-o", "two.tar", "localhost/demo:1", "localhost/demo:2"]).ok();
        let piped = place.build(&["-t", "localhost/demo:3", "-o", "type=docker"]).ok().stdout;
        std::fs::write(place.path("piped.tar"), piped).expect("a file");
        for (file, name) in [("built.tar", "1"), ("oci.tar", "1"), ("two.tar", "2"), ("piped.tar", "3")] {
            let name = format!("localhost/demo:{name}");
            // From a file and through a pipe.
            podman.ok(&["load", "-q", "-i", file]);
            podman.ok(&["image", "rm", "-f", &name]);
            let archive = File::open(place.path(file)).expect("it was made");
            Ran::of(podman.command().args(["load", "-q"]).stdin(archive)).ok();
            let id = podman.ok(&["image", "inspect", "--format={{.Id}}", &name]);
            assert_eq!(format!("sha256:{id}"), place.read("iid"), "{file}");
            assert_eq!(podman.output(&name), PRINTS, "{file}");
            if file != "piped.tar" {
                podman.ok(&["image", "rm", "-f", &id]);
            }
        }
        for format in ["docker-archive", "oci-archive"] {
            podman.ok(&[
                "save",
                "-q",
                "--format",
                format,
                "-o",
                &format!("{format}.tar"),
                "localhost/demo:3",
            ]);
            let archive = format!("{format}.tar");
            let store = format!("of-{format}");
            let ran = Ran::of(&mut place.command_on(&store, &["load", "-q", "-i", &archive])).ok();
            assert_eq!(ran.out(), "Loaded image: localhost/demo:3\n");
            let ran = Ran::of(&mut place.command_on(&store, &["run", "--rm", "localhost/demo:3"])).ok();
            assert_eq!(ran.out(), PRINTS, "{format}");
        }
    });
}

#[test]
fn images_go_into_podman_over_its_socket_and_come_back() {
    for_podmans_users(|user| {
        let place = Place::with(user, IMAGE);
        let podman = Podman::new(&place);
        let service = podman.service();
        let build = |name: &str| {
            let mut build = place.build_command("store", &["-t", name, "--load", "--iidfile", "iid"]);
            Ran::of(build.env("DOCKER_HOST", &service.host)).ok()
        };
        build("localhost/demo:1");
        // It has the image: only a name is added.
        build("localhost/demo:2");
        for name in ["localhost/demo:1", "localhost/demo:2"] {
            let id = podman.ok(&["image", "inspect", "--format={{.Id}}", name]);
            assert_eq!(format!("sha256:{id}"), place.read("iid"), "{name}");
            assert_eq!(podman.output(name), PRINTS);
        }
        let copy = ["copy", "docker-daemon:localhost/demo:1", "back:1"];
        Ran::of(place.command_on("elsewhere", &copy).env("DOCKER_HOST", &service.host)).ok();
        assert_eq!(elsewhere(&place, &["run", "--rm", "back:1"]).ok().out(), PRINTS);
        only_new_layers_are_loaded(&place, &service.host, &|name| {
            format!("sha256:{}", podman.ok(&["image", "inspect", "--format={{.Id}}", name]))
        });
        for name in ["localhost/demo:2", "localhost/demo:3"] {
            let mut run =
                podman.start(&[name, "/bin/sh", "-c", "test -e /one && test -e /two && test -x /bin/ls"]);
            Ran::of(&mut run).ok();
        }
        drop(service);
        drop(podman);
        place.is_quiet();
    });
}
