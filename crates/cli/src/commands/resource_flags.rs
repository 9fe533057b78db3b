//! `--memory`, `--cpus`, `--pids-limit` and the like, as docker reads them; `--step-timeout`.

use kiln::Resources;

use super::machine_flags::size;
use crate::args::SandboxArgs;
use crate::hints::Failure;

/// Bytes; docker's. A step's init has to fit in, too.
const LEAST_MEMORY: u64 = 6 << 20;

/// Microseconds; docker's and the kernel's.
const CPU_PERIOD: u32 = 100_000;

/// Reads the flags.
pub(super) fn read(args: &SandboxArgs) -> Result<Resources, Failure> {
    let flag = |name: &str, text: &str, reason: String| Failure::usage(format!("{name} {text}: {reason}"));
    let text = |name: &'static str, value: &Option<String>| value.clone().map(|text| (name, text));
    let memory = match text("--memory", &args.memory) {
        Some((name, text)) => memory(&text).map_err(|reason| flag(name, &text, reason))?,
        None => None,
    };
    let memory_swap = match text("--memory-swap", &args.memory_swap) {
        Some((name, text)) => swap(&text, memory).map_err(|reason| flag(name, &text, reason))?,
        None => None,
    };
    let cpus_milli = match (text("--cpus", &args.cpus), args.cpu_quota) {
        (Some((name, text)), _) => cpus(&text).map_err(|reason| flag(name, &text, reason))?,
        (None, Some(quota)) => {
            let period = args.cpu_period.unwrap_or(CPU_PERIOD).max(1);
            let milli = (u64::from(quota) * 1000).div_ceil(u64::from(period));
            u32::try_from(milli).ok().filter(|milli| *milli > 0)
        }
        (None, None) => None,
    };
    let cpuset = match text("--cpuset-cpus", &args.cpuset_cpus) {
        Some((name, text)) => cpuset(&text).map_err(|reason| flag(name, &text, reason))?,
        None => Vec::new(),
    };
    let timeout_ms = match text("--step-timeout", &args.step_timeout) {
        Some((name, text)) => timeout(&text).map_err(|reason| flag(name, &text, reason))?,
        None => None,
    };
    let pids = args.pids_limit.filter(|pids| *pids > 0);
    let pids = pids.map(|pids| u32::try_from(pids).unwrap_or(u32::MAX));
    Ok(Resources { memory, memory_swap, cpus_milli, cpuset, pids, timeout_ms })
}

fn memory(text: &str) -> Result<Option<u64>, String> {
    match size(text)? {
        Some(bytes) if bytes < LEAST_MEMORY => Err("the least is 6m".to_owned()),
        bytes => Ok(bytes),
    }
}

/// The total of memory and swap; -1 for any amount.
fn swap(text: &str, memory: Option<u64>) -> Result<Option<u64>, String> {
    let memory = memory.ok_or("write --memory, too")?;
    if text == "-1" {
        return Ok(Some(u64::MAX));
    }
    match size(text)? {
        Some(total) if total < memory => Err("it is the total, so no less than --memory".to_owned()),
        total => Ok(total),
    }
}

/// `1.5` in thousandths; none for 0.
fn cpus(text: &str) -> Result<Option<u32>, String> {
    let wrong = || "write a number, such as 2 or 0.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > 8 || !digits(whole) || !digits(part) || whole.len() + part.len() == 0 {
        return Err(wrong());
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: u32 = format!("{part:0<3}")[..3].parse().map_err(|_| wrong())?;
    let milli = whole.checked_mul(1000).and_then(|milli| milli.checked_add(part)).ok_or_else(wrong)?;
    if milli == 0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        return Err("the least is 0.001".to_owned());
    }
    Ok((milli > 0).then_some(milli))
}

/// `0-2,4`: cpuset(7), list format.
fn cpuset(text: &str) -> Result<Vec<u32>, String> {
    const MOST: u32 = 1024;
    let wrong = || "write processors' numbers, such as 0-2,4".to_owned();
    let mut set = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] =
            [first, last].map(|number| number.parse::<u32>().ok().filter(|number| *number < MOST));
        let (first, last) = first.zip(last).filter(|(first, last)| first <= last).ok_or_else(wrong)?;
        set.extend(first..=last);
    }
    Ok(set)
}

/// `10m`, `1h30m`, `90s`, `500ms`; none for 0.
pub(super) fn timeout(text: &str) -> Result<Option<u64>, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let wrong = || "write a duration, such as 90s or 1h30m".to_owned();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() && text != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok((total > 0).then_some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap() {
        assert_eq!(memory("64m"), Ok(Some(64 << 20)));
        assert_eq!(memory("0"), Ok(None));
        assert!(memory("1m").is_err());
        assert_eq!(swap("-1", Some(1)), Ok(Some(u64::MAX)));
        assert_eq!(swap("64m", Some(64 << 20)), Ok(Some(64 << 20)));
        assert!(swap("32m", Some(64 << 20)).is_err() && swap("1g", None).is_err());
    }

    #[test]
    fn processors() {
        let rows =
            [("2", Some(2000)), ("1.5", Some(1500)), (".5", Some(500)), ("0.0019", Some(1)), ("0", None)];
        for (text, milli) in rows {
            assert_eq!(cpus(text), Ok(milli), "{text}");
        }
        for text in ["", ".", "x", "-1", "1e3", "0.0001", "9999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        assert_eq!(cpuset("0-2,4"), Ok(vec![0, 1, 2, 4]));
        for text in ["", "a", "2-1", "0,", "5000"] {
            assert!(cpuset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        let rows = [("10m", Some(600_000)), ("1h30m", Some(5_400_000)), ("500ms", Some(500)), ("0", None)];
        for (text, ms) in rows {
            assert_eq!(timeout(text), Ok(ms), "{text}");
        }
        for text in ["", "10", "m", "1.5h", "-1s", "1d"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
