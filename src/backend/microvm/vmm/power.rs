//! The machine's power switch: who turns it, and why.
//!
//! Whoever sees the end first says why; the others see that it is off.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use crate::backend::microvm::vmm::Ending;
use crate::backend::microvm::vmm::boot::acpi::OFF;
use crate::backend::microvm::vmm::boot::acpi::RESET;
use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::Orders;

/// The switch.
#[derive(Debug)]
pub struct Power {
    ending: OnceLock<Ending>,
    orders: Orders,
}

impl Power {
    /// A machine that is on; when it ends, so does its event loop.
    #[must_use]
    pub fn on(orders: Orders) -> Self {
        Self {
            ending: OnceLock::new(),
            orders,
        }
    }

    /// Ends the machine, unless it has ended.
    pub fn end(&self, ending: Ending) {
        if self.ending.set(ending).is_ok() {
            self.orders.stop();
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.ending.get().is_some()
    }

    /// Why it has ended.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }
}

/// The registers of ACPI's hardware-reduced machine: sleep control, sleep status, reset.
#[derive(Debug)]
pub(super) struct Registers(pub(super) std::sync::Arc<Power>);

impl BusDevice for Registers {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        /// `SLP_EN` with `SLP_TYP` off.
        const SLEEP: u8 = 1 << 5 | OFF << 2;
        match (offset, data.first()) {
            (0, Some(value)) if value & 0x3c == SLEEP => self.0.end(Ending::PowerOff),
            (2, Some(&RESET)) => self.0.end(Ending::Reset { panic: None }),
            _ => {}
        }
    }
}

/// The command port of a keyboard controller that has nothing but the line to the processor's reset.
#[derive(Debug)]
pub(super) struct Keyboard(pub(super) std::sync::Arc<Power>);

impl BusDevice for Keyboard {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Nothing to be read, room to be written to.
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        const PULSE_RESET: u8 = 0xfe;
        if data.first() == Some(&PULSE_RESET) {
            self.0.end(Ending::Reset { panic: None });
        }
    }
}

/// The last words of a kernel, once it has said them.
#[derive(Debug, Default)]
pub(super) struct LastWords(Mutex<Option<String>>);

impl LastWords {
    /// Keeps the first words said.
    pub(super) fn say(&self, words: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| words.to_owned());
    }

    /// What was said.
    pub(super) fn said(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::microvm::vmm::virtio::EventLoop;

    #[test]
    fn the_first_who_sees_the_end_says_why() {
        let mut events = EventLoop::new(|_, _| {}).unwrap();
        let power = Arc::new(Power::on(events.orders()));
        Registers(power.clone()).write(0, &[0x34]);
        Keyboard(power.clone()).write(0, &[0xfe]);
        events.run().unwrap();
        assert_eq!(power.ending(), Some(&Ending::PowerOff));
    }

    #[test]
    fn other_values_switch_nothing_off() {
        let events = EventLoop::new(|_, _| {}).unwrap();
        let power = Arc::new(Power::on(events.orders()));
        for value in [0, 0x14, 0x20, 0x2c] {
            Registers(power.clone()).write(0, &[value]);
            Registers(power.clone()).write(1, &[0x34]);
            Registers(power.clone()).write(2, &[value]);
            Keyboard(power.clone()).write(0, &[value]);
        }
        assert!(!power.is_off());
    }
}
