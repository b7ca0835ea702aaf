//! `--fallback-linker`: another linker for what is out of reach.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use relink::Diagnostic;
use relink::host::{self, HostError};

use super::parse::{Kind, words};
use super::table::OWN;
use crate::console;

/// Becomes the other linker. Returns only if that fails: the exit code.
pub(super) fn run(linker: &Path, why: &str, args: &[OsString]) -> i32 {
    console::note(format_args!("{why}\n>>> running {} instead", linker.display()));
    let error = Command::new(linker).args(arguments(args)).exec();
    console::error(format_args!(
        "--fallback-linker: cannot run {}: {}",
        linker.display(),
        host::reason(&error)
    ));
    1
}

/// Why a link that failed is one for another linker.
pub(super) fn reason(error: &HostError) -> Option<String> {
    let HostError::Link(error) = error else { return None };
    let foreign = error.diagnostics.iter().find(|diagnostic| match diagnostic {
        // `FormatError::Unsupported`: legal, and not for this linker.
        Diagnostic::BadInput { why, .. } => why.starts_with("unsupported: "),
        _ => false,
    })?;
    Some(foreign.render(&str::to_owned))
}

/// A command line without what only this linker understands.
fn arguments(args: &[OsString]) -> impl Iterator<Item = &OsStr> {
    let foreign = words(args).filter(|word| match &word.kind {
        Kind::Option(found) => !OWN.iter().any(|own| std::ptr::eq(own, found.spec)),
        _ => true,
    });
    foreign.flat_map(|word| word.args).map(OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_options_stay_here() {
        let words =
            ["-r", "--incremental", "a.o", "--code-slack", "7", "--fallback-linker=ld.bfd", "-o", "out"];
        let args = words.map(OsString::from);
        assert_eq!(arguments(&args).collect::<Vec<_>>(), ["-r", "a.o", "-o", "out"]);
    }

    #[test]
    fn only_legal_inputs_are_for_another_linker() {
        let error = |why| HostError::Link(relink::LinkError::bad_input("a.o", why));
        assert!(reason(&error("unsupported: LTO object (GCC, slim): recompile")).is_some());
        assert!(reason(&error("is empty")).is_none());
    }
}
