//! The table. Each row's comment says where its facts come from.

mod compiled;
mod javascript;
mod python;
mod scripting;
mod system;

use super::{Cache, Locking, Manager};

const NONE: Manager = Manager {
    name: "",
    programs: &[],
    downloads: &[],
    idle: &[],
    bare: false,
    valued: &[],
    caches: &[],
    locked: Locking::Own,
    dir_flags: &[],
    off_flags: &[],
    offline: &[],
    off_variables: &[],
    cleans: &[],
};

const CACHE: Cache = Cache { places: &[], only: &[], essential: true, also: &[] };

/// Every manager.
pub(crate) fn managers() -> impl Iterator<Item = &'static Manager> {
    [python::MANAGERS, system::MANAGERS, javascript::MANAGERS, compiled::MANAGERS, scripting::MANAGERS]
        .into_iter()
        .flatten()
}
