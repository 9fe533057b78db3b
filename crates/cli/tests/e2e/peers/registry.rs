//! skopeo and umoci, and what else goes through Debian's registry.

use kiln_testkit::tools::tool;

use super::{FORMS, IMAGE, debian};
use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

/// umoci unpacks what skopeo fetched: neither shares code for layers with podman or docker.
#[test]
fn skopeo_and_umoci_read_what_kiln_pushed() {
    for_each_user(|user| {
        if ["skopeo", "umoci"].iter().any(|program| tool(program).is_none()) {
            return;
        }
        let Some((_registry, host)) = debian() else { return };
        let place = Place::with(user, IMAGE);
        // umoci knows no zstd.
        for (form, output) in &FORMS[..2] {
            let name = format!("{host}/{form}:1");
            let digest = place.build(&["-t", &name, "-o", output]).ok().digest();
            // Where they look for credentials: the machine's own place may be closed to a user made by setpriv.
            let run = |program: &str, args: &[&str]| {
                let mut command = place.as_user(program, "store", args);
                Ran::of(command.env("XDG_RUNTIME_DIR", place.path("home"))).ok().out()
            };
            let inspect =
                ["inspect", "--tls-verify=false", "--format={{.Digest}}", &format!("docker://{name}")];
            assert_eq!(run("skopeo", &inspect).trim(), digest, "{form}");
            let to = format!("oci:layout-{form}:1");
            run("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}"), &to]);
            let image = format!("layout-{form}:1");
            let mut unpack = vec!["unpack", "--image", &image, form];
            if user != User::Root {
                unpack.insert(1, "--rootless");
            }
            run("umoci", &unpack);
            let read = |file: &str| place.read(&format!("{form}/rootfs/{file}"));
            assert_eq!(
                (read("file"), read("hard"), read("soft")),
                ("x\ny\n".into(), "x\n".into(), "x\ny\n".into())
            );
            assert!(!place.path(&format!("{form}/rootfs/d")).exists());
            assert!(place.path(&format!("{form}/rootfs/e")).is_dir());
            assert!(!place.path(&format!("{form}/rootfs/e/a")).exists());
            let config: serde_json::Value =
                serde_json::from_str(&place.read(&format!("{form}/config.json"))).expect("JSON");
            assert_eq!(config["process"]["cwd"], "/w");
        }
    });
}
