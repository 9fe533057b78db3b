//! Credentials and configuration of docker and podman: `kiln login`, `kiln logout`, `kiln doctor registry`, and builds.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use kiln_testkit::debian_registry::{DebianRegistry, Doors};
use kiln_testkit::registry::{Access, FakeRegistry};

use crate::place::{Place, Ran, text_image};
use crate::user::{User, for_each_user};

fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start();
    registry.put("team/base", "1", &text_image(&[("etc/one", "one")]));
    registry.access(Access::Token(Some(("me".to_owned(), "hunter2".to_owned()))));
    registry
}

fn place(user: User, registry: &FakeRegistry) -> Place {
    let place = Place::new(user);
    place.directory("home");
    place
        .dockerfile(&format!("FROM {}/team/base:1\nCOPY bin /bin\nRUN grep one /etc/one\n", registry.host()));
    place
}

/// `kiln login --password-stdin`.
fn login(place: &Place, args: &[&str], password: &str) -> Ran {
    let all = [&["login", "--password-stdin"], args].concat();
    let mut command = place.command(&all);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_login_lets_a_build_in_and_a_logout_does_not() {
    for_each_user(|user| {
        let registry = registry();
        let place = place(user, &registry);
        let host = registry.host();
        place.file("home/.docker/config.json", "{\"psFormat\": \"x\", \"auths\": {}}");
        let hint = format!("kiln login {host}");
        place.build(&[]).code(4).says(&[&format!("no credentials for {host} are known"), &hint]);
        login(&place, &["-u", "me", &host], "wrong\n")
            .code(4)
            .says(&["does not take this name and password"]);
        let ran = login(&place, &["-u", "me", &host], "hunter2\n").ok();
        assert_eq!(ran.out(), "Login Succeeded\n", "{ran}");
        let file = place.path("home/.docker/config.json");
        let text = place.read("home/.docker/config.json");
        assert!(text.starts_with("{\n\t\"psFormat\": \"x\",") && text.contains(&host), "{text}");
        let found = std::fs::metadata(&file).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid()), (0o600, user.ids().0));
        assert_eq!(place.kiln(&["login", "--get-login", &host]).ok().out(), "me\n");
        let ran = place.build(&[]).ok();
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
        let ran = place.kiln(&["logout", &host]).ok();
        assert_eq!(ran.out(), format!("removed {host} in {}\n", file.display()), "{ran}");
        place.kiln(&["login", "--get-login", &host]).code(2).says(&["not logged in"]);
        assert_eq!(place.kiln(&["logout", "--all"]).ok().out(), "Not logged in to any registry\n");
        place.build(&["--pull", "--no-cache"]).code(4);
    });
}

#[test]
fn a_helper_is_asked_and_its_secret_seen_by_no_step() {
    for_each_user(|user| {
        let registry = registry();
        let place = place(user, &registry);
        let host = registry.host();
        let told = place.path("home/told");
        place.mode(
            "home/docker-credential-x",
            &format!(
                "#!/bin/sh\nread server\necho \"$1 $server\" >> {}\necho '{{\"Username\": \"me\", \"Secret\": \"hunter2\"}}'\n",
                told.display()
            ),
            0o755,
        );
        place.file("home/auth.json", &format!("{{\"credHelpers\": {{\"{host}\": \"x\"}}}}"));
        let path = format!("{}:/usr/bin:/bin", place.path("home").display());
        let build = |path: &str| {
            let mut command = place.build_command("store", &[]);
            Ran::of(command.env("PATH", path).env("REGISTRY_AUTH_FILE", place.path("home/auth.json")))
        };
        let ran = build("/usr/bin:/bin").code(4);
        let ran = ran.says(&[&format!(
            "docker-credential-x has no credentials for {host} to give: it is not in PATH"
        )]);
        drop(ran.says(&["hint: install docker-credential-x"]));
        place.dockerfile(&format!(
            "FROM {host}/team/base:1\nCOPY bin /bin\nRUN ! env | grep 'hunte[r]2' && ! grep -r 'hunte[r]2' /proc/[0-9]*/environ /proc/[0-9]*/cmdline\n"
        ));
        let ran = build(&path).ok();
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
        assert_eq!(place.read("home/told"), format!("get {host}\n"));
    });
}

