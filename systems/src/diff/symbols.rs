//! Symbols of a changed object against the resolution table: names, bindings and owners must stay; values may move.

use formats::elf;
use formats::object_file::SymbolPlace;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::plan::OldSymbol;
use relink_engine::program::{Object, SectionUse};
use relink_engine::records::{
    GlobalRecord, SymbolRecord, atom_flags, file_flags, global_state, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, RelocRow, Span, SymbolRow, Target, TargetKind};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use super::rows::{is_vacant_global, vacant_symbol};
use crate::commit::bulk::global_records;
use crate::ingest::bulk::local_symbols;
use crate::ingest::wrap::wrapped;
use crate::resolve::definitions::stricter;
use crate::view::locals_of;

/// A symbol's row, its record as it is, and as the new object has it.
pub(super) type Change = (SymbolRow, SymbolRecord, SymbolRecord);

/// The mentions of names that an object had: by hash, as contents of inputs are (names of other units' symbols lie all over
/// the state), and by whether they are references. With --wrap an object may define a name and mean it by a reference
/// under another name as well.
pub(super) type Mentions = HashMap<(u64, bool), (u32, GlobalRecord)>;

/// Fills the object's `targets` but for references to global names, and returns each defined symbol with its old and
/// new record, and the mentions that are left.
pub(super) fn match_definitions(
    context: &mut Context<'_>,
    input: &mut Input,
) -> Result<(Vec<Change>, Mentions), StoreError> {
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
    let mentions = define_globals(context, input, &mut targets, &mut changes)?;
    input.object.targets = targets;
    Ok((changes, mentions))
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
    for (row, record) in locals_of(store, &input.record)? {
        let name = store.strings.bytes(record.name)?;
        let ordinal = ordinals.entry(name).or_default();
        known.insert((name, *ordinal), (row, record));
        *ordinal += 1;
    }
    let mut changes = Vec::new();
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for index in local_symbols(&object.parsed) {
        let name = object.parsed.symbol_name(index);
        let ordinal = seen.entry(name).or_default();
        let found = known.remove(&(name, *ordinal));
        *ordinal += 1;
        // Which of several symbols of one name is which, their order tells: it must stay.
        let several = *ordinal > 1;
        let found = match found {
            Some(found) => Some(found),
            None if several => None,
            None => add_local(context, input, index)?,
        };
        let Some((row, old)) = found else {
            context.frame.refuse(local_changed(object, name));
            continue;
        };
        targets[index] = Target::symbol(row);
        let Some(new) = defined_record(context, object, index, &old)? else {
            context.frame.refuse(local_changed(object, name));
            continue;
        };
        if old.atom == place::VACANT || new.atom != old.atom {
            context.frame.differ(local_changed(object, name));
        } else if new.info != old.info {
            context.frame.refuse(GateReason::TypeChanged { symbol: text(name), input: object.name.clone() });
        }
        changes.push((row, old, new));
    }
    let mut gone: Vec<(SymbolRow, SymbolRecord, u32)> =
        known.into_iter().map(|((_, ordinal), (row, record))| (row, record, ordinal)).collect();
    gone.sort_unstable_by_key(|(row, ..)| *row);
    for (row, record, ordinal) in gone {
        let name = store.strings.bytes(record.name)?;
        let reason = local_changed(object, name);
        // A slot of a table would stay without an owner.
        if (record.got, record.plt, ordinal) == (0, 0, 0) {
            context.frame.differ(reason);
            drop_symbol(context, row, &record, true);
        } else {
            context.frame.refuse(reason);
        }
    }
    Ok(changes)
}

/// A row for a local symbol that the object did not have; `None` if there is no room.
fn add_local(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
) -> Result<Option<(SymbolRow, SymbolRecord)>, StoreError> {
    let symbol = &input.object.parsed.symbols()[index];
    let kind = symbol.st_type().0;
    if matches!(kind, elf::STT_TLS | elf::STT_GNU_IFUNC) {
        return Ok(None);
    }
    let Some(row) = context.take_local(input.row)? else { return Ok(None) };
    let name = context.add_name(input.object.parsed.symbol_name(index));
    let old = SymbolRecord { name, input: input.row, other: symbol.st_other.0, ..vacant_symbol() };
    // The row is taken, whatever becomes of the frame.
    context.plan.symbols.insert(row.0, old);
    Ok(Some((row, old)))
}

