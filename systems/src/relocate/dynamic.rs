//! Dynamic relocations, `.dynamic`, `.dynsym` and the PLT: what a loader reads.

use formats::dynamic::{plt, relr};
use formats::elf;
use formats::error::FormatError;
use formats::reloc::RelocError;
use formats::units::VirtAddr;
use relink_engine::options::LinkOptions;
use relink_engine::program::{DynamicValue, Program};
use relink_engine::records::{AtomRecord, SymbolRecord, place, symbol_flags};
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use crate::debug::symtab::symbol_bytes;
use crate::place::addresses::own_address;
use crate::place::tables::has_ibt_plt;
use crate::relocate::tables::write_own;

/// A dynamic relocation, in the order of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DynamicReloc {
    /// Index in `.dynsym`; 0 for none.
    pub symbol: u32,
    pub place: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    pub addend: i64,
    /// It stands in `.relr.dyn`, and its addend in its place.
    pub packed: bool,
}

/// Whether the RELATIVE relocation at an offset of an atom goes to `.relr.dyn`, which tells even places only. The
/// atom's alignment decides: its address is not known yet when tables are sized.
pub(crate) fn is_packed(program: &Program, atom: &AtomRecord, offset: u64) -> bool {
    program.pack_relative && atom.align > 0 && offset.is_multiple_of(2)
}

/// What the loader does to a GOT slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// Nothing: its value is known.
    Constant,
    /// Adds the load address.
    Relative,
    /// Looks the symbol up.
    GlobDat,
    /// Stores the offset from the thread pointer.
    TpOffset,
}

/// What the loader does to the GOT slot of a symbol.
pub(crate) fn slot_kind(symbol: &SymbolRecord, position_independent: bool, shared: bool) -> SlotKind {
    let preemptible = symbol.flags & symbol_flags::PREEMPTIBLE != 0;
    if symbol.flags & symbol_flags::TLS != 0 {
        return if shared || preemptible { SlotKind::TpOffset } else { SlotKind::Constant };
    }
    if preemptible {
        SlotKind::GlobDat
    } else if position_independent && place::is_atom(symbol.atom) {
        SlotKind::Relative
    } else {
        SlotKind::Constant
    }
}

fn slot_of(program: &Program, row: SymbolRow) -> SlotKind {
    if row.some().is_none() {
        return SlotKind::Constant; // Nobody's: zero, and no business of the loader's.
    }
    slot_kind(&program.symbols[row.index()], program.position_independent, program.kind.is_shared())
}

/// Entries of `.rela.dyn`: RELATIVE ones, and all.
pub(crate) fn count_dynamic_relocs(program: &Program) -> (u32, u32) {
    let sum = |count: fn(&relink_engine::program::Object) -> u32| -> u32 {
        program.objects.iter().map(count).sum()
    };
    let mut relative = sum(|object| object.dynamic_relocs);
    if program.position_independent {
        // A patch can fill one in, but not put one between others.
        relative += program.relative_spare + if program.pack_relative { 0 } else { program.got_spare };
    }
    let mut others = sum(|object| object.symbolic_relocs) + program.copies.len() as u32;
    for &row in &program.got {
        match slot_of(program, row) {
            SlotKind::Constant => {}
            SlotKind::Relative => relative += u32::from(!program.pack_relative),
            SlotKind::GlobDat | SlotKind::TpOffset => others += 1,
        }
    }
    for row in &program.tls_pairs {
        let preemptible = program.symbols[row.index()].flags & symbol_flags::PREEMPTIBLE != 0;
        others += 1 + u32::from(preemptible);
    }
    others += program.symbolic_spare;
    others += program.tls_descriptors.len() as u32 + u32::from(program.has_tls_module);
    if !program.kind.is_dynamic() {
        others += program.plt.len() as u32; // IRELATIVE
    }
    (relative, relative + others)
}

