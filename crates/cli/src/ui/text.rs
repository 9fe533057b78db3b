//! Numbers as people read them.

use std::time::Duration;

/// `1 file`, `2 files`.
pub(crate) fn counted(count: impl TryInto<u64>, one: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `734 B`, `1.2 kB`, `190.1 MB`: powers of 1000, as docker prints sizes.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `0.0s`, `12.3s`, `2m03s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{:.1}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

/// `just now`, `5 minutes ago`, `3 days ago`, `2 years ago`: docker's units, which are two days, weeks, months or years at least.
pub(crate) fn age(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then);
    let (count, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        // As docker counts: https://github.com/docker/go-units/blob/master/duration.go
        _ => match seconds / 86_400 {
            days @ 0..14 => (days, "day"),
            days @ 14..60 => (days / 7, "week"),
            days @ 60..730 => (days / 30, "month"),
            days => (days / 365, "year"),
        },
    };
    format!("{} ago", counted(count, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        let rows = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")];
        for (count, text) in rows {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(seconds(Duration::from_millis(1234)), "1.2s");
        assert_eq!(seconds(Duration::from_secs(123)), "2m03s");
        assert_eq!(age(100, 50), "just now");
        assert_eq!(age(7300, 100), "2 hours ago");
        assert_eq!(age(86_500, 100), "1 day ago");
        let days = |days: u64| age(days * 86_400 + 5, 0);
        let rows = [
            (13, "13 days"),
            (14, "2 weeks"),
            (59, "8 weeks"),
            (60, "2 months"),
            (729, "24 months"),
            (730, "2 years"),
        ];
        for (count, text) in rows {
            assert_eq!(days(count), format!("{text} ago"));
        }
        // An image of 1970, as a SOURCE_DATE_EPOCH of 0 makes it.
        assert_eq!(days(20_780), "56 years ago");
    }
}
