//! `--format`: rows through a template, wherever a command has it.

use serde_json::Value;

use crate::hints::Failure;
use crate::template::Template;
use crate::ui::{self, Columns};

/// Reads the flag, before anything is done.
pub(super) fn read(format: Option<&str>) -> Result<Option<Template>, Failure> {
    format.map(Template::parse).transpose().map_err(wrong)
}

/// Prints a line for each row; with `table`, in columns under a heading.
pub(super) fn print(template: &Template, rows: &[Value]) -> Result<(), Failure> {
    let lines = rows.iter().map(|row| template.render(row)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if template.is_table() {
        let heading = template.heading();
        ui::print(Columns::new(std::iter::once(&heading).chain(&lines).map(|line| line.split('\t'))));
    } else {
        lines.iter().for_each(ui::print);
    }
    Ok(())
}

fn wrong(reason: String) -> Failure {
    Failure::usage(format!("--format: {reason}"))
}