/// The tables' own relocations; those of atoms are added by their writers. RELATIVE ones have no symbol.
fn table_relocs(program: &Program) -> Vec<DynamicReloc> {
    let mut relocs = Vec::new();
    let dynsym = |row: SymbolRow| program.symbols[row.index()].dynsym;
    let preemptible = |row: SymbolRow| program.symbols[row.index()].flags & symbol_flags::PREEMPTIBLE != 0;
    let address = |row: SymbolRow| program.addresses[row.index()];
    let in_tls = |row: SymbolRow| address(row).wrapping_sub(program.tls_start) as i64;
    for (slot, &row) in program.got.iter().enumerate() {
        let place = program.got_address + 8 * slot as u64;
        let (kind, symbol, addend) = match slot_of(program, row) {
            SlotKind::Constant => continue,
            SlotKind::Relative => (elf::R_X86_64_RELATIVE, 0, address(row) as i64),
            SlotKind::GlobDat => (elf::R_X86_64_GLOB_DAT, dynsym(row), 0),
            SlotKind::TpOffset if preemptible(row) => (elf::R_X86_64_TPOFF64, dynsym(row), 0),
            SlotKind::TpOffset => (elf::R_X86_64_TPOFF64, 0, in_tls(row)),
        };
        let packed = program.pack_relative && kind == elf::R_X86_64_RELATIVE;
        relocs.push(DynamicReloc { symbol, place, kind, addend, packed });
    }
    for slot in spare_slots(program).filter(|_| program.position_independent) {
        let place = program.got_address + 8 * slot;
        let packed = program.pack_relative;
        relocs.push(DynamicReloc { symbol: 0, place, kind: elf::R_X86_64_RELATIVE, addend: 0, packed });
    }
    let kind = elf::R_X86_64_RELATIVE;
    if let Some(place) = scratch_slot(program) {
        let spare = DynamicReloc { symbol: 0, place, kind, addend: 0, packed: false };
        relocs.extend((0..program.relative_spare).map(|_| spare));
        // `R_X86_64_NONE` would say it better, but eu-elflint takes it for an error.
        let spare = DynamicReloc { kind: elf::R_X86_64_64, ..spare };
        relocs.extend((0..program.symbolic_spare).map(|_| spare));
    }
    for (index, &row) in program.tls_pairs.iter().enumerate() {
        let place = program.tls_pairs_address + 16 * index as u64;
        let symbol = if preemptible(row) { dynsym(row) } else { 0 };
        relocs.push(DynamicReloc { symbol, place, kind: elf::R_X86_64_DTPMOD64, addend: 0, packed: false });
        if symbol != 0 {
            relocs.push(DynamicReloc {
                symbol,
                place: place + 8,
                kind: elf::R_X86_64_DTPOFF64,
                addend: 0,
                packed: false,
            });
        }
    }
    for (index, &row) in program.tls_descriptors.iter().enumerate() {
        let place = program.tls_descriptors_address + 16 * index as u64;
        let (symbol, addend) = if preemptible(row) { (dynsym(row), 0) } else { (0, in_tls(row)) };
        relocs.push(DynamicReloc { symbol, place, kind: elf::R_X86_64_TLSDESC, addend, packed: false });
    }
    if program.has_tls_module {
        let place = program.tls_module_address;
        relocs.push(DynamicReloc {
            symbol: 0,
            place,
            kind: elf::R_X86_64_DTPMOD64,
            addend: 0,
            packed: false,
        });
    }
    for &(row, atom, _) in &program.copies {
        let place = program.atoms[atom.index()].address;
        relocs.push(DynamicReloc {
            symbol: dynsym(row),
            place,
            kind: elf::R_X86_64_COPY,
            addend: 0,
            packed: false,
        });
    }
    relocs
}

fn relocation_bytes(relocs: &[DynamicReloc]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(relocs.len() * 24);
    for reloc in relocs {
        bytes.extend_from_slice(&reloc.place.to_le_bytes());
        bytes.extend_from_slice(&(u64::from(reloc.symbol) << 32 | u64::from(reloc.kind)).to_le_bytes());
        bytes.extend_from_slice(&reloc.addend.to_le_bytes());
    }
    bytes
}

/// The entries of `.relr.dyn` as they have to be now that places are known.
pub(crate) fn packed_entries(program: &Program) -> Result<Vec<u64>, FormatError> {
    let atoms = program.packed_places.iter();
    let mut places: Vec<u64> =
        atoms.map(|&(atom, offset)| program.atoms[atom.index()].address.wrapping_add(offset)).collect();
    if program.pack_relative {
        let relative = |row: SymbolRow| slot_of(program, row) == SlotKind::Relative;
        let used = (0..).zip(&program.got).filter(|&(_, &row)| relative(row)).map(|(slot, _)| slot);
        places.extend(used.chain(spare_slots(program)).map(|slot| program.got_address + 8 * slot));
    }
    encode_places(places)
}