/// Plans that a symbol goes, and its entry of the symbol table with it.
fn drop_symbol(context: &mut Context<'_>, row: SymbolRow, record: &SymbolRecord, local: bool) {
    // A global name keeps its row: it is in the index, and may come again.
    let name = if local { Span::default() } else { record.name };
    let flags = record.flags & symbol_flags::GLOBAL;
    context.plan.symbols.insert(row.0, SymbolRecord { name, flags, ..vacant_symbol() });
    if record.symtab != 0 {
        let local = local || is_hidden(record.other);
        context.plan.removed_symbols.push(OldSymbol { index: record.symtab, local });
    }
}

/// Whether a global symbol is a local one of the image.
pub(crate) fn is_hidden(other: u8) -> bool {
    matches!(other & 3, elf::STV_HIDDEN | elf::STV_INTERNAL)
}

fn local_changed(object: &Object, name: &[u8]) -> GateReason {
    GateReason::LocalSymbolsChanged { symbol: text(name), input: object.name.clone() }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A symbol's record as the new object defines it; `None` if it is nowhere in the image, or was and is no more.
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
        // From one atom to another, or to its first one.
        let comes = place::is_atom(old.atom) || old.atom == place::VACANT;
        // GCC's signatures of constructors' groups are local symbols of the group itself: they are nowhere.
        let local = symbol.st_bind().0 == elf::STB_LOCAL;
        let nowhere = atom == place::ABSOLUTE || atom == place::UNDEFINED && local;
        let stays = place::is_atom(atom) || nowhere && old.atom == place::VACANT;
        if !comes || !stays {
            return Ok(None);
        }
    }
    let size = symbol.st_size.get(LittleEndian);
    Ok(Some(SymbolRecord { atom, value, size, info: symbol.st_info.0, ..*old }))
}

fn is_reference(global: &GlobalRecord) -> bool {
    global.state == global_state::UNDEFINED
}

/// The row of a global name, as it will be.
fn find_global(context: &Context<'_>, name: &[u8]) -> Result<Option<SymbolRow>, StoreError> {
    match context.plan.new_names.get(name) {
        Some(&row) => Ok(Some(row)),
        None => context.store.global(name),
    }
}

fn define_globals(
    context: &mut Context<'_>,
    input: &Input,
    targets: &mut [Target],
    changes: &mut Vec<Change>,
) -> Result<Mentions, StoreError> {
    let object = &input.object;
    let mut known = Mentions::new();
    for row in input.record.globals.and(input.record.more_globals) {
        let global = context.store.globals.get(row)?;
        if !is_vacant_global(&global) {
            known.insert((global.name_hash, is_reference(&global)), (row, global));
        }
    }
    let first = object.parsed.first_global as usize;
    for (index, new) in (first..).zip(global_records(&object.parsed)) {
        if is_reference(&new) {
            continue;
        }
        let name = object.parsed.symbol_name(index);
        let hash = hash_name(name);
        let found = known.remove(&(hash, false)).or_else(|| known.remove(&(hash, true)));
        let reason = match found {
            Some((_, old)) => {
                targets[index] = Target::symbol(old.symbol);
                match_global(context, input, index, &old, &new, changes)?
            }
            None => define_new(context, input, index, &new, targets, changes)?,
        };
        if let Some(reason) = reason {
            context.frame.refuse(reason);
        }
    }
    Ok(known)
}

