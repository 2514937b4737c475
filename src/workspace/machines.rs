//! What boots in the machines of this host, and whether it can have any.

use std::path::PathBuf;

use crate::backend::microvm::Boot;
use crate::backend::microvm::vmm::config::Discovery;
use crate::guest;
use crate::guest::Guest;
use crate::guest::GuestError;
use crate::host::machines::Machines;
use crate::plan::machine::KernelChoice;
use crate::workspace::error::WorkspaceError;
use crate::workspace::root::StateRoot;

/// What boots in a machine of this choice: a guest of this host, or a kernel of the caller's own with the first files of
/// one.
///
/// # Errors
///
/// [`WorkspaceError::NoMachine`] with the way out.
pub(super) fn boot(choice: &KernelChoice, places: &StateRoot) -> Result<Boot, WorkspaceError> {
    if let Some(words) = Machines::look().refusal() {
        return Err(WorkspaceError::NoMachine(words));
    }
    let guests = places.guests();
    let refused = |error: GuestError| WorkspaceError::NoMachine(error.to_string());
    let named = match &choice.path {
        Some(path) => {
            let guest = guests.meant_by(path).map_err(refused)?;
            if guest.is_none() && !path.is_file() {
                let words = format!(
                    "vm.kernel.path: {} is no guest of this host (bulkhead guest ls) and no kernel image",
                    path.display()
                );
                return Err(WorkspaceError::NoMachine(words));
            }
            guest
        }
        None => Some(guests.usual().map_err(refused)?),
    };
    let (kernel, initramfs, acpi) = match (named, &choice.path, &choice.initramfs) {
        (Some(guest), ..) => (guest.kernel(), own(choice, &guest), guest.about.acpi),
        (None, Some(kernel), Some(initramfs)) => (kernel.clone(), initramfs.clone(), true),
        (None, ..) => {
            let guest = guests.usual().map_err(refused)?;
            let kernel = choice.path.clone().unwrap_or_else(|| guest.kernel());
            (kernel, own(choice, &guest), true)
        }
    };
    Ok(Boot {
        kernel,
        initramfs,
        cmdline: guest::CMDLINE.to_owned(),
        discovery: match acpi {
            true => Discovery::Acpi,
            false => Discovery::CommandLine,
        },
    })
}

/// The first files: those that are named, or those of the guest.
fn own(choice: &KernelChoice, guest: &Guest) -> PathBuf {
    let named = choice.initramfs.clone();
    named.unwrap_or_else(|| guest.initramfs())
}
