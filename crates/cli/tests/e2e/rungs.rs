//! The same Dockerfile gives the same layer digests on every rung of the ladder (docs/rootless.md): as root, with subordinate
//! ids and with a single id, each with overlay and with copied trees; and as root in a chroot.

use std::path::Path;

use kiln_core::Digest;
use kiln_testkit::layers::{LayerTar, layer_differences, read_layers};

use crate::place::{Place, Ran};
use crate::user::{User, users};

mod debian;
mod files;
mod odd;
mod steps;

/// A way to run steps.
pub(crate) struct Rung {
    pub(crate) user: User,
    pub(crate) name: String,
    pub(crate) args: &'static [&'static str],
}

/// All that can be tried here; the first is what the others are held against.
pub(crate) fn rungs() -> Vec<Rung> {
    let ways: [(&str, &[&str]); 2] =
        [("overlay", &["--snapshotter=overlay"]), ("copy", &["--snapshotter=copy"])];
    let rung = |user: User, (way, args)| Rung { user, name: format!("{}, {way}", user.name()), args };
    let mut rungs: Vec<Rung> =
        ways.into_iter().flat_map(|way| users().iter().map(move |&user| rung(user, way))).collect();
    if users().contains(&User::Root) {
        rungs.push(rung(User::Root, ("chroot", &["--isolation=chroot"])));
    }
    rungs
}

/// Builds on each rung, with nothing in the store, in a place that `prepare` has filled, and holds the layers against those of
/// the first. Returns the first one's layers.
#[track_caller]
pub(crate) fn same_layers(args: &[&str], prepare: impl Fn(&Place)) -> Vec<LayerTar> {
    same_layers_on(rungs(), args, prepare)
}

/// The same for builds that take long: copied trees are tried in the chroot only.
#[track_caller]
pub(crate) fn same_layers_of_much(args: &[&str], prepare: impl Fn(&Place)) -> Vec<LayerTar> {
    let mut rungs = rungs();
    rungs.retain(|rung| rung.args != ["--snapshotter=copy"]);
    same_layers_on(rungs, args, prepare)
}

#[track_caller]
fn same_layers_on(rungs: Vec<Rung>, args: &[&str], prepare: impl Fn(&Place)) -> Vec<LayerTar> {
    let mut first: Option<(Rung, Vec<LayerTar>)> = None;
    let mut found = Vec::new();
    for rung in rungs {
        let place = Place::new(rung.user);
        prepare(&place);
        let layers = built(&place, &[args, rung.args].concat());
        match &first {
            None => first = Some((rung, layers)),
            Some((one, theirs)) => {
                found.extend(layer_differences((&one.name, theirs), (&rung.name, &layers)));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    first.expect("somebody runs the tests").1
}

/// The root directory's own time is when its tree was put together, which is another one on each rung.
#[test]
fn files_as_a_tar_are_the_same_on_every_rung() {
    let tars = rungs().into_iter().map(|rung| {
        let place = Place::with(rung.user, "RUN mkdir -p /a/b && echo x >/a/b/c && chmod 711 /\n");
        let to = ["--source-date-epoch=1000000000", "-o", "type=tar,dest=out.tar"];
        Ran::of(&mut place.build_command("store", &[&to, rung.args].concat())).ok();
        (rung.name, Digest::of(&std::fs::read(place.path("out.tar")).expect("it was written")))
    });
    let tars: Vec<_> = tars.collect();
    assert!(tars.iter().all(|(_, tar)| *tar == tars[0].1), "{tars:?}");
}

#[track_caller]
fn built(place: &Place, args: &[&str]) -> Vec<LayerTar> {
    let args = [args, &["-o", "type=oci,dest=image,tar=false"]].concat();
    Ran::of(&mut place.build_command("store", &args)).ok();
    place.fsck();
    let layers = read_layers(&place.path("image"));
    std::fs::remove_dir_all(place.path("store")).expect("it was made");
    layers
}

/// Returns a field of an entry in the last layer that has it.
#[track_caller]
pub(crate) fn field<'a>(layers: &'a [LayerTar], name: &str, field: &str) -> &'a str {
    let entries = layers.iter().rev().flat_map(|layer| &layer.entries);
    let entry = entries.into_iter().find(|entry| Path::new(&entry.name) == Path::new(name));
    let entry = entry.unwrap_or_else(|| panic!("no {name}"));
    entry.fields.get(field).map_or("", String::as_str)
}
