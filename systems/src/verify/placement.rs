//! Gives the fresh link's atoms and symbols the places that the image has them at.

use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::options::LinkOptions;
use relink_engine::records::{AtomRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, PoolRow, SectionRow, SymbolRow};
use relink_engine::store::{Store, hash_name};

use super::Checker;
use crate::commit::bulk::placed_sections;
use crate::diff::anonymous::key;
use crate::ingest::bulk::local_symbols;
use crate::ingest::changed::same_role;
use crate::place::assign::{Sections, compute_assignments, facts};
use crate::relocate::dynamic::count_dynamic_relocs;
use crate::view::{atoms_of, locals_of};

/// Which row of the store each row of the fresh link is.
pub(super) struct Placement {
    pub atoms: HashMap<u32, AtomRow>,
}

impl Placement {
    pub(super) fn store_atom(&self, row: AtomRow) -> Option<AtomRow> {
        self.atoms.get(&row.0).copied()
    }
}

/// The sections that are part of the image, by input, name and ordinal.
pub(super) fn live_sections(store: &Store) -> Result<HashSet<(u32, Vec<u8>, u32)>, StoreError> {
    let mut live = HashSet::new();
    for (input, row) in (0..).zip(store.link_order()?) {
        let mut ordinals = HashMap::new();
        for (_, atom) in atoms_of(store, &store.inputs.get(row.0)?)? {
            let (name, ordinal) = key(store.strings.bytes(atom.name)?, atom.section, &mut ordinals);
            // Debug information is kept without being looked into, or it would keep all that it describes.
            let whole = atom_flags::LIVE | atom_flags::ALLOC;
            if atom.flags & (whole | atom_flags::EH_FRAME) == whole {
                live.insert((input, name.to_vec(), ordinal));
            }
        }
    }
    Ok(live)
}

/// Matches inputs, atoms, pools and names, and overwrites addresses.
pub(super) fn impose(checker: &mut Checker<'_>, options: &LinkOptions) -> Result<Placement, StoreError> {
    let mut placement = Placement { atoms: HashMap::new() };
    let order = checker.store.link_order()?;
    if checker.program.objects.len() != order.len() {
        let (fresh, known) = (checker.program.objects.len(), order.len());
        checker.report(5, format!("a full link loads {fresh} objects, the image has {known}"));
        return Err(StoreError::Malformed("inputs can't be compared".to_owned()));
    }
    for (object, &row) in order.iter().enumerate() {
        match_atoms(checker, &mut placement, object, row)?;
    }
    match_sections(checker)?;
    match_tables(checker)?;
    match_pools(checker, &mut placement)?;
    match_names(checker, &mut placement)?;
    match_local_slots(checker, &order)?;
    let record = checker.store.image_record()?;
    let program = &mut checker.program;
    (program.tp, program.tls_start) = (record.tp, record.tls_start);
    (program.got_base, program.got_address) = (record.got_base, record.got_address);
    program.plt_address = record.plt_address;
    // Slots in the image's order: frames may have taken spare ones.
    let slots = u64::from(record.got_slots.max(record.got_used));
    if slots * 8 > checker.image.len() as u64 {
        return Err(StoreError::Malformed("the GOT is larger than the image".to_owned()));
    }
    let entries = u64::from(record.plt_owners.len.max(record.plt_used));
    if entries * 16 > checker.image.len() as u64 {
        return Err(StoreError::Malformed("the PLT is larger than the image".to_owned()));
    }
    // What nobody has is empty; `check_owners` looks whether somebody should.
    let mut got: Vec<SymbolRow> = vec![SymbolRow(NONE); record.got_used as usize];
    let mut plt: Vec<SymbolRow> = vec![SymbolRow(NONE); record.plt_used as usize];
    for (row, symbol) in (0..).map(SymbolRow).zip(&program.symbols) {
        if let Some(slot) = symbol.got.checked_sub(1).and_then(|slot| got.get_mut(slot as usize)) {
            *slot = row;
        }
        if let Some(entry) = symbol.plt.checked_sub(1).and_then(|entry| plt.get_mut(entry as usize)) {
            *entry = row;
        }
    }
    program.got = got;
    program.plt = plt;
    program.plt_spare = record.plt_owners.len.saturating_sub(record.plt_used);
    program.got_spare = record.got_slots.saturating_sub(record.got_used);
    // A slot that a frame took has the relocation that it had as a spare one.
    (program.relative_spare, program.symbolic_spare) = (0, 0);
    (program.relative_relocs, program.dynamic_relocs) = count_dynamic_relocs(program);
    // All that are not in use are spare.
    program.relative_spare = record.relative_relocs.saturating_sub(program.relative_relocs);
    if let Some(row) = record.rela_dyn.some() {
        let entries = checker.store.sections.get(row.0)?.size / 24;
        let used = u64::from(program.dynamic_relocs + program.relative_spare);
        program.symbolic_spare = entries.saturating_sub(used) as u32;
    }
    (program.relative_relocs, program.dynamic_relocs) = count_dynamic_relocs(program);
    program.tls_pairs_address = record.tls_pairs;
    program.tls_descriptors_address = record.tls_descriptors;
    program.tls_module_address = record.tls_module;
    program.addresses = program
        .symbols
        .iter()
        .map(|symbol| {
            if symbol.plt != 0 {
                record.plt_address.wrapping_add(16 * u64::from(symbol.plt - 1))
            } else if place::is_atom(symbol.atom) {
                program.atoms[symbol.atom.index()].address.wrapping_add(symbol.value)
            } else if symbol.atom == place::ABSOLUTE {
                symbol.value
            } else {
                0
            }
        })
        .collect();
    if !program.assignments.is_empty() {
        let mut sections = Sections::new();
        for row in 0..checker.store.sections.len() {
            let known = checker.store.sections.get(row)?;
            let name = checker.store.strings.bytes(known.name)?.to_vec();
            sections.insert(name, facts(row, known.address, known.size, known.align as u8));
        }
        for error in compute_assignments(program, options, &sections) {
            checker.findings.push(super::Finding { invariant: 5, what: error.render(&str::to_owned) });
        }
    }
    Ok(placement)
}

