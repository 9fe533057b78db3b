//! Dockerfile stages to a step graph; pure.

mod plan;

pub use plan::{
    BuildPlan, ImageRequest, ImageTable, LowerOptions, Lowered, NamedContext, PlannedHistory, PlannedImage,
    ResolvedImage,
};

use kiln_dockerfile::{Diagnostic, Dockerfile};

/// Turns a Dockerfile into a plan.
///
/// # Errors
/// What is wrong or not supported, with its place; at least one is an error.
pub fn lower(
    file: &Dockerfile,
    options: &LowerOptions,
    images: &ImageTable,
) -> Result<Lowered, Vec<Diagnostic>> {
    let _ = (file, options, images);
    Err(Vec::new())
}
