//! Runs what the tests tell it to, as any user: `runner COMMAND ...`; see `main`. For tests only.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use kiln_core::{Cancel, LogStream, Rootfs, RunSpec};
use kiln_runtime::{
    EnterOptions, Entered, Isolation, Proc, RunError, RunReport, Signals, enter, init, probe, run,
    run_interactive, view,
};

fn main() -> ExitCode {
    init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        // Prints the rungs as JSON.
        ["probe", store] => println!(
            "{}",
            serde_json::to_string(
                &probe(store.as_ref(), &kiln_runtime::EmulatorSearch::default(), chosen()).unwrap()
            )
            .unwrap()
        ),
        // Prints the ids as JSON.
        ["ids"] => println!("{}", serde_json::to_string(entered().ids()).unwrap()),
        // Lists a merged view of the layers, and what each file holds.
        ["view", layers @ ..] => list_view(layers),
        // Runs a spec; its output is ours; the last line on standard error is the result.
        ["run", spec] => return report(&run(&entered(), &read(spec), &mut copy, &Cancel::new())),
        // The same, and then the owners of links that it leaves.
        ["links", spec] => {
            let result = run(&entered(), &read(spec), &mut copy, &Cancel::new());
            println!(
                "{:?}",
                result.as_ref().map_or_else(|_| Default::default(), |report| report.link_owners.clone())
            );
            return report(&result);
        }
        ["interactive", spec] => {
            return report(&run_interactive(&entered(), &read(spec), &Signals::default(), &Cancel::new()));
        }
        // Cancels when the first output comes.
        ["cancel", spec] => {
            let cancel = Cancel::new();
            let mut output = |_: LogStream, _: &[u8]| cancel.cancel();
            let started = Instant::now();
            let result = run(&entered(), &read(spec), &mut output, &cancel);
            eprintln!("{} ms", started.elapsed().as_millis());
            return report(&result);
        }
        // Runs several specs at once, each on a thread of its own.
        ["parallel", specs @ ..] => {
            let entered = entered();
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = specs
                    .iter()
                    .map(|spec| scope.spawn(|| run(&entered, &read(spec), &mut copy, &Cancel::new())))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for result in &results {
                report(result);
            }
        }
        // Times so many runs of a spec, each with a fresh upper directory, on so many threads.
        ["time", spec, count, threads] => time(&read(spec), count.parse().unwrap(), threads.parse().unwrap()),
        // Executes a program, with this one open as the descriptor that OWN names.
        ["keep", program, args @ ..] => {
            let own = fs::File::open("/proc/self/exe").unwrap();
            rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&own).to_string();
            let mut command = std::process::Command::new(program);
            panic!("{}", std::os::unix::process::CommandExt::exec(command.args(args).env("OWN", number)));
        }
        // Enters with a thread running, which must be refused.
        ["threaded"] => {
            std::thread::scope(|scope| {
                let (send, wait) = std::sync::mpsc::channel::<()>();
                scope.spawn(move || wait.recv());
                println!("{}", serde_json::to_string(&enter(&EnterOptions::default()).unwrap_err()).unwrap());
                drop(send);
            });
        }
        other => panic!("unknown command {other:?}"),
    }
    ExitCode::SUCCESS
}

fn chosen() -> Option<Isolation> {
    std::env::var_os("KILN_TEST_CHROOT").map(|_| Isolation::Chroot)
}

fn entered() -> Entered {
    let single_id = std::env::var_os("KILN_TEST_SINGLE_ID").is_some();
    let proc = std::env::var("KILN_TEST_PROC").ok().map(|which| match which.as_str() {
        "bound" => Proc::Bound,
        "minimal" => Proc::Minimal,
        _ => Proc::Fresh,
    });
    enter(&EnterOptions { single_id, isolation: chosen(), proc }).unwrap_or_else(|error| panic!("{error}"))
}

fn read(path: &str) -> RunSpec {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn copy(stream: LogStream, bytes: &[u8]) {
    match stream {
        LogStream::Stdout => io::stdout().write_all(bytes),
        LogStream::Stderr => io::stderr().write_all(bytes),
    }
    .unwrap();
}

fn report(result: &Result<RunReport, RunError>) -> ExitCode {
    io::stdout().flush().unwrap();
    match result {
        Ok(report) => {
            eprintln!("{}", serde_json::to_string(&report.status).unwrap());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", serde_json::to_string(error).unwrap());
            ExitCode::FAILURE
        }
    }
}

fn list_view(layers: &[&str]) {
    let layers: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
    let view = view(&entered(), &layers).unwrap_or_else(|error| panic!("{error}"));
    let inside = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view)));
    let mut names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        println!("{} {:?}", name.display(), fs::read_to_string(inside.join(&name)).unwrap_or_default());
    }
    println!("{:?}", fs::write(inside.join("new"), "").map_err(|error| error.kind()));
}

fn time(spec: &RunSpec, count: usize, threads: usize) {
    let entered = entered();
    let mut times: Vec<u128> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let entered = &entered;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for number in 0..count {
                        let mut spec = spec.clone();
                        let scratch = spec.rootfs.changes().with_file_name(format!("time-{thread}-{number}"));
                        if let Rootfs::Overlay { upper, work, .. } = &mut spec.rootfs {
                            (*upper, *work) = (scratch.join("upper"), scratch.join("work"));
                            fs::create_dir_all(upper).unwrap();
                            fs::create_dir_all(work).unwrap();
                        }
                        let started = Instant::now();
                        run(entered, &spec, &mut copy, &Cancel::new()).unwrap();
                        times.push(started.elapsed().as_micros());
                        if scratch.exists() {
                            fs::remove_dir_all(&scratch).unwrap();
                        }
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_unstable();
    println!("min {} median {} max {} us", times[0], times[times.len() / 2], times[times.len() - 1]);
}
