//! Commits of git repositories, fetched and checked out without a `git` program.
//!
//! [`resolve`] asks a remote which commit a name means, [`checkout`] fetches that commit alone (a shallow fetch) and writes its
//! files. Remotes are smart HTTP (through the [`Http`] of the caller: this crate has none), `git://`, `ssh://` (through the
//! host's `ssh`), and `file://` where [`Access::files`] allows it.
//!
//! Packs are read by gitoxide (docs/decisions/0007). What comes from a remote is distrusted: each object's id is what its
//! bytes hash to, each path is checked as git does, and nothing is written through a symbolic link.

mod access;
mod checkout;
mod config;
mod error;
mod fetch;
mod greeting;
mod http;
mod local;
mod location;
mod pack;
mod pkt;
mod refs;
mod resolve;
mod transport;

pub use access::{Access, Auth, Limits, Progress, Ssh};
pub use checkout::{CheckoutOptions, checkout};
pub use error::{Credentials, GitError};
pub use http::{Http, HttpRequest, HttpResponse};
pub use local::commit_time;
pub use location::remote_host;
pub use resolve::{CommitId, Resolved, resolve};
