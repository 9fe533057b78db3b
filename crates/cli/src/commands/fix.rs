//! `kiln build --check --fix`: rewrites a Dockerfile, and leaves all that no fix touches in it byte for byte.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use kiln::{CheckRequest, Fixed};
use kiln_core::IoResultExt as _;
use kiln_dockerfile::Position;

use crate::hints::Failure;
use crate::ui;

/// Applies the fixes to the file at `path`; without one the new text goes to standard output. The request then speaks of
/// the new text.
pub(super) fn fix(request: &mut CheckRequest, path: Option<&Path>) -> Result<(), Failure> {
    let Fixed { text, applied } = kiln::fix(request);
    for finding in &applied {
        let rule = finding.rule.map_or("", |rule| rule.name());
        let line = Position::of(&request.plan.text, finding.span.start).line;
        ui::note(format_args!("fixed {rule} ({}:{line}): {}", request.plan.file, finding.message));
    }
    if applied.is_empty() {
        ui::note("nothing that could be fixed mechanically");
    }
    match path {
        None => ui::print(text.strip_suffix('\n').unwrap_or(&text)),
        Some(path) if text != request.plan.text => replace(path, &text)?,
        Some(_) => {}
    }
    request.plan.text = text;
    Ok(())
}

/// Puts a new file in the place of the old one, with its permissions; a link stays one. Who reads it meanwhile reads the old
/// or the new text, and a full disk leaves the old one.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        let real = fs::canonicalize(path).at("find", path)?;
        let dir = real.parent().unwrap_or(Path::new("/"));
        let mode = fs::metadata(&real).at("stat", &real)?.permissions();
        let mut file = tempfile::NamedTempFile::new_in(dir).at("make a file beside", &real)?;
        file.write_all(text.as_bytes()).at("write", file.path())?;
        fs::set_permissions(file.path(), mode).at("set the mode of", file.path())?;
        file.as_file().sync_all().at("write", file.path())?;
        file.persist(&real).map_err(|error| error.error).at("replace", &real)
    };
    written().map(drop).map_err(|error| kiln::Error::Io(error).into())
}
