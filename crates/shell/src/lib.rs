//! A small shell inside kiln's own program, for images that have none.
//!
//! `kiln debug shell` mounts the program into the step as [`NAME`] and executes it there. It is for looking: it lists and
//! shows files, and starts the image's own programs. docs/debug.md says what it takes. It never fails as a whole: what it
//! does not know it refuses, and goes on with the next line.

mod commands;
mod listing;
mod programs;
mod session;
mod time;
mod words;

/// Where the program is mounted. Under this name it is a shell.
pub const NAME: &str = "/dev/kiln-shell";

/// Serves as the shell if this process was started under [`NAME`]; returns only if it was not. With arguments it does that
/// one command, else what standard input says.
pub fn init() {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| name == NAME) {
        std::process::exit(session::serve(args.collect()));
    }
}
