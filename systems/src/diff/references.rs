//! References of a changed object to global names: those that are new must mean something that the image has, those that
//! are gone must not have been what something is there for.

use formats::elf;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::frame::Request;
use relink_engine::program::Object;
use relink_engine::records::{GlobalRecord, SymbolRecord, atom_flags, place, reloc_flags, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, RelocRow, SymbolRow, Target, TargetKind};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use super::imports::{
    drop_import_mention, import_name, is_dynamic, is_mentioned, rebind_import, refer_to_import,
};
use super::members::{
    doubt, forget_lost_offer, from_archive, may_be_of_a_library, may_pull_another, pull, still_needs,
};
use super::names::{find_global, is_of_no_use, is_reference, match_global, mention, remove_definition};
use super::symbols::{Mentions, text};
use crate::commit::bulk::global_records;
use crate::ingest::wrap::wrapped;
use crate::resolve::definitions::stricter;

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
    let rooted = !from_archive(context, input.row)?;
    for (index, new) in (first..).zip(global_records(&object.parsed)) {
        if !is_reference(&new) {
            continue;
        }
        let meant = wrapped(&context.options.wrap, object.parsed.symbol_name(index));
        let name = meant.as_deref().unwrap_or(object.parsed.symbol_name(index));
        let hash = hash_name(name);
        let found = known.remove(&(hash, true)).or_else(|| known.remove(&(hash, false)));
        let reason = match found {
            Some((row, old)) if !is_reference(&old) && is_elsewhere(context, input.row, &old)? => {
                targets[index] = Target::symbol(old.symbol);
                let global = GlobalRecord { symbol: old.symbol, name_hash: hash, ..new };
                context.plan.globals.insert(row, global);
                new_reference(context, object, old.symbol, &new, name)?
            }
            Some((row, old))
                if old.info >> 4 != new.info >> 4 && rebind_import(context, old.symbol, &old, &new)? =>
            {
                targets[index] = Target::symbol(old.symbol);
                let global = GlobalRecord { symbol: old.symbol, name_hash: hash, ..new };
                context.plan.globals.insert(row, global);
                context
                    .frame
                    .differ(GateReason::BindingChanged { symbol: text(name), input: object.name.clone() });
                None
            }
            Some((_, old)) => {
                targets[index] = Target::symbol(old.symbol);
                let offered = context.symbol(old.symbol)?.flags & symbol_flags::OFFERED != 0;
                if !is_reference(&old) && offered && new.info >> 4 != elf::STB_WEAK {
                    // Another member may have it now.
                    pull(context, old.symbol, name)?;
                }
                match_global(context, input, index, &old, &new, &mut unused)?
            }
            None => match known_global(context, name)? {
                Some(row) if context.symbol(row)?.atom != place::VACANT => {
                    targets[index] = Target::symbol(row);
                    match new_reference(context, object, row, &new, name)? {
                        None => mention(context, input, row, &new, name)?,
                        reason => reason,
                    }
                }
                _ => {
                    let reason = GateReason::NewUndefined { symbol: text(name), input: object.name.clone() };
                    match import_name(context, &new, name)? {
                        Some(row) => {
                            targets[index] = Target::symbol(row);
                            context.frame.differ(reason);
                            mention(context, input, row, &new, name)?
                        }
                        None => Some(reason),
                    }
                }
            },
        };
        if let TargetKind::Symbol(row) = targets[index].kind() {
            context.referenced.insert(row);
            if new.info >> 4 != elf::STB_WEAK {
                context.wanting.insert(row);
                if rooted && !may_be_of_a_library(context, input, &context.symbol(row)?)? {
                    context.rooted.insert(row);
                }
            }
        }
        if let Some(reason) = reason {
            context.frame.refuse(reason);
        }
    }
    input.object.targets = targets;
    Ok(())
}

/// Marks what changed objects refer to: whether an object does, the record of a name says to those who would drop it.
pub(super) fn note_references(context: &mut Context<'_>) -> Result<(), StoreError> {
    for row in context.referenced.clone() {
        let record = context.symbol(row)?;
        let defined = place::is_atom(record.atom) || record.atom == place::ABSOLUTE;
        if defined && record.flags & symbol_flags::REFERENCED == 0 {
            let flags = record.flags | symbol_flags::REFERENCED;
            context.plan.symbols.insert(row.0, SymbolRecord { flags, ..record });
        }
    }
    Ok(())
}

/// Whether what an object defined is defined by another one: from now on, or as before, when its own was of no use.
fn is_elsewhere(context: &Context<'_>, input: InputRow, old: &GlobalRecord) -> Result<bool, StoreError> {
    if context.rehomed.contains(&old.symbol) {
        return Ok(true);
    }
    let record = context.store.symbols.get(old.symbol.0)?;
    let other = context.wide && record.input != input && !context.released.contains_key(&old.symbol);
    Ok(other && is_of_no_use(context, &record, old)?)
}

/// The row of a name, if it means something or may do so.
fn known_global(context: &mut Context<'_>, name: &[u8]) -> Result<Option<SymbolRow>, StoreError> {
    let row = find_global(context, name)?;
    if let Some(row) = row.filter(|_| context.wide) {
        forget_lost_offer(context, row, name)?;
    }
    Ok(row)
}

