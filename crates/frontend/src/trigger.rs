//! Triggers (ONBUILD): instructions that a base leaves to whoever builds upon it.
//! <https://docs.docker.com/reference/dockerfile/#onbuild>

use kiln_dockerfile::{Diagnostic, Instruction, Located, Span, parse_trigger};

use crate::diagnose::error;

/// One trigger of a stage's base. It runs right after FROM, as if it stood there.
#[derive(Debug)]
pub(crate) struct Trigger {
    /// The instruction; places in it are places in the trigger's own text, and mean nothing to a reader of the file.
    pub(crate) instruction: Located<Instruction>,
    /// The base as written after FROM.
    base: String,
}

impl Trigger {
    /// Reads a trigger as an image or a stage has it. `from` is where the base is written.
    pub(crate) fn read(text: &str, base: &str, from: Span) -> Result<Self, Diagnostic> {
        match parse_trigger(text) {
            Ok(instruction) => Ok(Self { instruction, base: base.to_owned() }),
            Err(problem) => Err(told(problem, text, base, from)),
        }
    }

    /// Says of a problem in the trigger where it comes from.
    pub(crate) fn tell(&self, problem: Diagnostic, from: Span) -> Diagnostic {
        told(problem, &self.instruction.text, &self.base, from)
    }
}

fn told(problem: Diagnostic, text: &str, base: &str, from: Span) -> Diagnostic {
    let first = text.lines().next().unwrap_or_default();
    let Diagnostic { severity, help, rule, .. } = problem;
    let message = format!("in the trigger `ONBUILD {first}` of `{base}`: {}", problem.message);
    Diagnostic { severity, help, rule, ..error(from, message) }
}
