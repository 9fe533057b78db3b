//! ARG, ENV and LABEL.

use kiln_dockerfile::{ArgDecl, Diagnostic, KeyValue};

use crate::lowering::Lowering;
use crate::state::StageState;
use crate::words::{NOT_IN_ENV, Words};

/// `ARG`: `--build-arg`, else the default on the line, else the global ARG, else nothing. Unlike with ENV, each
/// argument of a line sees those before it.
pub(super) fn arg(
    mut state: StageState,
    args: &[ArgDecl],
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let mut line = String::from("ARG");
    for arg in args {
        let name = &arg.name.value;
        let value = match (lowering.build_args.get(name), &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(lowering.words.expand(default, &state.env)?),
            (None, None) => lowering.globals.get(name).map(str::to_owned),
        };
        line.push(' ');
        line.push_str(name);
        if let Some(value) = &value {
            line.push('=');
            line.push_str(value);
            if !NOT_IN_ENV.contains(&name.as_str()) {
                state.set_arg(name, value);
            }
        }
        lowering.words.declare(name);
        state.declare(name, value.as_deref());
    }
    Ok(state.with_history(line))
}

/// `ENV`: every value of a line sees the variables from before the line.
pub(super) fn env(
    mut state: StageState,
    pairs: &[KeyValue],
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let pairs = expand(&state, pairs, lowering.words)?;
    for (name, value) in &pairs {
        state.set_env(name, value);
    }
    Ok(state.with_history(line("ENV", &pairs)))
}

/// `LABEL`.
pub(super) fn label(
    mut state: StageState,
    pairs: &[KeyValue],
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let pairs = expand(&state, pairs, lowering.words)?;
    state.config.config.labels.extend(pairs.iter().cloned());
    Ok(state.with_history(line("LABEL", &pairs)))
}

fn expand(
    state: &StageState,
    pairs: &[KeyValue],
    words: &mut Words,
) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut one =
        |pair: &KeyValue| Ok((words.expand(&pair.name, &state.env)?, words.expand(&pair.value, &state.env)?));
    pairs.iter().map(&mut one).collect()
}

fn line(instruction: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    std::iter::once(instruction.to_owned()).chain(pairs).collect()
}
