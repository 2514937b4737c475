//! Samples of two sides, and how they are shown.

/// What is measured on both sides, in turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    /// Ours.
    pub(crate) ours: Vec<f64>,
    /// QEMU's.
    pub(crate) theirs: Vec<f64>,
}

impl Pair {
    /// One more, of ours or of theirs.
    pub(crate) fn push(&mut self, ours: bool, value: f64) {
        if ours {
            self.ours.push(value);
        } else {
            self.theirs.push(value);
        }
    }

    /// Prints medians, what nine of ten are below, and the ratio of the medians, ours to theirs.
    pub(crate) fn print(&self, name: &str, unit: &str) {
        let (ours, theirs) = (quantile(&self.ours, 50), quantile(&self.theirs, 50));
        let (high, their_high) = (quantile(&self.ours, 90), quantile(&self.theirs, 90));
        let ratio = ours / theirs;
        println!(
            "{name:<34} {ours:>10.2} {high:>10.2} {theirs:>10.2} {their_high:>10.2} {unit:<6} {ratio:.3}"
        );
    }
}

/// Says on standard error what is done next: a round takes a minute.
pub(crate) fn next(part: &str, what: &str, round: usize, rounds: usize) {
    let line = format!("{part}, round {} of {rounds}: {what}\n", round + 1);
    // Whoever does not listen misses nothing but that.
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).ok();
}

/// The head over what [`Pair::print`] prints.
pub(crate) fn head(title: &str) {
    println!(
        "\n{title:<34} {:>10} {:>10} {:>10} {:>10} {:<6} ratio",
        "ours", "p90", "QEMU", "p90", "unit"
    );
}

/// The value that so many percent of all are not above.
pub(crate) fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get(last * percent / 100)
        .copied()
        .unwrap_or(f64::NAN)
}
