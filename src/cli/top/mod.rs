//! `top`: all workspaces in a live table, for a person at a terminal.

mod draw;
mod model;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;

use crate::accounting::Meter;
use crate::cli::session::Session;
use crate::cli::top::model::Column;
use crate::cli::top::model::Looked;
use crate::cli::top::model::Table;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

/// Show what all workspaces use, live
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds between two looks
    #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = 2.0, value_parser = delay)]
    delay: f64,
}

/// Runs `top`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!("top needs a terminal; usage --watch goes without");
    }
    let store = session.store()?;
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, &store, Duration::from_secs_f64(args.delay));
    let restored = ratatui::try_restore().context("cannot restore the terminal");
    shown.and(restored).map(|()| ExitCode::SUCCESS)
}

fn delay(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .filter(|seconds| (0.1..=3600.0).contains(seconds))
        .ok_or_else(|| "it is no number of seconds from 0.1 to 3600".to_owned())
}

fn show(terminal: &mut DefaultTerminal, store: &Store, delay: Duration) -> anyhow::Result<()> {
    let mut table = Table::default();
    let mut meters = Vec::new();
    loop {
        table.look(looks(store, &mut meters)?);
        let next = Instant::now() + delay;
        loop {
            terminal
                .draw(|frame| draw::draw(frame, &table))
                .context("cannot draw")?;
            let left = next.saturating_duration_since(Instant::now());
            if !event::poll(left).context("cannot wait for a key")? {
                break;
            }
            if let Event::Key(key) = event::read().context("cannot read a key")?
                && !pressed(key, &mut table)
            {
                return Ok(());
            }
        }
    }
}

/// Does what a key asks for, and says whether to go on.
fn pressed(key: KeyEvent, table: &mut Table) -> bool {
    let interrupts = key.modifiers.contains(KeyModifiers::CONTROL);
    let KeyCode::Char(letter) = key.code else {
        return key.code != KeyCode::Esc;
    };
    if letter == 'c' && interrupts {
        return false;
    }
    match letter {
        'q' => return false,
        'r' => table.reverse(),
        'j' => table.scroll(1),
        'k' => table.scroll(-1),
        letter => {
            let column = Column::ALL.iter().find(|column| column.key() == letter);
            column.into_iter().for_each(|column| table.sort_by(*column));
        }
    }
    true
}

/// Meters by name, kept from look to look.
type Meters = Vec<(ContainerId, String, Meter)>;

/// Looks at every workspace; one that is being made or removed is left out.
fn looks(store: &Store, meters: &mut Meters) -> anyhow::Result<Vec<Looked>> {
    let ids = store.ids()?;
    meters.retain(|(known, _, _)| ids.contains(known));
    Ok(ids
        .iter()
        .filter_map(|id| look(store, id, meters))
        .collect())
}

fn look(store: &Store, id: &ContainerId, meters: &mut Meters) -> Option<Looked> {
    let workspace = Workspace::find(store, id).ok()?;
    let status = workspace.status().ok()?;
    let created = &workspace.record().created;
    // A meter belongs to one life.
    meters.retain(|(known, life, _)| known != id || life == created);
    let at = meters.iter().position(|(known, _, _)| known == id);
    let at = at.unwrap_or_else(|| {
        meters.push((id.clone(), created.clone(), Meter::new(&workspace)));
        meters.len() - 1
    });
    let usage = meters[at].2.sample(&workspace).ok();
    Some(Looked {
        id: id.to_string(),
        at: Instant::now(),
        status,
        usage,
    })
}
