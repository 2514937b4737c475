//! What a profile means where its writer said nothing, too much, or what cannot be done.

use bulkhead::plan::seccomp;
use bulkhead::plan::seccomp::Filter;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Seccomp;
use serde_json::json;

use super::bpf;
use super::bpf::SystemCall;
use super::compare;
use super::engine;
use super::oracle;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;
const X86_64: u32 = compare::X86_64;
const X32: u32 = 0x4000_0000;

fn profile(json: serde_json::Value) -> Seccomp {
    serde_json::from_value(json).unwrap()
}

fn refusal(json: serde_json::Value) -> String {
    seccomp::compile(&profile(json), Arch::X86_64)
        .unwrap_err()
        .to_string()
}

fn verdict(filter: &Filter, arch: u32, number: u32) -> u32 {
    bpf::run(
        &filter.instructions,
        &SystemCall {
            number,
            arch,
            args: [0; 6],
        },
    )
}

/// A profile that knows the calls up to `close_range`.
fn denying(action: &str, architectures: &[&str]) -> Filter {
    let profile = profile(json!({
        "defaultAction": action,
        "architectures": architectures,
        "syscalls": [{"names": ["read", "close_range"], "action": "SCMP_ACT_ALLOW"}],
    }));
    seccomp::compile(&profile, Arch::X86_64).unwrap()
}

#[test]
fn a_call_newer_than_the_profile_is_not_implemented() {
    let filter = denying("SCMP_ACT_ERRNO", &[]);
    let asked = [0, 1, 436, 437, 999].map(|number| verdict(&filter, X86_64, number));
    assert_eq!(asked, [ALLOW, EPERM, ALLOW, ENOSYS, ENOSYS]);
}

#[test]
fn a_profile_that_kills_does_not_kill_for_what_it_cannot_know() {
    let filter = denying("SCMP_ACT_KILL_PROCESS", &[]);
    let asked = [1, 437].map(|number| verdict(&filter, X86_64, number));
    assert_eq!(asked, [0x8000_0000, ENOSYS]);
}

#[test]
fn a_profile_that_lets_everything_through_lets_new_calls_through() {
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let filter = denying(action, &[]);
        assert_eq!(
            verdict(&filter, X86_64, 437),
            verdict(&filter, X86_64, 1),
            "{action}"
        );
    }
}

#[test]
fn each_architecture_has_its_own_newest_call() {
    let filter = denying("SCMP_ACT_ERRNO", &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let x32 = [X32, X32 + 436, X32 + 437].map(|number| verdict(&filter, X86_64, number));
    assert_eq!(x32, [ALLOW, ALLOW, ENOSYS]);
    let x86 = [3, 436, 437].map(|number| verdict(&filter, 0x4000_0003, number));
    assert_eq!(x86, [ALLOW, ALLOW, ENOSYS]);
}

#[test]
fn a_call_by_way_of_an_architecture_that_is_not_listed_ends_the_thread() {
    let filter = denying("SCMP_ACT_ERRNO", &[]);
    assert_eq!(verdict(&filter, 0x4000_0003, 3), KILL);
    assert_eq!(verdict(&filter, X86_64, X32), KILL);
    assert_eq!(
        verdict(&filter, X86_64, u32::MAX),
        EPERM,
        "a tracer skipped the call"
    );
}

#[test]
fn calls_of_the_newest_kernel_have_names() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["mseal", "file_setattr", "uprobe"], "action": "SCMP_ACT_ALLOW"}],
    }));
    let filter = seccomp::compile(&profile, Arch::X86_64).unwrap();
    let asked = [336, 462, 469, 470].map(|number| verdict(&filter, X86_64, number));
    assert_eq!(asked, [ALLOW, ALLOW, ALLOW, ENOSYS]);
}

/// A profile with a long program: so many values of as many arguments, for every call.
fn long(values: u64) -> serde_json::Value {
    let names = [
        "read", "write", "open", "close", "socket", "connect", "mmap", "ioctl",
    ];
    let rules: Vec<serde_json::Value> = (0..values)
        .map(|value| {
            let name = names[usize::try_from(value).unwrap() % names.len()];
            json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": value << 32 | 7, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": value, "op": "SCMP_CMP_NE"}]})
        })
        .collect();
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
}

#[test]
fn jumps_over_more_than_a_jump_can_reach_lead_where_they_should() {
    let profile = profile(long(160));
    let theirs = oracle::compile(&profile).unwrap();
    let ours = seccomp::compile(&profile, Arch::X86_64).unwrap();
    assert!(
        ours.instructions.len() > 1000,
        "{}",
        ours.instructions.len()
    );
    let numbers: Vec<u32> = (0..60).collect();
    let arguments = compare::arguments(&profile);
    assert_eq!(
        compare::difference(&profile, &theirs, &numbers, &arguments),
        None
    );
}

#[test]
fn a_profile_that_is_too_long_for_the_kernel_is_refused() {
    let refusal = refusal(long(900));
    assert!(refusal.starts_with("linux.seccomp.syscalls: "), "{refusal}");
    assert!(
        refusal.ends_with(" instructions are needed, the kernel takes 4096"),
        "{refusal}"
    );
}

#[test]
fn the_same_conditions_with_another_action_are_refused() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let refusal = refusal(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args},
        {"names": ["write", "read"], "action": "SCMP_ACT_LOG", "args": args}]}));
    assert_eq!(
        refusal,
        "linux.seccomp.syscalls[1]: differs from syscalls[0] only in what is done"
    );
}

#[test]
fn architectures_that_cannot_be_served_are_refused_by_their_place() {
    let list =
        |arch| json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", arch]});
    assert_eq!(
        refusal(list("SCMP_ARCH_SH")),
        "linux.seccomp.architectures[1]: the system calls of SCMP_ARCH_SH are not known"
    );
    assert_eq!(
        refusal(list("SCMP_ARCH_S390X")),
        "linux.seccomp.architectures[1]: SCMP_ARCH_S390X has another byte order than this machine"
    );
}

#[test]
fn flags_are_those_of_the_kernel() {
    let flags = |json| {
        seccomp::compile(&profile(json), Arch::X86_64)
            .unwrap()
            .flags
    };
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW"})), 4);
    assert_eq!(
        flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": []})),
        0
    );
    let words = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    assert_eq!(
        flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": words})),
        3
    );
    let asked = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": words, "listenerPath": "/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(flags(asked), 1 | 2 | 8 | 16 | 32);
}

#[test]
fn a_filter_survives_being_sent() {
    let filter = seccomp::compile(&engine::docker(), Arch::X86_64).unwrap();
    let sent = serde_json::to_string(&filter).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&sent).unwrap(), filter);
}

#[test]
fn a_condition_that_looks_at_no_bit_is_no_condition() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_KILL"}]}));
    let filter = seccomp::compile(&profile, Arch::X86_64).unwrap();
    let theirs = oracle::compile(&profile).unwrap();
    let read = SystemCall {
        number: 0,
        arch: X86_64,
        args: [5; 6],
    };
    assert_eq!(verdict(&filter, X86_64, 0), ALLOW);
    assert_eq!(bpf::run(&theirs, &read), ALLOW);
}
