//! Lengths of time as Go's programs read them: `5s`, `100ms`, `1h30m`, `1.5s`.

use std::time::Duration;

/// The units, each in nanoseconds; a longer name comes before one that it ends with.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 6e10),
    ("h", 3.6e12),
];

/// The longest that is understood: what Go can hold.
const LONGEST: f64 = 9.2e18;

/// Reads a length of time that is more than none.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let nanoseconds = total(text).ok_or_else(|| format!("invalid duration {text:?}"))?;
    if nanoseconds < 1.0 {
        return Err("duration interval must be greater than 0".to_owned());
    }
    Ok(Duration::from_secs_f64(nanoseconds / 1e9))
}

fn total(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        sum += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    (!text.is_empty() && sum < LONGEST).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_go_reads_them() {
        let read = |text| parse(text).unwrap();
        assert_eq!(read("5s"), Duration::from_secs(5));
        assert_eq!(read("100ms"), Duration::from_millis(100));
        assert_eq!(read("1h30m"), Duration::from_secs(5400));
        assert_eq!(read("1.5s"), Duration::from_millis(1500));
        assert_eq!(read("10us"), Duration::from_micros(10));
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "5x",
            "1..5s",
            "-5s",
            "0s",
            "0",
            "99999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