/// A name that the object did not define before. It may be new altogether, or gone by an earlier frame; or one that another
/// object's copy of a group defines. Anything else is another resolution.
fn define_new(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
    new: &GlobalRecord,
    targets: &mut [Target],
    changes: &mut Vec<Change>,
) -> Result<Option<GateReason>, StoreError> {
    let object = &input.object;
    let name = object.parsed.symbol_name(index);
    let reason = GateReason::NewGlobal { symbol: text(name), input: object.name.clone() };
    let kind = new.info & 0xf;
    let common = new.state == global_state::COMMON;
    if common || matches!(kind, elf::STT_TLS | elf::STT_GNU_IFUNC) || is_named_by_options(context, name) {
        return Ok(Some(reason));
    }
    let discarded = match object.parsed.symbol_place(index) {
        SymbolPlace::Section(section) => {
            match object.uses.get(section as usize).and_then(|used| used.atom()) {
                Some(row) => context.atom(row)?.flags & atom_flags::DISCARDED != 0,
                None => return Ok(Some(reason)),
            }
        }
        _ => false,
    };
    let known = match find_global(context, name)? {
        Some(row) => Some((row, context.symbol(row)?)),
        None => None,
    };
    let (row, old) = match known {
        Some((row, record)) if discarded && place::is_atom(record.atom) => {
            if stricter(record.other, new.other) != record.other {
                return Ok(Some(GateReason::VisibilityChanged {
                    symbol: text(name),
                    input: object.name.clone(),
                }));
            }
            targets[index] = Target::symbol(row);
            return mention(context, input, row, new, name);
        }
        _ if discarded => return Ok(Some(reason)),
        Some((row, record)) if record.atom == place::VACANT => (row, record),
        Some(_) => return Ok(Some(reason)),
        None => {
            let entries = &mut context.plan.image.name_entries;
            *entries += 1;
            if u64::from(*entries) * 4 > u64::from(context.store.name_slots.len()) * 3 {
                return Ok(Some(reason));
            }
            let row = SymbolRow(context.plan.ends.symbols);
            context.plan.ends.symbols += 1;
            context.plan.new_names.insert(name.to_vec(), row);
            let name = context.add_name(name);
            (row, SymbolRecord { name, flags: symbol_flags::GLOBAL, ..vacant_symbol() })
        }
    };
    let old = SymbolRecord { input: input.row, other: new.other, ..old };
    let Some(record) = defined_record(context, object, index, &old)? else { return Ok(Some(reason)) };
    context.plan.symbols.insert(row.0, record);
    if !is_hidden(new.other) {
        context.exposed.push((name.to_vec(), reason.clone()));
    }
    targets[index] = Target::symbol(row);
    changes.push((row, old, record));
    context.frame.differ(reason);
    mention(context, input, row, new, name)
}

/// Notes that an object mentions a name.
fn mention(
    context: &mut Context<'_>,
    input: &Input,
    symbol: SymbolRow,
    new: &GlobalRecord,
    name: &[u8],
) -> Result<Option<GateReason>, StoreError> {
    let Some(row) = context.take_global(input.row)? else {
        let what = format!("rows for names of {}", input.object.name);
        return Ok(Some(GateReason::LayoutExhausted { what }));
    };
    context.plan.globals.insert(row, GlobalRecord { symbol, name_hash: hash_name(name), ..*new });
    Ok(None)
}

/// Whether an option speaks of a name: what it would do with a definition, a full link knows.
fn is_named_by_options(context: &Context<'_>, name: &[u8]) -> bool {
    let options = context.options;
    let is =
        |known: &str| known.as_bytes() == name || name.strip_prefix(b"__wrap_") == Some(known.as_bytes());
    options.wrap.iter().any(|known| is(known))
        || options.undefined.iter().any(|known| is(known))
        || options.defsyms.iter().any(|(known, _)| is(known))
        || options.entry.as_deref().is_some_and(is)
        || name.contains(&b'@')
        || [&options.dynamic.init, &options.dynamic.fini].iter().any(|known| is(known))
}

/// Fills in what references to global names mean, once all changed inputs have their definitions.
pub(super) fn match_references(
    context: &mut Context<'_>,
    input: &mut Input,
    known: &mut Mentions,
) -> Result<(), StoreError> {
    let mut targets = std::mem::take(&mut input.object.targets);
    let object = &input.object;
    let first = object.parsed.first_global as usize;
    let mut unused = Vec::new();
    for (index, new) in (first..).zip(global_records(&object.parsed)) {
        if !is_reference(&new) {
            continue;
        }
        let meant = wrapped(&context.options.wrap, object.parsed.symbol_name(index));
        let name = meant.as_deref().unwrap_or(object.parsed.symbol_name(index));
        let hash = hash_name(name);
        let found = known.remove(&(hash, true)).or_else(|| known.remove(&(hash, false)));
        let reason = match found {
            Some((_, old)) => {
                targets[index] = Target::symbol(old.symbol);
                match_global(context, input, index, &old, &new, &mut unused)?
            }
            None => match find_global(context, name)? {
                Some(row) => {
                    targets[index] = Target::symbol(row);
                    match new_reference(context, object, row, &new, name)? {
                        None => mention(context, input, row, &new, name)?,
                        reason => reason,
                    }
                }
                None => Some(GateReason::NewUndefined { symbol: text(name), input: object.name.clone() }),
            },
        };
        if let TargetKind::Symbol(row) = targets[index].kind() {
            context.referenced.insert(row);
        }
        if let Some(reason) = reason {
            context.frame.refuse(reason);
        }
    }
    input.object.targets = targets;
    Ok(())
}

