//! The words of a command line, one after the other, for who reads them without the parser (`cli::plain`).

use std::ffi::OsString;

/// The words that have not been read.
#[derive(Debug)]
pub(super) struct Words<'a>(std::slice::Iter<'a, OsString>);

impl<'a> Words<'a> {
    pub(super) fn of(words: &'a [OsString]) -> Self {
        Self(words.iter())
    }

    /// The next word, an option or not; the second nothing is the end of the words.
    pub(super) fn next(&mut self) -> Option<Option<&'a str>> {
        match self.0.next() {
            Some(word) => word.to_str().map(Some),
            None => Some(None),
        }
    }

    /// The value of the option that was the last word.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        self.next()?.filter(|word| is_plain(word))
    }

    /// The word that is left, where there is one and it is no option.
    pub(super) fn only(mut self) -> Option<&'a str> {
        let word = self.value()?;
        self.next()?.is_none().then_some(word)
    }
}

/// Takes a word that is no option for what is still missing.
pub(super) fn fill<'a>(word: &'a str, into: &mut Option<&'a str>) -> Option<()> {
    (is_plain(word) && into.replace(word).is_none()).then_some(())
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-')
}
