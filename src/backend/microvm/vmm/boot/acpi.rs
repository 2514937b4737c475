//! The tables of ACPI by which a distribution's kernel finds processors, devices and the power switch.
//!
//! The machine is of the hardware-reduced kind: no timer, no fixed events, no system control interrupt, so nothing of
//! that is emulated. It is put to sleep and reset by two registers among its ports.

use acpi_tables::Aml;
use acpi_tables::aml::Device;
use acpi_tables::aml::EISAName;
use acpi_tables::aml::IO;
use acpi_tables::aml::Interrupt;
use acpi_tables::aml::Memory32Fixed;
use acpi_tables::aml::Name;
use acpi_tables::aml::Package;
use acpi_tables::aml::ResourceTemplate;
use acpi_tables::aml::Scope;
use acpi_tables::fadt::FADTBuilder;
use acpi_tables::fadt::Flags;
use acpi_tables::gas::AccessSize;
use acpi_tables::gas::AddressSpace;
use acpi_tables::gas::GAS;
use acpi_tables::madt::EnabledStatus;
use acpi_tables::madt::IoApic;
use acpi_tables::madt::LocalInterruptController;
use acpi_tables::madt::MADT;
use acpi_tables::madt::ProcessorLocalApic;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;

const OEM: [u8; 6] = *b"BULKHD";
const TABLE: [u8; 8] = *b"BULKHEAD";
/// What is written to the reset register.
pub(in crate::backend::microvm::vmm) const RESET: u8 = 1;
/// The kind of sleep that means off (`_S5`).
pub(in crate::backend::microvm::vmm) const OFF: u8 = 5;

/// Writes all tables; the address of the first, the RSDP.
pub(super) fn write(memory: &Memory, vcpus: u32, windows: u32) -> Result<u64, BootError> {
    let first = layout::ACPI;
    let mut next = first + Rsdp::len() as u64;
    let mut place = |table: &dyn Aml| {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        next = next.next_multiple_of(16);
        let address = next;
        next += bytes.len() as u64;
        memory.write_slice(&bytes, GuestAddress(address))?;
        Ok::<u64, BootError>(address)
    };
    let dsdt = place(&dsdt(windows))?;
    let fadt = place(&fadt(dsdt).finalize())?;
    let madt = place(&madt(vcpus))?;
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = place(&xsdt)?;
    let mut bytes = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut bytes);
    memory.write_slice(&bytes, GuestAddress(first))?;
    Ok(first)
}

fn fadt(dsdt: u64) -> FADTBuilder {
    let port = |offset: u16| {
        let address = u64::from(layout::POWER + offset);
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            address,
        )
    };
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // Without these two there would be a button of each kind to be looked for.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = boot_architecture().into();
    fadt.sleep_control_reg = port(0);
    fadt.sleep_status_reg = port(1);
    fadt.reset_reg = port(2);
    fadt.reset_value = RESET;
    fadt
}

/// `IAPC_BOOT_ARCH`: no VGA to be looked for, no MSI, no power management of links, no clock in CMOS. That no bit says
/// "keyboard controller" spares the kernel looking for one.
fn boot_architecture() -> u16 {
    const NO_VGA: u16 = 1 << 2;
    const NO_MSI: u16 = 1 << 3;
    const NO_ASPM: u16 = 1 << 4;
    const NO_CMOS_CLOCK: u16 = 1 << 5;
    NO_VGA | NO_MSI | NO_ASPM | NO_CMOS_CLOCK
}

fn madt(vcpus: u32) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, 1, local);
    for id in 0..u8::try_from(vcpus).unwrap_or(u8::MAX) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

/// The tree of devices.
fn dsdt(windows: u32) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, 1);
    let off = Package::new(vec![&OFF, &OFF, &0u8, &0u8]);
    append(&mut dsdt, &Name::new("_S5_".into(), &off));
    append(&mut dsdt, &serial());
    for index in 0..windows {
        append(&mut dsdt, &Window(index));
    }
    dsdt
}

fn append(dsdt: &mut Sdt, part: &dyn Aml) {
    let mut bytes = Vec::new();
    part.to_aml_bytes(&mut bytes);
    dsdt.append_slice(&bytes);
}

/// The serial port's part of the tree.
fn serial() -> impl Aml {
    struct Serial;
    impl Aml for Serial {
        fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
            let hid = Name::new("_HID".into(), &EISAName::new("PNP0501"));
            let uid = Name::new("_UID".into(), &0u8);
            let length = u8::try_from(layout::SERIAL_LENGTH).unwrap_or_default();
            let ports = IO::new(layout::SERIAL, layout::SERIAL, 0, length);
            let interrupt = Interrupt::new(true, true, false, false, layout::SERIAL_GSI);
            let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
            let resources = Name::new("_CRS".into(), &resources);
            let device = Device::new("COM1".into(), vec![&hid, &uid, &resources]);
            Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(sink);
        }
    }
    Serial
}

/// The part of the tree for the window of one virtio device.
struct Window(u32);

impl Aml for Window {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let name = format!("V{:03}", self.0);
        let base = layout::WINDOWS + u64::from(self.0) * layout::WINDOW;
        let base = u32::try_from(base).unwrap_or_default();
        let length = u32::try_from(layout::WINDOW).unwrap_or_default();
        let hid = Name::new("_HID".into(), &"LNRO0005");
        let uid = Name::new("_UID".into(), &self.0);
        let coherent = Name::new("_CCA".into(), &1u8);
        let registers = Memory32Fixed::new(true, base, length);
        let interrupt = Interrupt::new(true, true, false, false, layout::WINDOW_GSI + self.0);
        let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
        let resources = Name::new("_CRS".into(), &resources);
        let device = Device::new(
            name.as_str().into(),
            vec![&hid, &uid, &coherent, &resources],
        );
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::ByteValued;

    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn table(memory: &Memory, address: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(address + 4)).unwrap();
        let mut bytes = vec![0; length as usize];
        memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn number<T: ByteValued>(memory: &Memory, address: u64) -> T {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn every_table_is_found_from_the_first_and_sums_up_to_zero() {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        let rsdp = write(&memory, 32, layout::WINDOWS_MAX).unwrap();
        let mut first = [0; 36];
        memory.read_slice(&mut first, GuestAddress(rsdp)).unwrap();
        assert_eq!((&first[..8], sum(&first)), (&b"RSD PTR "[..], 0));
        let xsdt: u64 = number(&memory, rsdp + 24);
        let fadt: u64 = number(&memory, xsdt + 36);
        let madt: u64 = number(&memory, xsdt + 44);
        let dsdt: u64 = number(&memory, fadt + 140);
        for (address, name) in [
            (xsdt, b"XSDT"),
            (fadt, b"FACP"),
            (madt, b"APIC"),
            (dsdt, b"DSDT"),
        ] {
            let bytes = table(&memory, address);
            assert_eq!((&bytes[..4], sum(&bytes)), (&name[..], 0));
            assert!(address + (bytes.len() as u64) < layout::HIGH);
        }
    }
}
