//! `--add-host`, `--shm-size` and `--ulimit`, as docker reads them.

use std::net::IpAddr;

use kiln::{Limit, Machine};

use crate::args::MachineArgs;
use crate::hints::Failure;

/// As docker has them, and setrlimit(2) after it.
const LIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads the flags.
pub(crate) fn read(args: &MachineArgs) -> Result<Machine, Failure> {
    let bad = |flag: &str, text: &str, reason: String| Failure::usage(format!("{flag} {text}: {reason}"));
    Ok(Machine {
        hosts: args
            .add_host
            .iter()
            .map(|text| host(text).map_err(|reason| bad("--add-host", text, reason)))
            .collect::<Result<_, _>>()?,
        shm_size: match &args.shm_size {
            Some(text) => size(text).map_err(|reason| bad("--shm-size", text, reason))?,
            None => None,
        },
        limits: args
            .ulimit
            .iter()
            .map(|text| limit(text).map_err(|reason| bad("--ulimit", text, reason)))
            .collect::<Result<_, _>>()?,
    })
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, the address in brackets or not; gives address and name.
fn host(text: &str) -> Result<(String, String), String> {
    let wrong = || "write NAME:ADDRESS, such as db:10.0.0.2".to_owned();
    let at = text.find(['=', ':']).ok_or_else(wrong)?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong());
    }
    if address == "host-gateway" {
        // Where that is depends on the network that a step is in.
        return Ok((address.to_owned(), name.to_owned()));
    }
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = inner.parse().map_err(|_| format!("{address:?} is no IP address"))?;
    Ok((address.to_string(), name.to_owned()))
}

/// `64m`, `1gb`, `4096`: binary multiples; none for 0, which is the default.
pub(super) fn size(text: &str) -> Result<Option<u64>, String> {
    let wrong = || "write a size, such as 256m or 1g".to_owned();
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match lower[digits.len()..].trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    Ok((bytes > 0).then_some(bytes))
}

/// `TYPE=SOFT[:HARD]`; -1 is unlimited.
fn limit(text: &str) -> Result<Limit, String> {
    let (name, values) = text.split_once('=').ok_or("write TYPE=SOFT[:HARD], such as nofile=1024:4096")?;
    if !LIMITS.contains(&name) {
        return Err(format!("{name:?} is unknown; there are {}", LIMITS.join(", ")));
    }
    let number = |text: &str| match text {
        "-1" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{text:?} is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Limit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let rows = [
            ("db:10.0.0.2", "10.0.0.2"),
            ("db=10.0.0.2", "10.0.0.2"),
            ("db:::1", "::1"),
            ("db=[::1]", "::1"),
            ("db:host-gateway", "host-gateway"),
        ];
        for (text, address) in rows {
            assert_eq!(host(text), Ok((address.to_owned(), "db".to_owned())), "{text}");
        }
        for text in ["db", ":1.2.3.4", "db:", "db:x", "a b:1.2.3.4"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let rows = [
            ("0", None),
            ("4096", Some(4096)),
            ("64m", Some(64 << 20)),
            ("1GB", Some(1 << 30)),
            ("2kb", Some(2048)),
            ("3b", Some(3)),
        ];
        for (text, bytes) in rows {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999999t"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        let rows = [
            ("nofile=1024", Some(1024), Some(1024)),
            ("nofile=1024:4096", Some(1024), Some(4096)),
            ("nofile=1024:-1", Some(1024), None),
            ("nofile=-1", None, None),
        ];
        for (text, soft, hard) in rows {
            assert_eq!(limit(text), Ok(Limit { name: "nofile".to_owned(), soft, hard }), "{text}");
        }
        for text in ["nofile", "files=1", "nofile=x", "nofile=2:1", "nofile=-1:1"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
