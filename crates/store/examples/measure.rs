//! Measures the store on this machine: `measure STORE LAYER.tar[.gz]` unpacks the layer, packs it again at each
//! gzip level, and syncs. Figures in docs/decisions come from here. Give it a fresh directory on the disk in question.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use kiln_core::{Digest, DigestHasher};
use kiln_store::{Compression, Ids, LayerOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, root, tar] = args.as_slice() else { return Err("usage: measure STORE LAYER.tar[.gz]".into()) };
    let ids = if std::env::var_os("SINGLE").is_some() { Ids::Single } else { Ids::Full };
    let store = timed("open", || Store::open(Path::new(root), ids))?;
    let diff_id = diff_id(Path::new(tar))?;
    let layer = timed("unpack", || {
        store.unpack(&diff_id, "application/vnd.oci.image.layer.v1.tar", File::open(tar).unwrap())
    })?;
    timed("sync", || store.finish_build())?;
    timed("sync, nothing made", || store.finish_build())?;
    for level in [0, 1, 2, 3, 4, 5, 6, 9] {
        let compression = if level == 0 { Compression::None } else { Compression::Gzip { level } };
        let name = format!("pack, {compression:?}");
        let packed = timed(&name, || {
            store.layer_blob(&layer, &LayerOptions { compression, epoch: None }, &kiln_core::Cancel::new())
        })?;
        println!("{:>34.1} MiB", packed.size as f64 / f64::from(1 << 20));
    }
    timed("pack again", || store.layer_blob(&layer, &LayerOptions::default(), &kiln_core::Cancel::new()))?;
    timed("usage", || store.usage())?;
    println!("peak memory {} KiB", peak_kib());
    Ok(())
}

/// Runs it, and prints wall and processor time.
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let result = run();
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{what:<28} {:>9.3} s wall {cpu:>8.2} s cpu", wall);
    result
}

/// Hashes what is in the layer, so that the unpacking alone is timed.
fn diff_id(path: &Path) -> std::io::Result<Digest> {
    let file = std::io::BufReader::new(File::open(path)?);
    let mut reader: Box<dyn std::io::Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let (mut hasher, mut buffer) = (DigestHasher::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Processor time of this process, to a hundredth of a second: proc_pid_stat(5).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.trim_start_matches("VmHWM:").trim().trim_end_matches(" kB").to_owned()
}
