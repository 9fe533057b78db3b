//! HTTP's dates.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

/// The two forms that are obsolete and still to be read.
/// <https://www.rfc-editor.org/rfc/rfc9110#http.date>
const OBSOLETE: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Returns seconds since 1970.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(zoned) = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned(text) {
        return Some(zoned.timestamp().as_second());
    }
    OBSOLETE.iter().find_map(|format| {
        let date = DateTime::strptime(format, text).ok()?;
        TimeZone::UTC.to_timestamp(date).map(Timestamp::as_second).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_three_forms() {
        let cases = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("", None),
            ("0", None),
            ("tomorrow", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse(text), seconds, "{text:?}");
        }
    }
}
