//! The specification's own words for running in a machine: which hypervisor, kernel, image and hardware.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;

/// The `vm` object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vm {
    /// The program that makes the machine.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub hypervisor: Hypervisor,
    /// What boots in it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub kernel: Kernel,
    /// The disk to boot from.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub image: Image,
    /// The hardware it has. The schema spells it `hwConfig`, the reference types `hwconfig`; both are read.
    #[serde(alias = "hwconfig", skip_serializing_if = "Option::is_none")]
    pub hw_config: Option<HwConfig>,
}

/// The program that makes the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hypervisor {
    /// Where it is, absolute.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub path: PathBuf,
    /// Its arguments.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub parameters: Vec<String>,
}

/// What boots in the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kernel {
    /// The kernel image, absolute.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub path: PathBuf,
    /// Words for its command line.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub parameters: Vec<String>,
    /// The initial RAM disk, absolute.
    #[serde(
        rename = "initrd",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub initrd: PathBuf,
}

/// The disk that the machine boots from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The file, absolute.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub path: PathBuf,
    /// How it is laid out: `raw`, `qcow2`, `vdi`, `vmdk` or `vhd`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub format: String,
}

/// The machine's hardware.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HwConfig {
    /// A device tree for the guest, absolute.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub device_tree: PathBuf,
    /// How many processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// The most memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Nodes of the host's device tree to hand over.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub dtdevs: Vec<String>,
    /// Ranges of the host's I/O memory to hand over.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub iomems: Vec<IoMem>,
    /// Interrupts of the host to hand over.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub irqs: Vec<u32>,
}

/// A range of I/O memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoMem {
    /// The guest's first frame; the machine's own number when absent.
    #[serde(rename = "firstGFN", skip_serializing_if = "Option::is_none")]
    pub first_gfn: Option<u64>,
    /// The host's first frame.
    #[serde(rename = "firstMFN", default, deserialize_with = "null_is_default")]
    pub first_mfn: u64,
    /// How many frames.
    #[serde(rename = "nrMFNs", default, deserialize_with = "null_is_default")]
    pub nr_mfns: u64,
}
