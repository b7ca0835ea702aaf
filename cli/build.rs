//! Puts `ld.relink` beside `relink`: cargo can't name a binary with a dot, so it is a link to the same program,
//! which acts as `ld` when it is called by that name. And makes it a program that starts fast: a patch of a small program
//! takes a millisecond, of which every process spends a third on being loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    start_fast();
    link_beside();
}

/// At a fixed address 5,600 pointers need no relocation, in 33 pages that need no copy. The unwinder's own library is one
/// to be found, mapped and relocated the less, with constructors that ask a virtual processor what it can do.
fn start_fast() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    let unwinder = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let unwinder = unwinder.ok().and_then(|found| String::from_utf8(found.stdout).ok()).unwrap_or_default();
    // A bare name is one that the compiler doesn't know.
    if Path::new(unwinder.trim()).is_absolute() {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

fn link_beside() {
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out; the binaries stand three levels up.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let Some(profile) = out.ancestors().nth(3).map(Path::to_path_buf) else { return };
    let link = profile.join("ld.relink");
    if link.symlink_metadata().is_err()
        && let Err(error) = std::os::unix::fs::symlink("relink", &link)
    {
        println!("cargo::warning={}: {error}", link.display());
    }
    println!("cargo::rerun-if-changed={}", link.display());
    println!("cargo::rerun-if-changed=build.rs");
}