/// What is left of an object's mentions is gone. Comes last: another changed input may refer to it.
pub(super) fn drop_mentions(
    context: &mut Context<'_>,
    input: &Input,
    known: Mentions,
) -> Result<(), StoreError> {
    let store = context.store;
    let mut gone: Vec<(&[u8], u32, GlobalRecord)> = Vec::with_capacity(known.len());
    for (row, old) in known.into_values() {
        gone.push((store.strings.bytes(store.symbols.get(old.symbol.0)?.name)?, row, old));
    }
    gone.sort_unstable_by_key(|(name, ..)| *name);
    for (name, row, old) in gone {
        let reason = if is_reference(&old) {
            dropped_reference(context, input, &old, name)?
        } else {
            let reason = GateReason::RemovedGlobal { symbol: text(name), input: input.object.name.clone() };
            if remove_definition(context, input, &old)? {
                context.frame.differ(reason);
                None
            } else {
                Some(reason)
            }
        };
        match reason {
            Some(reason) => context.frame.refuse(reason),
            None => {
                context.plan.globals.insert(row, GlobalRecord::default());
            }
        }
    }
    Ok(())
}

/// Plans that a definition goes; `false` if anything else may speak of it.
fn remove_definition(
    context: &mut Context<'_>,
    input: &Input,
    old: &GlobalRecord,
) -> Result<bool, StoreError> {
    let row = old.symbol;
    let record = context.store.symbols.get(row.0)?;
    if record.input != input.row || !place::is_atom(record.atom) && record.atom != place::ABSOLUTE {
        // Another object's definition prevails: a copy of a group that was dropped. A weak one may be of use yet.
        let copy = place::is_atom(record.atom)
            && old.state == global_state::DEFINED
            && record.flags & (symbol_flags::OFFERED | symbol_flags::LINKER_DEFINED) == 0;
        return Ok(copy);
    }
    let kept = symbol_flags::OFFERED
        | symbol_flags::OPTION
        | symbol_flags::LINKER_DEFINED
        | symbol_flags::EXPORTED
        | symbol_flags::IFUNC
        | symbol_flags::TLS
        | symbol_flags::COMMON;
    let slots = [record.got, record.plt, record.dynsym, record.tls_pair, record.tls_descriptor];
    if record.flags & kept != 0
        || slots != [0; 5]
        || row == context.plan.image.entry
        || context.referenced.contains(&row)
        || context.plan.symbols.get(&row.0).is_some_and(|planned| planned.atom != record.atom)
    {
        return Ok(false);
    }
    let mut next = record.first_incoming;
    let mut seen = 0;
    while let Some(at) = next.some() {
        let reloc = context.store.relocs.get(at.0)?;
        next = reloc.next;
        seen += 1;
        let site = context.store.atoms.get(reloc.atom.0)?;
        let changed = context.changed.contains(&site.input);
        if reloc.flags & reloc_flags::DEAD == 0 && !changed || seen > context.store.relocs.len() {
            return Ok(false);
        }
    }
    drop_symbol(context, row, &record, false);
    Ok(true)
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
        Some(changed)
            if record.flags & symbol_flags::IFUNC != 0
                && (changed.atom, changed.value) != (record.atom, record.value) =>
        {
            Ok(Some(GateReason::IfuncChanged { symbol: symbol(), input: name() }))
        }
        Some(changed) => {
            if changed.atom != record.atom {
                context.frame.differ(GateReason::TypeChanged { symbol: symbol(), input: name() });
            }
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
    let record = context.symbol(row)?;
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
        place::VACANT => Some(GateReason::NewUndefined { symbol, input }),
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
            let atom = context.atom(atom)?;
            // One of a changed input may come to life with the reference; Relocate looks again.
            let dead = atom.flags & atom_flags::LIVE == 0 && !context.changed.contains(&atom.input);
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
    for row in definer.globals.and(definer.more_globals) {
        let global = context.store.globals.get(row)?;
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
