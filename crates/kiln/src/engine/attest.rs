//! What is said of an image beside it: where it comes from, and what is in it.

mod claims;
mod files;
mod provenance;
mod sbom;
mod statement;
mod tree;

pub(super) use claims::Claims;
pub(super) use files::write_beside;
pub use sbom::{Sbom, SbomRequest};
