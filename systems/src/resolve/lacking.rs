//! `--no-allow-shlib-undefined`: what libraries need and nobody gives them, found now and not when the program starts.

use formats::elf;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::options::LinkOptions;
use relink_engine::program::{Program, SharedLibrary};
use relink_engine::records::place;
use relink_formats as formats;

use super::dynamic::is_defined_here;

/// A message for each name that a needed library lacks. Of a library that needs others that are not part of the link
/// nothing is known: they may define it.
pub(super) fn lacking_names(program: &Program, options: &LinkOptions) -> Vec<Diagnostic> {
    let kind = options.output_kind;
    if !kind.is_dynamic() || options.dynamic.allow_shlib_undefined.unwrap_or(kind.is_shared()) {
        return Vec::new();
    }
    let known = |name: &[u8]| program.shared.iter().any(|library| library.needed_name == name);
    let whole = |library: &&SharedLibrary| {
        library.needed && library.parsed.needed.iter().all(|name| known(library.parsed.name(name)))
    };
    let mut found = Vec::new();
    for library in program.shared.iter().filter(whole) {
        for symbol in library.parsed.symbols.iter().filter(|symbol| !symbol.defined) {
            let name = library.parsed.name(&symbol.name);
            if symbol.binding == elf::STB_WEAK || name.is_empty() || is_given(program, name) {
                continue;
            }
            let name = String::from_utf8_lossy(name);
            let message = format!(
                "undefined reference due to --no-allow-shlib-undefined: {name}\n>>> referenced by {}",
                library.name
            );
            found.push(Diagnostic::Other { message });
        }
    }
    found
}

fn is_given(program: &Program, name: &[u8]) -> bool {
    let symbol = program.names.find(name).map(|row| &program.symbols[row.index()]);
    if symbol.is_some_and(|symbol| is_defined_here(symbol) || symbol.atom == place::SHARED) {
        return true;
    }
    // Libraries refer to old versions too, which a program's own references never get.
    program.shared.iter().any(|library| {
        let symbols = library.parsed.symbols.iter();
        symbols.filter(|symbol| symbol.defined).any(|symbol| library.parsed.name(&symbol.name) == name)
    })
}
