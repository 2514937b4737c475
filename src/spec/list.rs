//! Lists of numbers as the kernel writes them, such as `0-3,7`: processors and memory nodes.

use std::ops::RangeInclusive;

/// The most that a list may name. The kernel is built for at most 8192 processors and 1024 nodes.
pub const LARGEST: u32 = 65535;

/// Why a text is no list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A part is neither a number nor a range.
    #[error("{part:?} in {list:?} is neither a number up to {LARGEST} nor a range such as 0-3")]
    NotANumber {
        /// The whole text.
        list: String,
        /// The part at fault.
        part: String,
    },
    /// A range ends before it begins.
    #[error("the range {part:?} in {list:?} ends before it begins")]
    Backwards {
        /// The whole text.
        list: String,
        /// The part at fault.
        part: String,
    },
}

/// Reads a list. White space around numbers is let pass; an empty text is an empty list.
///
/// # Errors
///
/// [`ListError`] quotes the part that is no number and no range.
pub fn ranges(list: &str) -> Result<Vec<RangeInclusive<u32>>, ListError> {
    if list.trim().is_empty() {
        return Ok(Vec::new());
    }
    list.split(',')
        .map(|part| range(list, part.trim()))
        .collect()
}

fn range(list: &str, part: &str) -> Result<RangeInclusive<u32>, ListError> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (Some(first), Some(last)) = (number(first.trim()), number(last.trim())) else {
        let (list, part) = (list.to_owned(), part.to_owned());
        return Err(ListError::NotANumber { list, part });
    };
    if last < first {
        let (list, part) = (list.to_owned(), part.to_owned());
        return Err(ListError::Backwards { list, part });
    }
    Ok(first..=last)
}

/// A plain decimal number: `u32::from_str` would also take a plus sign.
fn number(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain)?;
    (number <= LARGEST).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_make_a_list() {
        assert_eq!(ranges("").unwrap(), []);
        assert_eq!(ranges("0-3,7").unwrap(), [0..=3, 7..=7]);
        assert_eq!(ranges(" 1 , 4 - 5\n").unwrap(), [1..=1, 4..=5]);
    }

    #[test]
    fn whatever_else_is_quoted() {
        for wrong in [
            "a", "1,,2", "1-", "-1", "+1", "1-2-3", "0x1", "65536", "1;2",
        ] {
            let refused = ranges(wrong).unwrap_err().to_string();
            assert!(refused.contains("is neither a number"), "{refused}");
        }
        let refused = ranges("0,3-1").unwrap_err().to_string();
        assert_eq!(
            refused,
            "the range \"3-1\" in \"0,3-1\" ends before it begins"
        );
    }
}
