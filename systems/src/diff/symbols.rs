//! Symbols of a changed object against the resolution table: names, bindings and owners must stay; values may move.

use formats::elf;
use formats::object_file::SymbolPlace;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::{Object, SectionUse};
use relink_engine::records::{
    GlobalRecord, SymbolRecord, atom_flags, file_flags, global_state, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, RelocRow, SymbolRow, Target};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use crate::commit::bulk::global_records;
use crate::ingest::bulk::local_symbols;
use crate::ingest::wrap::wrapped;
use crate::resolve::definitions::stricter;

/// A symbol's row, its record as it is, and as the new object has it.
pub(super) type Change = (SymbolRow, SymbolRecord, SymbolRecord);

/// Fills the object's `targets` and returns each defined symbol with its old and new record.
pub(super) fn match_symbols(context: &mut Context<'_>, input: &mut Input) -> Result<Vec<Change>, StoreError> {
    let count = input.object.parsed.symbols().len();
    let first = (input.object.parsed.first_global as usize).min(count);
    let mut targets = vec![Target::NONE; count];
    for (index, target) in targets.iter_mut().enumerate().take(first) {
        if let SymbolPlace::Section(section) = input.object.parsed.symbol_place(index) {
            let used = input.object.uses.get(section as usize).copied().unwrap_or_default();
            *target = used.atom().map_or(Target::NONE, Target::atom);
        }
    }
    let mut changes = match_locals(context, input, &mut targets)?;
    match_globals(context, input, &mut targets, &mut changes)?;
    input.object.targets = targets;
    Ok(changes)
}

fn match_locals(
    context: &mut Context<'_>,
    input: &Input,
    targets: &mut [Target],
) -> Result<Vec<Change>, StoreError> {
    let object = &input.object;
    let store = context.store;
    let mut known: HashMap<(&[u8], u32), (SymbolRow, SymbolRecord)> = HashMap::new();
    let mut ordinals: HashMap<&[u8], u32> = HashMap::new();
    for row in input.record.locals.range() {
        let record = store.symbols.get(row)?;
        let name = store.strings.bytes(record.name)?;
        let ordinal = ordinals.entry(name).or_default();
        known.insert((name, *ordinal), (SymbolRow(row), record));
        *ordinal += 1;
    }
    let mut changes = Vec::new();
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for index in local_symbols(&object.parsed) {
        let name = object.parsed.symbol_name(index);
        let ordinal = seen.entry(name).or_default();
        let found = known.remove(&(name, *ordinal));
        *ordinal += 1;
        let Some((row, old)) = found else {
            context.frame.refuse(local_changed(object, name));
            continue;
        };
        targets[index] = Target::symbol(row);
        let Some(new) = defined_record(context, object, index, &old)? else {
            context.frame.refuse(local_changed(object, name));
            continue;
        };
        if new.info != old.info {
            context.frame.refuse(GateReason::TypeChanged { symbol: text(name), input: object.name.clone() });
        }
        changes.push((row, old, new));
    }
    let mut gone: Vec<SymbolRow> = known.into_values().map(|(row, _)| row).collect();
    gone.sort_unstable();
    for row in gone {
        let name = store.strings.bytes(store.symbols.get(row.0)?.name)?;
        context.frame.refuse(local_changed(object, name));
    }
    Ok(changes)
}