fn match_atoms(
    checker: &mut Checker<'_>,
    placement: &mut Placement,
    object: usize,
    row: InputRow,
) -> Result<(), StoreError> {
    let store = checker.store;
    let input = store.inputs.get(row.0)?;
    let name = checker.program.objects[object].name.clone();
    // Another object in the same place of the command line was linked if the state knows its bytes.
    let linked = || input.bytes_hash == hash_name(&checker.program.objects[object].parsed.bytes);
    if !same_role(&store.text(input.name), &name) && !linked() {
        checker.report(5, format!("a full link loads {name} where the image has {}", store.text(input.name)));
    }
    let parsed = checker.program.objects[object].parsed.clone();
    let mut known: HashMap<(&[u8], u32), (AtomRow, AtomRecord)> = HashMap::new();
    let mut ordinals = HashMap::new();
    for (atom, record) in atoms_of(store, &input)? {
        let known_by = key(store.strings.bytes(record.name)?, record.section, &mut ordinals);
        known.insert(known_by, (atom, record));
    }
    let mut seen = HashMap::new();
    let object = &checker.program.objects[object];
    let sections: Vec<(u32, usize)> = object.atoms.range().zip(placed_sections(object)).collect();
    for (atom, section) in sections {
        let section_name = parsed.section_name(section);
        let found = known.remove(&key(section_name, section as u32, &mut seen));
        let text = String::from_utf8_lossy(section_name).into_owned();
        let Some((store_row, record)) = found else {
            checker.report(5, format!("{name}:({text}) is not in the image's store"));
            continue;
        };
        let fresh = &mut checker.program.atoms[atom as usize];
        let live = |flags: u32| flags & atom_flags::LIVE != 0;
        let (fresh_live, known_live) = (live(fresh.flags), live(record.flags));
        let size = fresh.size;
        (fresh.address, fresh.capacity, fresh.output) = (record.address, record.capacity, record.output);
        placement.atoms.insert(atom, store_row);
        if fresh_live && !known_live {
            checker.report(5, format!("{name}:({text}) is part of a full link, but not of the image"));
        }
        // Of what is cut into pieces, only the pieces have places.
        let whole = record.flags & (atom_flags::MERGE | atom_flags::EH_FRAME) == 0;
        if known_live && whole && record.size != size {
            checker.report(
                5,
                format!("{name}:({text}) has {size} bytes, the image's slot says {}", record.size),
            );
        }
    }
    for (_, record) in known.into_values() {
        checker.report(5, format!("{name}:({}) is gone", store.text(record.name)));
    }
    Ok(())
}

/// Sections of the fresh link take the rows of those of the image, by name.
fn match_sections(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let mut rows = HashMap::new();
    for row in 0..checker.store.sections.len() {
        let record = checker.store.sections.get(row)?;
        rows.insert(checker.store.strings.bytes(record.name)?.to_vec(), row);
    }
    for section in &checker.program.outputs {
        if section.index != 0 && !rows.contains_key(&section.name) {
            let name = String::from_utf8_lossy(&section.name).into_owned();
            checker
                .findings
                .push(super::Finding { invariant: 5, what: format!("section {name} is missing") });
        }
    }
    Ok(())
}

