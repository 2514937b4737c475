//! What a client was not ready to take: bytes of one stream, in order, no more than the guest was granted.

use vm_memory::VolatileSlice;

/// Bytes that wait for their client. Empty it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Spill {
    bytes: Vec<u8>,
    /// How many of `bytes` are gone.
    taken: usize,
}

impl Spill {
    /// Whether nothing waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.taken
    }

    /// What waits, first to last.
    #[must_use]
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Adds what lies in guest memory, but for its first `skip` bytes.
    pub(super) fn add(&mut self, slices: &[VolatileSlice<'_>], skip: usize) {
        self.close_up();
        let mut skip = skip;
        for slice in slices {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            if let Ok(rest) = slice.offset(skipped) {
                self.append(&rest);
            }
        }
    }

    fn append(&mut self, slice: &VolatileSlice<'_>) {
        let before = self.bytes.len();
        self.bytes.resize(before + slice.len(), 0);
        if let Some(place) = self.bytes.get_mut(before..) {
            slice.copy_to(place);
        }
    }

    /// Takes the first `count` bytes out.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = self.bytes.len().min(self.taken.saturating_add(count));
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Takes everything out and gives how much it was.
    pub(super) fn clear(&mut self) -> usize {
        let count = self.bytes().len();
        *self = Self::default();
        count
    }

    /// What is gone is not moved about with what is not, once it is the larger part.
    fn close_up(&mut self) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut spill = Spill::default();
        let mut seen = Vec::new();
        let mut next = 0_u8;
        for round in 0..1000 {
            let mut block: Vec<u8> = (0..7).map(|more| next.wrapping_add(more)).collect();
            next = next.wrapping_add(7);
            let slice = VolatileSlice::from(block.as_mut_slice());
            spill.add(&[slice], 2);
            let count = spill.bytes().len().min(if round % 3 == 0 { 9 } else { 3 });
            seen.extend_from_slice(&spill.bytes()[..count]);
            spill.take(count);
        }
        seen.extend_from_slice(spill.bytes());
        let all = (0..=u8::MAX).cycle().take(7000).enumerate();
        let kept = all.filter(|(index, _)| index % 7 > 1);
        let expected: Vec<u8> = kept.map(|(_, byte)| byte).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_empty_one_holds_no_memory() {
        let mut spill = Spill::default();
        let mut block = vec![1; 100_000];
        spill.add(&[VolatileSlice::from(block.as_mut_slice())], 0);
        spill.take(99_999);
        assert!(!spill.is_empty());
        spill.take(1);
        assert!(spill.is_empty());
        assert_eq!(spill.bytes.capacity(), 0);
    }
}