/// Numbers of the GOT slots that patches may take.
fn spare_slots(program: &Program) -> std::ops::Range<u64> {
    program.got.len() as u64..program.got.len() as u64 + u64::from(program.got_spare)
}

/// The place that spare entries write to: the last spare GOT slot, which no symbol ever takes.
pub(crate) fn scratch_slot(program: &Program) -> Option<u64> {
    let last = spare_slots(program).next_back()?;
    let spare_relocs = program.position_independent && !program.pack_relative || program.kind.is_dynamic();
    spare_relocs.then(|| program.got_address + 8 * last)
}

fn encode_places(mut places: Vec<u64>) -> Result<Vec<u64>, FormatError> {
    places.sort_unstable();
    // The loader adds: what two relocations of one input ask for is done once.
    places.dedup();
    relr::encode(&places)
}

/// The tables of dynamic relocations.
pub(crate) struct RelocTables {
    pub rela: Vec<u8>,
    pub rela_plt: Vec<u8>,
    /// Without the entries behind them that tell no place, for layouts that turned out shorter.
    pub relr: Vec<u64>,
}

/// The bytes of `.relr.dyn` in a section of `len` bytes: bitmaps of no places stand at its end.
pub(crate) fn packed_bytes(entries: &[u64], len: u64) -> Vec<u8> {
    let rest = (len / relr::ENTRY_LEN).saturating_sub(entries.len() as u64);
    let entries = entries.iter().copied().chain((0..rest).map(|_| 1));
    entries.flat_map(u64::to_le_bytes).collect()
}

/// All tables as they have to be, the relocations of atoms given.
pub(crate) fn dynamic_tables(
    program: &Program,
    atoms: Vec<DynamicReloc>,
) -> Result<RelocTables, FormatError> {
    let mut relocs = atoms;
    relocs.extend(table_relocs(program));
    let relr = encode_places(relocs.iter().filter(|reloc| reloc.packed).map(|reloc| reloc.place).collect())?;
    relocs.retain(|reloc| !reloc.packed);
    // RELATIVE by address, which the loader runs through at once; then by symbol, which it caches.
    // Spare ones stand behind the others of their kind.
    let scratch = scratch_slot(program);
    relocs.sort_unstable_by_key(|reloc| {
        (reloc.kind != elf::R_X86_64_RELATIVE, Some(reloc.place) == scratch, *reloc)
    });
    let dynamic = program.kind.is_dynamic();
    let got_plt = own_address(program, program.synthetic.got_plt);
    let first = got_plt + if dynamic { 8 * plt::RESERVED_SLOTS } else { 0 };
    let slots: Vec<DynamicReloc> = program
        .plt
        .iter()
        .enumerate()
        .map(|(index, &row)| {
            let place = first + 8 * index as u64;
            if binds_late(program, row) {
                let symbol = row.some().map_or(0, |row| program.symbols[row.index()].dynsym);
                DynamicReloc { symbol, place, kind: elf::R_X86_64_JUMP_SLOT, addend: 0, packed: false }
            } else {
                let addend = resolver(program, row) as i64;
                DynamicReloc { symbol: 0, place, kind: elf::R_X86_64_IRELATIVE, addend, packed: false }
            }
        })
        .collect();
    let rela_plt = if dynamic { relocation_bytes(&slots) } else { Vec::new() };
    if !dynamic {
        relocs.extend(slots);
    }
    Ok(RelocTables { rela: relocation_bytes(&relocs), rela_plt, relr })
}

/// Writes the tables of dynamic relocations.
pub(crate) fn write_dynamic_relocs(
    program: &mut Program,
    atoms: Vec<DynamicReloc>,
) -> Result<(), FormatError> {
    let tables = dynamic_tables(program, atoms)?;
    write_own(program, program.synthetic.rela, &tables.rela);
    write_own(program, program.synthetic.rela_plt, &tables.rela_plt);
    if let Some(row) = program.synthetic.relr.some() {
        let bytes = packed_bytes(&tables.relr, program.atoms[row.index()].size);
        write_own(program, row, &bytes);
    }
    Ok(())
}

/// Whether the loader looks up what a PLT entry leads to. Nobody's entry is one that has no symbol.
fn binds_late(program: &Program, row: SymbolRow) -> bool {
    let preemptible = |row: SymbolRow| program.symbols[row.index()].flags & symbol_flags::PREEMPTIBLE != 0;
    program.kind.is_dynamic() && row.some().is_none_or(preemptible)
}

