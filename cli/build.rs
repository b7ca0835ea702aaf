//! Puts `ld.relink` beside `relink`: cargo can't name a binary with a dot, so it is a link to the same program,
//! which acts as `ld` when it is called by that name.

use std::path::{Path, PathBuf};

fn main() {
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
