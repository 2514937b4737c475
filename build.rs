//! Tells the program which commit it is made of, and the linker where its functions go.
//!
//! The commit is what `$BULKHEAD_COMMIT` says, or what git says of this directory; outside a repository it is unknown.
//!
//! The linker of the product is told which functions every start of a container passes through, so that they lie together.
//!
//! There are eight megabytes of code, and a start needs a twentieth of it, from everywhere. The kernel maps sixteen pages
//! around each that is asked for, so what lies together costs a handful of page faults, and what is scattered a hundred.
//! The list is made by `benches/order`; names that are not there any more change nothing. Rust links for x86-64 with LLVM's
//! linker, whose option this is; for other processors nothing is asked of the linker.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The functions, in the order of their first use.
const LIST: &str = "benches/order.txt";

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    println!("cargo::rerun-if-env-changed=BULKHEAD_LINK_MAP");
    println!("cargo::rustc-env=BULKHEAD_COMMIT={}", commit());
    let of_cargo = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let of = |name: &str, value: &str| env::var(name).as_deref() == Ok(value);
    if !of("PROFILE", "release") || !of("CARGO_CFG_TARGET_ARCH", "x86_64") {
        return;
    }
    // For musl the linker is called by itself, for glibc by the C compiler.
    let prefix = match of("CARGO_CFG_TARGET_ENV", "musl") {
        true => "",
        false => "-Wl,",
    };
    let argument = |text: &str| println!("cargo::rustc-link-arg-bin=bulkhead={prefix}{text}");
    let list = of_cargo("CARGO_MANIFEST_DIR").join(LIST);
    if list.exists() {
        argument(&format!("--symbol-ordering-file={}", list.display()));
        argument("--no-warn-symbol-ordering");
    }
    if let Ok(map) = env::var("BULKHEAD_LINK_MAP") {
        argument("--no-demangle");
        argument(&format!("-Map={map}"));
    }
}

/// The commit that is built.
fn commit() -> String {
    println!("cargo::rerun-if-env-changed=BULKHEAD_COMMIT");
    let said = env::var("BULKHEAD_COMMIT")
        .ok()
        .filter(|said| !said.is_empty());
    said.or_else(of_repository)
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What git says. A repository around this one, in which the sources were unpacked, is not theirs.
fn of_repository() -> Option<String> {
    Path::new(".git").exists().then_some(())?;
    // The log of the head has a line more after every commit. To build anew for each is for the product alone.
    let watched: &[&str] = match env::var("PROFILE").as_deref() {
        Ok("release") => &["HEAD", "logs/HEAD"],
        _ => &["HEAD"],
    };
    for name in watched {
        let file = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
