//! Secrets: readable for whom they are for, in memory, and gone without a trace.

use kiln_core::{MountSpec, MountSpecKind, Secret};

use crate::support::{Place, Rung, mount, rungs};

fn secret(target: &str, content: &[u8], mode: u32, (uid, gid): (u32, u32)) -> MountSpec {
    let content = Secret::new(content.to_vec()).unwrap();
    mount(target, MountSpecKind::Secret { content, mode, uid, gid })
}

#[test]
fn a_secret_is_a_file_in_memory() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec(
            "cat /run/secrets/token; stat -c '%a %u:%g %s' /run/secrets/token; \
             echo x 2>/dev/null >/run/secrets/token || echo read-only; rm /run/secrets/token 2>/dev/null || echo kept; \
             grep ' /run/secrets/token ' /proc/self/mountinfo | grep -o 'ro,nosuid,nodev,noexec,.* - tmpfs' | cut -c1-22; \
             /etc/deep/run",
        );
        spec.mounts = vec![
            secret("/run/secrets/token", b"hunter2\n", 0o400, (0, 0)),
            secret("/etc/deep/run", b"#!/bin/sh\necho executed\n", 0o500, (0, 0)),
        ];
        let expected = "hunter2\n400 0:0 8\nread-only\nkept\nro,nosuid,nodev,noexec\nexecuted\n";
        assert_eq!(place.run(&spec).ok(), expected, "{rung:?}");
        // Not even the places where they were mounted.
        assert_eq!(place.upper(), Vec::<String>::new(), "{rung:?}");
    }
}

#[test]
fn a_secret_belongs_to_whom_it_shall() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("stat -c '%a %u:%g' /s; cat /s || true");
        spec.mounts = vec![secret("/s", b"x", 0o440, (1000, 1001))];
        spec.user = "ann".to_owned();
        assert_eq!(place.run(&spec).ok(), "440 1000:1001\nx", "{rung:?}");
    }
}

#[test]
fn any_bytes_go_into_a_file_and_a_variable_replaces_one() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("wc -c < /s; env | grep -c TOKEN; echo $TOKEN; echo $HOME");
        spec.mounts = vec![secret("/s", &vec![0; Secret::MAX], 0o400, (0, 0))];
        spec.env.push(("TOKEN".to_owned(), "old".to_owned()));
        spec.secret_env = vec![
            ("TOKEN".to_owned(), Secret::new(b"n\xffw".to_vec()).unwrap()),
            ("HOME".to_owned(), Secret::new(b"/secret".to_vec()).unwrap()),
        ];
        let ran = place.run(&spec);
        assert_eq!(ran.ok(), format!("{}\n1\nn\u{fffd}w\n/secret\n", Secret::MAX), "{rung:?}");
    }
}

#[test]
fn nothing_to_leak_but_in_the_step() {
    // What is told of a failure names no content.
    let place = Place::new(Rung::Root);
    if rungs().contains(&Rung::Root) {
        let mut spec = place.spec("true");
        spec.secret_env = vec![("T".to_owned(), Secret::new(b"hunter2\0tail".to_vec()).unwrap())];
        let ran = place.run(&spec);
        assert!(ran.result.is_err(), "{ran:?}");
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
}
