//! The command line: what was asked for, and where the devices are for a kernel without ACPI.

use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::config::CMDLINE_MAX;
use crate::backend::microvm::vmm::config::Discovery;
use crate::backend::microvm::vmm::config::MachineConfig;
use crate::backend::microvm::vmm::layout;

/// The command line with the zero at its end.
///
/// # Errors
///
/// [`BootError::Cmdline`] when it has become too long.
pub(super) fn build(config: &MachineConfig, windows: u32) -> Result<Vec<u8>, BootError> {
    let mut line = config.cmdline.clone();
    if config.discovery == Discovery::CommandLine {
        for index in 0..windows {
            let address = layout::WINDOWS + u64::from(index) * layout::WINDOW;
            let gsi = layout::WINDOW_GSI + index;
            // Words behind `--` are init's, so these stand before all others.
            let word = format!("virtio_mmio.device=4K@{address:#x}:{gsi}");
            line = format!("{word} {line}");
        }
    }
    let mut line = line.trim().as_bytes().to_vec();
    line.push(0);
    if line.len() > CMDLINE_MAX {
        return Err(BootError::Cmdline(line.len() - 1));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(discovery: Discovery) -> MachineConfig {
        let text = r#"{"vcpus": 1, "memory": 67108864, "kernel": {"path": "/k"}}"#;
        let mut config = MachineConfig::parse(text).unwrap();
        config.cmdline = "quiet -- a".to_owned();
        config.discovery = discovery;
        config
    }

    #[test]
    fn acpi_adds_no_words() {
        assert_eq!(build(&config(Discovery::Acpi), 3).unwrap(), b"quiet -- a\0");
    }

    #[test]
    fn devices_stand_before_the_words_of_init() {
        let line = build(&config(Discovery::CommandLine), 2).unwrap();
        let expected = "virtio_mmio.device=4K@0xd0001000:6 virtio_mmio.device=4K@0xd0000000:5 \
                        quiet -- a\0";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn a_line_that_grew_too_long_is_refused() {
        let mut config = config(Discovery::CommandLine);
        config.cmdline = "x".repeat(CMDLINE_MAX - 1);
        assert!(matches!(build(&config, 1), Err(BootError::Cmdline(_))));
        assert!(build(&config, 0).is_ok());
    }
}
