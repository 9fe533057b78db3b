//! Others' programs pull, run, load and inspect what kiln made, and kiln what they made. The registry between them is Debian's.
//!
//! podman and buildah run as root and as the user with subordinate ids; with a single id they unpack no image that has other
//! owners. docker needs root.

mod docker;
mod podman;
mod registry;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_core::Digest;
use kiln_testkit::debian_registry::DebianRegistry;
use kiln_testkit::tools::tool;

use crate::place::{Place, Ran};
use crate::user::{User, skip, users};

/// Links, an emptied directory, a whiteout, an owner, a mode, and a configuration.
const IMAGE: &str = "RUN echo x > /file && ln /file /hard && ln -s file /soft && mkdir /d /e && echo hi > /d/a && echo hi > /e/a\n\
    RUN echo y >> /file && rm -r /d && rm /e/a && touch /mine && chown 5:6 /mine && chmod 4755 /mine\n\
    ENV A=b\nUSER 5:6\nWORKDIR /w\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"cat /file; stat -c %u:%g:%a /mine; ls -d /e; test ! -e /d && test ! -e /e/a && pwd; echo $A\"]\n";

/// What it prints when it runs.
const PRINTS: &str = "x\ny\n5:6:4755\n/e\n/w\nb\n";

/// Debian's registry and where it is; none without the program.
fn debian() -> Option<(DebianRegistry, String)> {
    let registry = DebianRegistry::start(None)?;
    let host = format!("127.0.0.1:{}", registry.port());
    Some((registry, host))
}

/// Runs a case as those users that podman can run as.
fn for_podmans_users(case: impl Fn(User)) {
    for program in ["podman", "runc", "buildah"] {
        if tool(program).is_none() {
            return;
        }
    }
    for user in [User::Root, User::Sub] {
        if users().contains(&user) {
            case(user);
        } else {
            skip(&format!("podman as {}", user.name()));
        }
    }
}

/// kiln on another store: nothing of what it reads can have been there before.
fn elsewhere(place: &Place, args: &[&str]) -> Ran {
    Ran::of(&mut place.command_on("elsewhere", args))
}

/// Stands between kiln and an engine's socket, and counts what goes to the engine.
struct Counting {
    /// `DOCKER_HOST`.
    host: String,
    sent: Arc<AtomicU64>,
}

impl Counting {
    fn before(place: &Place, socket: &str) -> Self {
        let path = place.path("counting.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        place.own("counting.sock");
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, engine) = (sent.clone(), socket.trim_start_matches("unix://").to_owned());
        // It ends with the tests.
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let to = UnixStream::connect(&engine).expect("the engine runs");
                let (mut back, mut answer) =
                    (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut answer, &mut back);
                    let _ = back.shutdown(Shutdown::Write);
                });
                let counter = counter.clone();
                std::thread::spawn(move || {
                    let (mut from, mut to, mut piece) = (from, to, vec![0; 64 << 10]);
                    while let Ok(count @ 1..) = from.read(&mut piece) {
                        counter.fetch_add(count as u64, Ordering::SeqCst);
                        if to.write_all(&piece[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        });
        Self { host: format!("unix://{}", path.display()), sent }
    }

    /// Returns the bytes since the last time.
    fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::SeqCst)
    }
}

/// Builds twice with `--load`; the second image has the first one's layers, and they do not go again.
fn only_new_layers_are_loaded(place: &Place, socket: &str, id_of: &dyn Fn(&str) -> String) {
    let counting = Counting::before(place, socket);
    let load = |names: &[&str]| {
        let tags: Vec<&str> = names.iter().flat_map(|name| ["-t", name]).collect();
        let mut build = place.build_command("store", &[&["--load", "--iidfile", "iid"], &tags[..]].concat());
        Ran::of(build.env("DOCKER_HOST", &counting.host)).ok();
        for name in names {
            assert_eq!(id_of(name), place.read("iid"), "{name}");
        }
        counting.sent()
    };
    // Nothing that it may have, and nothing that gets much smaller.
    let big: String = (0..8000_u32).map(|n| Digest::of(&n.to_le_bytes()).hex()).collect();
    place.file("context/big", &big);
    let text = "FROM scratch\nCOPY big /\nCOPY bin /bin\nRUN echo one > /one\n";
    place.dockerfile(text);
    let all = load(&["localhost/demo:1"]);
    assert!(all > 200_000, "only {all} bytes for half a million");
    place.dockerfile(&format!("{text}RUN echo two > /two\n"));
    let new = load(&["localhost/demo:2", "localhost/demo:3"]);
    assert!(new < 100_000, "{new} bytes for a layer of one small file");
    // Another image that has one of them, and not as its lowest.
    place.dockerfile("FROM scratch\nCOPY Dockerfile /\nCOPY --link bin /bin\nRUN cat /Dockerfile\n");
    load(&["localhost/demo:4"]);
}

/// The forms that everybody reads.
const FORMS: [(&str, &str); 3] = [
    ("oci", "type=registry"),
    ("docker", "type=registry,oci-mediatypes=false"),
    ("zstd", "type=registry,compression=zstd"),
];
