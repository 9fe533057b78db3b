//! Names without a registry: what podman's files say of them, and where docker's rule stays.

use kiln_core::Digest;
use kiln_testkit::registry::{Access, FakeRegistry};

use crate::place::{Place, Ran, text_image};
use crate::user::{User, for_each_user};

fn registry(text: &str) -> FakeRegistry {
    let registry = FakeRegistry::start();
    registry.put("team/tool", "1", &text_image(&[("etc/one", text)]));
    registry
}

/// A place whose user has this `registries.conf`; it counts alone on this machine, whatever that has.
fn place(user: User, conf: &str) -> Place {
    let place = Place::new(user);
    place.directory("home");
    place.file("registries.conf", conf);
    place
}

fn kiln(place: &Place, args: &[&str]) -> Ran {
    Ran::of(place.command(args).env("CONTAINERS_REGISTRIES_CONF", place.path("registries.conf")))
}

fn build(place: &Place, dockerfile: &str, args: &[&str]) -> Ran {
    place.dockerfile(dockerfile);
    let conf = place.path("registries.conf");
    Ran::of(place.build_command("store", args).env("CONTAINERS_REGISTRIES_CONF", conf))
}

const USES: &str = "FROM tool:1\nCOPY bin /bin\nRUN grep one /etc/one\nCOPY --from=tool:1 /etc/one /two\n";

#[test]
fn an_alias_holds_for_builds_and_all_that_moves_images() {
    for_each_user(|user| {
        let registry = registry("one");
        let full = format!("{}/team/tool", registry.host());
        let place = place(user, &format!("[aliases]\n'tool' = '{full}'\n"));
        // Which file decided is in the line that says what is looked up.
        let shown = format!("load metadata for {full}:1 (tool:1 by ");
        build(&place, USES, &[]).ok().says(&[&shown, "registries.conf"]);
        build(&place, USES, &["--pull"]).ok().says(&[&shown]);
        let out = kiln(&place, &["doctor", "registry", "tool:1"]).ok().out();
        assert!(out.starts_with(&format!("{full}:1\n  a short name: ")), "{out}");
        assert!(out.contains("registries.conf says that it is this"), "{out}");
        let digest = kiln(&place, &["pull", "-q", "tool:1"]).ok().out();
        let names = kiln(&place, &["images", "--json"]).ok().out();
        assert!(names.contains(&format!("{full}:1")) && !names.contains("docker.io"), "{names}");
        // The store knows it by both names, and so does the registry that it came from; no other one is asked.
        for name in ["tool:1", &format!("{full}:1")] {
            let raw = kiln(&place, &["inspect", "--raw", name]).ok();
            assert_eq!(Digest::of(&raw.stdout).to_string(), digest.trim(), "{name}");
        }
        registry.lines();
        build(&place, USES, &[]).ok();
        assert_eq!(registry.lines(), [] as [String; 0], "what was pulled is here");
        kiln(&place, &["push", "tool:1"]).ok();
        assert_eq!(registry.lines(), ["HEAD /v2/team/tool/manifests/1"]);
        kiln(&place, &["copy", "tool:1", "oci:layout:1"]).ok();
        // With a transport it is docker's name, as for skopeo; nothing is there.
        let hub = "docker.io=http://127.0.0.1:1";
        let docker = ["copy", "--registry-mirror", hub, "docker://tool:1", "oci:layout:2"];
        let ran = Ran::of(
            place
                .command(&docker)
                .env("CONTAINERS_REGISTRIES_CONF", place.path("registries.conf"))
                .env("HTTPS_PROXY", "http://127.0.0.1:1"),
        );
        ran.code(4).says(&["docker.io/library/tool"]);
        place.fsck();
    });
}

#[test]
fn what_kiln_built_by_a_short_name_stays_meant_by_it() {
    for_each_user(|user| {
        let registry = registry("one");
        let place = place(user, &format!("[aliases]\n'tool' = '{}/team/tool'\n", registry.host()));
        build(&place, "FROM scratch\nCOPY bin /bin\nRUN echo mine > /mine\n", &["-t", "tool:1"]).ok();
        build(&place, "FROM tool:1\nRUN grep mine /mine\n", &[]).ok();
        assert_eq!(kiln(&place, &["run", "--rm", "tool:1", "/bin/cat", "/mine"]).ok().out(), "mine\n");
        assert_eq!(registry.lines(), [] as [String; 0]);
        // --pull asks the registry for what the name means there.
        build(&place, USES, &["--pull"]).ok();
    });
}

#[test]
fn search_registries_are_asked_in_turn_and_one_that_fails_ends_it() {
    for_each_user(|user| {
        let (none, has) = (FakeRegistry::start(), registry("one"));
        let search =
            |first: &str| format!("unqualified-search-registries = ['{first}', '{}/team']\n", has.host());
        let place = place(user, &search(&none.host()));
        let found = format!("tool:1 is {}/team/tool:1 here: {} has no tool:1", has.host(), none.host());
        build(&place, USES, &["--pull"]).ok().says(&[&found]);
        // Who denies may only be hiding that there is nothing.
        none.access(Access::Token(Some(("me".to_owned(), "x".to_owned()))));
        build(&place, USES, &["--pull"]).ok().says(&["denies access to tool"]);
        let out = kiln(&place, &["doctor", "registry", "tool:1"]).ok().out();
        assert!(out.contains("the first there is of") && out.contains(&none.host()), "{out}");
        let ran = kiln(&place, &["pull", "nothing:1"]).code(4);
        ran.says(&[
            "none of the registries that",
            "registries.conf",
            "has nothing:1",
            &none.host(),
            &has.host(),
        ]);
        // An image of the same name from elsewhere would be another one, on a bad day only.
        place.file("registries.conf", &search("127.0.0.1:1"));
        build(&place, USES, &["--pull"]).code(4).says(&["127.0.0.1:1"]);
        let strict = search(&none.host()) + "short-name-mode = 'enforcing'\n";
        place.file("registries.conf", &strict);
        let ran = build(&place, USES, &["--pull"]).code(2);
        ran.says(&["tool:1 may be", "enforcing", "write it with its registry"]);
        // The way out for who wants docker's names on such a machine.
        place.file("home/.config/kiln/config.json", r#"{"registry": {"short_names": "docker"}}"#);
        let ran = Ran::of(
            place
                .command(&["doctor", "registry", "--registry-mirror", "docker.io=http://127.0.0.1:1", "x"])
                .env("CONTAINERS_REGISTRIES_CONF", place.path("registries.conf"))
                .env("HTTPS_PROXY", "http://127.0.0.1:1"),
        );
        assert!(ran.out().starts_with("docker.io/library/x:latest\n\nmirror 127.0.0.1:1"), "{ran}");
    });
}
