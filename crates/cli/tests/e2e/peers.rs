//! Others' programs pull, run, load and inspect what kiln made, and kiln what they made. The registry between them is Debian's.
//!
//! podman and buildah run as root and as the user with subordinate ids; with a single id they unpack no image that has other
//! owners. docker needs root.

mod docker;
mod podman;
mod registry;

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

/// The forms that everybody reads.
const FORMS: [(&str, &str); 3] = [
    ("oci", "type=registry"),
    ("docker", "type=registry,oci-mediatypes=false"),
    ("zstd", "type=registry,compression=zstd"),
];