/// Tables of one atom take the addresses that they have in the image.
fn match_tables(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    for row in 0..checker.store.sections.len() {
        let record = checker.store.sections.get(row)?;
        let name = checker.store.strings.bytes(record.name)?;
        let synthetic = &checker.program.synthetic;
        let two = synthetic.lazy_plt.some().is_some();
        let atom = match name {
            b".got.plt" => synthetic.got_plt,
            b".dynamic" => synthetic.dynamic,
            b".plt" if two => synthetic.lazy_plt,
            b".plt" | b".plt.sec" | b".iplt" => synthetic.plt,
            _ => continue,
        };
        if let Some(atom) = atom.some() {
            checker.program.atoms[atom.index()].address = record.address;
        }
    }
    Ok(())
}

fn match_pools(checker: &mut Checker<'_>, placement: &mut Placement) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for index in 0..checker.program.pools.len() {
        let pool = &checker.program.pools[index];
        let mut found = None;
        for row in 0..checker.store.pools.len() {
            let known = checker.store.pools.get(row)?;
            let section = checker.store.sections.get(known.output.0)?;
            if known.entsize == pool.entsize as u32
                && known.align == u32::from(pool.align)
                && (known.strings != 0) == pool.strings
                && checker.store.strings.bytes(section.name)? == pool.output_name
            {
                found = Some((PoolRow(row), known, section));
            }
        }
        let atom = pool.atom;
        let Some((row, known, section)) = found else {
            missing.push(String::from_utf8_lossy(&pool.output_name).into_owned());
            continue;
        };
        let record = checker.store.atoms.get(known.atom.0)?;
        let fresh = &mut checker.program.atoms[atom.index()];
        (fresh.address, fresh.capacity, fresh.output) = (record.address, record.capacity, record.output);
        placement.atoms.insert(atom.0, known.atom);
        let base = section.file_offset(record.address)?;
        remap_pieces(checker, index, row, base)?;
    }
    for name in missing {
        checker.report(5, format!("no pool for the merged pieces of {name}"));
    }
    Ok(())
}

/// Finds each piece in the image's pool by its bytes; labels and addends follow.
fn remap_pieces(checker: &mut Checker<'_>, index: usize, row: PoolRow, base: u64) -> Result<(), StoreError> {
    let known = checker.store.pools.get(row.0)?;
    let mask = known.slots.len.saturating_sub(1);
    let mut moved: HashMap<u32, u32> = HashMap::new();
    let pieces: Vec<(u32, u32)> = checker.program.pools[index].table.iter().copied().collect();
    for (offset, len) in pieces {
        let piece = &checker.program.pools[index].data[offset as usize..(offset + len) as usize];
        let mut slot = hash_name(piece) as u32 & mask;
        let mut found = None;
        for _ in 0..known.slots.len {
            let entry = checker.store.pool_slots.get(known.slots.start + slot)?;
            if entry == 0 {
                break;
            }
            let start = (base + u64::from(entry - 1)) as usize;
            if checker.image.get(start..start + piece.len()) == Some(piece) {
                found = Some(entry - 1);
                break;
            }
            slot = (slot + 1) & mask;
        }
        match found {
            Some(place) => {
                moved.insert(offset, place);
            }
            None => {
                let text = String::from_utf8_lossy(piece).into_owned();
                checker.report(4, format!("the merged piece {text:?} is not in the image"));
            }
        }
    }
    let atom = checker.program.pools[index].atom;
    let starts: Vec<u32> = {
        let mut starts: Vec<u32> = moved.keys().copied().collect();
        starts.sort_unstable();
        starts
    };
    for symbol in checker.program.symbols.iter_mut().filter(|symbol| symbol.atom == atom) {
        let piece = starts.partition_point(|&start| u64::from(start) <= symbol.value).checked_sub(1);
        if let Some(start) = piece.map(|piece| starts[piece]) {
            symbol.value = u64::from(moved[&start]) + (symbol.value - u64::from(start));
        }
    }
    for object in &mut checker.program.objects {
        for merge in object.merges.iter_mut().filter(|merge| merge.pool as usize == index) {
            for offset in &mut merge.offsets {
                *offset = moved.get(offset).copied().unwrap_or(NONE);
            }
        }
    }
    Ok(())
}

