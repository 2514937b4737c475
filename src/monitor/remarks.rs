//! Where a monitor leaves remarks, and its words for what went wrong.

use crate::accounting::bill;
use crate::monitor::line::Line;
use crate::monitor::line::Word;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// Where a monitor leaves remarks: with its `up` while there is one, then nowhere. The bill is kept all the time.
pub(super) struct Remarks<'a> {
    pub(super) line: Option<&'a Line>,
    pub(super) store: &'a Store,
}

impl<'a> Remarks<'a> {
    /// Remarks that nobody hears.
    pub(super) fn none(store: &'a Store) -> Self {
        Self { line: None, store }
    }
}

impl Report for Remarks<'_> {
    fn warning(&self, text: &str) {
        if let Some(line) = self.line {
            // Who does not listen is not told.
            line.say(&Word::Warning(text.to_owned()))
                .unwrap_or_default();
        }
    }

    fn debug(&self, _text: &dyn Fn() -> String) {}

    fn begun(&self, first: &Counted<'_>) {
        if let Err(error) = bill::begun(self.store.places(), first) {
            self.warning(&format!(
                "ignoring that it cannot be billed: {}",
                words(&error)
            ));
        }
    }

    fn ending(&self, last: &Counted<'_>, end: End) {
        if let Err(error) = bill::ended(self.store.places(), last, end) {
            self.warning(&format!(
                "ignoring that it cannot be billed: {}",
                words(&error)
            ));
        }
    }
}

/// An error with its causes in one line.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
