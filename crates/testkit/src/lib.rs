//! Strict fakes, fixtures as text and conformance suites; for tests only.

pub mod image;
pub mod registry;
pub mod tools;
