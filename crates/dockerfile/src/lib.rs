//! Dockerfile text to typed instructions with spans; pure.
//!
//! [`parse`] never fails: text in, a [`Dockerfile`] and diagnostics out. A file with an error among its diagnostics
//! must not be built. [`expand`] turns words with variables into strings. [`parse_nodes`] and [`print`](mod@print)
//! show a file as BuildKit's parser sees it.

mod ast;
pub mod check;
mod document;
pub mod expand;
mod flags;
mod heredoc;
mod instruction;
mod json;
mod lines;
mod mount;
mod node;
mod parse;
mod position;
pub mod print;
mod rule;
mod suggest;
mod words;

pub use ast::{
    ArgDecl, Command, Copy, Diagnostic, Directives, Dockerfile, Edit, Fix, Flag, From, Healthcheck, Heredoc,
    Instruction, KeyValue, Located, MountFlag, Run, Severity, Span, Spanned, Stage, Trigger,
};
pub use lines::Logical;
pub use node::Node;
pub use parse::{parse, parse_nodes, parse_trigger};
pub use position::Position;
pub use rule::{Origin, Rule};
pub use suggest::nearest;
