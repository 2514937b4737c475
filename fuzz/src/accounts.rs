//! The databases of users and groups of an image: any bytes name a user or none, and a number means that number.

use bulkhead::plan::accounts;

/// Takes these bytes as the word for a user, `passwd` and `group`, with a zero byte between them.
pub fn run(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let word = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let passwd = parts.next().unwrap_or_default();
    let groups = parts.next().unwrap_or_default();
    let found = accounts::numbers(&word, passwd, groups);
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let name = word.split(':').next().unwrap_or_default();
    if digits(name) {
        let number: Option<u32> = name.parse().ok();
        if let Some((uid, _)) = found {
            assert_eq!(number, Some(uid), "a number became another user");
        }
    }
    if let Some((uid, gid)) = found {
        assert!(uid != u32::MAX && gid != u32::MAX, "nobody became somebody");
        let home = accounts::home_of(passwd, uid);
        assert!(home.is_none_or(|home| !home.is_empty() && !home.contains(['\0', '\n', ':'])));
    }
}
