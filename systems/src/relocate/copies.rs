//! Copies of libraries' data in the program: one comes with the first reference that needs an address of this image, under
//! all of the datum's names, and goes with the last reference to any of them.

use formats::elf;
use formats::units::Align;
use hashbrown::HashSet;
use relink_engine::options::{PlaceKind, Strip};
use relink_engine::plan::OldSymbol;
use relink_engine::policy::FreeRange;
use relink_engine::records::{
    AtomRecord, SectionRecord, SymbolRecord, atom_flags, file_flags, place, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, NONE, SectionRow, SymbolRow};
use relink_formats as formats;

use super::dynamic_relocs::DynamicRelocs;
use super::dynamic_symbols::{Tables, exhausted};
use crate::debug::changed::Stop;
use crate::diff::rows::{add_global, vacant_atom};
use crate::ingest::bulk::type_flags;
use crate::ingest::libraries::definition_of;
use crate::place::free;
use crate::place::symtab::is_retained;
use crate::resolve::imports::copied_by;
use crate::view::{View, name_of};

/// What data are cut at, as in Place.
const SLOT_ALIGN: u64 = 16;

/// A name of a datum.
struct Name {
    row: SymbolRow,
    /// As the library has it.
    record: SymbolRecord,
}

impl Tables<'_> {
    /// A library's datum gets an address in the program.
    pub(super) fn need_copy(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let record = self.record(row)?;
        let file = record.input.0;
        let name = name_of(self.store, self.plan, record.name)?.to_vec();
        let library = self.library(file)?.parsed;
        let Some(datum) = definition_of(library, &name).and_then(|at| library.symbols.get(at)) else {
            return Err(self.refused(&record, "a definition"));
        };
        if !datum.can_be_copied() || datum.visibility == elf::STV_PROTECTED || datum.read_only {
            // What is read-only has a section of its own, if any.
            return Err(self.refused(&record, "a copy in the program"));
        }
        let align = datum.align;
        let names = self.names_of_datum(row)?;
        let mut size = 0;
        for other in &names {
            let name = name_of(self.store, self.plan, other.record.name)?.to_vec();
            let library = self.library(file)?.parsed;
            let known =
                library.symbols.iter().filter(|symbol| symbol.defined && library.name(&symbol.name) == name);
            if known.count() > 1 {
                return Err(self.refused(&record, "a copy of one of several versions"));
            }
            let known = self.record(other.row)?;
            // What refers to it otherwise would do so in another way from now on.
            if known.dynsym != 0
                || known.got != 0
                || other.row != row && known.flags & symbol_flags::REFERENCED != 0
            {
                return Err(self.refused(&record, "a copy in the program, beside its imports"));
            }
            size = size.max(other.record.size);
        }
        let atom =
            self.place_copy(size, align)?.ok_or_else(|| exhausted("room in .bss for a copied datum"))?;
        for other in &names {
            self.define_copied(other, atom)?;
        }
        let shapes: Vec<(SymbolRow, u64, u64)> =
            names.iter().map(|name| (name.row, name.record.size, name.record.value)).collect();
        let copied = copied_by(&shapes).unwrap_or(row);
        let symbol = self.record(copied)?.dynsym;
        let address = View::new(self.store, self.plan).atom_record(atom).address;
        let mut table = DynamicRelocs::new(self.store, self.plan, self.image, self.draft)?;
        if !table.insert_named(symbol, address, elf::R_X86_64_COPY, 0) || !table.finish() {
            let section = ".rela.dyn".to_owned();
            return Err(Stop::Reason(GateReason::DynamicRelocationChanged { section, input: String::new() }));
        }
        self.changes.libraries.insert(file);
        Ok(())
    }

    /// All names that a copy of a datum takes the place of: its library's, of which an earlier one offers none.
    fn names_of_datum(&mut self, row: SymbolRow) -> Result<Vec<Name>, Stop> {
        let own = self.record(row)?;
        let file = own.input.0;
        let mut earlier = HashSet::new();
        for other in 0..file {
            if self.store.files.get(other)?.flags & file_flags::SHARED != 0 {
                let library = self.library(other)?.parsed;
                let offered = library.symbols.iter().filter(|symbol| symbol.defined && !symbol.hidden);
                earlier.extend(offered.map(|symbol| library.name(&symbol.name).to_vec()));
            }
        }
        let name = name_of(self.store, self.plan, own.name)?.to_vec();
        let library = self.library(file)?.parsed;
        let Some(datum) = definition_of(library, &name).and_then(|at| library.symbols.get(at)) else {
            return Ok(Vec::new());
        };
        let same = library.symbols.iter().enumerate().filter(|(_, other)| {
            let same = (other.value, other.section) == (datum.value, datum.section);
            other.defined && same && !other.hidden && other.kind == elf::STT_OBJECT
        });
        let aliases: Vec<(Vec<u8>, SymbolRecord)> = same
            .map(|(index, other)| {
                let record = SymbolRecord {
                    input: InputRow(file),
                    atom: place::SHARED,
                    value: index as u64,
                    size: other.size,
                    info: (elf::STB_GLOBAL << 4) | other.kind,
                    flags: symbol_flags::GLOBAL | symbol_flags::OFFERED | type_flags(other.kind),
                    ..crate::diff::rows::vacant_symbol()
                };
                (library.name(&other.name).to_vec(), record)
            })
            .filter(|(alias, _)| *alias != name && !earlier.contains(alias))
            .collect();
        let mut names = vec![Name { row, record: own }];
        for (alias, record) in aliases {
            let known = match self.plan.new_names.get(&alias) {
                Some(&row) => Some(row),
                None => self.store.global(&alias)?,
            };
            let (row, old) = match known {
                Some(row) => (row, self.record(row)?),
                None => {
                    let added = add_global(self.store, self.plan, &alias);
                    let (row, record) = added.ok_or_else(|| exhausted("the index of names"))?;
                    self.plan.symbols.insert(row.0, record);
                    (row, record)
                }
            };
            match old.atom {
                place::VACANT | place::SHARED => {}
                place::LAZY | place::UNDEFINED => {
                    return Err(self.refused(&own, "a copy of what an archive offers"));
                }
                _ => continue, // The program has one of its own.
            }
            if old.atom == place::SHARED && old.input.0 != file {
                continue;
            }
            let flags = record.flags | old.flags & (symbol_flags::REFERENCED | symbol_flags::CONTESTED);
            let record = SymbolRecord {
                name: old.name,
                symtab: old.symtab,
                dynsym: old.dynsym,
                got: old.got,
                flags,
                ..record
            };
            names.push(Name { row, record });
        }
        Ok(names)
    }

    fn bss(&self) -> Result<Option<(SectionRow, SectionRecord)>, Stop> {
        for row in 0..self.store.sections.len() {
            let section = self.store.sections.get(row)?;
            let zeros = section.kind == elf::SHT_NOBITS && section.index != 0;
            if zeros && self.store.strings.bytes(section.name)? == b".bss" {
                return Ok(Some((SectionRow(row), section)));
            }
        }
        Ok(None)
    }

    /// Room for a copy; `None` if `.bss` has none.
    fn place_copy(&mut self, size: u64, align: Align) -> Result<Option<AtomRow>, Stop> {
        let Some((output, section)) = self.bss()? else { return Ok(None) };
        if u32::from(align.exponent()) > section.align {
            return Ok(None);
        }
        let Some(capacity) = size.checked_next_multiple_of(SLOT_ALIGN) else { return Ok(None) };
        let fits = |range: FreeRange| {
            let start = align.up(range.start.checked_next_multiple_of(SLOT_ALIGN)?);
            let end = start.checked_add(capacity)?;
            (end <= range.start + range.len).then_some(start)
        };
        let options = self.request.options.incremental.as_ref();
        let policy =
            crate::policies::place(options.map_or(PlaceKind::FirstFit, |options| options.place_kind));
        let space = free::space(self.store, self.plan)?;
        let Some((_, address)) = free::take(space, output, capacity, policy, &fits) else { return Ok(None) };
        let row = AtomRow(self.plan.ends.atoms);
        self.plan.ends.atoms += 1;
        let record = AtomRecord {
            section: NONE,
            output,
            flags: atom_flags::SYNTHETIC
                | atom_flags::LIVE
                | atom_flags::EXACT
                | atom_flags::ALLOC
                | atom_flags::WRITE
                | atom_flags::NOBITS,
            address,
            size,
            capacity,
            kind: elf::SHT_NOBITS,
            align: u32::from(align.exponent()),
            ..vacant_atom()
        };
        self.plan.atoms.insert(row.0, record);
        Ok(Some(row))
    }

    /// A name means the copy from now on, for all modules.
    fn define_copied(&mut self, name: &Name, atom: AtomRow) -> Result<(), Stop> {
        let flags = name.record.flags & !symbol_flags::PREEMPTIBLE
            | symbol_flags::COPIED
            | symbol_flags::EXPORTED
            | symbol_flags::USED;
        let record = SymbolRecord { atom, value: 0, flags, ..name.record };
        self.plan.symbols.insert(name.row.0, record);
        self.add_export(name.row, formats::dynamic::versions::VER_NDX_GLOBAL)?;
        self.changes.imported.push(name.row);
        let text = name_of(self.store, self.plan, record.name)?.to_vec();
        if record.symtab != 0 || self.plan.added_symbols.contains(&name.row) {
            self.plan.written_symbols.push(name.row);
        } else if self.request.options.strip != Strip::All && is_retained(&text, &self.request.options) {
            self.plan.added_symbols.push(name.row);
        }
        Ok(())
    }

    /// Whether a symbol is one of a copy's names.
    fn is_copy(record: &SymbolRecord) -> bool {
        record.flags & symbol_flags::COPIED != 0 && place::is_atom(record.atom)
    }

    /// All names of the copy that a symbol means.
    pub(super) fn names_of_copy(&self, record: &SymbolRecord) -> Result<Vec<SymbolRow>, Stop> {
        let mut names = Vec::new();
        let owners = self.plan.image.dynsym_owners;
        for index in 0..owners.len {
            if let Some(row) = self.owner(owners, index)? {
                let other = self.record(row)?;
                names.extend((Self::is_copy(&other) && other.atom == record.atom).then_some(row));
            }
        }
        Ok(names)
    }

    /// Takes a copy out that nothing refers to by any of its names.
    pub(super) fn drop_copy(&mut self, record: &SymbolRecord, names: &[SymbolRow]) -> Result<(), Stop> {
        let file = record.input.0;
        let known = View::new(self.store, self.plan).atom_record(record.atom);
        let mut table = DynamicRelocs::new(self.store, self.plan, self.image, self.draft)?;
        if !table.remove_named(known.address, elf::R_X86_64_COPY) || !table.finish() {
            let section = ".rela.dyn".to_owned();
            return Err(Stop::Reason(GateReason::DynamicRelocationChanged { section, input: String::new() }));
        }
        for &row in names {
            let record = self.forget(&self.record(row)?)?;
            let name = name_of(self.store, self.plan, record.name)?.to_vec();
            let library = self.library(file)?.parsed;
            let Some(index) = definition_of(library, &name) else {
                return Err(self.refused(&record, "a definition"));
            };
            let flags =
                record.flags & !(symbol_flags::COPIED | symbol_flags::EXPORTED) | symbol_flags::PREEMPTIBLE;
            let mut record = SymbolRecord { atom: place::SHARED, value: index as u64, flags, ..record };
            if record.flags & symbol_flags::REFERENCED != 0 {
                self.plan.written_symbols.push(row);
            } else if record.symtab != 0 {
                self.plan.removed_symbols.push(OldSymbol { index: record.symtab, local: false });
                record.symtab = 0;
            }
            self.plan.symbols.insert(row.0, record);
        }
        self.plan.atoms.insert(record.atom.0, vacant_atom());
        free::give_back(free::space(self.store, self.plan)?, known.output, known.address, known.capacity);
        self.changes.libraries.insert(file);
        Ok(())
    }
}
