//! The live table on a screen of any size; 80 columns show all of it.

use ratatui::Frame;
use ratatui::layout::Alignment;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Text;
use ratatui::widgets::Cell;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;

use crate::cli::top::model::Column;
use crate::cli::top::model::Table;
use crate::spec::state::Status;

/// Headings and widths; the name takes what is left.
const COLUMNS: [(&str, u16, Column); 11] = [
    ("ID", 8, Column::Name),
    ("S", 1, Column::Name),
    ("CPU%", 6, Column::Cpu),
    ("HOLD", 6, Column::Hold),
    ("MEM", 5, Column::Memory),
    ("READ/s", 6, Column::Io),
    ("WRIT/s", 6, Column::Io),
    ("IN/s", 6, Column::Network),
    ("OUT/s", 6, Column::Network),
    ("PSI c/m/i", 9, Column::Pressure),
    ("LEASE", 6, Column::Lease),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, table: &Table) {
    let parts = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(table)), top);
    if table.rows().is_empty() {
        frame.render_widget(Paragraph::new("there are no workspaces"), middle);
    } else {
        frame.render_widget(rows(table), middle);
    }
    frame.render_widget(Paragraph::new(keys()), bottom);
}

fn summary(table: &Table) -> String {
    let rows = table.rows();
    let running = rows.iter().filter(|row| row.status == Status::Running);
    let milli: u64 = rows.iter().filter_map(|row| row.cpu_milli).sum();
    let running = running.count();
    format!(
        "bulkhead top: {} workspaces, {running} running, CPU {}.{}%",
        rows.len(),
        milli / 10,
        milli % 10
    )
}

fn keys() -> String {
    let columns = Column::ALL.map(|column| format!("{} {}", column.key(), column.word()));
    format!("q quit  r reverse  by: {}", columns.join("  "))
}

fn rows(table: &Table) -> ratatui::widgets::Table<'static> {
    let heading = COLUMNS.iter().enumerate().map(|(at, (word, _, column))| {
        let style = match *column == table.sorted && *word != "S" {
            true => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            false => Style::new(),
        };
        cell(at, (*word).to_owned()).style(style)
    });
    let heading = Row::new(heading).style(Style::new().add_modifier(Modifier::REVERSED));
    let shown = table.rows().iter().skip(table.skipped).map(|row| {
        let style = match row.status {
            Status::Running => Style::new(),
            Status::Creating | Status::Created | Status::Paused | Status::Stopped => {
                Style::new().add_modifier(Modifier::DIM)
            }
        };
        let cells = row.cells().into_iter().enumerate();
        Row::new(cells.map(|(at, text)| cell(at, text))).style(style)
    });
    let widths = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, (_, width, _))| match at {
            0 => Constraint::Min(*width),
            _ => Constraint::Length(*width),
        });
    ratatui::widgets::Table::new(shown, widths).header(heading)
}

/// Names begin, figures end where their column does.
fn cell(at: usize, text: String) -> Cell<'static> {
    let alignment = match at {
        0 | 1 => Alignment::Left,
        _ => Alignment::Right,
    };
    Cell::from(Text::from(text).alignment(alignment))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use crate::accounting::Usage;
    use crate::cli::top::model::Looked;

    use super::*;

    fn usage(id: &str, total_us: u64, read_bytes: u64) -> Usage {
        let value = serde_json::json!({
            "id": id, "created": "2026-01-01T00:00:00Z", "boot": "b", "at": "2026-01-01T00:00:00Z",
            "isolation": "container",
            "cpu": {"total_us": total_us, "user_us": 0, "system_us": 0, "hold_ms": 1500,
                "roles": {"workload": {"total_us": total_us}}, "on_behalf": {"how": "unavailable"}},
            "memory": {"current_bytes": 64 << 20, "swap_current_bytes": 0,
                "by_kind": {"anon_bytes": 0, "file_bytes": 0, "shmem_bytes": 0,
                    "kernel_bytes": 0, "slab_bytes": 0, "sock_bytes": 0},
                "events": {"high": 0, "max": 0, "oom": 0, "oom_kill": 0}},
            "io": {"devices": {"8:0": {"read_bytes": read_bytes, "written_bytes": 0, "discarded_bytes": 0,
                "read_operations": 0, "write_operations": 0, "discard_operations": 0}}},
            "pressure": {"cpu": {"some_us": 1, "full_us": 0, "some_avg10_percent": 12.4,
                "full_avg10_percent": 0.0}},
            "lease": {"granted_s": 7200, "used_s": 0, "remaining_s": 7200},
        });
        serde_json::from_value(value).unwrap()
    }

    fn looked(id: &str, at: Instant, usage: Option<Usage>) -> Looked {
        Looked {
            id: id.to_owned(),
            at,
            status: Status::Running,
            usage,
        }
    }

    /// Two looks, two seconds apart.
    fn table() -> Table {
        let (first, mut table) = (Instant::now(), Table::default());
        let second = first + Duration::from_secs(2);
        table.look(vec![
            looked("busy", first, Some(usage("busy", 0, 0))),
            looked("idle", first, Some(usage("idle", 0, 0))),
            looked("uncounted", first, None),
        ]);
        table.look(vec![
            looked("busy", second, Some(usage("busy", 2_500_000, 8192))),
            looked("idle", second, Some(usage("idle", 20_000, 4 << 20))),
            looked("uncounted", second, None),
        ]);
        table
    }

    fn screen(table: &Table, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, table)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content.chunks(usize::from(width));
        lines
            .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>())
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn all_columns_fit_on_a_terminal_of_80_by_24() {
        let lines = screen(&table(), 80, 24);
        assert_eq!(
            lines[..5],
            [
                "bulkhead top: 3 workspaces, 3 running, CPU 126.0%",
                "ID            S   CPU%   HOLD   MEM READ/s WRIT/s   IN/s  OUT/s PSI c/m/i  LEASE",
                "busy          R  125.0   1.5s   64M   4.0K      0      -      -    12/-/-   2h0m",
                "idle          R    1.0   1.5s   64M   2.0M      0      -      -    12/-/-   2h0m",
                "uncounted     R      -      -     -      -      -      -      -     -/-/-      -",
            ]
        );
        assert!(lines[23].starts_with("q quit  r reverse  by: a name"));
        assert!(lines[23].ends_with("l lease"));
    }

    #[test]
    fn keys_change_the_order() {
        let mut table = table();
        let first = |table: &Table| table.rows()[0].id.clone();
        table.sort_by(Column::Io);
        assert_eq!(first(&table), "idle");
        table.reverse();
        assert_eq!(first(&table), "uncounted");
        table.sort_by(Column::Name);
        assert_eq!(first(&table), "busy");
    }

    #[test]
    fn more_rows_than_lines_can_be_reached() {
        let mut table = table();
        assert!(screen(&table, 80, 4)[2].starts_with("busy"));
        table.scroll(1);
        assert!(screen(&table, 80, 4)[2].starts_with("idle"));
        table.scroll(5);
        assert!(screen(&table, 80, 4)[2].starts_with("uncounted"));
    }

    #[test]
    fn no_workspaces_and_no_room_are_no_failure() {
        let nothing = Table::default();
        assert_eq!(screen(&nothing, 80, 24)[1], "there are no workspaces");
        screen(&table(), 3, 1);
    }
}
