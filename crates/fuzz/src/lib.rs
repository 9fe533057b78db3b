//! What must hold for every input of the pure crates: the parser, the expander, the ignore matcher, the lowering,
//! the readers of package databases.
//!
//! Each target takes any bytes and panics if something does not hold. `make fuzz` looks for such bytes, guided by
//! coverage; what it found worth keeping lies in testdata/fuzz and is tried again by the plain tests of this crate.

mod expand;
mod ignore;
mod lower;
mod parse;
mod print;
mod sbom;

/// A target: its name, and what tries an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("parse", parse::check),
    ("expand", expand::check),
    ("ignore", ignore::check),
    ("lower", lower::check),
    ("sbom", sbom::check),
];
