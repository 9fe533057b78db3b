//! One function an instruction: `(StageState, what it says) -> StageState`.

mod chmod;
mod copy;
mod expose;
mod healthcheck;
mod metadata;
mod refusals;
mod run;
mod signal;
mod variables;
mod workdir;

use kiln_dockerfile::{Diagnostic, Instruction};

use crate::check;
use crate::lowering::Lowering;
use crate::place::Place;
use crate::state::StageState;
use copy::Verb;

pub(crate) use refusals::refusals;

/// Lowers one instruction.
pub(crate) fn instruction(
    mut state: StageState,
    instruction: &Instruction,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    check::instruction(&mut state, instruction, at, lowering);
    match instruction {
        Instruction::Run(run) => run::run(state, run, at, lowering),
        Instruction::Copy(copy) => copy::copy(state, copy, Verb::Copy, at, lowering),
        Instruction::Add(add) => copy::copy(state, add, Verb::Add, at, lowering),
        Instruction::Workdir(path) => workdir::workdir(state, path, at, lowering),
        Instruction::Arg(args) => variables::arg(state, args, lowering),
        Instruction::Env(pairs) => variables::env(state, pairs, lowering),
        Instruction::Label(pairs) => variables::label(state, pairs, lowering),
        Instruction::User(user) => metadata::user(state, user, lowering),
        Instruction::Cmd(command) => Ok(metadata::cmd(state, command)),
        Instruction::Entrypoint(command) => Ok(metadata::entrypoint(state, command)),
        Instruction::Shell(shell) => Ok(metadata::shell(state, shell)),
        Instruction::Volume(paths) => metadata::volume(state, paths, lowering),
        Instruction::StopSignal(signal) => metadata::stop_signal(state, signal, lowering),
        Instruction::Maintainer(name) => Ok(metadata::maintainer(state, name)),
        Instruction::Expose(ports) => expose::expose(state, ports, lowering),
        Instruction::Healthcheck(check) => healthcheck::healthcheck(state, check),
        Instruction::Onbuild(trigger) => Ok(metadata::onbuild(state, trigger)),
    }
}
