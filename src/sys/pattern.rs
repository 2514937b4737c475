//! Regular expressions as the C library reads them (`regex(7)`, the extended kind).

use std::ffi::CStr;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;

/// The longest text of an error, in bytes.
const LONGEST: usize = 256;

/// A regular expression that was understood.
pub struct Pattern(libc::regex_t);

impl Pattern {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// Gives what the C library says of one that cannot be read.
    pub fn read(text: &str) -> io::Result<Self> {
        let wrong = |words: String| io::Error::new(io::ErrorKind::InvalidInput, words);
        let text = CString::new(text).map_err(|_| wrong("has a NUL character in it".to_owned()))?;
        let mut made = MaybeUninit::<libc::regex_t>::zeroed();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the place is large enough for what is made there, and the text ends with NUL.
        let answer = unsafe { libc::regcomp(made.as_mut_ptr(), text.as_ptr(), flags) };
        if answer != 0 {
            return Err(wrong(words_of(answer)));
        }
        // SAFETY: the call has succeeded, so it is made.
        Ok(Self(unsafe { made.assume_init() }))
    }

    /// Whether any part of a text is like this.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else {
            return false;
        };
        // SAFETY: the expression was made by `regcomp` and is alive, the text ends with NUL, and no places are asked for.
        let answer =
            unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) };
        answer == 0
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pattern").finish_non_exhaustive()
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: it was made by `regcomp`, and nobody uses it any more.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

fn words_of(answer: libc::c_int) -> String {
    let mut words = [0_u8; LONGEST];
    // SAFETY: the buffer is as long as is said; an expression is not needed for the words.
    unsafe {
        libc::regerror(
            answer,
            std::ptr::null(),
            words.as_mut_ptr().cast(),
            words.len(),
        )
    };
    CStr::from_bytes_until_nul(&words)
        .map(|words| words.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_matches_is_enough() {
        let pattern = Pattern::read("^web-[0-9]+").unwrap();
        let found = ["web-1", "web-22-old", "web-", "a-web-1"].map(|name| pattern.matches(name));
        assert_eq!(found, [true, true, false, false]);
    }

    #[test]
    fn an_expression_that_cannot_be_read_is_told_why() {
        let words = Pattern::read("web(").unwrap_err().to_string();
        assert!(words.starts_with("Unmatched ("), "{words}");
    }
}
