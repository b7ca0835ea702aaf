//! Definitions that a changed input gives up and another one takes over: a name means the same, and is elsewhere.

use formats::elf;
use hashbrown::HashMap;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::records::{GlobalRecord, SymbolRecord, atom_flags, global_state, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, SymbolRow, Target};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use super::members::{claim_name, doubt, from_archive};
use super::names::{is_reference, mention};
use super::rows::is_vacant_global;
use super::symbols::{Change, defined_record, text};
use crate::commit::bulk::global_records;

/// Notes which definitions the changed inputs give up: another one of them may take them over.
pub(super) fn note_released(context: &mut Context<'_>, input: &Input) -> Result<(), StoreError> {
    let object = &input.object;
    let first = object.parsed.first_global as usize;
    let mut defined = HashMap::new();
    for (index, new) in (first..).zip(global_records(&object.parsed)) {
        if !is_reference(&new) {
            defined.insert(hash_name(object.parsed.symbol_name(index)), new);
        }
    }
    for row in input.record.globals.and(input.record.more_globals) {
        let global = context.store.globals.get(row)?;
        if is_vacant_global(&global) || is_reference(&global) {
            continue;
        }
        match defined.get(&global.name_hash) {
            // Inline or not any more: it may be another object's from now on, or was.
            Some(new) if is_rebound(&global, new) => {}
            Some(_) => continue,
            None => _ = context.undefined.insert((input.row, global.symbol)),
        }
        let symbol = context.store.symbols.get(global.symbol.0)?;
        if symbol.input == input.row && symbol.flags & symbol_flags::COPIED == 0 {
            context.released.insert(global.symbol, global);
        }
    }
    Ok(())
}

/// Whether a definition is weak from now on, as that of an inline function is, or is not any more.
pub(super) fn is_rebound(old: &GlobalRecord, new: &GlobalRecord) -> bool {
    let bindings = [old.info >> 4, new.info >> 4];
    old.state == global_state::DEFINED
        && new.state == global_state::DEFINED
        && matches!(bindings, [elf::STB_WEAK, elf::STB_GLOBAL] | [elf::STB_GLOBAL, elf::STB_WEAK])
}

/// What ties a name to more than one definition's bytes: it stays with the object that a full link chose.
const BOUND: u16 = symbol_flags::OFFERED
    | symbol_flags::OPTION
    | symbol_flags::LINKER_DEFINED
    | symbol_flags::IFUNC
    | symbol_flags::TLS
    | symbol_flags::COMMON;

/// Whether another object's definition may take the place of one. An archive's member may be in the link for this name alone.
fn may_move(context: &Context<'_>, record: &SymbolRecord, to: &Input) -> Result<bool, StoreError> {
    let member = from_archive(context, record.input)? || from_archive(context, to.row)?;
    Ok(record.flags & BOUND == 0 && record.dynsym == 0 && !member)
}

/// A definition that another changed input gives up. Where its bytes are is all that changes of its name.
pub(super) fn rehome(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
    (row, known): (SymbolRow, Option<u32>),
    new: &GlobalRecord,
    targets: &mut [Target],
    changes: &mut Vec<Change>,
) -> Result<Option<GateReason>, StoreError> {
    let object = &input.object;
    let name = object.parsed.symbol_name(index);
    let reason = GateReason::NewGlobal { symbol: text(name), input: object.name.clone() };
    let record = context.store.symbols.get(row.0)?;
    let same = context.released.get(&row).is_some_and(|old| {
        (old.state, old.info & 0xf, old.other & 3) == (new.state, new.info & 0xf, new.other & 3)
            && old.state == global_state::DEFINED
            && (old.info == new.info || is_rebound(old, new))
    });
    let others = record.flags & symbol_flags::CONTESTED != 0 || context.heirs.contains_key(&row);
    let bound = record.flags & (BOUND & !symbol_flags::OFFERED) != 0 || record.dynsym != 0;
    if !same || others || bound || !context.rehomed.insert(row) {
        return Ok(Some(reason));
    }
    let from_member = from_archive(context, record.input)?;
    if from_member && record.input == input.row {
        return Ok(Some(reason));
    }
    let mut flags = record.flags;
    if flags & symbol_flags::OFFERED != 0 || from_member || from_archive(context, input.row)? {
        let Some(claimed) = claim_name(context, input.row, row, name, true)? else {
            return Ok(Some(reason));
        };
        flags = flags & !symbol_flags::OFFERED | claimed;
    }
    if from_member {
        doubt(context, record.input, name, &object.name);
    }
    let old = SymbolRecord { input: input.row, flags, ..record };
    let Some(planned) = defined_record(context, object, index, &old)? else { return Ok(Some(reason)) };
    context.plan.symbols.insert(row.0, planned);
    targets[index] = Target::symbol(row);
    changes.push((row, record, planned));
    context.frame.differ(reason);
    match known {
        Some(known) => {
            let global = GlobalRecord { symbol: row, name_hash: hash_name(name), ..*new };
            context.plan.globals.insert(known, global);
            Ok(None)
        }
        None => mention(context, input, row, new, name),
    }
}

