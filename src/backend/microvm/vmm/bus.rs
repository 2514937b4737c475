//! Which device answers at an address of the guest, in memory or among its ports.
//!
//! A bus is filled before the machine starts and does not change then, so that finding a device takes no lock; each
//! device has its own.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What answers when a guest reads or writes where there is no memory.
pub trait BusDevice: Send {
    /// Fills `data` with what stands at `offset` from the device's beginning.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes `data`, written at `offset` from the device's beginning.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device that the bus and others hold.
pub type Shared = Arc<Mutex<dyn BusDevice>>;

/// Addresses and their devices.
#[derive(Default)]
pub struct Bus {
    /// In the order of their addresses, none over another.
    places: Vec<Place>,
}

struct Place {
    base: u64,
    length: u64,
    device: Shared,
}

impl Place {
    fn end(&self) -> u64 {
        self.base.saturating_add(self.length)
    }
}

/// Two devices cannot be at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {base:#x} are taken, or none")]
pub struct Taken {
    base: u64,
    length: u64,
}

impl Bus {
    /// Puts a device where it answers from then on.
    ///
    /// # Errors
    ///
    /// [`Taken`] when another one answers there, or the range is empty.
    pub fn add(&mut self, base: u64, length: u64, device: Shared) -> Result<(), Taken> {
        let taken = Taken { base, length };
        let end = base.checked_add(length).ok_or(taken)?;
        let index = self.places.partition_point(|place| place.base < base);
        let before = index
            .checked_sub(1)
            .and_then(|index| self.places.get(index));
        let after = self.places.get(index);
        let free = before.is_none_or(|place| place.end() <= base)
            && after.is_none_or(|place| end <= place.base);
        if !free || length == 0 {
            return Err(taken);
        }
        self.places.insert(
            index,
            Place {
                base,
                length,
                device,
            },
        );
        Ok(())
    }

    /// Asks the device at an address; where there is none, all bits are set, as on a bus with nobody on it.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((place, offset)) = self.find(address, data.len()) {
            let mut device = place.device.lock().unwrap_or_else(PoisonError::into_inner);
            device.read(offset, data);
        }
    }

    /// Tells the device at an address; where there is none, nobody hears it.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((place, offset)) = self.find(address, data.len()) {
            let mut device = place.device.lock().unwrap_or_else(PoisonError::into_inner);
            device.write(offset, data);
        }
    }

    /// The device that has all of a range, and where in it the range begins.
    fn find(&self, address: u64, length: usize) -> Option<(&Place, u64)> {
        let index = self.places.partition_point(|place| place.base <= address);
        let place = self.places.get(index.checked_sub(1)?)?;
        let offset = address - place.base;
        let length = u64::try_from(length).ok()?;
        (offset.checked_add(length)? <= place.length).then_some((place, offset))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.places.iter().map(|place| place.base..place.end());
        formatter.debug_list().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Cells([u8; 16]);

    impl BusDevice for Cells {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            let start = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.0[start..start + data.len()]);
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            let start = usize::try_from(offset).unwrap();
            self.0[start..start + data.len()].copy_from_slice(data);
        }
    }

    fn bus(bases: &[u64]) -> Bus {
        let mut bus = Bus::default();
        for base in bases {
            bus.add(*base, 16, Arc::new(Mutex::new(Cells::default())))
                .unwrap();
        }
        bus
    }

    #[test]
    fn a_device_sees_offsets_from_its_own_beginning() {
        let bus = bus(&[0x1000, 0x2000, 0x1010]);
        bus.write(0x1014, &[1, 2]);
        let mut seen = [0; 4];
        bus.read(0x1013, &mut seen);
        assert_eq!(seen, [0, 1, 2, 0]);
        bus.read(0x1004, &mut seen);
        assert_eq!(seen, [0; 4]);
    }

    #[test]
    fn where_nobody_is_all_bits_are_set() {
        let bus = bus(&[0x1000]);
        for address in [0, 0xfff, 0x100d, 0x1010, u64::MAX] {
            let mut seen = [0; 4];
            bus.write(address, &[7; 4]);
            bus.read(address, &mut seen);
            assert_eq!(seen, [0xff; 4], "{address:#x}");
        }
    }

    #[test]
    fn two_devices_are_never_at_one_address() {
        let mut bus = bus(&[0x1000]);
        for (base, length) in [
            (0xff8, 16),
            (0x100f, 1),
            (0x1000, 16),
            (0x1010, 0),
            (u64::MAX, 2),
        ] {
            let refused = bus.add(base, length, Arc::new(Mutex::new(Cells::default())));
            assert_eq!(refused, Err(Taken { base, length }));
        }
    }
}
