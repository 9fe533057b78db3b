//! Builds an image from a program that has threads of its own.
//!
//! ```text
//! cargo run --example embed -- CONTEXT [STORE [chroot|namespaces]]
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its reader")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln::{BuildRequest, Builder, CacheVerdict, Error, Event, Isolation};

fn main() -> ExitCode {
    // First thing: the builder starts this program again to do its work, and that start must not do ours.
    kiln::init();

    let mut args = std::env::args_os().skip(1);
    let Some(context) = args.next().map(PathBuf::from) else {
        eprintln!("usage: embed CONTEXT [STORE [chroot|namespaces]]");
        return ExitCode::from(2);
    };
    let store = args.next().map_or_else(|| std::env::temp_dir().join("kiln-embed"), PathBuf::from);

    let mut builder = Builder::new();
    builder = match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("chroot") => builder.isolation(Isolation::Chroot),
        Some("namespaces") => builder.isolation(Isolation::Namespaces),
        _ => builder,
    };

    // A thread of the program's own: the engine does not mind, it has a process to itself.
    static TICKS: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        loop {
            TICKS.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });

    let request = BuildRequest::new(store, context);
    let result = builder.build(&request, |event| match event {
        Event::StepDeclared { step, title, .. } => println!("#{step} is {title}"),
        Event::StepStarted { step } => println!("#{step} started"),
        Event::StepReason { step, why } => println!("#{step} runs because: {}", why.summary()),
        Event::StepCached { step } => println!("#{step} cached"),
        Event::StepLog { step, text, .. } => print!("#{step} says {text}"),
        Event::StepFinished { step, duration_us, .. } => println!("#{step} took {} ms", duration_us / 1000),
        Event::CacheMount { step, id, state, .. } => println!("#{step} cache {id}: {state:?}"),
        Event::Warning { message, .. } => println!("warning: {message}"),
        Event::PlanReady { .. }
        | Event::StepProgress { .. }
        | Event::StepWaiting { .. }
        | Event::Exported { .. } => {}
    });
    match result {
        Ok(outcome) => {
            for image in &outcome.images {
                println!("built {} for {}, {} bytes", image.manifest, image.platform, image.size);
            }
            for step in outcome.steps {
                let verdict = match step.verdict {
                    CacheVerdict::Hit => "was there",
                    CacheVerdict::Ran => "ran",
                    CacheVerdict::Unneeded => "was not needed",
                };
                println!("{} {verdict}", step.title);
            }
            ExitCode::SUCCESS
        }
        // Errors arrive as the types that left the engine.
        Err(Error::StepFailed { title, status, tail, .. }) => {
            eprintln!("{title} failed with {status}; it said:\n{}", tail.join("\n"));
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}
