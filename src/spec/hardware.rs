//! What is asked of caches and memory banks: Intel's resource director and the memory policy.

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;

/// Cache and memory bandwidth of Intel processors, through `resctrl`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    /// The name of the class; empty means the container's id.
    #[serde(
        rename = "closID",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub clos_id: String,
    /// Lines for the schemata file, as they are.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub schemata: Vec<String>,
    /// The cache part of the schemata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub l3_cache_schema: String,
    /// The memory bandwidth part of the schemata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub mem_bw_schema: String,
    /// Whether a monitoring group is made for the container.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub enable_monitoring: bool,
}

/// From which NUMA nodes memory is taken: `set_mempolicy(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// By which rule.
    pub mode: MemoryPolicyMode,
    /// A list of nodes such as `0-3,7`; empty for none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub nodes: String,
    /// Refinements.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<MemoryPolicyFlag>,
}

/// Rules of `set_mempolicy(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryPolicyMode {
    /// Where the thread runs.
    #[serde(rename = "MPOL_DEFAULT")]
    Default,
    /// Only from the nodes.
    #[serde(rename = "MPOL_BIND")]
    Bind,
    /// In turn from the nodes.
    #[serde(rename = "MPOL_INTERLEAVE")]
    Interleave,
    /// In turn from the nodes, by weight (Linux 6.9).
    #[serde(rename = "MPOL_WEIGHTED_INTERLEAVE")]
    WeightedInterleave,
    /// From one node as long as it lasts.
    #[serde(rename = "MPOL_PREFERRED")]
    Preferred,
    /// From the nodes as long as they last (Linux 5.15).
    #[serde(rename = "MPOL_PREFERRED_MANY")]
    PreferredMany,
    /// Where the thread runs, said expressly.
    #[serde(rename = "MPOL_LOCAL")]
    Local,
}

impl MemoryPolicyMode {
    /// Every rule.
    pub const ALL: [Self; 7] = [
        Self::Default,
        Self::Bind,
        Self::Interleave,
        Self::WeightedInterleave,
        Self::Preferred,
        Self::PreferredMany,
        Self::Local,
    ];
}

/// Refinements of `set_mempolicy(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryPolicyFlag {
    /// Pages move towards the processors that use them (Linux 5.12).
    #[serde(rename = "MPOL_F_NUMA_BALANCING")]
    NumaBalancing,
    /// Node numbers are relative to what the cpuset allows.
    #[serde(rename = "MPOL_F_RELATIVE_NODES")]
    RelativeNodes,
    /// Node numbers stay what they are when the cpuset changes.
    #[serde(rename = "MPOL_F_STATIC_NODES")]
    StaticNodes,
}

impl MemoryPolicyFlag {
    /// Every refinement.
    pub const ALL: [Self; 3] = [Self::NumaBalancing, Self::RelativeNodes, Self::StaticNodes];
}
