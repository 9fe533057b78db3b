//! The same Dockerfile gives the same layer digests on every rung of the ladder of user ids (docs/rootless.md): as root,
//! with subordinate ids, and with a single id.

use std::path::Path;

use kiln_testkit::layers::{LayerTar, layer_differences, read_layers};

use crate::place::{Place, Ran};
use crate::user::{User, users};

mod debian;
mod files;
mod odd;
mod steps;

/// Builds as each user, with nothing in the store, in a place that `prepare` has filled, and holds the layers against those of
/// the first. Returns the first one's layers.
#[track_caller]
pub(crate) fn same_layers(args: &[&str], prepare: impl Fn(&Place)) -> Vec<LayerTar> {
    let mut first: Option<(User, Vec<LayerTar>)> = None;
    let mut found = Vec::new();
    for &user in users() {
        let place = Place::new(user);
        prepare(&place);
        let layers = built(&place, args);
        match &first {
            None => first = Some((user, layers)),
            Some((one, theirs)) => {
                found.extend(layer_differences((one.name(), theirs), (user.name(), &layers)));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    first.expect("somebody runs the tests").1
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
