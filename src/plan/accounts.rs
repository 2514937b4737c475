//! Reads what an image says of its users and groups (`passwd(5)`, `group(5)`), which are bytes of somebody else's.
//!
//! Whatever they hold, reading them takes one pass: what does not look like an entry is passed over, and so is a line
//! that is longer than an entry can be.

use crate::spec::user;

/// The longest line that is an entry, in bytes: a group of some thousand members.
const LONGEST_LINE: usize = 64 << 10;

/// The lines of a database that may be entries, as text.
fn entries(database: &[u8]) -> impl Iterator<Item = &str> {
    database
        .split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= LONGEST_LINE)
        .filter_map(|line| std::str::from_utf8(line).ok())
}

/// The home directory of a user, if the database knows one that can be an environment's.
#[must_use]
pub fn home_of(passwd: &[u8], uid: u32) -> Option<String> {
    entries(passwd).find_map(|line| {
        let mut fields = line.split(':');
        let number = user::id(fields.nth(2)?)?;
        let home = fields.nth(2)?;
        let fit = number == uid && !home.is_empty() && !home.contains('\0');
        fit.then(|| home.to_owned())
    })
}

/// What `USER[:GROUP]` means. A number needs no entry; a group that is not given is the one that the user's entry names,
/// or 0.
#[must_use]
pub fn numbers(text: &str, passwd: &[u8], groups: &[u8]) -> Option<(u32, u32)> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let number = user::id(name);
    let entry = entries(passwd).find_map(|line| {
        let mut fields = line.split(':');
        let called = fields.next()?;
        let (uid, gid) = (user::id(fields.nth(1)?)?, user::id(fields.next()?)?);
        (number == Some(uid) || (number.is_none() && called == name)).then_some((uid, gid))
    });
    let uid = number.or(entry.map(|(uid, _)| uid))?;
    let gid = match group {
        None => entry.map_or(0, |(_, gid)| gid),
        Some(group) => user::id(group).or_else(|| group_called(group, groups))?,
    };
    Some((uid, gid))
}

fn group_called(name: &str, groups: &[u8]) -> Option<u32> {
    entries(groups).find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next() == Some(name);
        user::id(fields.nth(1)?).filter(|_| matches)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken:x\nweb:x:101:33::/:/bin/false\n";
    const GROUPS: &[u8] = b"root:x:0:\nstaff:x:50:web\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        for (text, found) in [
            ("web", Some((101, 33))),
            ("101", Some((101, 33))),
            ("web:staff", Some((101, 50))),
            ("web:7", Some((101, 7))),
            ("1000", Some((1000, 0))),
            ("1000:50", Some((1000, 50))),
            ("root", Some((0, 0))),
        ] {
            assert_eq!(numbers(text, PASSWD, GROUPS), found, "{text}");
        }
    }

    #[test]
    fn whoever_the_image_does_not_know_is_nobody() {
        for text in [
            "",
            ":",
            "nobody",
            "web:nobody",
            "-1",
            "4294967295",
            "4294967296",
            "broken",
            "web:",
        ] {
            assert_eq!(numbers(text, PASSWD, GROUPS), None, "{text}");
        }
    }

    #[test]
    fn a_home_is_that_of_the_number_and_can_be_put_into_an_environment() {
        let database = b"a:x:+1:0::/plus:\nb:x:1:0::/a\0b:\nc:x:1:0::/c:\nroot:x:0:0::/root:\n";
        assert_eq!(home_of(database, 1), Some("/c".to_owned()));
        assert_eq!(home_of(database, 0), Some("/root".to_owned()));
        assert_eq!(home_of(database, 2), None);
    }

    #[test]
    fn a_line_longer_than_any_entry_and_bytes_that_are_no_text_are_passed_over() {
        let mut database = b"web:x:7:7::/".to_vec();
        database.extend(vec![b'a'; LONGEST_LINE]);
        database.extend(b":/bin/sh\nweb:x:8:8::/\xff:\nweb:x:9:9::/:\n");
        assert_eq!(numbers("web", &database, b""), Some((9, 9)));
        assert_eq!(home_of(&database, 7), None);
    }
}
