//! kiln in `podman run`, rootless and as root.

use super::{BUILD, builds_in};
use crate::engines::Podman;
use crate::place::Place;
use crate::user::{User, skip, users};

#[test]
fn in_podman() {
    if kiln_testkit::tools::tool("podman").is_none() || kiln_testkit::tools::tool("runc").is_none() {
        return;
    }
    for user in [User::Root, User::Sub] {
        if !users().contains(&user) {
            skip(&format!("podman run as {}", user.name()));
            continue;
        }
        let place = Place::new(user);
        place.dockerfile(BUILD);
        let podman = Podman::with_base(&place);
        builds_in(&place, "/here", "/here/store", &|| podman.run(&[]));
    }
}
