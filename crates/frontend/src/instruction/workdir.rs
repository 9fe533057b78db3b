//! WORKDIR.

use kiln_core::{Op, WorkdirOp};
use kiln_dockerfile::{Diagnostic, Spanned};

use crate::lowering::Lowering;
use crate::path;
use crate::place::Place;
use crate::state::StageState;

/// `WORKDIR`: relative to the one before; the directory is made, also when nothing uses it.
pub(super) fn workdir(
    mut state: StageState,
    written: &Spanned<String>,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let path = lowering.words.expand(written, &state.env)?;
    let path = path::resolve(state.cwd(), &path);
    state.config.config.working_dir.clone_from(&path);
    let line = format!("WORKDIR {path}");
    if path == "/" {
        return Ok(state.with_history(line));
    }
    let user = state.config.config.user.clone();
    let op = Op::Workdir(WorkdirOp { root: state.rootfs, path, user });
    let title = lowering.words.title(at.text, &state.env);
    let step = lowering.graph.add(op, at.info(&state, &title));
    Ok(state.with_step(step, line))
}
