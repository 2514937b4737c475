//! Reads who a process shall run as, from the words of a command line.
//!
//! A word that is not a plain number is refused and never guessed at: a runtime that read `1` as user 0, or a number
//! beyond 32 bits as a name, has given root away before (CVE-2026-30892, CVE-2026-46680).

use crate::defence::Defence;

/// The id that means "leave it as it is" to `setresuid(2)`: given as a user, it would leave root in place.
pub const NO_ID: u32 = u32::MAX;

/// A user, and a group if one was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserWord {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: Option<u32>,
}

/// Why a word names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user {word:?}: {part:?} is not a decimal number from 0 to 4294967294; expected UID[:GID]")]
pub struct UserError {
    word: String,
    part: String,
}

impl std::str::FromStr for UserWord {
    type Err = UserError;

    fn from_str(word: &str) -> Result<Self, UserError> {
        let id = |part: &str| {
            id(part).ok_or_else(|| UserError {
                word: word.to_owned(),
                part: part.to_owned(),
            })
        };
        match word.split_once(':') {
            Some((user, group)) => Ok(Self {
                uid: id(user)?,
                gid: Some(id(group)?),
            }),
            None => Ok(Self {
                uid: id(word)?,
                gid: None,
            }),
        }
    }
}

/// Reads one id: decimal digits and nothing else, and not [`NO_ID`].
pub fn id(digits: &str) -> Option<u32> {
    if Defence::UserNumber.is_out() {
        return Some(digits.parse().unwrap_or_default());
    }
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    let id = digits.parse().ok().filter(|_| plain)?;
    (id != NO_ID).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_that_user_and_no_other() {
        let table = [
            ("0", 0, None),
            ("1", 1, None),
            ("1:1", 1, Some(1)),
            ("0:5", 0, Some(5)),
            ("1000:0", 1000, Some(0)),
            ("0012", 12, None),
            ("4294967294", 4_294_967_294, None),
        ];
        for (word, uid, gid) in table {
            assert_eq!(word.parse(), Ok(UserWord { uid, gid }), "{word}");
        }
    }

    #[test]
    fn whatever_is_no_number_is_nobody() {
        let table = [
            "",
            ":",
            "1:",
            ":1",
            "1:2:3",
            "-1",
            "+1",
            "1:-1",
            "0x0",
            "0x10",
            " 1",
            "1 ",
            "1\n",
            "root",
            "root:root",
            "1e3",
            "1.0",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1:4294967295",
            "\u{661}",
            "1\0",
        ];
        for word in table {
            assert!(word.parse::<UserWord>().is_err(), "{word:?}");
        }
    }
}
