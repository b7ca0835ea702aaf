//! Puts `ld.relink` beside `relink`: cargo can't name a binary with a dot, so it is a link to the same program,
//! which acts as `ld` when it is called by that name. And makes it a program that starts fast: a patch of a small program
//! takes a millisecond, of which every process spends a third on being loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What rustc names for the C library and for the unwinder. Those that the system does not have are part of the others.
const SYSTEM_LIBRARIES: [&str; 7] = ["c", "m", "pthread", "dl", "rt", "util", "gcc_s"];

fn main() {
    start_fast();
    link_beside();
}

/// At a fixed address 5,600 pointers need no relocation, in 33 pages that need no copy. With the C library in the program
/// no library is to be found, mapped, relocated and bound: 0.27 of 1.41 ms of a link that changes nothing.
///
/// rustc makes such a program if all crates are compiled for it. Only this one is linked so: where the linker looks for
/// `libc.so`, it finds a script that names `libc.a`.
fn start_fast() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    if std::env::var_os("TARGET") != std::env::var_os("HOST") {
        return; // The compiler here is not the one that links it.
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let (Some(libc), Some(gcc), Some(unwinder)) =
        (archive("libc.a"), archive("libgcc.a"), archive("libgcc_eh.a"))
    else {
        return; // A shared one it is, where no other is installed.
    };
    for library in SYSTEM_LIBRARIES {
        let script = match library {
            "c" => format!("GROUP(\"{libc}\" \"{unwinder}\" \"{gcc}\")"),
            "gcc_s" => format!("INPUT(\"{unwinder}\")"),
            other => match archive(&format!("lib{other}.a")) {
                Some(archive) => format!("INPUT(\"{archive}\")"),
                None => continue,
            },
        };
        if std::fs::write(out.join(format!("lib{library}.so")), script).is_err() {
            return;
        }
    }
    println!("cargo::rustc-link-arg-bins=-static");
    println!("cargo::rustc-link-arg-bins=-L{}", out.display());
}

/// Where the C compiler finds an archive; one that it doesn't know it gives back as a bare name.
fn archive(name: &str) -> Option<String> {
    let found = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(found.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
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
