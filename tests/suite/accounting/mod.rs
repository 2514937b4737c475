//! What workspaces have used: that the figures are those of independent readings, and that none are lost.

mod agreement;
mod cost;
mod ledger;
mod life;
pub(crate) mod microvm;
mod openmetrics;
mod reports;
mod top;
mod words;
