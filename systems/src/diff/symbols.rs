//! Symbols that a changed object defines: local ones come, go and move; the rule for both kinds of where one is.

use formats::elf;
use formats::object_file::SymbolPlace;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::plan::OldSymbol;
use relink_engine::program::{Object, SectionUse};
use relink_engine::records::{GlobalRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{Span, SymbolRow, Target};
use relink_formats as formats;

use super::Context;
use super::names::define_globals;
use super::rows::vacant_symbol;
use crate::ingest::bulk::local_symbols;
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
        let Some(mut new) = defined_record(context, object, index, &old)? else {
            context.frame.refuse(local_changed(object, name));
            continue;
        };
        if old.symtab != 0 && is_dropped(context, &new)? {
            if (old.got, old.plt) != (0, 0) {
                context.frame.refuse(local_changed(object, name));
            }
            new.symtab = 0;
            context.plan.removed_symbols.push(OldSymbol { index: old.symtab, local: true });
        }
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

/// Whether a symbol is in a copy of a group that is not in the image.
fn is_dropped(context: &Context<'_>, symbol: &SymbolRecord) -> Result<bool, StoreError> {
    Ok(place::is_atom(symbol.atom) && context.atom(symbol.atom)?.flags & atom_flags::DISCARDED != 0)
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
pub(super) fn drop_symbol(context: &mut Context<'_>, row: SymbolRow, record: &SymbolRecord, local: bool) {
    // A global name keeps its row: it is in the index, and may come again.
    let name = if local { Span::default() } else { record.name };
    let flags = record.flags & (symbol_flags::GLOBAL | symbol_flags::OFFERED);
    // What an archive may still offer, it is asked for when somebody wants it.
    let atom = if flags & symbol_flags::OFFERED == 0 { place::VACANT } else { place::LAZY };
    context.plan.symbols.insert(row.0, SymbolRecord { name, flags, atom, ..vacant_symbol() });
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

/// A name for a message.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A symbol's record as the new object defines it; `None` if it is nowhere in the image, or was and is no more.
pub(super) fn defined_record(
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
