//! Which objects have which global names (`--trace-symbol`, `--cref`).

use relink_engine::program::Program;
use relink_engine::records::global_state;
use relink_engine::store::Store;
use relink_formats::object_file::SymbolPlace;

/// What an object has to do with a global name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameUse {
    /// Defines it.
    Definition,
    /// Defines it as a common symbol.
    Common,
    /// Refers to it.
    Reference,
}

/// Calls `visit` with object, name and use for each global name of each loaded object, in link order.
pub(crate) fn of_program(program: &Program, mut visit: impl FnMut(&str, &str, NameUse)) {
    for object in &program.objects {
        for index in object.parsed.first_global as usize..object.parsed.symbols().len() {
            let name_use = match object.parsed.symbol_place(index) {
                SymbolPlace::Undefined => NameUse::Reference,
                SymbolPlace::Common => NameUse::Common,
                SymbolPlace::Absolute | SymbolPlace::Section(_) => NameUse::Definition,
            };
            visit(&object.name, &String::from_utf8_lossy(object.parsed.symbol_name(index)), name_use);
        }
    }
}

/// The same of an incremental link; rows that can't be read are left out.
pub(crate) fn of_store(store: &Store, mut visit: impl FnMut(&str, &str, NameUse)) {
    for row in store.link_order().unwrap_or_default() {
        let Ok(input) = store.inputs.get(row.0) else { continue };
        let object = store.text(input.name);
        for global in input.globals.and(input.more_globals) {
            let Ok(global) = store.globals.get(global) else { continue };
            let Ok(symbol) = store.symbols.get(global.symbol.0) else { continue };
            let name_use = match global.state {
                global_state::UNDEFINED => NameUse::Reference,
                global_state::COMMON => NameUse::Common,
                _ => NameUse::Definition,
            };
            visit(&object, &store.text(symbol.name), name_use);
        }
    }
}
