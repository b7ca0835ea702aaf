//! One program, two personalities: `ld.relink` speaks ld, `relink` has the tools around it.
//!
//! A library, so that tests and fuzz targets can ask what a command line means without a process for each.

pub mod arena;
mod console;
mod demangle;
mod ld;
mod tools;

use std::ffi::{OsStr, OsString};
use std::path::Path;

pub use ld::{Understood, understand};

/// Does what this process was called for; its exit code.
pub fn run() -> i32 {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    if is_linker(&name) {
        ld::run(args)
    } else if args.first().is_some_and(|first| first == "ld") {
        args.remove(0);
        ld::run(args)
    } else {
        tools::run()
    }
}

/// Whether the program was called as `ld`, `ld.relink` or a cross linker's `x86_64-linux-gnu-ld`.
fn is_linker(name: &OsStr) -> bool {
    let name = Path::new(name).file_name().and_then(OsStr::to_str).unwrap_or_default();
    name == "ld" || name.ends_with("-ld") || name.ends_with("ld.relink")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_chooses_the_personality() {
        for name in ["ld", "/opt/bin/ld", "ld.relink", "/x/x86_64-linux-gnu-ld", "x86_64-linux-gnu-ld.relink"]
        {
            assert!(is_linker(OsStr::new(name)), "{name}");
        }
        for name in ["relink", "/ld/relink", "world", "", "ld/"] {
            assert_eq!(is_linker(OsStr::new(name)), name == "ld/", "{name}");
        }
    }
}