/// The address of an IFUNC's resolver: where the symbol really is.
fn resolver(program: &Program, row: SymbolRow) -> u64 {
    // An entry without a symbol is one of damaged state.
    let Some(symbol) = program.symbols.get(row.index()) else { return 0 };
    program.atoms.get(symbol.atom.index()).map_or(0, |atom| atom.address.wrapping_add(symbol.value))
}

/// The words of `.got`.
pub(crate) fn got_words(program: &Program) -> Vec<u64> {
    let symbol = |row: SymbolRow| &program.symbols[row.index()];
    let in_tls = |row: SymbolRow| program.addresses[row.index()].wrapping_sub(program.tls_start);
    let preemptible = |row: SymbolRow| symbol(row).flags & symbol_flags::PREEMPTIBLE != 0;
    let mut words: Vec<u64> = program
        .got
        .iter()
        .map(|&row| {
            let Some(row) = row.some() else { return 0 };
            let address = program.addresses[row.index()];
            match slot_of(program, row) {
                SlotKind::GlobDat | SlotKind::TpOffset => 0,
                SlotKind::Constant if symbol(row).flags & symbol_flags::TLS != 0 => {
                    address.wrapping_sub(program.tp)
                }
                SlotKind::Constant | SlotKind::Relative => address,
            }
        })
        .collect();
    words.extend((0..program.got_spare).map(|_| 0));
    for &row in &program.tls_pairs {
        words.extend([0, if preemptible(row) { 0 } else { in_tls(row) }]);
    }
    words.extend(program.tls_descriptors.iter().flat_map(|_| [0, 0]));
    if program.has_tls_module {
        words.extend([0, 0]);
    }
    words
}

/// What stands in spare entries of the PLT: a trap.
pub(crate) const UNUSED_CODE: u8 = 0xcc;

/// The table that calls go to, the one that binds late, the words of `.got.plt`.
type PltTables = (Vec<u8>, Vec<u8>, Vec<u64>);

/// The PLT: the table that calls go to, and the one that binds late where they are two; the words of `.got.plt`.
pub(crate) fn plt_bytes(program: &Program, options: &LinkOptions) -> Result<PltTables, RelocError> {
    let dynamic = program.kind.is_dynamic();
    let got_plt = own_address(program, program.synthetic.got_plt);
    let ibt = has_ibt_plt(program, options);
    let header = own_address(program, if ibt { program.synthetic.lazy_plt } else { program.synthetic.plt });
    let reserved = if dynamic { plt::RESERVED_SLOTS } else { 0 };
    let (mut called, mut lazy, mut words) = (Vec::new(), Vec::new(), Vec::new());
    if dynamic && got_plt != 0 {
        words = vec![own_address(program, program.synthetic.dynamic), 0, 0];
    }
    if dynamic && program.plt.len() + program.plt_spare as usize > 0 {
        let table = if ibt { &mut lazy } else { &mut called };
        table.extend_from_slice(&plt::lazy_header(header, got_plt)?);
    }
    for (index, &row) in (0..).zip(&program.plt) {
        let at = program.plt_address + u64::from(index) * plt::ENTRY_LEN;
        let slot = got_plt + 8 * (reserved + u64::from(index));
        let binds_late = binds_late(program, row);
        if binds_late && ibt {
            let stub = header + u64::from(index + 1) * plt::ENTRY_LEN;
            lazy.extend_from_slice(&plt::ibt_lazy_entry(stub, index, header)?);
            called.extend_from_slice(&plt::ibt_entry(at, slot)?);
            words.push(stub);
        } else if binds_late {
            called.extend_from_slice(&plt::lazy_entry(at, slot, index, header)?);
            words.push(at + plt::LAZY_RESUME);
        } else {
            called.extend_from_slice(&plt::ibt_entry(at, slot)?);
            words.push(if dynamic { resolver(program, row) } else { 0 });
            if ibt && options.incremental.is_some() {
                // Late entries that a patch adds have the numbers behind the IFUNCs'.
                lazy.extend_from_slice(&[UNUSED_CODE; plt::ENTRY_LEN as usize]);
            }
        }
    }
    let spare = program.plt_spare as usize;
    called.resize(called.len() + spare * plt::ENTRY_LEN as usize, UNUSED_CODE);
    if ibt {
        lazy.resize(lazy.len() + spare * plt::ENTRY_LEN as usize, UNUSED_CODE);
    }
    words.resize(words.len() + spare, 0);
    Ok((called, lazy, words))
}

