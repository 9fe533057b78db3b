//! Real namespaces: every case runs a real process, as root, as a user with subordinate ids, and as one without.
//!
//! The namespaces are entered by the example `runner`, for a test's own process has threads.

mod callers;
mod chroot;
mod escape;
mod hazards;
mod isolation;
mod ladder;
mod mounts;
mod notify;
mod old_programs;
mod order;
mod proc;
mod secrets;
mod steps;
mod support;
mod tree;
