//! What kiln itself puts into layers, and steps that act as root only: no other user id is needed.

use std::fs;

use kiln_core::ImageConfig;
use kiln_oci::MediaTypes;
use kiln_testkit::image::TestImage;
use kiln_testkit::layers::LayerTar;
use kiln_testkit::registry::FakeRegistry;
use tar::EntryType;

use super::odd::{As, NET_RAW, Odd};
use super::{field, same_layers};
use crate::place::Place;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n";
const GROUP: &str = "root:x:0:\nann:x:1001:\nextra:x:77:ann\n";

/// Every type of entry, with owners that only a range of ids can hold.
fn everything() -> Odd {
    Odd::new()
        .dir("own/", As::of(0o2755, (1000, 1001)))
        .file("own/plain", As::of(0o640, (1000, 50)), "plain")
        .hard("own/hard", "own/plain")
        .file("own/setuid", As::of(0o6755, (33, 34)), "setuid")
        .file(
            "own/cap",
            As { mode: 0o755, owner: (0, 0), xattrs: &[("security.capability", NET_RAW)] },
            "cap",
        )
        .file(
            "own/attributes",
            As { mode: 0o600, owner: (7, 8), xattrs: &[("user.kind", b"odd")] },
            "attributes",
        )
        // Without root's rights, only a file of root's keeps it.
        .file("own/trusted", As { mode: 0o600, owner: (0, 8), xattrs: &[("trusted.kind", b"odd")] }, "x")
        .link("own/link", (1000, 1001), "plain")
        .hard("own/hard-link", "own/link")
        .link("own/dangling", (65_000, 65_001), "/nowhere")
        .fifo("own/fifo", As::of(0o620, (5, 6)))
        .dir("own/sub/", As::of(0o1777, (9, 9)))
        .dir("own/setgid/", As::of(0o2775, (9, 9)))
        .file("own/sub/deep", As::of(0o444, (9, 10)), "deep")
}

/// A registry with an image of two layers: all of the above and devices; then deletions and a directory that hides another.
fn base() -> FakeRegistry {
    let first = everything()
        .device("own/null", As::of(0o666, (0, 44)), EntryType::Char, (1, 3))
        .device("own/disk", As::of(0o660, (0, 6)), EntryType::Block, (8, 1))
        .dir("hidden/", As::of(0o755, (4, 4)))
        .file("hidden/old", As::of(0o644, (4, 4)), "old")
        .file("gone", As::of(0o644, (4, 4)), "gone");
    let second = Odd::new()
        .file(".wh.gone", As::of(0, (0, 0)), "")
        .dir("hidden/", As::of(0o750, (3, 3)))
        .file("hidden/.wh..wh..opq", As::of(0, (0, 0)), "")
        .file("hidden/new", As::of(0o644, (3, 3)), "new");
    let config = ImageConfig::scratch(&"linux/amd64".parse().expect("a platform"));
    let registry = FakeRegistry::start();
    let image = TestImage::of_tars(config, MediaTypes::Oci, &[first.bytes(), second.bytes()]);
    registry.put("library/odd", "latest", &image);
    registry
}

/// Builds on that image, with busybox over it.
#[track_caller]
fn on_base(dockerfile: &str) -> Vec<LayerTar> {
    let registry = base();
    let mirror = format!("docker.io=http://{}", registry.host());
    same_layers(&["--registry-mirror", &mirror], |place| {
        place.dockerfile(&format!("FROM odd AS odd\nCOPY bin /bin\n{dockerfile}"));
    })
}

fn context(place: &Place) {
    place.file("context/passwd", PASSWD);
    place.file("context/group", GROUP);
    place.file("context/src/deep/a", "a");
    place.mode("context/src/deep/run", "run", 0o4711);
    place.link("context/src/deep/link", "a");
    place.directory("context/src/shared");
    fs::set_permissions(
        place.path("context/src/shared"),
        std::os::unix::fs::PermissionsExt::from_mode(0o2775),
    )
    .expect("it is ours");
    fs::write(place.path("context/odd.tar"), everything().bytes()).expect("writing a tar");
}

#[test]
fn copied_files_have_the_owners_and_modes_that_are_asked_for() {
    let layers = same_layers(&[], |place| {
        context(place);
        place.base(
            "COPY passwd group /etc/\n\
             COPY --chown=ann:extra src /chown/\n\
             COPY --chown=65000 --chmod=750 src/deep /modes/\n\
             COPY --link --chown=1000:1001 src /link/src/\n\
             COPY --parents --chown=12:13 src/deep/a src/deep/link /parents/\n\
             COPY --chown=5:5 src/shared /shared\n\
             COPY --chown=ann <<EOF /heredoc\nof ann's\nEOF\n\
             COPY --chown=6:6 src/deep/a /shared/\n",
        );
    });
    assert_eq!(
        (field(&layers, "chown/deep/link", "uid"), field(&layers, "chown/deep/run", "gid")),
        ("1000", "77")
    );
    assert_eq!(field(&layers, "parents/src/deep/link", "gid"), "13");
}

