//! What boots in the machines of this host, and whether it can have any.

use std::path::Path;

use crate::backend::microvm::Boot;
use crate::backend::microvm::vmm::config::Discovery;
use crate::plan::machine::KernelChoice;
use crate::workspace::error::WorkspaceError;
use crate::workspace::root::StateRoot;

/// What boots in a machine of this choice.
///
/// # Errors
///
/// [`WorkspaceError::NoMachine`] with the way out.
pub(super) fn boot(choice: &KernelChoice, places: &StateRoot) -> Result<Boot, WorkspaceError> {
    let home = places.data.join("guests/default");
    let or = |given: &Option<std::path::PathBuf>, name: &str| {
        given.clone().unwrap_or_else(|| Path::new(&home).join(name))
    };
    Ok(Boot {
        kernel: or(&choice.path, "vmlinux"),
        initramfs: or(&choice.initramfs, "initramfs"),
        cmdline: "console=ttyS0 panic=-1 reboot=t".to_owned(),
        discovery: Discovery::Acpi,
    })
}
