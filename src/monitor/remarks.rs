//! Where a monitor leaves remarks, and its words for what went wrong.

use std::cell::Cell;
use std::cell::RefCell;

use crate::accounting::bill;
use crate::accounting::bill::Disk;
use crate::accounting::moment::Moment;
use crate::monitor::line::Line;
use crate::monitor::line::Word;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// Where a monitor leaves remarks: with its `up` while there is one, then nowhere. The bill is kept all the time.
///
/// Nobody waits for the line of an end to be on the disk but who drops this.
pub(super) struct Remarks<'a> {
    line: Option<&'a Line>,
    store: &'a Store,
    /// When the program began, if that has not been entered.
    begun: Option<Moment>,
    on_the_way: Cell<bool>,
    /// Why the end is not on the bill.
    unbilled: RefCell<Option<String>>,
}

impl<'a> Remarks<'a> {
    /// Remarks that `up` hears, if it listens.
    pub(super) fn over(line: Option<&'a Line>, store: &'a Store) -> Self {
        Self {
            line,
            store,
            begun: None,
            on_the_way: Cell::default(),
            unbilled: RefCell::default(),
        }
    }

    /// Remarks that nobody hears.
    pub(super) fn none(store: &'a Store) -> Self {
        Self::over(None, store)
    }

    /// The same about a program that began then, which has not been entered.
    pub(super) fn since(mut self, begun: Option<Moment>) -> Self {
        self.begun = begun;
        self
    }

    /// Why the end is not on the bill, if it is not.
    pub(super) fn unbilled(&self) -> Option<String> {
        self.unbilled.borrow().clone()
    }
}

impl Drop for Remarks<'_> {
    fn drop(&mut self) {
        if self.on_the_way.get() {
            // A disk that takes nothing has nobody to be told to.
            bill::sync(self.store.places()).unwrap_or_default();
        }
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
        // The monitor waits for the disk when the program runs.
        let root = self.store.places();
        if let Err(error) = bill::begun(root, first, self.begun.clone(), Disk::Later) {
            self.warning(&unbilled(&error));
        }
    }

    fn ending(&self, last: &Counted<'_>, end: End) {
        let root = self.store.places();
        match bill::ended(root, last, end, self.begun.clone(), Disk::Later) {
            Ok(()) => self.on_the_way.set(true),
            Err(error) => {
                let text = unbilled(&error);
                self.warning(&text);
                self.unbilled.replace(Some(text));
            }
        }
    }
}

/// What is said of an entry that the ledger has not taken.
pub(super) fn unbilled(error: &dyn std::error::Error) -> String {
    format!("ignoring that it cannot be billed: {}", words(error))
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
