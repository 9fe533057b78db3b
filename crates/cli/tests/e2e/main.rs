//! The `kiln` binary end to end, as root, as a user with subordinate ids and as one without. docs/testing.md says how to
//! run one case.

mod archives;
mod bad_input;
mod cache_mounts;
mod checks;
mod chroot;
mod commands;
mod contexts;
mod copy;
mod debug_shell;
mod escape;
mod forms;
mod git;
mod hazards;
mod hygiene;
mod image_store;
mod images;
mod instructions;
mod limits;
mod mounts;
mod nested;
mod network;
mod outputs;
mod place;
mod platforms;
mod registry;
mod remote;
mod rungs;
mod same_digest;
mod secrets;
mod single_id;
mod small;
mod snapshotter;
mod ssh;
mod stages;
mod user;
