//! Names and numbers of signals that STOPSIGNAL takes: signal(7), as docker reads them.
//! <https://pkg.go.dev/github.com/moby/sys/signal#ParseSignal>

use kiln_dockerfile::{Diagnostic, Span};

use crate::diagnose::{did_you_mean, error, with_help};

const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Real-time signals reach from RTMIN to RTMAX, 34 to 64; names count from the nearer end.
const RT_OFFSETS: [(&str, u32); 2] = [("RTMIN+", 15), ("RTMAX-", 14)];

/// Checks that a text names a signal.
pub(super) fn check(text: &str, span: Span) -> Result<(), Diagnostic> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = match text.parse::<i64>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => NAMES.contains(&name) || is_real_time(name),
    };
    if known {
        return Ok(());
    }
    let help = did_you_mean(name, NAMES).map(|help| help.replacen('`', "`SIG", 1));
    Err(with_help(error(span, format!("`{text}` is not a signal")), help))
}

fn is_real_time(name: &str) -> bool {
    if matches!(name, "RTMIN" | "RTMAX") {
        return true;
    }
    RT_OFFSETS.iter().any(|(prefix, last)| {
        let offset = name.strip_prefix(prefix).and_then(|offset| offset.parse::<u32>().ok());
        offset.is_some_and(|offset| (1..=*last).contains(&offset))
    })
}
