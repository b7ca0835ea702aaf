//! The symbol table of the output object: section symbols, the objects' local symbols, then the names.

use formats::elf;
use formats::object_file::SymbolPlace;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::options::{Discard, LinkOptions, Strip};
use relink_engine::program::{Object, Program};
use relink_engine::records::{atom_flags, place, symbol_flags};
use relink_engine::rows::{SymbolRow, TargetKind};
use relink_formats as formats;

use super::arrange::Combined;

/// Where a symbol of the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutPlace {
    Undefined,
    Absolute,
    Common,
    /// Index into [`Combined::sections`].
    Section(usize),
    /// In a group's own section: the signature of constructors that compilers share. Index into [`Combined::groups`].
    Group(usize),
}

/// A symbol of the output.
#[derive(Debug)]
pub(crate) struct OutSymbol {
    pub name: Vec<u8>,
    pub place: OutPlace,
    /// Offset, number, or alignment of a common one.
    pub value: u64,
    pub size: u64,
    pub info: u8,
    pub other: u8,
}

/// The table without its null symbol.
#[derive(Debug, Default)]
pub(crate) struct OutSymbols {
    pub all: Vec<OutSymbol>,
    /// How many of them are local.
    pub locals: usize,
    /// Local symbols of objects: index in the table, null symbol included.
    own: HashMap<(usize, usize), u32>,
    /// Names, by row.
    names: HashMap<SymbolRow, u32>,
    /// The symbol of each output section.
    sections: Vec<u32>,
}

impl OutSymbols {
    /// Index of the symbol that an object's symbol became, and what its relocations must add.
    pub(crate) fn of(
        &self,
        program: &Program,
        combined: &Combined<'_>,
        (row, index): (usize, usize),
    ) -> Option<(u32, i64)> {
        if index == 0 {
            return Some((0, 0));
        }
        let object = &program.objects[row];
        if index >= object.parsed.first_global as usize {
            let TargetKind::Symbol(name) = object.targets[index].kind() else { return None };
            return self.names.get(&name).map(|&symbol| (symbol, 0));
        }
        if let Some(&symbol) = self.own.get(&(row, index)) {
            return Some((symbol, 0));
        }
        let SymbolPlace::Section(section) = object.parsed.symbol_place(index) else { return None };
        let (out, offset) = combined.place(row, section as usize)?;
        let value = object.parsed.symbols()[index].st_value.get(LittleEndian);
        Some((self.sections[out], offset.wrapping_add(value) as i64))
    }
}

pub(crate) fn choose(program: &Program, options: &LinkOptions, combined: &Combined<'_>) -> OutSymbols {
    let mut symbols = OutSymbols::default();
    for (index, _) in combined.sections.iter().enumerate() {
        symbols.sections.push(symbols.all.len() as u32 + 1);
        symbols.all.push(OutSymbol {
            name: Vec::new(),
            place: OutPlace::Section(index),
            value: 0,
            size: 0,
            info: elf::STT_SECTION,
            other: 0,
        });
    }
    let needed = needed_locals(program, combined);
    for (row, object) in program.objects.iter().enumerate() {
        let end = (object.parsed.first_global as usize).min(object.parsed.symbols().len());
        for index in 1..end {
            let needed = needed[row][index];
            if let Some(symbol) =
                local(object, index, row, combined).filter(|_| needed || is_wanted(object, index, options))
            {
                symbols.all.push(symbol);
                symbols.own.insert((row, index), symbols.all.len() as u32);
            }
        }
    }
    symbols.locals = symbols.all.len();
    let references = References::of(program);
    for row in (0..program.globals).map(SymbolRow) {
        if let Some(symbol) = global(program, row, options, combined, &references) {
            symbols.all.push(symbol);
            symbols.names.insert(row, symbols.all.len() as u32);
        }
    }
    symbols
}

/// Local symbols that relocations or groups name: no option takes these.
fn needed_locals(program: &Program, combined: &Combined<'_>) -> Vec<Vec<bool>> {
    let mut needed: Vec<Vec<bool>> =
        program.objects.iter().map(|object| vec![false; object.parsed.symbols().len().max(1)]).collect();
    for reloc in combined.sections.iter().flat_map(|section| &section.relocs) {
        needed[reloc.symbol.0][reloc.symbol.1] = true;
    }
    for group in &combined.groups {
        let signature = program.objects[group.object].parsed.groups[group.group].signature as usize;
        needed[group.object][signature] = true;
    }
    needed
}

