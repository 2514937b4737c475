//! Runs classic BPF as the kernel does for seccomp, so that programs can be asked about any system call.

use bulkhead::plan::seccomp::SockFilter;

/// A system call, as filters see it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SystemCall {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl SystemCall {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (arg, place) in self.args.iter().zip(bytes[16..].chunks_mut(8)) {
            place.copy_from_slice(&arg.to_le_bytes());
        }
        let at = offset as usize;
        assert_eq!(at % 4, 0, "the kernel refuses loads that are not aligned");
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// What a program returns for a call. Panics where the kernel would have refused the program.
pub(super) fn run(program: &[SockFilter], call: &SystemCall) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let SockFilter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
