//! Tells the linker of the product which functions every start of a container passes through, so that they lie together.
//!
//! There are eight megabytes of code, and a start needs a twentieth of it, from everywhere. The kernel maps sixteen pages
//! around each that is asked for, so what lies together costs a handful of page faults, and what is scattered a hundred.
//! The list is made by `benches/order`; names that are not there any more change nothing. Rust links for x86-64 with LLVM's
//! linker, whose option this is; for other processors nothing is asked of the linker.

use std::env;
use std::path::PathBuf;

/// The functions, in the order of their first use.
const LIST: &str = "benches/order.txt";

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    println!("cargo::rerun-if-env-changed=BULKHEAD_LINK_MAP");
    let of_cargo = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let of = |name: &str, value: &str| env::var(name).as_deref() == Ok(value);
    if !of("PROFILE", "release") || !of("CARGO_CFG_TARGET_ARCH", "x86_64") {
        return;
    }
    let argument = |text: String| println!("cargo::rustc-link-arg-bin=bulkhead={text}");
    let list = of_cargo("CARGO_MANIFEST_DIR").join(LIST);
    if list.exists() {
        argument(format!("-Wl,--symbol-ordering-file={}", list.display()));
        argument("-Wl,--no-warn-symbol-ordering".to_owned());
    }
    if let Ok(map) = env::var("BULKHEAD_LINK_MAP") {
        argument(format!("-Wl,--no-demangle,-Map={map}"));
    }
}