fn is_wanted(object: &Object, index: usize, options: &LinkOptions) -> bool {
    let name = object.parsed.symbol_name(index);
    if options.discard == Discard::All || options.strip == Strip::All || name.is_empty() {
        return false;
    }
    !name.starts_with(b".L") && crate::place::symtab::is_retained(name, options)
}

fn local(object: &Object, index: usize, row: usize, combined: &Combined<'_>) -> Option<OutSymbol> {
    let symbol = &object.parsed.symbols()[index];
    if symbol.st_type().0 == elf::STT_SECTION {
        return None;
    }
    let value = symbol.st_value.get(LittleEndian);
    let (place, value) = match object.parsed.symbol_place(index) {
        SymbolPlace::Absolute => (OutPlace::Absolute, value),
        SymbolPlace::Section(section) if object.parsed.sections[section as usize].kind == elf::SHT_GROUP => {
            let group = combined.groups.iter().position(|group| {
                group.object == row && object.parsed.groups[group.group].section == section
            })?;
            (OutPlace::Group(group), value)
        }
        SymbolPlace::Section(section) => {
            let (out, offset) = combined.place(row, section as usize)?;
            (OutPlace::Section(out), offset.wrapping_add(value))
        }
        SymbolPlace::Undefined | SymbolPlace::Common => return None,
    };
    Some(OutSymbol {
        name: object.parsed.symbol_name(index).to_vec(),
        place,
        value,
        size: symbol.st_size.get(LittleEndian),
        info: symbol.st_info.0,
        other: symbol.st_other.0,
    })
}

/// How objects refer to names that they do not define: not only weakly, and as what type.
struct References {
    strong: Vec<bool>,
    kinds: Vec<u8>,
}

impl References {
    fn of(program: &Program) -> References {
        let count = program.globals as usize;
        let mut found = References { strong: vec![false; count], kinds: vec![elf::STT_NOTYPE; count] };
        for object in &program.objects {
            for index in object.parsed.first_global as usize..object.parsed.symbols().len() {
                let TargetKind::Symbol(row) = object.targets[index].kind() else { continue };
                let symbol = &object.parsed.symbols()[index];
                found.strong[row.index()] |= symbol.st_bind().0 != elf::STB_WEAK;
                let kind = &mut found.kinds[row.index()];
                if *kind == elf::STT_NOTYPE {
                    *kind = symbol.st_type().0;
                }
            }
        }
        found
    }
}

fn global(
    program: &Program,
    row: SymbolRow,
    options: &LinkOptions,
    combined: &Combined<'_>,
    references: &References,
) -> Option<OutSymbol> {
    let record = &program.symbols[row.index()];
    let name = program.names.of(row);
    let asked = options.undefined.iter().any(|asked| asked.as_bytes() == name);
    let undefined = || {
        let weak = !references.strong[row.index()] && !asked;
        let binding = if weak { elf::STB_WEAK } else { elf::STB_GLOBAL };
        let used = asked || record.flags & symbol_flags::REFERENCED != 0;
        used.then(|| (OutPlace::Undefined, 0, 0, (binding << 4) | references.kinds[row.index()]))
    };
    let (place, value, size, info) = if record.atom == place::ABSOLUTE {
        (OutPlace::Absolute, record.value, record.size, record.info)
    } else if !place::is_atom(record.atom) {
        undefined()?
    } else {
        let atom = &program.atoms[record.atom.index()];
        let common = atom.flags & atom_flags::COMMON != 0;
        let placed = match common {
            true => combined.place(program.objects.len(), record.atom.index()),
            false => combined.place(atom.input.index(), atom.section as usize),
        };
        match placed {
            Some((out, offset)) => {
                let kind = record.info & 0xf;
                let kind = if kind == elf::STT_COMMON { elf::STT_OBJECT } else { kind };
                let info = (record.info & 0xf0) | kind;
                (OutPlace::Section(out), offset.wrapping_add(record.value), record.size, info)
            }
            None if common => (OutPlace::Common, 1 << atom.align, record.size, record.info),
            // Garbage collection took it.
            None => return None,
        }
    };
    let mut name = name.to_vec();
    let version = program.dynamic.default_versions.iter().find(|(known, _)| *known == row);
    if let Some((_, version)) = version.filter(|_| place != OutPlace::Undefined) {
        name.extend_from_slice(b"@@");
        name.extend_from_slice(version);
    }
    Some(OutSymbol { name, place, value, size, info, other: record.other })
}
