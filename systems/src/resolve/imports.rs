//! Addresses in this image for what shared libraries define: copies of data, canonical PLT entries of functions.

use formats::elf;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::program::{Program, SharedLibrary};
use relink_engine::records::{AtomRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, SymbolRow};
use relink_formats as formats;

/// The library of a symbol that one defines.
pub(crate) fn library_of<'a>(
    program: &'a Program,
    symbol: &SymbolRecord,
) -> Option<(usize, &'a SharedLibrary)> {
    if symbol.atom != place::SHARED {
        return None;
    }
    program.shared.iter().enumerate().find(|(_, library)| library.file.0 == symbol.input.0)
}

/// Gives every symbol that is `wanted` of its library an address; all names of what was copied.
pub(super) fn claim_addresses(
    program: &mut Program,
    wanted: impl Fn(SymbolRow, usize) -> bool,
) -> (Vec<SymbolRow>, Vec<Diagnostic>) {
    let mut errors = Vec::new();
    let mut copied = Vec::new();
    for row in (0..program.globals).map(SymbolRow) {
        let symbol = program.symbols[row.index()];
        // One of its other names may have brought it here.
        let Some((library, _)) = library_of(program, &symbol) else { continue };
        if !wanted(row, library) {
            continue;
        }
        if matches!(symbol.info & 0xf, elf::STT_FUNC | elf::STT_NOTYPE) && symbol.size == 0
            || symbol.info & 0xf == elf::STT_FUNC
        {
            program.symbols[row.index()].flags |= symbol_flags::CANONICAL_PLT;
            continue;
        }
        match copy(program, row, library) {
            Ok(names) => copied.extend(names),
            Err(why) => {
                let name = String::from_utf8_lossy(program.names.of(row)).into_owned();
                let message = format!(
                    "cannot copy {name} of {} into the program: {why}; recompile with -fPIC",
                    program.shared[library].name
                );
                errors.push(Diagnostic::Other { message });
            }
        }
    }
    (copied, errors)
}

/// Makes room for a datum of a library, which all of its names, the result, then mean.
fn copy(program: &mut Program, row: SymbolRow, library: usize) -> Result<Vec<SymbolRow>, &'static str> {
    let symbol = program.symbols[row.index()];
    let parsed = &program.shared[library].parsed;
    let definition = parsed.symbols.get(symbol.value as usize).ok_or("it has no such symbol")?;
    if definition.visibility == elf::STV_PROTECTED {
        return Err("it is protected, so the library would go on using its own");
    }
    if definition.kind == elf::STT_TLS {
        return Err("it is thread-local");
    }
    let place_in_library = (definition.value, definition.section);
    let (align, read_only) = (definition.align, definition.read_only);
    let same = |known: &SymbolRecord| {
        known.atom == place::SHARED && known.input == symbol.input && {
            let other = parsed.symbols.get(known.value as usize);
            other.is_some_and(|other| (other.value, other.section) == place_in_library)
        }
    };
    let names: Vec<SymbolRow> =
        (0..program.globals).map(SymbolRow).filter(|row| same(&program.symbols[row.index()])).collect();
    let shape = |row: &SymbolRow| {
        let symbol = &program.symbols[row.index()];
        (*row, symbol.size, symbol.value)
    };
    let shapes: Vec<(SymbolRow, u64, u64)> = names.iter().map(shape).collect();
    let size = shapes.iter().map(|&(_, size, _)| size).max().unwrap_or(0);
    if size == 0 {
        return Err("its size is unknown");
    }
    let atom = AtomRow(program.atoms.len() as u32);
    let relro = if read_only { atom_flags::RELRO } else { 0 };
    program.atoms.push(AtomRecord {
        input: InputRow::default(),
        section: NONE,
        flags: atom_flags::SYNTHETIC
            | atom_flags::LIVE
            | atom_flags::EXACT
            | atom_flags::ALLOC
            | atom_flags::WRITE
            | atom_flags::NOBITS
            | relro,
        size,
        capacity: size,
        kind: elf::SHT_NOBITS,
        align: u32::from(align.exponent()),
        ..Default::default()
    });
    for name in &names {
        let known = &mut program.symbols[name.index()];
        known.atom = atom;
        known.value = 0;
        known.flags &= !symbol_flags::PREEMPTIBLE;
        known.flags |= symbol_flags::COPIED | symbol_flags::EXPORTED | symbol_flags::USED;
    }
    program.shared[library].needed = true;
    program.copies.push((copied_by(&shapes).unwrap_or(row), atom, library as u32));
    Ok(names)
}

/// The name that a datum is copied by, of names with their sizes and indexes in the library: one that says all of it,
/// whoever was mentioned first.
pub(crate) fn copied_by(names: &[(SymbolRow, u64, u64)]) -> Option<SymbolRow> {
    let longest = names.iter().max_by_key(|&&(_, size, index)| (size, std::cmp::Reverse(index)));
    longest.map(|&(row, ..)| row)
}
