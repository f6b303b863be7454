//! Values that arguments hold: durations, times, counts, ports. Each error is the beginning of a sentence without the
//! form, which the caller adds.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Longest time span that is understood. Far below what clocks can add, so that no later sum overflows.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

/// `text` for an error message: at most 40 characters of it, nothing that a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '\'' | '"' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// A time span: `5`, `3.0` (seconds), `500ms`, `10s`, `2m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{}' is no time span (5, 3.0, 10s, 2m, 1h or 7d)", shown(text));
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * scale)
        .ok()
        .filter(|span| *span <= MAX_DURATION)
        .ok_or_else(|| format!("'{}' is longer than 3650d", shown(text)))
}

/// A moment: RFC 3339, a date (its midnight in UTC), or a time span back from `now`.
pub(crate) fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    // Digits alone would be a date in the compact ISO form too; here they are seconds.
    if !text.contains(['-', ':', 'T', 't']) && text.starts_with(|c: char| c.is_ascii_digit()) {
        let span = duration(text)?;
        let wrong = |_| format!("'{}' is longer ago than can be told", shown(text));
        return now.checked_sub(SignedDuration::try_from(span).map_err(wrong)?).map_err(wrong);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    (text.len() == "2026-11-21".len())
        .then(|| text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok())
        .flatten()
        .map(|midnight| midnight.timestamp())
        .ok_or_else(|| {
            format!("'{}' is no time (2026-11-21T09:30:00Z, 2026-11-21, or how long ago: 30m, 7d)", shown(text))
        })
}

/// A count from 1 to `most`.
pub(crate) fn count(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("'{}' is no number from 1 to {most}", shown(text)))
}

/// `host` and `port` as one `host:port`, an IPv6 address in brackets.
pub(crate) fn host_port(host: &str, port: &str) -> Result<String, String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty()
        || bare.contains(['/', '[', ']'])
        || (bare.contains(':') && bare.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()))
    {
        return Err(format!("'{}' is no host", shown(host)));
    }
    match port.parse::<u16>() {
        Ok(port) if port != 0 && bare.contains(':') => Ok(format!("[{bare}]:{port}")),
        Ok(port) if port != 0 => Ok(format!("{bare}:{port}")),
        _ => Err(format!("'{}' is no port from 1 to 65535", shown(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5", 5000),
            ("3.0", 3000),
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0.25s", 250),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "-1", "+1", "NaN", "inf", "1e9", "1.2.3", ".", ".5", "5 s", "5w", "3651d", &"9".repeat(400), "٣"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T09:30:00Z", "2026-11-20T09:30:00Z"),
            ("2026-11-20T09:30:00+02:00", "2026-11-20T07:30:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("7d", "2026-11-14T12:00:00Z"),
            ("90", "2026-11-21T11:58:30Z"),
        ] {
            assert_eq!(since(text, now), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-02-30", "-5", "9999999d", "2026-11-21T", "12:00"] {
            assert!(since(text, now).is_err(), "{text}");
        }
        assert!(since("1d", Timestamp::MIN).is_err());
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(host_port("example.org", "4001").unwrap(), "example.org:4001");
        assert_eq!(host_port("::1", "1").unwrap(), "[::1]:1");
        assert_eq!(host_port("[fe80::1]", "65535").unwrap(), "[fe80::1]:65535");
        for (host, port) in
            [("h", "0"), ("h", "65536"), ("h", "x"), ("h", "-1"), ("", "1"), ("/ip4/1.2.3.4", "1"), ("h:1", "2")]
        {
            assert!(host_port(host, port).is_err(), "{host} {port}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown("a\u{1b}[2J'\u{202e}"), "a\\u{1b}[2J'\\u{202e}");
        assert_eq!(shown(&"x".repeat(50)).chars().count(), 41);
    }
}
