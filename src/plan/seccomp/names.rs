//! Knows the number that each architecture gives to a system call.
//!
//! The facts are in `syscalls.txt`, one call a line, a `-` where an architecture lacks it. They were
//! read from the kernel's own headers (Linux 6.17, as generated into the linux-raw-sys crate), with the
//! calls of 6.18 to 7.0 added; what those headers lack (s390, parisc, mips64n32, ARM's private calls) was
//! asked of libseccomp 2.5.4, and the two agree on every number both know. The column `mux` says which
//! operation of `socketcall(2)` (`s`) or `ipc(2)` (`i`) does the same on architectures that multiplex.
//!
//! The text is parsed by the compiler: nothing is built or hashed when the program starts.

/// How many architectures have a column.
const COLUMNS: usize = 17;

/// No such call on this architecture.
const NONE: u32 = u32::MAX;

const TEXT: &[u8] = include_bytes!("syscalls.txt");

static CALLS: [Call; count_lines(TEXT) - 1] = parse(TEXT);

/// A system call that some architecture has.
#[derive(Debug)]
pub(super) struct Call {
    name: &'static str,
    numbers: [u32; COLUMNS],
    /// How the multiplexed form names this call, if there is one.
    pub(super) mux: Option<Mux>,
}

/// An operation of a system call that stands for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mux {
    /// First argument of `socketcall(2)`.
    Socket(u32),
    /// First argument of `ipc(2)`.
    Ipc(u32),
}

impl Call {
    /// The number of this call on the architecture of `column`.
    pub(super) fn number(&self, column: usize) -> Option<u32> {
        self.numbers
            .get(column)
            .copied()
            .filter(|number| *number != NONE)
    }
}

/// Finds system calls by name; quick where the names come in alphabetical
/// order, as they do in profiles made by people.
#[derive(Debug, Default)]
pub(super) struct Finder {
    next: usize,
}

impl Finder {
    /// The call of this name.
    pub(super) fn find(&mut self, name: &str) -> Option<&'static Call> {
        let after = CALLS.get(self.next..).unwrap_or_default();
        let at = match after.iter().take(4).position(|call| call.name == name) {
            Some(near) => self.next + near,
            None => CALLS.binary_search_by(|call| call.name.cmp(name)).ok()?,
        };
        self.next = at + 1;
        CALLS.get(at)
    }
}

const fn count_lines(text: &[u8]) -> usize {
    let mut lines = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'\n' {
            lines += 1;
        }
        at += 1;
    }
    lines
}

const fn parse<const N: usize>(text: &'static [u8]) -> [Call; N] {
    let mut calls = [const {
        Call {
            name: "",
            numbers: [NONE; COLUMNS],
            mux: None,
        }
    }; N];
    let (_, mut rest) = split_at_byte(text, b'\n');
    let mut row = 0;
    while row < N {
        let (line, after) = split_at_byte(rest, b'\n');
        calls[row] = parse_call(line);
        rest = after;
        row += 1;
    }
    calls
}

#[expect(
    clippy::panic,
    reason = "it is the compiler that runs this, and that panics"
)]
const fn parse_call(line: &'static [u8]) -> Call {
    let (name, rest) = split_at_byte(line, b' ');
    let Ok(name) = core::str::from_utf8(name) else {
        panic!("names are ASCII")
    };
    let (mux, mut rest) = split_at_byte(rest, b' ');
    let mut numbers = [NONE; COLUMNS];
    let mut column = 0;
    while column < COLUMNS {
        let (word, after) = split_at_byte(rest, b' ');
        numbers[column] = parse_number(word);
        rest = after;
        column += 1;
    }
    Call {
        name,
        numbers,
        mux: parse_mux(mux),
    }
}

const fn parse_mux(word: &[u8]) -> Option<Mux> {
    match word.split_first() {
        Some((b's', digits)) => Some(Mux::Socket(parse_number(digits))),
        Some((b'i', digits)) => Some(Mux::Ipc(parse_number(digits))),
        _ => None,
    }
}

const fn parse_number(word: &[u8]) -> u32 {
    if matches!(word, b"-") {
        return NONE;
    }
    let mut number = 0;
    let mut at = 0;
    while at < word.len() {
        assert!(word[at].is_ascii_digit(), "a number or a dash");
        number = number * 10 + (word[at] - b'0') as u32;
        at += 1;
    }
    number
}

/// What stands before the first `byte`, and what stands after it.
const fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < text.len() {
        if text[at] == byte {
            let (before, rest) = text.split_at(at);
            let (_, after) = rest.split_at(1);
            return (before, after);
        }
        at += 1;
    }
    (text, &[])
}

#[cfg(test)]
mod tests {
    use super::CALLS;
    use super::Finder;
    use super::Mux;

    #[test]
    fn names_stand_in_the_order_that_the_search_needs() {
        assert!(CALLS.is_sorted_by(|one, other| one.name < other.name));
    }

    #[test]
    fn every_name_is_found() {
        let mut finder = Finder::default();
        let lost: Vec<_> = CALLS
            .iter()
            .rev()
            .filter(|call| {
                finder
                    .find(call.name)
                    .is_none_or(|found| found.name != call.name)
            })
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    #[test]
    fn a_name_of_no_kernel_is_not_found() {
        assert!(Finder::default().find("make_coffee").is_none());
    }

    #[test]
    fn numbers_and_operations_are_read_from_their_columns() {
        let socket = Finder::default().find("socket").expect("a call");
        assert_eq!((socket.number(0), socket.number(1)), (Some(41), Some(359)));
        assert_eq!(socket.mux, Some(Mux::Socket(1)));
        assert_eq!(socket.number(COLUMN_BEYOND), None);
    }

    const COLUMN_BEYOND: usize = super::COLUMNS;
}
