//! Durations as Go writes and reads them: <https://pkg.go.dev/time#ParseDuration>.

/// Units with their nanoseconds; a longer name goes before one that it begins with.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads nanoseconds: `1m30s`, `1.5s`, `-300ms`, and `0` without a unit.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = one(rest)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    let total = i64::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

/// Reads one number with its unit.
fn one(text: &str) -> Option<(u128, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // Less than a nanosecond of an hour is beyond the thirteenth digit.
    let fraction = &fraction[..fraction.len().min(15)];
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some((u128::from(whole) * size + part * size / scale, rest))
}

/// Writes nanoseconds: `1m30s`, `1.5s`, `300ms`, `0s`.
pub(crate) fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let text = match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{all}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(all, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(all, 1_000_000)),
        _ => {
            let minutes = all / 60_000_000_000;
            let seconds = decimal(all % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A number in a unit, without needless zeros.
fn decimal(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[test]
    fn what_is_read_is_written() {
        let rows = [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("1ms", 1_000_000, "1ms"),
            ("1.25ms", 1_250_000, "1.25ms"),
            ("7us", 7_000, "7\u{b5}s"),
            ("7\u{3bc}s", 7_000, "7\u{b5}s"),
            ("3ns", 3, "3ns"),
            ("100h", 360_000_000_000_000, "100h0m0s"),
            ("1h0.5m", 3_630_000_000_000, "1h0m30s"),
            ("-2s", -2_000_000_000, "-2s"),
            ("+2s", 2_000_000_000, "2s"),
        ];
        for (text, nanoseconds, written) in rows {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
            assert_eq!(format(nanoseconds), written, "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "-", "30", "s", "1x", "1 s", ".s", "1s2", "1d", "9999999h", "--1s", "1S", "1\u{b2}s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
