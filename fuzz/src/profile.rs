//! A seccomp profile: any bytes are refused or compile to a program that the kernel would take, and that answers every
//! call.

use bulkhead::plan::seccomp;
use bulkhead::plan::seccomp::Filter;
use bulkhead::spec::seccomp::Seccomp;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// Compiles these bytes as `linux.seccomp` would be.
pub fn run(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<Seccomp>(bytes) else {
        return;
    };
    if profile.is_absent() {
        return;
    }
    let Ok(filter) = seccomp::compile(&profile, seccomp::native()) else {
        return;
    };
    assert!(!filter.instructions.is_empty() && filter.instructions.len() <= LONGEST);
    jumps_end(&filter);
    let again = seccomp::compile(&profile, seccomp::native());
    assert_eq!(
        again.ok().map(|again| again.instructions.len()),
        Some(filter.instructions.len())
    );
}

/// Every jump leads forward to an instruction that is there, and the last instruction returns.
fn jumps_end(filter: &Filter) {
    const CLASS: u16 = 0x07;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let length = filter.instructions.len();
    for (index, one) in filter.instructions.iter().enumerate() {
        if one.code & CLASS != JUMP {
            continue;
        }
        let always = one.code & 0xf0 == 0;
        let (least, most) = match always {
            true => (one.k as usize, one.k as usize),
            false => (usize::from(one.jt), usize::from(one.jf)),
        };
        assert!(
            index + 1 + least.max(most) < length,
            "a jump out of the program"
        );
    }
    let last = filter.instructions.last().unwrap();
    assert_eq!(last.code & CLASS, RETURN);
}