fn local_changed(object: &Object, name: &[u8]) -> GateReason {
    GateReason::LocalSymbolsChanged { symbol: text(name), input: object.name.clone() }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A symbol's record as the new object defines it; `None` if it is in no atom any more, or in another one.
fn defined_record(
    context: &Context<'_>,
    object: &Object,
    index: usize,
    old: &SymbolRecord,
) -> Result<Option<SymbolRecord>, StoreError> {
    let symbol = &object.parsed.symbols()[index];
    let mut value = symbol.st_value.get(LittleEndian);
    let atom = match object.parsed.symbol_place(index) {
        SymbolPlace::Absolute => place::ABSOLUTE,
        SymbolPlace::Section(section) => {
            match object.uses.get(section as usize).copied().unwrap_or_default() {
                SectionUse::Merge(_, merge)
                    if object.merges[merge as usize].pool != relink_engine::rows::NONE =>
                {
                    let merge = &object.merges[merge as usize];
                    let Some(offset) = merge.map(value) else { return Ok(None) };
                    value = offset;
                    context.store.pools.get(merge.pool)?.atom
                }
                used => used.atom().unwrap_or(place::UNDEFINED),
            }
        }
        _ => place::UNDEFINED,
    };
    if atom != old.atom {
        return Ok(None);
    }
    let size = symbol.st_size.get(LittleEndian);
    Ok(Some(SymbolRecord { value, size, info: symbol.st_info.0, ..*old }))
}

fn match_globals(
    context: &mut Context<'_>,
    input: &Input,
    targets: &mut [Target],
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let object = &input.object;
    let store = context.store;
    // By hash, as contents of inputs are: names of other units' symbols lie all over the state. With --wrap an object
    // may define a name and mean it by a reference under another name as well.
    let mut known: HashMap<(u64, bool), GlobalRecord> = HashMap::new();
    let is_reference = |global: &GlobalRecord| global.state == global_state::UNDEFINED;
    for row in input.record.globals.range() {
        let global = store.globals.get(row)?;
        known.insert((global.name_hash, is_reference(&global)), global);
    }
    let first = object.parsed.first_global as usize;
    for (index, new) in (first..).zip(global_records(&object.parsed)) {
        let reference = is_reference(&new);
        let meant = if reference { wrapped(context.wrap, object.parsed.symbol_name(index)) } else { None };
        let name = meant.as_deref().unwrap_or(object.parsed.symbol_name(index));
        let hash = hash_name(name);
        let found = known.remove(&(hash, reference)).or_else(|| known.remove(&(hash, !reference)));
        let reason = match found {
            Some(old) => {
                targets[index] = Target::symbol(old.symbol);
                match_global(context, input, index, &old, &new, changes)?
            }
            None if reference => match store.global(name)? {
                Some(row) => {
                    targets[index] = Target::symbol(row);
                    new_reference(context, object, row, &new, name)?
                }
                None => Some(GateReason::NewUndefined { symbol: text(name), input: object.name.clone() }),
            },
            None => Some(GateReason::NewGlobal { symbol: text(name), input: object.name.clone() }),
        };
        if let Some(reason) = reason {
            context.frame.refuse(reason);
        }
    }
    let mut gone: Vec<(&[u8], GlobalRecord)> = Vec::with_capacity(known.len());
    for old in known.into_values() {
        gone.push((store.strings.bytes(store.symbols.get(old.symbol.0)?.name)?, old));
    }
    gone.sort_unstable_by_key(|(name, _)| *name);
    for (name, old) in gone {
        let reason = if old.state == global_state::UNDEFINED {
            dropped_reference(context, input, &old, name)?
        } else {
            Some(GateReason::RemovedGlobal { symbol: text(name), input: object.name.clone() })
        };
        if let Some(reason) = reason {
            context.frame.refuse(reason);
        }
    }
    Ok(())
}

/// A name that the object had before: everything that resolution looks at must be as it was.
fn match_global(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
    old: &GlobalRecord,
    new: &GlobalRecord,
    changes: &mut Vec<Change>,
) -> Result<Option<GateReason>, StoreError> {
    let object = &input.object;
    let symbol = || text(object.parsed.symbol_name(index));
    let name = || object.name.clone();
    if old.state != new.state {
        let removed = new.state == global_state::UNDEFINED;
        let (symbol, input) = (symbol(), name());
        return Ok(Some(match (removed, old.state == global_state::UNDEFINED) {
            (true, _) => GateReason::RemovedGlobal { symbol, input },
            (_, true) => GateReason::NewGlobal { symbol, input },
            _ => GateReason::CommonChanged { symbol, input },
        }));
    }
    if old.info >> 4 != new.info >> 4 {
        return Ok(Some(GateReason::BindingChanged { symbol: symbol(), input: name() }));
    }
    if old.other & 3 != new.other & 3 {
        return Ok(Some(GateReason::VisibilityChanged { symbol: symbol(), input: name() }));
    }
    if old.info & 0xf != new.info & 0xf {
        let ifunc = [old.info, new.info].iter().any(|info| info & 0xf == elf::STT_GNU_IFUNC);
        return Ok(Some(if ifunc {
            GateReason::IfuncChanged { symbol: symbol(), input: name() }
        } else {
            GateReason::TypeChanged { symbol: symbol(), input: name() }
        }));
    }
    if new.state == global_state::UNDEFINED {
        return Ok(None);
    }
    let record = context.store.symbols.get(old.symbol.0)?;
    if record.input != input.row {
        return Ok(None); // Another object's definition prevails, as before.
    }
    if new.state == global_state::COMMON {
        let raw = &object.parsed.symbols()[index];
        let atom = context.store.atoms.get(record.atom.0)?;
        let same = atom.size == raw.st_size.get(LittleEndian)
            && 1_u64.checked_shl(atom.align) == Some(raw.st_value.get(LittleEndian).max(1));
        return Ok((!same).then(|| GateReason::CommonChanged { symbol: symbol(), input: name() }));
    }
    match defined_record(context, object, index, &record)? {
        Some(changed) if record.flags & symbol_flags::IFUNC != 0 && changed.value != record.value => {
            Ok(Some(GateReason::IfuncChanged { symbol: symbol(), input: name() }))
        }
        Some(changed) => {
            changes.push((old.symbol, record, changed));
            Ok(None)
        }
        None => Ok(Some(GateReason::TypeChanged { symbol: symbol(), input: name() })),
    }
}

/// A reference that the object did not have: harmless only if the name is resolved to something in the image.
fn new_reference(
    context: &Context<'_>,
    object: &Object,
    row: SymbolRow,
    new: &GlobalRecord,
    name: &[u8],
) -> Result<Option<GateReason>, StoreError> {
    let store = context.store;
    let record = store.symbols.get(row.0)?;
    let (symbol, input) = (text(name), object.name.clone());
    // The strictest counts: one that is no stricter than the others' changes nothing. rustc's are all hidden.
    if stricter(record.other, new.other) != record.other {
        return Ok(Some(GateReason::VisibilityChanged { symbol, input }));
    }
    Ok(match record.atom {
        place::LAZY => {
            let member = store.text(store.files.get(record.input.0)?.name);
            Some(GateReason::ArchiveMemberPulled { symbol, member })
        }
        place::UNDEFINED => Some(GateReason::NewUndefined { symbol, input }),
        place::ABSOLUTE => None,
        place::SHARED => {
            let strong = new.info >> 4 != elf::STB_WEAK;
            let known = record.dynsym != 0 && (!strong || record.flags & symbol_flags::STRONG != 0);
            let need = "an import".to_owned();
            (!known).then_some(GateReason::ImportNeedAdded { symbol, need, input })
        }
        _ if record.flags & symbol_flags::IFUNC != 0 && record.plt == 0 => {
            Some(GateReason::IfuncChanged { symbol, input })
        }
        atom => {
            let atom = store.atoms.get(atom.0)?;
            let dead = atom.flags & atom_flags::LIVE == 0;
            dead.then(|| GateReason::DeadAtomReferenced { section: store.text(atom.name), input })
        }
    })
}

/// How many references are looked at to find one that keeps an archive's member in the link.
const KEEPERS_EXAMINED: usize = 64;

/// A reference that is gone. If it may have been what pulled an archive's member, a full link decides.
fn dropped_reference(
    context: &Context<'_>,
    input: &Input,
    old: &GlobalRecord,
    name: &[u8],
) -> Result<Option<GateReason>, StoreError> {
    let store = context.store;
    let record = store.symbols.get(old.symbol.0)?;
    if old.other & 3 != 0 && !visibility_stays(context, &record, old.symbol)? {
        return Ok(Some(GateReason::VisibilityChanged {
            symbol: text(name),
            input: input.object.name.clone(),
        }));
    }
    if record.atom == place::SHARED && has_other_references(context, input, &record)? {
        return Ok(None);
    }
    if record.atom == place::UNDEFINED || record.atom == place::SHARED {
        // It stands in the symbol table for our reference, and would not in a full link's.
        return Ok(Some(GateReason::RemovedUndefined {
            symbol: text(name),
            input: input.object.name.clone(),
        }));
    }
    if old.info >> 4 == elf::STB_WEAK || !place::is_atom(record.atom) || record.input.some().is_none() {
        return Ok(None);
    }
    if !from_archive(context, record.input)? || still_needs(context, &input.object, record.input)? {
        return Ok(None);
    }
    let mut next = record.first_incoming;
    for _ in 0..KEEPERS_EXAMINED {
        let Some(row) = RelocRow::some(next) else { break };
        let reloc = store.relocs.get(row.0)?;
        next = reloc.next;
        if reloc.flags & reloc_flags::DEAD != 0 {
            continue;
        }
        let site = store.atoms.get(AtomRow(reloc.atom.0).0)?;
        // An object of the command line is in the link whatever else is; a member may be there for us alone.
        if site.input != input.row && site.input.some().is_some() && !from_archive(context, site.input)? {
            return Ok(None);
        }
    }
    Ok(Some(GateReason::ArchiveMemberDropped { symbol: text(name), input: input.object.name.clone() }))
}

/// Whether an object refers to something else in an input. Then what pulls what is as it was: of two references from
/// one object to one member, either is enough.
fn still_needs(context: &Context<'_>, object: &Object, member: InputRow) -> Result<bool, StoreError> {
    let first = object.parsed.first_global as usize;
    for (index, global) in (first..).zip(global_records(&object.parsed)) {
        if global.state != global_state::UNDEFINED || global.info >> 4 == elf::STB_WEAK {
            continue;
        }
        if let Some(row) = context.store.global(object.parsed.symbol_name(index))? {
            let record = context.store.symbols.get(row.0)?;
            if record.input == member && place::is_atom(record.atom) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a name is as visible without some reference as with it: if the definition itself is as strict, it is.
fn visibility_stays(
    context: &Context<'_>,
    record: &SymbolRecord,
    symbol: SymbolRow,
) -> Result<bool, StoreError> {
    if record.input.some().is_none() || !place::is_atom(record.atom) {
        return Ok(record.other & 3 == 0);
    }
    let definer = context.store.inputs.get(record.input.0)?;
    for entry in context.store.globals.span(definer.globals) {
        let (_, global) = entry?;
        if global.symbol == symbol {
            return Ok(stricter(global.other, record.other) == global.other);
        }
    }
    Ok(false)
}

/// Whether another input refers to a symbol as well, as far as a look at a few references tells.
fn has_other_references(
    context: &Context<'_>,
    input: &Input,
    record: &SymbolRecord,
) -> Result<bool, StoreError> {
    let mut next = record.first_incoming;
    for _ in 0..KEEPERS_EXAMINED {
        let Some(row) = RelocRow::some(next) else { break };
        let reloc = context.store.relocs.get(row.0)?;
        next = reloc.next;
        let site = context.store.atoms.get(reloc.atom.0)?;
        let loaded =
            site.flags & (atom_flags::LIVE | atom_flags::ALLOC) == atom_flags::LIVE | atom_flags::ALLOC;
        if reloc.flags & reloc_flags::DEAD == 0 && loaded && site.input != input.row {
            return Ok(true);
        }
    }
    Ok(false)
}

fn from_archive(context: &Context<'_>, input: InputRow) -> Result<bool, StoreError> {
    let file = context.store.inputs.get(input.0)?.file;
    let file = context.store.files.get(file.0)?;
    Ok(file.flags & (file_flags::ARCHIVE | file_flags::WHOLE) == file_flags::ARCHIVE)
}