/// Each global name must be what a fresh resolution says; slots of tables are those of the image.
fn match_names(checker: &mut Checker<'_>, placement: &mut Placement) -> Result<(), StoreError> {
    for row in (0..checker.program.globals).map(SymbolRow) {
        let name = checker.program.names.of(row).to_vec();
        let text = String::from_utf8_lossy(&name).into_owned();
        let fresh = checker.program.symbols[row.index()];
        let Some(known_row) = checker.store.global(&name)? else {
            if place::is_atom(fresh.atom) {
                checker.report(5, format!("{text} is not in the image's store"));
            }
            continue;
        };
        let known = checker.store.symbols.get(known_row.0)?;
        if fresh.plt != 0 && known.plt == 0 {
            checker.report(5, format!("{text} has no PLT entry"));
        }
        let assigned = checker.program.assignments.iter().any(|assignment| assignment.name == row);
        if fresh.flags & symbol_flags::LINKER_DEFINED != 0 || assigned && place::is_atom(fresh.atom) {
            let record = checker.store.atoms.get(known.atom.0)?;
            let atom = &mut checker.program.atoms[fresh.atom.index()];
            (atom.address, atom.output) = (record.address, record.output);
            placement.atoms.insert(fresh.atom.0, known.atom);
        } else if fresh.flags & (symbol_flags::COMMON | symbol_flags::COPIED) != 0
            && place::is_atom(fresh.atom)
            && place::is_atom(known.atom)
        {
            let record = checker.store.atoms.get(known.atom.0)?;
            let atom = &mut checker.program.atoms[fresh.atom.index()];
            (atom.address, atom.capacity, atom.output) = (record.address, record.capacity, record.output);
            placement.atoms.insert(fresh.atom.0, known.atom);
        }
        compare_definition(checker, placement, &text, &fresh, &known);
        let symbol = &mut checker.program.symbols[row.index()];
        (symbol.got, symbol.plt) = (known.got, known.plt);
        (symbol.tls_pair, symbol.tls_descriptor) = (known.tls_pair, known.tls_descriptor);
        symbol.dynsym = known.dynsym;
    }
    Ok(())
}

/// Slots that local symbols have in tables are those of the image, too.
fn match_local_slots(checker: &mut Checker<'_>, order: &[InputRow]) -> Result<(), StoreError> {
    let store = checker.store;
    for (input, object) in order.iter().zip(&checker.program.objects) {
        let mut known: HashMap<(&[u8], u32), SymbolRecord> = HashMap::new();
        let mut ordinals: HashMap<&[u8], u32> = HashMap::new();
        for (_, record) in locals_of(store, &store.inputs.get(input.0)?)? {
            let name = store.strings.bytes(record.name)?;
            let ordinal = ordinals.entry(name).or_default();
            known.insert((name, *ordinal), record);
            *ordinal += 1;
        }
        let mut seen: HashMap<&[u8], u32> = HashMap::new();
        for (row, index) in object.locals.range().zip(local_symbols(&object.parsed)) {
            let ordinal = seen.entry(object.parsed.symbol_name(index)).or_default();
            let found = known.get(&(object.parsed.symbol_name(index), *ordinal));
            *ordinal += 1;
            if let (Some(found), Some(symbol)) = (found, checker.program.symbols.get_mut(row as usize)) {
                (symbol.got, symbol.plt) = (found.got, found.plt);
            }
        }
    }
    Ok(())
}

fn compare_definition(
    checker: &mut Checker<'_>,
    placement: &Placement,
    name: &str,
    fresh: &SymbolRecord,
    known: &SymbolRecord,
) {
    let mentioned = (fresh.flags | known.flags) & symbol_flags::REFERENCED != 0;
    let same_place = match fresh.atom {
        atom if place::is_atom(atom) => placement.store_atom(atom) == Some(known.atom),
        // What both an archive and a library offer, whoever comes to refer to it asks both for.
        place::SHARED | place::LAZY if !mentioned => matches!(known.atom, place::SHARED | place::LAZY),
        // What no archive offers any more is as undefined as it was; it is asked for before anybody may want it.
        place::UNDEFINED => matches!(known.atom, place::UNDEFINED | place::LAZY),
        other => other == known.atom,
    };
    if !same_place {
        let of = |record: &SymbolRecord| match record.atom {
            place::UNDEFINED => "nowhere",
            place::LAZY => "by an archive",
            place::SHARED => "by a library",
            place::ABSOLUTE => "without a section",
            place::VACANT => "and mentioned nowhere",
            _ => "by an object",
        };
        let (there, here) = (of(fresh), of(known));
        checker.report(5, format!("{name} is defined elsewhere in a full link: {there}, and here {here}"));
    } else if (fresh.value, fresh.size, fresh.info) != (known.value, known.size, known.info)
        && place::is_atom(fresh.atom)
        && fresh.flags & (symbol_flags::LINKER_DEFINED | symbol_flags::COMMON) == 0
    {
        checker.report(5, format!("{name} has another value, size or type in a full link"));
    }
}

/// The row of an input, for messages.
pub(super) fn input_name(checker: &Checker<'_>, row: InputRow) -> String {
    checker.program.objects.get(row.index()).map(|object| object.name.clone()).unwrap_or_default()
}

/// The file offset of an atom that has its place in the image.
pub(super) fn file_offset(checker: &Checker<'_>, atom: &AtomRecord) -> Result<u64, StoreError> {
    checker.store.sections.get(SectionRow(atom.output.0).0)?.file_offset(atom.address)
}
