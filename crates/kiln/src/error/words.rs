//! Parts of messages that are there or not.

use std::path::PathBuf;

use kiln_core::Exceeded;

pub(super) fn killed(exceeded: Option<Exceeded>) -> String {
    exceeded.map(|exceeded| format!(": {exceeded}")).unwrap_or_default()
}

pub(super) fn inside_text(inside: &Option<String>) -> String {
    inside.as_ref().map_or(String::new(), |context| format!(" in {context}"))
}

pub(super) fn nearby_text(nearby: &[PathBuf]) -> String {
    if nearby.is_empty() {
        return String::new();
    }
    let names: Vec<String> = nearby.iter().map(|path| path.display().to_string()).collect();
    format!("; there is {} (give it with --file)", names.join(", "))
}
