//! References of a changed object to global names: those that are new must mean something that the image has, those that
//! are gone must not have been what something is there for.

use formats::elf;
use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::frame::Request;
use relink_engine::program::Object;
use relink_engine::records::{
    GlobalRecord, SymbolRecord, atom_flags, file_flags, global_state, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, RelocRow, SymbolRow, Target, TargetKind};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use super::imports::{
    drop_import_mention, import_name, is_dynamic, is_mentioned, rebind_import, refer_to_import,
};
use super::names::{find_global, is_reference, match_global, mention, remove_definition};
use super::rows::is_vacant_global;
use super::symbols::{Mentions, text};
use crate::commit::bulk::global_records;
use crate::ingest::wrap::wrapped;
use crate::resolve::definitions::stricter;

/// Fills in what references to global names mean, once all changed inputs have their definitions.
pub(super) fn match_references(
    context: &mut Context<'_>,
    request: &Request,
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
            Some((row, old)) if !is_reference(&old) && context.rehomed.contains(&old.symbol) => {
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
                match_global(context, input, index, &old, &new, &mut unused)?
            }
            None => match find_global(context, name)? {
                Some(row) if context.symbol(row)?.atom != place::VACANT => {
                    targets[index] = Target::symbol(row);
                    match new_reference(context, object, row, &new, name)? {
                        None => mention(context, input, row, &new, name)?,
                        reason => reason,
                    }
                }
                _ => {
                    let reason = GateReason::NewUndefined { symbol: text(name), input: object.name.clone() };
                    match import_name(context, request, &new, name)? {
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
            if rooted && new.info >> 4 != elf::STB_WEAK {
                context.rooted.insert(row);
            }
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
    if stricter(record.other, new.other) != record.other {
        return Ok(Some(GateReason::VisibilityChanged { symbol, input }));
    }
    Ok(match record.atom {
        place::LAZY => {
            let member = store.text(store.files.get(record.input.0)?.name);
            Some(GateReason::ArchiveMemberPulled { symbol, member })
        }
        place::UNDEFINED | place::SHARED => refer_to_import(context, &input, row, new, name)?,
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
                context.frame.wanted.push(atom.input);
            }
            dead.then(|| GateReason::DeadAtomReferenced { section: store.text(atom.name), input })
        }
    })
}

/// How many references are looked at to find one that keeps an archive's member in the link.
const KEEPERS_EXAMINED: usize = 64;

/// A reference that is gone. If it may have been what pulled an archive's member, a full link decides.
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
    if record.atom == place::UNDEFINED || record.atom == place::SHARED || copied {
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
    if !from_archive(context, record.input)?
        || context.rooted.contains(&old.symbol)
        || still_needs(context, &input.object, record.input)?
        || is_kept(context, record.input)?
    {
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
        let stays = site.input.some().is_some() && !context.changed.contains(&site.input);
        if stays && !from_archive(context, site.input)? {
            return Ok(None);
        }
    }
    Ok(Some(GateReason::ArchiveMemberDropped { symbol: text(name), input: input.object.name.clone() }))
}

/// Whether an object defines a symbol: a copied datum has a library's file as its input.
fn is_own(symbol: &SymbolRecord) -> bool {
    place::is_atom(symbol.atom) && symbol.flags & symbol_flags::COPIED == 0
}

/// Whether a full link would pull a member: objects of the command line, or members that they pull, refer to something in
/// it. O(names of all objects), and only where a nearer look has found nothing.
fn is_kept(context: &mut Context<'_>, member: InputRow) -> Result<bool, StoreError> {
    if let Some(pulled) = &context.pulled {
        return Ok(pulled.contains(&member));
    }
    let mut pulled = HashSet::new();
    let mut queue = Vec::new();
    for row in (0..context.store.inputs.len()).map(InputRow) {
        let stays = context.store.inputs.get(row.0)?.file.some().is_some() && !context.changed.contains(&row);
        if stays && !from_archive(context, row)? {
            queue.push(row);
        }
    }
    for &symbol in &context.rooted {
        let symbol = context.symbol(symbol)?;
        if is_own(&symbol) && symbol.input.0 < context.store.inputs.len() && pulled.insert(symbol.input) {
            queue.push(symbol.input);
        }
    }
    while let Some(row) = queue.pop() {
        let record = context.store.inputs.get(row.0)?;
        if context.changed.contains(&row) {
            continue; // What it refers to now is not known here.
        }
        for global in record.globals.and(record.more_globals) {
            let global = context.store.globals.get(global)?;
            if is_vacant_global(&global) || !is_reference(&global) || global.info >> 4 == elf::STB_WEAK {
                continue;
            }
            let symbol = context.store.symbols.get(global.symbol.0)?;
            if is_own(&symbol) && symbol.input.some().is_some() && pulled.insert(symbol.input) {
                queue.push(symbol.input);
            }
        }
    }
    let kept = pulled.contains(&member);
    context.pulled = Some(pulled);
    Ok(kept)
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

/// Whether an input is an archive's member, which is in the link because something refers to it.
pub(super) fn from_archive(context: &Context<'_>, input: InputRow) -> Result<bool, StoreError> {
    let file = context.input_record(input)?.file;
    if file.0 >= context.store.files.len() {
        return Ok(false); // Only objects come and go.
    }
    let file = context.store.files.get(file.0)?;
    Ok(file.flags & (file_flags::ARCHIVE | file_flags::WHOLE) == file_flags::ARCHIVE)
}
