//! Other people's engines, each with all its files in a test's place; they end with the test.

mod docker;
mod podman;

pub(crate) use docker::Docker;
pub(crate) use podman::Podman;
