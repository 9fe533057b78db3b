//! Dockerfile stages to a step graph; pure.
//!
//! [`lower`] takes what a registry knows as a table and says what it misses; [`lower_offline`] makes it up.
//! [`print`](mod@print) writes a plan as text.

mod check;
mod diagnose;
mod duration;
mod globals;
mod instruction;
mod lower;
mod lowering;
mod mount;
mod offline;
mod outline;
mod path;
mod place;
mod plan;
pub mod print;
mod quote;
mod settings;
mod source;
mod stages;
mod state;
mod trigger;
mod variables;
mod words;

pub use check::is_secret;
pub use lower::lower;
pub use offline::lower_offline;
pub use outline::{Argument, MountName, Outline, Target, outline, targets};
pub use plan::{
    BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, NamedContext, PlannedHistory, PlannedImage,
    ResolvedImage,
};