/// Which of the other definitions of a name prevails once the first one is gone: the strongest, then the first one. Its
/// object has to be looked at. O(names of all objects), and only if such a name goes.
pub(super) fn choose_heirs(context: &mut Context<'_>) -> Result<(), StoreError> {
    let mut heirs: HashMap<SymbolRow, Option<(InputRow, bool)>> = HashMap::new();
    for &symbol in context.released.keys() {
        let flags = context.store.symbols.get(symbol.0)?.flags;
        if flags & (symbol_flags::CONTESTED | symbol_flags::OFFERED) == symbol_flags::CONTESTED {
            heirs.insert(symbol, None);
        }
    }
    if heirs.is_empty() {
        return Ok(());
    }
    for (row, record) in context.staying_inputs()? {
        for global in record.globals.and(record.more_globals) {
            let global = context.store.globals.get(global)?;
            let Some(heir) = heirs.get_mut(&global.symbol) else { continue };
            if global.state != global_state::DEFINED || context.undefined.contains(&(row, global.symbol)) {
                continue;
            }
            let weak = global.info >> 4 == elf::STB_WEAK;
            let better = match *heir {
                None => true,
                Some((other, other_weak)) if weak == other_weak => context.is_before(row, other)?,
                Some((_, other_weak)) => other_weak,
            };
            if better {
                *heir = Some((row, weak));
            }
        }
    }
    let mut heirs: Vec<_> = heirs.into_iter().collect();
    heirs.sort_unstable_by_key(|(symbol, _)| *symbol);
    for (symbol, heir) in heirs {
        let Some((heir, _)) = heir else { continue };
        if context.changed.contains(&heir) {
            context.heirs.insert(symbol, heir);
            continue;
        }
        let record = context.store.symbols.get(symbol.0)?;
        let input = context.store.text(context.store.inputs.get(record.input.0)?.name);
        context.frame.wanted.neighbours.push(heir);
        context.frame.refuse(GateReason::RemovedGlobal { symbol: context.store.text(record.name), input });
    }
    Ok(())
}

/// A definition that another one had prevailed over.
pub(super) fn inherit(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
    row: SymbolRow,
    new: &GlobalRecord,
    changes: &mut Vec<Change>,
) -> Result<Option<GateReason>, StoreError> {
    let object = &input.object;
    let name = text(object.parsed.symbol_name(index));
    let reason = GateReason::NewGlobal { symbol: name, input: object.name.clone() };
    let record = context.store.symbols.get(row.0)?;
    let same =
        context.released.get(&row).is_some_and(|old| (old.info, old.other & 3) == (new.info, new.other & 3));
    if !same || !may_move(context, &record, input)? {
        return Ok(Some(reason));
    }
    let old = SymbolRecord { input: input.row, ..record };
    let Some(planned) = defined_record(context, object, index, &old)? else { return Ok(Some(reason)) };
    let discarded =
        place::is_atom(planned.atom) && context.atom(planned.atom)?.flags & atom_flags::DISCARDED != 0;
    if discarded || !context.rehomed.insert(row) {
        return Ok(Some(reason));
    }
    context.plan.symbols.insert(row.0, planned);
    changes.push((row, record, planned));
    context.frame.differ(reason);
    Ok(None)
}