/// An entry of `.dynsym`.
pub(crate) fn dynsym_entry(program: &Program, row: SymbolRow, name: u32) -> [u8; 24] {
    let symbol = &program.symbols[row.index()];
    let section = |atom: relink_engine::rows::AtomRow| {
        let output = program.atoms[atom.index()].output.some();
        output.and_then(|row| program.outputs.get(row.index())).map_or(0, |section| section.index)
    };
    let index = match symbol.atom {
        place::ABSOLUTE => elf::SHN_ABS,
        atom if place::is_atom(atom) => section(atom) as u16,
        _ => elf::SHN_UNDEF,
    };
    let own = match symbol.atom {
        atom if place::is_atom(atom) => program.atoms[atom.index()].address.wrapping_add(symbol.value),
        _ => symbol.value,
    };
    let plt = program.synthetic.plt.some().map_or(0, |row| section(row) as u16);
    dynsym_bytes(symbol, name, (index, plt), own, program.addresses[row.index()], program.tls_start)
}

/// The bytes of an entry: `own` is where the symbol is defined, in the first of `sections`, `address` what relocations
/// use; the other section is the PLT.
pub(crate) fn dynsym_bytes(
    symbol: &SymbolRecord,
    name: u32,
    (mut section, plt): (u16, u16),
    own: u64,
    address: u64,
    tls_start: u64,
) -> [u8; 24] {
    let mut record = *symbol;
    let preemptible = symbol.flags & symbol_flags::PREEMPTIBLE != 0;
    let value = if section == elf::SHN_UNDEF {
        if symbol.flags & symbol_flags::CANONICAL_PLT != 0 { address } else { 0 }
    } else if symbol.flags & symbol_flags::TLS != 0 {
        own.wrapping_sub(tls_start)
    } else if symbol.flags & symbol_flags::IFUNC != 0 && !preemptible && symbol.plt != 0 {
        // For others it is a function like any other, whose address is its PLT entry.
        record.info = (record.info & 0xf0) | elf::STT_FUNC;
        record.size = 0; // The resolver's size says nothing of it.
        section = plt;
        address
    } else {
        own
    };
    symbol_bytes(&record, name, section, VirtAddr(value), false)
}

/// `.dynsym`.
pub(crate) fn dynsym_table(program: &Program) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    for (&row, &name) in program.dynamic.symbols.iter().zip(&program.dynamic.names) {
        let entry = row.some().map_or_else(|| unused_symbol(true), |row| dynsym_entry(program, row, name));
        bytes.extend_from_slice(&entry);
    }
    bytes
}

/// An entry of `.dynsym` that nobody has. Among the local ones it is a nameless file symbol, which every reader passes
/// over; behind them a name that nothing refers to, and that may be missing.
pub(crate) fn unused_symbol(local: bool) -> [u8; 24] {
    if local {
        let file = SymbolRecord { info: elf::STT_FILE, ..Default::default() };
        symbol_bytes(&file, 0, elf::SHN_ABS, VirtAddr(0), true)
    } else {
        symbol_bytes(&SymbolRecord::default(), 0, elf::SHN_UNDEF, VirtAddr(0), false)
    }
}

/// The bytes of `.dynamic`, given address and size of a section. Tags of things that are not there become padding at the
/// end.
pub(crate) fn dynamic_bytes(program: &Program, section: impl Fn(&[u8]) -> Option<(u64, u64)>) -> Vec<u8> {
    let relocated = section(b".rela.dyn").is_some();
    let packed = section(b".relr.dyn").is_some();
    let mut bytes = Vec::new();
    for &(tag, value) in &program.dynamic.entries {
        let value = match value {
            DynamicValue::Word(value) if tag == elf::DT_RELAENT => relocated.then_some(value),
            DynamicValue::Word(value) if tag == elf::DT_RELRENT => packed.then_some(value),
            DynamicValue::Word(value) => Some(value),
            DynamicValue::Address(name) => section(name).map(|(address, _)| address),
            DynamicValue::Size(name) => section(name).map(|(_, size)| size),
            DynamicValue::Symbol(row) => Some(program.addresses[row.index()]),
            DynamicValue::RelativeCount => relocated.then_some(u64::from(program.relative_relocs)),
        };
        if let Some(value) = value {
            bytes.extend_from_slice(&u64::from(tag).to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}