/// `pass` and gpg ask who they are and whose their files are, and a client of the desktop's bus tells it its user id.
#[test]
fn a_helper_runs_as_the_user_who_started_kiln() {
    for_each_user(|user| {
        let registry = registry();
        let place = place(user, &registry);
        let (host, home) = (registry.host(), place.path("home").display().to_string());
        place.mode(
            "home/docker-credential-x",
            &format!(
                "#!/bin/sh\ncat > {home}/server\n{{ id -u; id -g; id -un; stat -c %u:%g {home}; \
                 echo $HOME $DBUS_SESSION_BUS_ADDRESS $SSH_AUTH_SOCK; }} > {home}/told 2>&1\n\
                 echo '{{\"Username\": \"me\", \"Secret\": \"hunter2\"}}'\n"
            ),
            0o755,
        );
        place.file("home/auth.json", &format!("{{\"credHelpers\": {{\"{host}\": \"x\"}}}}"));
        let path = format!("{home}:/usr/bin:/bin");
        let variables = [
            ("PATH", path.as_str()),
            ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/bus"),
            ("SSH_AUTH_SOCK", "/run/agent"),
        ];
        let (uid, gid) = user.ids();
        let name = std::process::Command::new("id").args(["-un", &uid.to_string()]).output().unwrap();
        let name = String::from_utf8(name.stdout).unwrap();
        let expected = format!("{uid}\n{gid}\n{name}{uid}:{gid}\n{home} unix:path=/run/bus /run/agent\n");
        let image = format!("{host}/team/base:1");
        let commands = [
            place.build_command("store", &[]),
            place.command_on("other", &["pull", &image]),
            place.command_on("third", &["doctor", "registry", &image]),
        ];
        for mut command in commands {
            place.file("home/told", "");
            Ran::of(command.envs(variables).env("REGISTRY_AUTH_FILE", place.path("home/auth.json"))).ok();
            assert_eq!(place.read("home/told"), expected);
            assert_eq!(place.read("home/server"), host);
        }
        // One that cannot be executed is named.
        place.mode("home/docker-credential-x", "#!/nonexistent/sh\n", 0o755);
        let mut command = place.command_on("fourth", &["pull", &image]);
        Ran::of(command.envs(variables).env("REGISTRY_AUTH_FILE", place.path("home/auth.json")))
            .code(4)
            .says(&["docker-credential-x has no credentials for", "o such file or directory"]);
    });
}

#[test]
fn an_inline_configuration_comes_first_and_is_shown_nowhere() {
    for_each_user(|user| {
        let registry = registry();
        let place = place(user, &registry);
        let text = |password: &str| {
            format!(
                r#"{{"auths": {{"{}": {{"username": "me", "password": "{password}"}}}}}}"#,
                registry.host()
            )
        };
        place.file("home/.docker/config.json", &text("hunter2"));
        let build =
            |inline: &str| Ran::of(place.build_command("store", &[]).env("DOCKER_AUTH_CONFIG", inline));
        let ran = build(&text("hunter3")).code(4).says(&["in DOCKER_AUTH_CONFIG"]);
        assert!(!ran.stderr.contains("hunter"), "{ran}");
        build(&text("hunter2")).ok();
    });
}

#[test]
fn what_docker_and_podman_are_told_decides_where_a_build_goes() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        registry.put("cache/team/base", "1", &text_image(&[("etc/one", "one")]));
        let place = Place::new(user);
        place.directory("home/.config/containers");
        let conf = format!(
            "[[registry]]\nprefix = 'a.invalid/team'\nlocation = '{}/cache/team'\n\n[[registry]]\nlocation = 'b.invalid'\nblocked = true\n",
            registry.host()
        );
        place.file("home/.config/containers/registries.conf", &conf);
        place.dockerfile("FROM a.invalid/team/base:1\nCOPY bin /bin\nRUN grep one /etc/one\n");
        place.build(&[]).ok();
        place.dockerfile("FROM b.invalid/x\n");
        place.build(&[]).code(2).says(&["b.invalid/x is blocked by", "registries.conf:5"]);
        let ran = place.kiln(&["doctor", "registry", "a.invalid/team/base:1"]).ok();
        let out = ran.out();
        assert!(out.contains("registries.conf:1") && out.contains("delivers it"), "{ran}");
        let json = place.kiln(&["doctor", "registry", "--json", "a.invalid/team/base:1"]).ok().out();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["servers"][0]["delivers"], true, "{json}");
        place.kiln(&["doctor", "registry", "a.invalid/team/none:1"]).code(4);
        place.file("home/.config/containers/registries.conf", "[[registry]]\n");
        place.dockerfile("FROM c.invalid/x\n");
        place
            .build(&[])
            .code(2)
            .says(&["registries.conf: line 1: a [[registry]] needs a prefix or a location"]);
        // Nobody reads it where no registry is needed.
        place.builds("RUN true\n");
    });
}