#[test]
fn files_of_a_stage_keep_their_owners() {
    let layers = same_layers(&[], |place| {
        context(place);
        place.base(
            "COPY passwd group /etc/\nCOPY --chown=ann src /src/\nADD odd.tar /odd/\nCOPY --chown=3:4 src/deep/link /odd/own/sub/\n\
             FROM scratch\n\
             COPY --from=0 /src /src/\n\
             COPY --from=0 /odd/own /own\n\
             COPY --from=0 /odd/own/cap /odd/own/fifo /one/\n\
             COPY --from=0 --chown=21:22 /odd/own /chown\n\
             COPY --from=0 --link /odd /link\n\
             COPY --from=0 --parents /odd/own/sub/link /odd/own/fifo /parents/\n\
             FROM scratch\n\
             COPY --from=1 / /all/\n",
        );
    });
    assert_eq!(
        (field(&layers, "all/own/link", "uid"), field(&layers, "all/own/link", "gid")),
        ("1000", "1001")
    );
    assert_eq!(field(&layers, "all/own/dangling", "uid"), "65000");
    assert_eq!(field(&layers, "all/chown/dangling", "uid"), "21");
    assert_eq!(field(&layers, "all/parents/odd/own/fifo", "gid"), "6");
    let capability = NET_RAW.escape_ascii().to_string();
    assert_eq!(field(&layers, "all/own/cap", "pax SCHILY.xattr.security.capability"), capability);
}

#[test]
fn archives_bring_their_owners() {
    let layers = same_layers(&[], |place| {
        context(place);
        place.base("ADD odd.tar /\nADD --chown=0:78 odd.tar /chown/\nADD odd.tar /own/sub/\n");
    });
    assert_eq!(field(&layers, "own/link", "uid"), "1000");
    assert_eq!(field(&layers, "own/link", "type"), "Link");
    assert_eq!(field(&layers, "own/trusted", "pax SCHILY.xattr.trusted.kind"), "odd");
    assert_eq!(field(&layers, "chown/own/link", "gid"), "78");
}

#[test]
fn a_working_directory_belongs_to_the_user() {
    let layers = same_layers(&[], |place| {
        context(place);
        place.base("COPY passwd group /etc/\nUSER ann\nWORKDIR /srv/app\nUSER 33:34\nWORKDIR deeper/still\nUSER 0\nWORKDIR /root/x\n");
    });
    assert_eq!((field(&layers, "srv/app", "uid"), field(&layers, "srv/app/deeper", "gid")), ("1000", "34"));
}

#[test]
fn a_step_that_moves_and_changes_files_of_others_keeps_their_owners() {
    let layers = on_base(
        "RUN mv /own/plain /own/moved && chmod 600 /own/setuid && echo more >> /own/sub/deep && touch /own/sub/new && ln /own/cap /cap\n\
         RUN rm -r /own/sub /own/hard && mkdir /own/sub && touch /own/sub/again && rm /own/link\n\
         RUN chmod 700 /own && chmod 640 /own/null && chmod 600 /own/fifo && mv /own/disk /own/volume\n",
    );
    assert_eq!((field(&layers, "own/moved", "uid"), field(&layers, "own/moved", "gid")), ("1000", "50"));
    assert_eq!((field(&layers, "own", "uid"), field(&layers, "own", "mode")), ("1000", "700"));
}

#[test]
fn a_stage_of_an_image_with_devices_is_copied() {
    let layers = on_base(
        "FROM scratch\nCOPY --from=odd /own /own/\nCOPY --from=odd /hidden /hidden\nCOPY --from=odd --chown=1:2 /own/null /null\n",
    );
    assert_eq!((field(&layers, "own/null", "type"), field(&layers, "own/null", "gid")), ("Char", "44"));
    assert_eq!((field(&layers, "null", "type"), field(&layers, "null", "uid")), ("Char", "1"));
}

#[test]
fn steps_of_root_leave_the_same_files() {
    same_layers(&["--secret", "id=s,src=secret"], |place| {
        context(place);
        place.file("secret", "a secret value of this case");
        place.base(
            "RUN mkdir -p /d/e && chmod 2775 /d && mkdir /d/inherits && touch /d/f && ln /d/f /d/hard && ln -s f /d/link && mkfifo -m 620 /d/p && chmod 4755 /d/f\n\
             RUN <<EOF\nmkdir /here\necho doc > /here/doc\nEOF\n\
             RUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/scratch --mount=type=secret,id=s,mode=0440 \\\n\
                 touch /var/cache/x/kept /scratch/f && cp -p /var/cache/x/kept /from-cache && stat -c '%a %u:%g' /run/secrets/s /var/cache/x /scratch > /seen\n\
             RUN rm -r /d/e /d/link && mkdir /d/e && touch /d/e/again && mv /d/f /d/g\n\
             WORKDIR /here/below\n",
        );
    });
}
