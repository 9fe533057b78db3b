//! What needs a permission, and what kiln never does: refused with its place before any image is asked for.

use std::collections::BTreeSet;

use kiln_core::Entitlement;
use kiln_dockerfile::{Diagnostic, Instruction, Run};

use crate::diagnose::{error, with_help};

/// Returns what an instruction has that cannot be built, all of it.
pub(crate) fn refusals(instruction: &Instruction, allowed: &BTreeSet<Entitlement>) -> Vec<Diagnostic> {
    match instruction {
        Instruction::Run(run) => of_run(run, allowed),
        _ => Vec::new(),
    }
}

fn of_run(run: &Run, allowed: &BTreeSet<Entitlement>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Some(security) = &run.security
        && security.value == "insecure"
        && !allowed.contains(&Entitlement::SecurityInsecure)
    {
        let message = "`--security=insecure` lets the command do all that kiln may do; that was not allowed";
        let help = format!("build with `--allow {}`", Entitlement::SecurityInsecure);
        found.push(with_help(error(security.span, message), Some(help)));
    }
    if let Some(network) = &run.network
        && network.value == "host"
        && !allowed.contains(&Entitlement::NetworkHost)
    {
        let message =
            "`--network=host` lets the command reach what listens on this machine only; that was not allowed";
        let help = format!("build with `--allow {}`", Entitlement::NetworkHost);
        found.push(with_help(error(network.span, message), Some(help)));
    }
    // A device is given to a container by a CDI specification, which says what to mount and which programs to run as
    // root beforehand (https://github.com/cncf-tags/container-device-interface). There is no root here.
    for flag in run.flags.iter().filter(|flag| flag.name == "device") {
        let message = "`--device` needs a CDI device, and kiln has none to give: setting one up takes root";
        found.push(error(flag.span, message));
    }
    found
}
