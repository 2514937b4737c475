//! What workspaces have used: that the figures are those of independent readings, and that none are lost.

mod ledger;
mod life;
