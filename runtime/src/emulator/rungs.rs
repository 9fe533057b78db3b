//! What `kiln doctor` says of other architectures.

use super::{EmulatorSearch, NoEmulator, architectures, find};
use crate::enter::Entered;
use crate::probe::Rung;

/// What gives most machines all emulators.
const RAISE: &str = "sudo apt-get install qemu-user-static";

/// A rung for each architecture, with its emulator tried out.
pub(crate) fn rungs(entered: &Entered, search: &EmulatorSearch) -> Vec<Rung> {
    architectures().into_iter().map(|architecture| rung(entered, architecture, search)).collect()
}

fn rung(entered: &Entered, architecture: &str, search: &EmulatorSearch) -> Rung {
    let (chosen, reason) = match find(entered, architecture, search) {
        Err(NoEmulator { reasons, .. }) => (None, reasons.join("; ")),
        Ok(way) => match way.emulator {
            None => (Some("as it is".to_owned()), way.reason),
            Some(emulator) => match entered.emulating(&emulator, None) {
                Ok(_) => (Some(emulator.program.display().to_string()), way.reason),
                Err(error) => (None, error.to_string()),
            },
        },
    };
    let raise = chosen.is_none().then(|| RAISE.to_owned());
    Rung { what: format!("linux/{architecture}"), chosen, reason, raise }
}
