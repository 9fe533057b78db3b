//! What is said of an image beside it: where it comes from, and what is in it.

mod sbom;
mod tree;

pub use sbom::{Sbom, SbomRequest};
