//! One file a command: what was typed becomes a request, the answer becomes text.

mod annotation_flag;
mod archive;
mod attest_flag;
mod build;
mod cache_flag;
mod cache_mount_flag;
mod caches;
mod call;
mod carry;
mod context;
mod context_source;
mod csv;
mod debug;
mod diff;
mod doctor;
mod doctor_registry;
mod explain;
mod fix;
mod format_flag;
mod history;
mod images;
mod index;
mod inspect;
mod layers;
mod login;
mod machine_flags;
mod metadata;
mod mount_flag;
mod output_flag;
mod resource_flags;
mod run;
mod sandbox_flags;
mod sbom;
mod secret_flag;
mod shell;
mod ssh_flag;
mod storage;
mod transfer;
mod verify;

use std::process::ExitCode;

use clap::CommandFactory as _;
use kiln::{Cancel, Engine, EnterOptions};

use crate::args::{Cli, Command, Global, ImageCommand, SystemCommand, WaitArgs};
use crate::config;
use crate::hints::Failure;
pub(crate) use call::Call;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Build(args) => build::build(global, &args),
        Command::Explain(args) => explain::explain(global, &args),
        Command::Verify(args) => verify::verify(global, &args),
        Command::Run(args) => run::run(global, &args),
        Command::Images(args) => images::list(global, &args),
        Command::Rmi(args) => images::remove(global, &args),
        Command::Inspect(args) => inspect::inspect(global, &args),
        Command::History(args) => history::history(global, &args),
        Command::Layers(args) => layers::layers(global, &args),
        Command::Image(ImageCommand::Prune(args)) => images::prune(global, &args),
        Command::Image(ImageCommand::Same(command)) => run(Cli { global, command: command.into() }),
        Command::Tag(args) => index::tag(global, &args),
        Command::Pull(args) => transfer::pull(global, &args),
        Command::Push(args) => transfer::push(global, &args),
        Command::Copy(args) => transfer::copy(global, &args),
        Command::Save(args) => archive::save(global, &args),
        Command::Load(args) => archive::load(global, &args),
        Command::Import(args) => archive::import(global, &args),
        Command::Index(command) => index::index(global, &command),
        Command::Sbom(args) => sbom::sbom(global, &args),
        Command::Cache(command) => caches::run(global, command),
        Command::Context(command) => context::run(global, &command),
        Command::Du(args) => storage::du(global, &args),
        Command::Prune(args) => storage::prune(global, &args),
        Command::System(SystemCommand::Df(args)) => storage::du(global, &args),
        Command::System(SystemCommand::Prune(args)) => storage::prune(global, &args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Doctor(args) => doctor::doctor(global, &args),
        Command::Graph(args) => debug::graph(&args),
        Command::Debug(command) => debug::debug(global, command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kiln", &mut script);
            crate::ui::print(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Enters the namespaces and opens the store. Before any thread: that is why each command does it first.
fn start(global: Global) -> Result<Engine, Failure> {
    let options = EnterOptions { isolation: global.isolation.map(Into::into), ..EnterOptions::default() };
    let engine = Engine::start_with(&config::store_root(global.root)?, &options)?;
    Ok(match global.snapshotter {
        Some(chosen) => engine.snapshotter(chosen.into()),
        None => engine,
    })
}

/// The same for what uses caches, with the places that the configuration file gives them.
fn start_with_caches(global: Global) -> Result<Engine, Failure> {
    let places = config::cache_mounts(Vec::new())?;
    Ok(start(global)?.cache_places(&places)?)
}

/// The same for what waits for others, so long and no longer.
fn start_patient(global: Global, wait: &WaitArgs) -> Result<Engine, Failure> {
    let timeout = storage::lock_timeout(wait.lock_timeout.as_deref())?;
    Ok(start_with_caches(global)?.lock_timeout(timeout))
}

/// Returns a signal that an interrupt or a request to terminate gives. A second one ends the process at once: the
/// kernel cleans up behind it as it does behind `kill -9`.
fn cancel_on_signal() -> Result<Cancel, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let cancel = Cancel::new();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::usage(format!("cannot listen to signals: {error}")))?;
    let to_cancel = cancel.clone();
    std::thread::spawn(move || {
        for (number, signal) in signals.forever().enumerate() {
            if number > 0 {
                std::process::exit(128 + signal);
            }
            to_cancel.cancel();
        }
    });
    Ok(cancel)
}
