//! The words for the kernel's errors: those of glibc, whichever C library is linked in.
//!
//! People search for the words that they know, and callers look for some of them. musl has others: "No file descriptors
//! available", "I/O error", "Resource busy".

/// One line for each number, from 1 on.
const WORDS: &str = include_str!("errors.txt");

/// The words for an error's number; nothing for a number that is no error's (`errno(3)`).
#[must_use]
pub fn of(number: i32) -> Option<&'static str> {
    let line = usize::try_from(number).ok()?.checked_sub(1)?;
    let words = WORDS.lines().nth(line)?;
    (!words.is_empty()).then_some(words)
}

/// What the standard library gets them from (`strerror_r(3)`), in the place of musl's.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn __xpg_strerror_r(number: libc::c_int, to: *mut libc::c_char, size: usize) -> i32 {
    let unknown = || format!("Unknown error {number}");
    let words = of(number).map_or_else(unknown, str::to_owned);
    if to.is_null() || size == 0 {
        return libc::ERANGE;
    }
    // SAFETY: whoever asks gives this many bytes to write to, and nobody else has them meanwhile.
    let place = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), size) };
    for (to, from) in place
        .iter_mut()
        .zip(words.bytes().take(size - 1).chain([0]))
    {
        *to = from;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_env = "gnu")]
    #[test]
    fn every_error_has_the_words_of_glibc() {
        for number in 1..200 {
            let glibc = std::io::Error::from_raw_os_error(number).to_string();
            let unknown = format!("Unknown error {number}");
            let ours = of(number).unwrap_or(&unknown);
            assert_eq!(glibc, format!("{ours} (os error {number})"));
        }
    }
}
