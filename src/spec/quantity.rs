//! Amounts as people write them: CPUs, bytes, bits per second, spans of time.
//!
//! The same words mean the same in the workspace document and in annotations. Every amount is kept as a whole number
//! of a small unit, so that sums are exact.

use std::time::Duration;

/// The words that an amount may be written with, for error messages.
pub const CPUS: &str = "a number of CPUs with at most three decimals, such as 0.25";
/// See [`CPUS`].
pub const BYTES: &str = "a size such as 512M (powers of 1024: K, M, G, T) or 1000000";
/// See [`CPUS`].
pub const RATE: &str = "a rate such as 10mbit (powers of 1000: bit, kbit, mbit, gbit)";
/// See [`CPUS`].
pub const SPAN: &str = "a span of time such as 8h, 90m, 30s or 1h 30m";

/// Thousandths of a CPU in a text such as `0.25`.
#[must_use]
pub fn cpus(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(part)
}

/// Bytes in a text such as `512M`, `1.5GiB` or `4096`; units are powers of 1024.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let stem = unit.strip_suffix("ib").or(unit.strip_suffix('b'));
    let factor = match stem.unwrap_or(&unit) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    scaled(number, factor)
}

/// Bits per second in a text such as `10mbit` or `2.5gbit`; units are powers of 1000 (`tc(8)`).
#[must_use]
pub fn bits_per_second(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "bit" => 1,
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => return None,
    };
    scaled(number, factor)
}

/// A span in a text such as `8h` or `1h 30m`; it is longer than nothing.
#[must_use]
pub fn span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text)
        .ok()
        .filter(|span| !span.is_zero())
}

/// Thousandths of a CPU as [`cpus`] reads them.
#[must_use]
pub fn cpus_text(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim())
}

/// A decimal number times a factor, without rounding up.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.is_empty() || part.len() > 9 {
        return None;
    }
    let scale = 10u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(factor) / u128::from(scale);
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(factor);
    u64::try_from(whole + part).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_in_their_small_units() {
        assert_eq!(cpus("0.25"), Some(250));
        assert_eq!(cpus("2"), Some(2000));
        assert_eq!(bytes("512M"), Some(512 << 20));
        assert_eq!(bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(bits_per_second("10mbit"), Some(10_000_000));
        assert_eq!(bits_per_second("2.5 gbit"), Some(2_500_000_000));
        assert_eq!(span("1h 30m"), Some(Duration::from_secs(5400)));
    }

    #[test]
    fn what_is_no_amount_is_none() {
        for word in [
            "",
            "-1",
            ".5",
            "1.2345",
            "1,5",
            "x",
            "1.",
            "0x10",
            "9".repeat(30).as_str(),
        ] {
            assert_eq!(cpus(word), None, "{word}");
        }
        for word in ["", "m", "-2", "1x", "99999999999g", "1.m"] {
            assert_eq!(bytes(word), None, "{word}");
            assert_eq!(bits_per_second(word), None, "{word}");
        }
        assert_eq!(span("0s"), None);
        assert_eq!(span("8"), None);
    }

    #[test]
    fn cpus_are_written_as_they_are_read() {
        for milli in [0, 1, 250, 1000, 1500, 12_345] {
            assert_eq!(cpus(&cpus_text(milli)), Some(milli));
        }
    }
}
