//! Guests of a few bytes: an ELF around machine code that is put together here, one instruction after another.

/// Where a guest's code begins, in its memory.
const BASE: u64 = 0x10_0000;
/// Where it begins in its file.
const OFFSET: u64 = 0x1000;
/// Where the note stands that says how a kernel is entered.
const NOTE: u64 = 0x200;
const SERIAL: u16 = 0x3f8;
/// Where a guest of 32 bits that takes interrupts keeps its descriptors of segments, those of interrupts, and its stack.
const SEGMENTS: u32 = 0x8000;
const INTERRUPTS: u32 = 0x9000;
const STACK: u32 = 0xb000;
/// The registers of a processor's own interrupt controller.
const APIC: u32 = 0xfee0_0000;
/// The interrupt that its timer makes.
const VECTOR: u32 = 0x20;

/// The code of a guest, as far as it is written; it means the same in 32 and in 64 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Guest(Vec<u8>);

impl Guest {
    /// Code that does nothing yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Any instructions.
    pub(super) fn code(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Writes a byte to a port.
    pub(super) fn out(self, port: u16, value: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        // mov dx, port; mov al, value; out dx, al
        self.code(&[0x66, 0xba, low, high, 0xb0, value, 0xee])
    }

    /// Writes words to the serial port.
    pub(super) fn says(self, words: &str) -> Self {
        words
            .bytes()
            .fold(self, |guest, byte| guest.out(SERIAL, byte))
    }

    /// Reads four bytes at an address and writes them to the serial port, the lowest first.
    pub(super) fn tells(self, address: u32) -> Self {
        let [a, b, c, d] = address.to_le_bytes();
        let [low, high] = SERIAL.to_le_bytes();
        // mov ecx, address; mov eax, [rcx]; mov dx, SERIAL; then four times: out dx, al; shr eax, 8
        let guest = self
            .code(&[0xb9, a, b, c, d, 0x8b, 0x01])
            .code(&[0x66, 0xba, low, high]);
        (0..4).fold(guest, |guest, _| guest.code(&[0xee, 0xc1, 0xe8, 0x08]))
    }

    /// Writes four bytes to an address.
    pub(super) fn pokes(self, address: u32, value: u32) -> Self {
        let [a, b, c, d] = address.to_le_bytes();
        let [e, f, g, h] = value.to_le_bytes();
        // mov ecx, address; mov dword [rcx], value
        self.code(&[0xb9, a, b, c, d, 0xc7, 0x01, e, f, g, h])
    }

    /// Switches its machine off.
    pub(super) fn off(self) -> Self {
        self.out(0x600, 0x34).stands()
    }

    /// Does nothing more, for good.
    pub(super) fn stands(self) -> Self {
        // cli; hlt; jmp to the hlt
        self.code(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    /// Does nothing for good but to be woken by its timer, again and again after so many nanoseconds, and to say so with
    /// one byte each time; in 32 bits.
    ///
    /// KVM's timer counts a thousand million times a second (`APIC_BUS_CYCLE_NS` in its sources).
    pub(super) fn rests(self, period: u32) -> Self {
        let entry = INTERRUPTS + VECTOR * 8;
        let tables = [
            // A flat segment of code and one of data, behind the one that none can be.
            (SEGMENTS + 8, 0x0000_ffff),
            (SEGMENTS + 12, 0x00cf_9a00),
            (SEGMENTS + 16, 0x0000_ffff),
            (SEGMENTS + 20, 0x00cf_9200),
            // Limit and base of both tables, each in six bytes.
            (SEGMENTS + 0x100, 23),
            (SEGMENTS + 0x102, SEGMENTS),
            (INTERRUPTS + 0x200, 0x1ff),
            (INTERRUPTS + 0x202, INTERRUPTS),
        ];
        let guest = tables
            .into_iter()
            .fold(self, |guest, (address, value)| guest.pokes(address, value))
            // lgdt
            .code(&[0x0f, 0x01, 0x15])
            .code(&(SEGMENTS + 0x100).to_le_bytes())
            // lidt
            .code(&[0x0f, 0x01, 0x1d])
            .code(&(INTERRUPTS + 0x200).to_le_bytes());
        // Not iret: a KVM that emulates a guest without pages cannot do that.
        let handler = Self::new().out(SERIAL, b'.').pokes(APIC + 0xb0, 0).waits();
        // A jump over the handler, which loads the segment of code: seven bytes.
        let length = |code: &Self| u32::try_from(code.0.len()).unwrap();
        let place = u32::try_from(BASE).unwrap() + length(&guest) + 7;
        let behind = place + length(&handler);
        guest
            .code(&[0xea])
            .code(&behind.to_le_bytes())
            .code(&[8, 0])
            .code(&handler.0)
            .pokes(entry, 8 << 16 | place & 0xffff)
            .pokes(entry + 4, place & 0xffff_0000 | 0x8e00)
            // On; the timer by itself, again and again; no division; how long.
            .pokes(APIC + 0xf0, 0x1ff)
            .pokes(APIC + 0x320, 1 << 17 | VECTOR)
            .pokes(APIC + 0x3e0, 0b1011)
            .pokes(APIC + 0x380, period)
            .waits()
    }

    /// Waits for interrupts, with nothing on its stack; in 32 bits.
    fn waits(self) -> Self {
        // mov esp, STACK; sti; hlt; jmp to the hlt
        self.code(&[0xbc])
            .code(&STACK.to_le_bytes())
            .code(&[0xfb, 0xf4, 0xeb, 0xfd])
    }

    /// The kernel that it is, to be entered in 64 bits.
    pub(super) fn linux(&self) -> Vec<u8> {
        image(&self.0, false)
    }

    /// The kernel that it is, to be entered in 32 bits by the PVH protocol.
    pub(super) fn pvh(&self) -> Vec<u8> {
        image(&self.0, true)
    }
}

/// A program of Linux for x86-64 with this code.
pub(super) fn program(code: &[u8]) -> Vec<u8> {
    image(code, false)
}

fn image(code: &[u8], noted: bool) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let segments: u16 = if noted { 2 } else { 1 };
    // ET_EXEC, EM_X86_64, version, entry, program headers behind this one, no sections.
    file.extend([2u16.to_le_bytes(), 62u16.to_le_bytes()].concat());
    file.extend(1u32.to_le_bytes());
    file.extend([BASE.to_le_bytes(), 64u64.to_le_bytes(), [0; 8]].concat());
    file.extend([0; 4]);
    for word in [64, 56, segments, 0, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    let length = code.len() as u64;
    // PT_LOAD, all rights.
    file.extend(segment(1, 7, [OFFSET, BASE, BASE, length, length, 0x1000]));
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(u32::try_from(BASE).unwrap().to_le_bytes());
    if noted {
        let length = note.len() as u64;
        // PT_NOTE.
        file.extend(segment(4, 4, [NOTE, 0, 0, length, length, 4]));
    }
    file.resize(usize::try_from(NOTE).unwrap(), 0);
    file.extend(note);
    file.resize(usize::try_from(OFFSET).unwrap(), 0);
    file.extend(code);
    file
}

fn segment(kind: u32, rights: u32, numbers: [u64; 6]) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), rights.to_le_bytes()].concat();
    for number in numbers {
        header.extend(number.to_le_bytes());
    }
    header
}