/// What is left of an object's mentions is gone. Comes last: another changed input may refer to it.
pub(super) fn drop_mentions(
    context: &mut Context<'_>,
    request: &Request,
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
            if remove_definition(context, request, input, &old)? {
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

/// A reference that the object did not have: harmless only if the name is resolved to something in the image.
fn new_reference(
    context: &mut Context<'_>,
    object: &Object,
    row: SymbolRow,
    new: &GlobalRecord,
    name: &[u8],
) -> Result<Option<GateReason>, StoreError> {
    let store = context.store;
    let record = context.symbol(row)?;
    let (symbol, input) = (text(name), object.name.clone());
    // The strictest counts: one that is no stricter than the others' changes nothing. rustc's are all hidden.
    let lazy = record.atom == place::LAZY;
    if !lazy && stricter(record.other, new.other) != record.other {
        return Ok(Some(GateReason::VisibilityChanged { symbol, input }));
    }
    Ok(match record.atom {
        // A weak one pulls nothing.
        place::LAZY if new.info >> 4 == elf::STB_WEAK => Some(GateReason::NewUndefined { symbol, input }),
        place::LAZY => {
            pull(context, row, name)?;
            let archive = record.input.some().map(|file| store.files.get(file.0)).transpose()?;
            let member = archive.map_or_else(String::new, |archive| store.text(archive.name));
            Some(GateReason::ArchiveMemberPulled { symbol, member })
        }
        place::UNDEFINED | place::SHARED => refer_to_import(context, &input, row, new, name)?,
        _ if new.info >> 4 != elf::STB_WEAK && may_pull_another(context, row, name)? => {
            Some(GateReason::ArchiveMemberPulled { symbol, member: input })
        }
        place::ABSOLUTE => None,
        atom => {
            if record.flags & symbol_flags::IFUNC != 0 && record.plt == 0 {
                let reason = GateReason::IfuncChanged { symbol, input: input.clone() };
                if !is_dynamic(context) {
                    return Ok(Some(reason));
                }
                context.frame.differ(reason);
            }
            let atom = context.atom(atom)?;
            // One of a changed input may come to life with the reference; Relocate looks again.
            let dead = atom.flags & atom_flags::LIVE == 0 && !context.changed.contains(&atom.input);
            if dead {
                context.frame.wanted.neighbours.push(atom.input);
            }
            dead.then(|| GateReason::DeadAtomReferenced { section: store.text(atom.name), input })
        }
    })
}

/// How many references are looked at to find another one.
const KEEPERS_EXAMINED: usize = 64;

/// A reference that is gone. It may have been what pulled an archive's member.
fn dropped_reference(
    context: &mut Context<'_>,
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
    // A copied datum has a library's file as its input.
    let copied = record.flags & symbol_flags::COPIED != 0;
    let elsewhere = context.referenced.contains(&old.symbol) || has_other_references(context, &record)?;
    if (record.atom == place::SHARED || copied) && elsewhere {
        return Ok(None);
    }
    if matches!(record.atom, place::LAZY | place::UNDEFINED | place::SHARED) || copied {
        // It stands in the symbol table for our reference, and would not in a full link's.
        let reason = GateReason::RemovedUndefined { symbol: text(name), input: input.object.name.clone() };
        if !drop_import_mention(context, old.symbol)? {
            return Ok(Some(reason));
        }
        context.frame.differ(reason);
        return Ok(None);
    }
    if record.flags & symbol_flags::LINKER_DEFINED != 0 && !is_mentioned(context, old.symbol)? {
        // A full link defines what somebody mentions: `_GLOBAL_OFFSET_TABLE_`, for one, by each use of the GOT.
        return Ok(Some(GateReason::RemovedUndefined {
            symbol: text(name),
            input: input.object.name.clone(),
        }));
    }
    if old.info >> 4 == elf::STB_WEAK || !place::is_atom(record.atom) || record.input.some().is_none() {
        return Ok(None);
    }
    if from_archive(context, record.input)? && !still_needs(context, input, record.input)? {
        doubt(context, record.input, name, &input.object.name);
    }
    Ok(None)
}

/// Whether a name is as visible without some reference as with it: if the definition itself is as strict, it is.
pub(super) fn visibility_stays(
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

/// Whether an input that did not change refers to a symbol as well, as far as a look at a few references tells.
fn has_other_references(context: &Context<'_>, record: &SymbolRecord) -> Result<bool, StoreError> {
    let mut next = record.first_incoming;
    for _ in 0..KEEPERS_EXAMINED {
        let Some(row) = RelocRow::some(next) else { break };
        let reloc = context.store.relocs.get(row.0)?;
        next = reloc.next;
        let site = context.store.atoms.get(reloc.atom.0)?;
        let loaded =
            site.flags & (atom_flags::LIVE | atom_flags::ALLOC) == atom_flags::LIVE | atom_flags::ALLOC;
        if reloc.flags & reloc_flags::DEAD == 0 && loaded && !context.changed.contains(&site.input) {
            return Ok(true);
        }
    }
    Ok(false)
}
