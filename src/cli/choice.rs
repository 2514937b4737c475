//! Which workspaces a command is for: the one that is named, or all whose names are like an expression.

use anyhow::Context;
use anyhow::bail;

use crate::cli::log;
use crate::spec::id::ContainerId;
use crate::sys::pattern::Pattern;
use crate::workspace::store::Store;

/// Which workspaces.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Choice {
    /// Take ID for a regular expression, and do it to every workspace whose name it matches
    #[arg(long, short = 'r')]
    regex: bool,
    /// Which workspace
    id: String,
}

impl Choice {
    /// Takes an option that is one of these.
    pub(super) fn plain(&mut self, word: &str) -> bool {
        let known = matches!(word, "--regex" | "-r");
        self.regex |= known;
        known
    }

    /// The same for what is named.
    pub(super) fn of(self, id: &str) -> Self {
        let id = id.to_owned();
        Self { id, ..self }
    }

    /// Does it to each; goes on after an error, and reports all.
    pub(super) fn each(
        &self,
        store: &Store,
        act: impl Fn(&ContainerId) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.regex {
            return act(&self.id.parse()?);
        }
        let pattern = Pattern::read(&self.id).with_context(|| format!("--regex {:?}", self.id))?;
        let mut errors = Vec::new();
        for id in store
            .ids()?
            .iter()
            .filter(|id| pattern.matches(id.as_str()))
        {
            errors.extend(act(id).err().map(|error| log::one_line(&error)));
        }
        if errors.is_empty() {
            return Ok(());
        }
        bail!("{}", errors.join("; "))
    }
}
