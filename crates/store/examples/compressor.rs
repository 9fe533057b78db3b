//! What gzip takes on this machine with nothing around it: `compressor LEVEL FILE...` reads the files into memory, deflates them as
//! the layers of an image are, on all processors, and drops the result. Prints the result's MiB, wall and processor seconds as JSON.
//! `testdata/bench/export` sets it beside exports.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let level = args.next().ok_or("usage: compressor LEVEL FILE...")?.parse()?;
    let mut bytes = Vec::new();
    for path in args {
        std::io::copy(&mut std::fs::File::open(path)?, &mut bytes)?;
    }
    let threads = std::thread::available_parallelism()?.get();
    let (cpu, begun) = (cpu_seconds(), Instant::now());
    let size = kiln_store::deflate_alone(&bytes, level, threads);
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(r#"{{"mib": {:.1}, "wall": {wall:.3}, "cpu": {cpu:.2}}}"#, size as f64 / f64::from(1 << 20));
    Ok(())
}

/// Processor time of this process, to a hundredth of a second: proc_pid_stat(5).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
