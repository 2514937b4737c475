//! Amounts for people, and tables of them: short, in the unit that fits, `-` for what is not known.

/// Blanks between two columns.
const GAP: usize = 2;

/// Microseconds, in seconds.
pub(super) fn seconds(us: Option<u64>) -> String {
    let text = |us: u64| format!("{}.{:03}", us / 1_000_000, us % 1_000_000 / 1000);
    us.map_or_else(unknown, text)
}

/// Bytes in powers of 1024: `512`, `1.5K`, `20M`.
pub(super) fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(unknown, scaled)
}

fn scaled(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let (mut size, mut unit) = (1_u64, 0);
    while bytes / size >= 1024 && unit + 1 < UNITS.len() {
        size *= 1024;
        unit += 1;
    }
    let whole = bytes / size;
    let tenth = u128::from(bytes % size) * 10 / u128::from(size);
    match unit {
        1.. if whole < 10 => format!("{whole}.{tenth}{}", UNITS[unit]),
        _ => format!("{whole}{}", UNITS[unit]),
    }
}

/// A count.
pub(super) fn count(count: Option<u64>) -> String {
    count.map_or_else(unknown, |count| count.to_string())
}

/// A span of whole seconds in its two greatest units: `1h2m`, `45s`.
pub(super) fn span(seconds: Option<u64>) -> String {
    let text = |seconds: u64| match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    };
    seconds.map_or_else(unknown, text)
}

fn unknown() -> String {
    "-".to_owned()
}

/// Rows under their heading: the first column begins, all others end where their column does.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|word| (*word).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for row in all {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{:GAP$}{cell:>width$}", ""),
        });
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_in_the_unit_that_fits() {
        assert_eq!(bytes(Some(1023)), "1023");
        assert_eq!(bytes(Some(1536)), "1.5K");
        assert_eq!(bytes(Some(20 << 20)), "20M");
        assert_eq!(bytes(Some(u64::MAX)), "15E");
        assert_eq!(seconds(Some(1_234_567)), "1.234");
        assert_eq!(span(Some(3725)), "1h2m");
        assert_eq!(span(Some(59)), "59s");
        assert_eq!((bytes(None), count(None)), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn figures_end_where_their_column_does() {
        let rows = [vec!["web".to_owned(), "7".to_owned()]];
        assert_eq!(table(&["ID", "CPU"], &rows), "ID   CPU\nweb    7\n");
    }
}
