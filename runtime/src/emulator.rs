//! Programs of other architectures: which way they run here.
//!
//! An emulator is registered in a binfmt_misc of kiln's own, mounted inside a user namespace of its own (Linux 6.7), with
//! the flag F: the kernel opens it then and there, so a step's root needs nothing of it. Nothing of the machine's is
//! changed. <https://docs.kernel.org/admin-guide/binfmt-misc.html>; docs/platforms.md.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kiln_core::{Emulator, IoError, Platform};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use crate::enter::{Entered, Isolation};
use crate::kernel;
use table::{Row, row, rows};

mod elf;
mod rungs;
mod settle;
mod table;
#[cfg(test)]
mod tests;
mod trial;

pub(crate) use rungs::rungs;
pub(crate) use settle::{introduce, settle};

/// The first kernel in which a user namespace can have a binfmt_misc of its own:
/// <https://git.kernel.org/torvalds/c/21ca59b365c091d583f36ac753eaa8baf947be6f>.
const SINCE: (u32, u32) = (6, 7);

/// Where emulators are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmulatorSearch {
    /// By architecture (`arm64`): this program and no other.
    pub given: BTreeMap<String, PathBuf>,
    /// Directories in which they may be, best first.
    pub path: Vec<PathBuf>,
}

/// How programs of an architecture run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// By this emulator; none if the machine runs them as they are.
    pub emulator: Option<Emulator>,
    /// Why, in a person's words.
    pub reason: String,
}

/// There is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{architecture} programs do not run here: {}", reasons.join("; "))]
pub struct NoEmulator {
    /// The architecture.
    pub architecture: String,
    /// What was looked for and why it will not do.
    pub reasons: Vec<String>,
    /// What its emulators are called; empty if kiln knows none.
    pub programs: Vec<String>,
}

/// Returns the architectures that kiln knows emulators of, but for this machine's own.
pub fn architectures() -> Vec<&'static str> {
    let host = Platform::host().architecture;
    rows().map(|row| row.architecture).filter(|name| *name != host).collect()
}

/// Finds out how programs of an architecture run here. Starts no emulator.
///
/// # Errors
/// They do not run.
pub fn find(entered: &Entered, architecture: &str, search: &EmulatorSearch) -> Result<Way, NoEmulator> {
    let as_is = |reason: &str| Way { emulator: None, reason: reason.to_owned() };
    if architecture == Platform::host().architecture {
        return Ok(as_is("it is this machine's own"));
    }
    let Some(row) = row(architecture) else {
        let reasons = vec!["kiln knows no emulator for them".to_owned()];
        return Err(NoEmulator { architecture: architecture.to_owned(), reasons, programs: Vec::new() });
    };
    let none = |reasons| NoEmulator {
        architecture: architecture.to_owned(),
        reasons,
        programs: row.programs.iter().map(|&name| name.to_owned()).collect(),
    };
    let by = |program: PathBuf, reason: String| {
        let architecture = architecture.to_owned();
        Way { emulator: Some(Emulator { architecture, program }), reason }
    };
    if let Some(program) = search.given.get(architecture) {
        return match registrable(entered).and_then(|()| check(program)) {
            Ok(()) => Ok(by(program.clone(), format!("{} is given", program.display()))),
            Err(reason) => Err(none(vec![reason])),
        };
    }
    // Newer processors run the programs of older ones, if the kernel is built for it.
    if is_older_sibling(architecture) && runs_as_is(&row) {
        return Ok(as_is("the processor runs it"));
    }
    let mut reasons = Vec::new();
    match registrable(entered) {
        Ok(()) => {
            for program in candidates(&row, search) {
                match check(&program) {
                    Ok(()) => {
                        let reason = format!("{} is registered for the steps alone", program.display());
                        return Ok(by(program, reason));
                    }
                    Err(reason) => reasons.push(reason),
                }
            }
            if reasons.is_empty() {
                reasons.push(format!("there is no {} in PATH", row.programs.join(" or ")));
            }
        }
        Err(reason) => reasons.push(reason),
    }
    if runs_as_is(&row) {
        return Ok(as_is("a handler of the machine's own runs it"));
    }
    reasons.push("the machine has no handler that works inside a step".to_owned());
    Err(none(reasons))
}

fn is_older_sibling(architecture: &str) -> bool {
    matches!((Platform::host().architecture.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"))
}

fn runs_as_is(row: &Row) -> bool {
    trial::run(row).is_ok_and(|code| code == 0)
}

fn registrable(entered: &Entered) -> Result<(), String> {
    if entered.isolation() == Isolation::Chroot {
        return Err("without user namespaces steps cannot have emulators of their own".to_owned());
    }
    let found = kernel::version();
    if found >= SINCE {
        return Ok(());
    }
    let ((major, minor), (want_major, want_minor)) = (found, SINCE);
    Err(format!(
        "this is Linux {major}.{minor}, and steps can have emulators of their own from {want_major}.{want_minor}"
    ))
}

/// Programs of the right names, best name first.
fn candidates(row: &Row, search: &EmulatorSearch) -> Vec<PathBuf> {
    let in_path = |name: &&str| search.path.iter().map(|dir| dir.join(name)).collect::<Vec<_>>();
    row.programs.iter().flat_map(in_path).filter(|program| program.exists()).collect()
}

/// Says why a program cannot be an emulator.
fn check(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let said = |error: &io::Error| IoError::new("", "", error).message;
    let found = elf::read(program).map_err(|error| format!("{shown} cannot be read: {}", said(&error)))?;
    if !program.is_file() {
        return Err(format!("{shown} is no file"));
    }
    rustix::fs::access(program, Access::EXEC_OK)
        .map_err(|error| format!("{shown} cannot be executed: {}", said(&error.into())))?;
    let Some(found) = found else { return Err(format!("{shown} is no ELF program")) };
    if row(&Platform::host().architecture).is_some_and(|host| !host.matches(&found.header)) {
        return Err(format!("{shown} is a program of another architecture"));
    }
    match found.interpreter {
        None => Ok(()),
        // The flag F covers the emulator alone: the kernel looks for the loader in the root of who is executed.
        Some(loader) => Err(format!("{shown} is not static: it needs {loader}, which a step does not have")),
    }
}
