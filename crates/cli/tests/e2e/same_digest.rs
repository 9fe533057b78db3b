//! The same input gives the same bytes.

use std::collections::BTreeMap;

use crate::images::layers;
use crate::place::{Place, Ran};
use crate::user::{User, for_each_user, users};

const ALL_ROOT: &str = "\
WORKDIR /srv/app
COPY a b dir ./
ENV X=1
RUN mkdir /out && seq 1 1000 > /out/numbers && ln -s numbers /out/link && ln /out/numbers /out/hard && chmod 2750 /out
RUN rm /srv/app/b
CMD [\"true\"]
";

fn place(user: User) -> Place {
    let place = Place::with(user, ALL_ROOT);
    place.file("context/a", "a");
    place.file("context/b", "b");
    place.mode("context/dir/script", "#!/bin/sh\n", 0o755);
    place
}

#[test]
fn the_second_build_runs_nothing_and_gives_the_same_digest() {
    for_each_user(|user| {
        let place = place(user);
        let first = place.build(&[]).ok();
        assert_eq!(first.count("CACHED"), 0, "{first}");
        let second = place.build(&[]).ok();
        assert_eq!(first.digest(), second.digest());
        assert_eq!(second.count("CACHED"), 5, "COPY, WORKDIR, COPY, RUN, RUN: {second}");
    });
}

#[test]
fn fresh_stores_of_different_users_give_the_same_digest() {
    let mut digests = BTreeMap::new();
    for user in users() {
        let place = place(*user);
        for store in ["store", "other-store"] {
            let ran = Ran::of(&mut place.build_command(store, &[])).ok();
            digests.entry(ran.digest()).or_insert_with(Vec::new).push((user.name(), store));
        }
    }
    assert_eq!(digests.len(), 1, "{digests:#?}");
}

#[test]
fn the_last_layer_holds_only_what_the_step_changed() {
    for_each_user(|user| {
        let place = place(user);
        let mut command = place.build_command("store", &["-o", "type=oci,dest=image,tar=false"]);
        Ran::of(command.env_remove("SOURCE_DATE_EPOCH")).ok();
        let names: Vec<_> =
            layers(&place, "image").into_iter().map(|l| l.into_keys().collect::<Vec<_>>()).collect();
        assert_eq!(
            names.last().map(|n| n.join(" ")).as_deref(),
            Some("srv srv/app srv/app/.wh.b"),
            "{names:?}"
        );
    });
}

#[test]
fn owners_are_recorded_whatever_ids_there_are() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY --chown=7:8 file dir /d/\nRUN cp -p /d/file /d/copy; mv /d/file /d/moved\n",
        );
        place.file("context/file", "x");
        place.file("context/dir/below", "x");
        place.link("context/dir/link", "below");
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        for name in ["d/file", "d/below", "d/link"] {
            assert_eq!(layers[1][name].owner, (7, 8), "{name} {layers:?}");
        }
        assert_eq!(layers[2]["d/moved"].owner, (7, 8), "it moved with its owner: {layers:?}");
    });
}

#[test]
fn chown_in_a_step_gives_files_and_links_away() {
    for_each_user(|user| {
        let script = "RUN touch /other && chown 11:12 /other && ln -s other /link && chown -h 13:14 /link\n\
                      RUN test $(stat -c %u:%g /other) = 11:12\n";
        let place = Place::with(user, script);
        let ran = place.build(&["-o", "type=oci,dest=image,tar=false"]);
        if user.has_range() {
            ran.ok();
            let layers = layers(&place, "image");
            assert_eq!(layers[1]["other"].owner, (11, 12), "{layers:?}");
            assert_eq!(layers[1]["link"].owner, (13, 14), "{layers:?}");
        }
    });
}
