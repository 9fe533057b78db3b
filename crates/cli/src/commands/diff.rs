//! `kiln debug diff`: what a step changed.

use std::path::Path;
use std::process::ExitCode;

use kiln::{Change, FileState};

use super::start;
use crate::args::{DiffFormat, Global};
use crate::hints::Failure;
use crate::ui;

/// Lists what a step changed, by path.
pub(crate) fn diff(global: Global, step: &str, format: DiffFormat) -> Result<ExitCode, Failure> {
    let engine = start(global)?;
    let changes = engine.diff_step(&engine.step(step)?)?;
    match format {
        DiffFormat::Json => ui::print(serde_json::to_string_pretty(&changes).unwrap_or_default()),
        DiffFormat::Text => changes.iter().for_each(|change| ui::print(line(change))),
    }
    Ok(ExitCode::SUCCESS)
}

/// `C /etc/passwd  120 B -> 145 B, 0644 -> 0600`: the letter is docker's, what follows is what is different. Of a changed
/// directory that is often nothing: something in it is.
fn line(change: &Change) -> String {
    let path = shown(&change.path);
    match (&change.before, &change.after) {
        (_, None) => format!("D {path}"),
        (None, Some(new)) => {
            let parts = [new.kind.clone(), size(new), mode(new), owner(new)];
            format!(
                "A {path}  {}",
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
            )
        }
        (Some(old), Some(new)) => {
            let pairs = [
                (old.kind.clone(), new.kind.clone()),
                (size(old), size(new)),
                (mode(old), mode(new)),
                (owner(old), owner(new)),
            ];
            let different = pairs.into_iter().filter(|(old, new)| old != new && !new.is_empty());
            let different: Vec<String> = different
                .map(|(old, new)| if old.is_empty() { new } else { format!("{old} -> {new}") })
                .collect();
            let space = if different.is_empty() { "" } else { "  " };
            format!("C {path}{space}{}", different.join(", "))
        }
    }
}

fn size(state: &FileState) -> String {
    if state.kind == "file" { format!("{} B", state.size) } else { String::new() }
}

/// A link's mode says nothing.
fn mode(state: &FileState) -> String {
    if state.kind == "link" { String::new() } else { format!("{:04o}", state.mode) }
}

fn owner(state: &FileState) -> String {
    format!("{}:{}", state.uid, state.gid)
}

/// One line, whatever is in the name.
fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("{:?}", path.display().to_string()),
    }
}
