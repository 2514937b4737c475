//! Plans the class of cache and memory bandwidth that a workspace is put in (`linux.intelRdt`).
//!
//! A class is a directory of `resctrl`. One that the configuration names belongs to whoever set it up and outlives the
//! workspace; without a name it is the workspace's own and has its id.

use serde::Deserialize;
use serde::Serialize;

use crate::spec::linux::IntelRdt;

/// Which class, with which shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RdtPlan {
    /// The name of the class.
    pub class: String,
    /// Whether the class is the workspace's own, made with it and removed with it.
    pub own: bool,
    /// Lines that a class which is there already has to have, and that a new one is given.
    pub shares: Vec<String>,
    /// Lines to be written after those, into any class.
    pub schemata: Vec<String>,
    /// The name of the group that counts for this workspace alone, if that was asked for.
    pub monitor: Option<String>,
}

impl RdtPlan {
    /// Whether the configuration says anything about shares: if not, a named class has to be there already.
    #[must_use]
    pub fn has_shares(&self) -> bool {
        !self.shares.is_empty() || !self.schemata.is_empty()
    }
}

/// Plans the class of a workspace.
#[must_use]
pub fn plan(asked: &IntelRdt, id: &str) -> RdtPlan {
    let own = asked.clos_id.is_empty();
    let class = if own { id } else { &asked.clos_id };
    // Bandwidth among the lines for the cache gives way to the property that is for bandwidth.
    let bandwidth = asked.mem_bw_schema.trim();
    let cache = asked.l3_cache_schema.lines().map(str::trim);
    let cache = cache.filter(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
    let shares = cache.chain([bandwidth]).filter(|line| !line.is_empty());
    let lines = asked
        .schemata
        .iter()
        .flat_map(|entry| entry.lines())
        .map(str::trim);
    RdtPlan {
        class: class.to_owned(),
        own,
        shares: shares.map(str::to_owned).collect(),
        schemata: lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
        monitor: asked.enable_monitoring.then(|| id.to_owned()),
    }
}

/// The first line that a class does not have as it was asked for, if there is one.
///
/// The kernel writes masks with leading zeros and names domains that nobody asked about; both are no difference.
#[must_use]
pub fn missing_share<'a>(shares: &'a [String], present: &str) -> Option<&'a str> {
    let present: Vec<Share<'_>> = present.lines().flat_map(shares_of).collect();
    let missing = |line: &&String| !shares_of(line).all(|share| present.contains(&share));
    shares.iter().find(missing).map(String::as_str)
}

/// What one resource gives in one domain: `L3`, `0`, `7f0`.
type Share<'a> = (&'a str, &'a str, &'a str);

fn shares_of(line: &str) -> impl Iterator<Item = Share<'_>> {
    let (resource, domains) = line.trim().split_once(':').unwrap_or((line, ""));
    domains.split(';').map(move |domain| {
        let (domain, value) = domain.split_once('=').unwrap_or((domain, ""));
        let value = value
            .trim()
            .trim_start_matches("0x")
            .trim_start_matches('0');
        (resource.trim(), domain.trim(), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_a_name_is_the_workspaces_own() {
        let plan = plan(&IntelRdt::default(), "web-1");
        assert_eq!((plan.class.as_str(), plan.own), ("web-1", true));
        assert!(!plan.has_shares());
    }

    #[test]
    fn bandwidth_is_taken_from_its_own_property() {
        let asked = IntelRdt {
            clos_id: "gold".to_owned(),
            l3_cache_schema: "L3:0=f0\nMB:0=50".to_owned(),
            mem_bw_schema: "MB:0=20".to_owned(),
            schemata: vec!["L2:0=f".to_owned()],
            enable_monitoring: true,
        };
        let plan = plan(&asked, "web-1");
        assert_eq!(plan.shares, ["L3:0=f0", "MB:0=20"]);
        assert_eq!(plan.schemata, ["L2:0=f"]);
        assert_eq!(plan.monitor.as_deref(), Some("web-1"));
    }

    #[test]
    fn a_share_is_there_however_the_kernel_writes_it() {
        let present = "    MB:0=100;1=20\n    L3:0=007f0;1=fffff\n";
        let shares = ["L3:0=7f0".to_owned(), "MB:1=20".to_owned()];
        assert_eq!(missing_share(&shares, present), None);
    }

    #[test]
    fn a_share_that_differs_is_named() {
        let present = "L3:0=7f0;1=fffff\n";
        let shares = ["L3:0=7f0;1=1f".to_owned()];
        assert_eq!(missing_share(&shares, present), Some("L3:0=7f0;1=1f"));
    }
}
