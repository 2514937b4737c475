//! Text for standard output: tables as Go's tabwriter aligns them, because callers cut columns by their headings.

use std::io::ErrorKind;
use std::io::Write;

use anyhow::Context;

/// Least width of a column, its padding included.
const LEAST: usize = 12;
/// Blanks after the widest cell of a column.
const PADDING: usize = 3;

/// Aligns `rows`; the last column is left as it is.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let widest = rows
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0);
        LEAST.max(widest + PADDING)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(N - 1) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[N - 1]);
        text.push('\n');
    }
    text
}

/// Writes `bytes` to standard output.
///
/// # Errors
///
/// Fails when standard output cannot take them.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    match written {
        // Who has read enough, such as head(1), need not be told.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_but_at_least_twelve() {
        let rows = [
            ["ID".to_owned(), "PID".to_owned()],
            ["a-long-name".to_owned(), "1".to_owned()],
        ];
        assert_eq!(aligned(&rows), "ID            PID\na-long-name   1\n");
        assert_eq!(aligned(&rows[..1]), "ID          PID\n");
    }
}
