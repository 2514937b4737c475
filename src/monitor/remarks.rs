//! Where a monitor leaves remarks, and its words for what went wrong.

use std::cell::RefCell;
use std::thread::JoinHandle;

use crate::accounting::bill;
use crate::accounting::bill::Disk;
use crate::monitor::line::Line;
use crate::monitor::line::Word;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// Where a monitor leaves remarks: with its `up` while there is one, then nowhere. The bill is kept all the time.
///
/// The line of an end goes to the disk while the rest of the end goes on; dropping this waits for it to be there.
pub(super) struct Remarks<'a> {
    line: Option<&'a Line>,
    store: &'a Store,
    on_the_way: RefCell<Option<JoinHandle<()>>>,
    /// Why the end is not on the bill.
    unbilled: RefCell<Option<String>>,
}

impl<'a> Remarks<'a> {
    /// Remarks that `up` hears.
    pub(super) fn over(line: &'a Line, store: &'a Store) -> Self {
        let mut remarks = Self::none(store);
        remarks.line = Some(line);
        remarks
    }

    /// Remarks that nobody hears.
    pub(super) fn none(store: &'a Store) -> Self {
        Self {
            line: None,
            store,
            on_the_way: RefCell::default(),
            unbilled: RefCell::default(),
        }
    }

    /// Why the end is not on the bill, if it is not.
    pub(super) fn unbilled(&self) -> Option<String> {
        self.unbilled.borrow().clone()
    }

    /// Waits for the disk in another thread; where there can be none, here.
    fn sync_beside(&self) {
        let root = self.store.places();
        let there = root.clone();
        // A disk that takes nothing has nobody to be told to.
        let waits = move || bill::sync(&there).unwrap_or_default();
        match std::thread::Builder::new().spawn(waits) {
            Ok(thread) => {
                let before = self.on_the_way.replace(Some(thread));
                before.map(JoinHandle::join);
            }
            Err(_) => bill::sync(root).unwrap_or_default(),
        }
    }
}

impl Drop for Remarks<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.on_the_way.take() {
            thread.join().unwrap_or_default();
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
        if let Err(error) = bill::begun(self.store.places(), first, Disk::Later) {
            self.warning(&unbilled(&error));
        }
    }

    fn ending(&self, last: &Counted<'_>, end: End) {
        match bill::ended(self.store.places(), last, end, Disk::Later) {
            Ok(()) => self.sync_beside(),
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