#[test]
fn a_proxy_that_stands_between_is_named_and_its_password_not() {
    for_each_user(|user| {
        let place = Place::new(user);
        let ask = |args: &[&str], no_proxy: &str| {
            let mut command = place.command(args);
            Ran::of(command.env("HTTPS_PROXY", "http://me:hunter2@127.0.0.1:1").env("NO_PROXY", no_proxy))
        };
        let words = ["through the proxy http://127.0.0.1:1"];
        ask(&["pull", "some.invalid/team/app"], "").code(4).says(&words).lacks(&["hunter2"]);
        ask(&["pull", "some.invalid/team/app"], "invalid").code(4).lacks(&words);
        let ran = ask(&["doctor", "registry", "some.invalid/team/app"], "").code(4);
        assert!(
            ran.out().contains("  through the proxy http://127.0.0.1:1, by")
                && !ran.out().contains("hunter2"),
            "{ran}"
        );
        let ran = ask(&["doctor", "registry", "some.invalid/team/app"], ".invalid").code(4);
        assert!(!ran.out().contains("through the proxy"), "{ran}");
    });
}

/// What was typed at a prompt that is ended from outside is not the last thing that the terminal hides.
#[test]
fn a_prompt_that_is_ended_gives_the_terminal_back_as_it_was() {
    use rustix::termios::{LocalModes, tcgetattr};
    for_each_user(|user| {
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
            let place = Place::new(user);
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let master = rustix::pty::openpt(flags).expect("a terminal");
            rustix::pty::unlockpt(&master).expect("it is ours");
            let name = rustix::pty::ptsname(&master, Vec::new()).expect("it has a name");
            let name = name.into_string().expect("it is made of ASCII");
            let terminal = || {
                let mut options = std::fs::OpenOptions::new();
                options.read(true).write(true).open(&name).expect("it is unlocked")
            };
            // Not held open: if kiln ends, reading what it shows must, too.
            let echoes = || tcgetattr(terminal()).expect("a terminal").local_modes.contains(LocalModes::ECHO);
            assert!(echoes());
            let mut command = place.command(&["login", "-u", "me", "127.0.0.1:1"]);
            command.stdin(terminal()).stdout(terminal()).stderr(terminal());
            let mut child = command.spawn().expect("kiln starts");
            drop(command);
            let mut shown = std::fs::File::from(master);
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while !seen.ends_with(b"Password: ") {
                std::io::Read::read_exact(&mut shown, &mut byte).expect("kiln asks");
                seen.extend(byte);
            }
            assert!(!echoes());
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, signal).expect("it is ours");
            assert_eq!(child.wait().expect("it is ours").code(), Some(128 + signal.as_raw()));
            assert!(echoes(), "after {signal:?}");
        }
    });
}

#[test]
fn debians_registry_lets_in_who_logged_in_with_kiln_and_skopeo_too() {
    for_each_user(|user| {
        let doors = Doors { user: Some(("me", "hunter2")), ..Doors::default() };
        let Some(registry) = DebianRegistry::behind(doors) else { return };
        let host = format!("127.0.0.1:{}", registry.port());
        let place = Place::new(user);
        place.directory("home");
        login(&place, &["-u", "me", &host], "wrong").code(4).says(&["does not take this name and password"]);
        login(&place, &["-u", "me", &host], "hunter2").ok();
        place.base("RUN true\n");
        place.build(&["--push", "-t", &format!("{host}/demo:1")]).ok();
        let Some(_) = kiln_testkit::tools::tool("skopeo") else { return };
        let file = place.path("home/.docker/config.json");
        let args = ["inspect", "--tls-verify=false", "--authfile", file.to_str().unwrap()];
        let name = format!("docker://{host}/demo:1");
        let mut skopeo = place.as_user("skopeo", "store", &[&args[..], &[name.as_str()]].concat());
        let ran = Ran::of(&mut skopeo).ok();
        assert!(ran.out().contains("sha256:"), "{ran}");
    });
}
