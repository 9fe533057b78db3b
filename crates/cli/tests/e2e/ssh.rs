//! An ssh agent in a step. The agent is this test; its client in the step is the machine's own perl.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// Says what it was asked, and answers that there is no key.
fn agent(place: &Place) -> Arc<Mutex<Vec<u8>>> {
    let path = place.path("agent.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    // A real one belongs to the user.
    let (uid, gid) = place.user.ids();
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("root may");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.expect("a connection"), Arc::clone(&log));
            std::thread::spawn(move || {
                let mut request = [0; 5];
                while stream.read_exact(&mut request).is_ok() {
                    log.lock().expect("no panic").push(request[4]);
                    if stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    asked
}

/// Puts perl and its libraries into the context.
fn perl(place: &Place) {
    copies(place, "perl", "/usr/bin/perl");
}

/// The same with programs, below `programs`.
fn programs(place: &Place, paths: &[&str]) {
    for path in paths {
        copies(place, "programs", path);
    }
}

fn copies(place: &Place, below: &str, program: &str) {
    let ldd = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8(ldd.stdout).expect("paths");
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let name = format!("context/{below}{path}");
        place.directory(name.rsplit_once('/').expect("a directory").0);
        fs::copy(path, place.path(&name)).expect("a copy");
        fs::set_permissions(place.path(&name), fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
}

/// Sends two requests, "which keys" and "remove all keys", and prints the types of the answers.
const CLIENT: &str = "socket(S, 1, 1, 0); connect(S, pack(\"S a108\", 1, $ENV{SSH_AUTH_SOCK})) or die \"connect: $!\\n\"; \
                      for (11, 19) { syswrite(S, pack(\"N C\", 1, $_)); sysread(S, $a, 4); sysread(S, $b, unpack(\"N\", $a)); \
                      print unpack(\"C\", $b), \"\\n\" }";

#[test]
fn an_agent_is_forwarded_and_can_be_asked_only() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY perl /\nCOPY client.pl /\n\
             RUN --mount=type=ssh perl /client.pl && stat -c '%a %u:%g' $SSH_AUTH_SOCK\n\
             RUN --mount=type=ssh,id=default,target=/deep/sock,mode=0666,required test $SSH_AUTH_SOCK = /deep/sock && test -S /deep/sock\n\
             RUN --mount=type=ssh,id=other test ! -e $SSH_AUTH_SOCK\n\
             RUN test ! -e /run && test ! -e /deep && test -z \"$SSH_AUTH_SOCK\"\n",
        );
        perl(&place);
        place.file("context/client.pl", CLIENT);
        let asked = agent(&place);
        let mut command = place.build_command("store", &["--ssh", "default"]);
        let ran = Ran::of(command.env("SSH_AUTH_SOCK", place.path("agent.sock"))).ok();
        ran.prints(&["12", "5", "600 0:0"]);
        assert_eq!(*asked.lock().expect("no panic"), [11]);
        place.is_quiet();
        assert_eq!(place.half_made(), Vec::<String>::new());
    });
}

#[test]
fn the_socket_belongs_to_whom_it_shall() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY perl /\nCOPY client.pl /\n\
             RUN --mount=type=ssh,uid=1000,gid=1001,mode=0640 stat -c '%a %u:%g' $SSH_AUTH_SOCK\n",
        );
        perl(&place);
        place.file("context/client.pl", CLIENT);
        let _asked = agent(&place);
        let ran = place.build(&["--ssh", "default=agent.sock"]).ok();
        ran.prints(&["640 1000:1001"]);
        place.base(
            "COPY perl /\nCOPY client.pl /\nUSER 1000:1001\nRUN --mount=type=ssh,uid=1000,gid=1001 perl /client.pl\n",
        );
        place.build(&["--ssh", "default=agent.sock"]).ok().prints(&["12", "5"]);
    });
}

#[test]
fn what_is_no_agent_is_told_of() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN --mount=type=ssh,required true\n");
        place.build(&[]).code(2).says(&["ssh agent \"default\" is required", "--ssh default"]);
        place.build(&["--ssh", "default"]).code(2).says(&["SSH_AUTH_SOCK is not set"]);
        place.file("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
        place.build(&["--ssh", "default=id_ed25519"]).code(2).says(&["the private key is damaged"]);
        // A socket that nobody listens at any more.
        drop(UnixListener::bind(place.path("gone")).expect("a socket"));
        place.build(&["--ssh", "default=gone"]).code(3).says(&["connect to the ssh agent"]);
    });
}

#[test]
fn keys_sign_for_a_step_and_are_nowhere_to_be_found() {
    for_each_user(|user| {
        let Some(_) = kiln_testkit::tools::tool("ssh-keygen") else { return };
        let place = Place::new(user);
        for (name, kind) in [("one", "ed25519"), ("two", "rsa"), ("other", "ecdsa")] {
            let path = place.text(name);
            let mut keygen = user.command("ssh-keygen");
            let made = keygen.args(["-q", "-N", "", "-C", "somebody", "-t", kind, "-f", &path]).status();
            assert!(made.expect("it starts").success());
        }
        // ssh-add and ssh-keygen in the step are this machine's, from a directory with all that they need.
        programs(&place, &["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"]);
        place.file("context/one.pub", &place.read("one.pub"));
        place.file("context/two.pub", &place.read("two.pub"));
        place.base(
            "COPY programs /\nCOPY *.pub /\nRUN mkdir -p /etc /tmp && echo root:x:0:0::/:/bin/sh >/etc/passwd\n\
             RUN --mount=type=ssh ssh-add -L | busybox cut -d' ' -f1,2 >/listed && busybox cut -d' ' -f1,2 /one.pub /two.pub | busybox cmp - /listed\n\
             RUN --mount=type=ssh for key in one two; do ssh-keygen -q -Y sign -n file -f /$key.pub /listed && \
             ssh-keygen -Y check-novalidate -n file -s /listed.sig </listed && rm /listed.sig; done\n\
             RUN --mount=type=ssh,id=o ssh-add -L | grep -c ecdsa-sha2-nistp256\n\
             RUN --mount=type=ssh ! ssh-add -D\n",
        );
        let ran =
            place.build(&["--ssh", "default=one,two", "--ssh", "o=other", "--output=type=tar,dest=out.tar"]);
        ran.ok().prints(&["1"]).lacks(&["PRIVATE KEY", "somebody"]);
        place.is_quiet();
        // A line out of the middle of the key.
        for name in ["one", "two", "other"] {
            let key = place.read(name);
            let line = key.lines().nth(3).expect("it has some").to_owned();
            let mut grep = Command::new("grep");
            grep.args(["-rlF", &line]).arg(place.path("store")).arg(place.path("out.tar"));
            let found = grep.output().expect("grep");
            assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{name} is in there");
        }
        let locked = place.text("locked");
        let mut keygen = user.command("ssh-keygen");
        keygen.args(["-q", "-N", "secret", "-t", "ed25519", "-f", &locked]);
        assert!(keygen.status().expect("it starts").success());
        place.build(&["--ssh", "default=locked"]).code(2).says(&["protected by a passphrase", "ssh-add"]);
        place.build(&["--ssh", "default=one.pub"]).code(2).says(&["it is no private key"]);
    });
}
