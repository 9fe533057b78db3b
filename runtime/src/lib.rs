//! Enter the user namespace; run one process in fresh namespaces.
//!
//! [`init`] first thing in `main`, [`enter`] before any thread, then [`run`] from as many threads as wanted.
//! docs/rootless.md tells what each rung of the ladder needs and what is a security boundary.

mod caller;
mod cgroup;
mod child;
mod chroot;
mod emulator;
mod enter;
mod error;
mod files;
mod ids;
mod init;
mod kernel;
mod meter;
mod mounts;
mod network;
mod notify;
mod nursery;
mod probe;
mod proc;
mod run;
mod seccomp;
mod signals;
mod step;
mod streams;
mod stubs;
mod sys;
mod terminal;
mod user;
mod varied;
mod watch;
mod wire;
mod world;

pub use emulator::{EmulatorSearch, NoEmulator, Way, architectures, find};
pub use enter::{EnterOptions, Entered, Isolation, enter};
pub use error::{EmulatorStage, EnterError, InitFailure, Obstacle, RunError, Stage, UserError};
pub use ids::{IdMode, IdRange};
pub use mounts::{show_owner, try_overlay, view};
pub use network::NetworkError;
pub use notify::LinkOwners;
pub use probe::{Rung, probe};
pub use proc::Proc;
pub use run::{RunReport, run, run_interactive};
pub use signals::Signals;

/// Serves this binary when kiln executes it again; call it first thing in `main`, before any thread.
///
/// Returns only if the process was not started by kiln.
pub fn init() {
    match std::env::args_os().next() {
        Some(name) if name == nursery::INIT => {
            // Without the descriptor somebody else has chosen the name: then it is an ordinary start.
            if let Some(socket) = sys::take(nursery::SOCKET) {
                nursery::serve(socket, nursery::emulator_of(std::env::args_os().skip(1)));
            }
        }
        Some(name) if name == probe::PROBE => probe::serve(),
        Some(name) if name == caller::CALLER => caller::serve(std::env::args_os().skip(1)),
        _ => {}
    }
}
