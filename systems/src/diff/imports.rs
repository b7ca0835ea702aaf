//! New references to names of shared libraries, and names that go: what the image has to import from now on, and what no
//! object mentions any more.

use formats::elf;
use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::options::Strip;
use relink_engine::plan::OldSymbol;
use relink_engine::records::{GlobalRecord, SymbolRecord, file_flags, image_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, RelocRow, SymbolRow};
use relink_formats as formats;

use super::Context;
use super::asked::find_mentions;
use super::names::{find_global, is_named_by_options, is_reference};
use super::rows::{add_global, vacant_symbol};
use super::symbols::text;
use crate::ingest::bulk::type_flags;
use crate::ingest::libraries::{definition_of, open_library};
use crate::place::symbols::is_linker_name;
use crate::resolve::dynamic::is_defined_here;

/// Whether a loader binds names of the image.
pub(super) fn is_dynamic(context: &Context<'_>) -> bool {
    context.plan.image.flags & image_flags::DYNAMIC != 0
}

/// The row of a name that the first library of the command line offers, or that is left to the loader; `None` if only a full
/// link knows what it means. No archive offers a name that the store does not have.
pub(super) fn import_name(
    context: &mut Context<'_>,
    new: &GlobalRecord,
    name: &[u8],
) -> Result<Option<SymbolRow>, StoreError> {
    let row = find_global(context, name)?;
    let old = match row {
        Some(row) => Some(context.symbol(row)?),
        None => None,
    };
    let unknown = old.is_none_or(|old| old.atom == place::VACANT);
    let meant_by_options = is_linker_name(name) || is_named_by_options(context, name);
    if !is_dynamic(context) || !unknown || new.other & 3 != 0 || meant_by_options {
        return Ok(None);
    }
    let Some(found) = offered_record(context, name)? else { return Ok(None) };
    let strong = new.info >> 4 != elf::STB_WEAK;
    if is_missed(context, &found, strong) {
        return Ok(None);
    }
    let known = row.zip(old).or_else(|| add_global(context.store, context.plan, name));
    let Some((row, SymbolRecord { name, .. })) = known else { return Ok(None) };
    let flags = found.flags | symbol_flags::GLOBAL | symbol_flags::PREEMPTIBLE;
    context.plan.symbols.insert(row.0, SymbolRecord { name, flags, ..found });
    note_mention(context, row)?;
    Ok(Some(row))
}

/// What nothing defines is no error, and no warning.
fn is_left_to_loader(context: &Context<'_>) -> bool {
    let flags = context.plan.image.flags;
    flags & (image_flags::UNDEFINED_ALLOWED | image_flags::WARNED) == image_flags::UNDEFINED_ALLOWED
}

/// The record of a name that no object defines; `None` if a library can't be asked, or the image would have to need one
/// more.
pub(super) fn offered_record(
    context: &mut Context<'_>,
    name: &[u8],
) -> Result<Option<SymbolRecord>, StoreError> {
    let mut seen = HashSet::new();
    for file in 0..context.store.files.len() {
        let known = context.store.files.get(file)?;
        if known.flags & file_flags::SHARED == 0 {
            continue;
        }
        let Some(library) = open_library(context.request, context.store, context.plan, file)? else {
            return Ok(None);
        };
        // The same library twice: the first one stands for both.
        if !seen.insert(library.needed_name.clone()) {
            continue;
        }
        let Some(index) = definition_of(library.parsed, name) else { continue };
        let definition = &library.parsed.symbols[index];
        let function = definition.kind == elf::STT_GNU_IFUNC;
        let kind = if function { elf::STT_FUNC } else { definition.kind };
        return Ok(Some(SymbolRecord {
            input: InputRow(file),
            atom: place::SHARED,
            value: index as u64,
            size: definition.size,
            info: (elf::STB_GLOBAL << 4) | kind,
            flags: symbol_flags::OFFERED | type_flags(kind),
            ..vacant_symbol()
        }));
    }
    Ok(Some(SymbolRecord { atom: place::UNDEFINED, ..vacant_symbol() }))
}

/// A reference to a name that a library offers, or nobody does, and that the image does not import yet, or not for an object.
pub(super) fn refer_to_import(
    context: &mut Context<'_>,
    input: &str,
    row: SymbolRow,
    new: &GlobalRecord,
    name: &[u8],
) -> Result<Option<GateReason>, StoreError> {
    let record = context.symbol(row)?;
    let strong = new.info >> 4 != elf::STB_WEAK;
    let (symbol, input) = (text(name), input.to_owned());
    let reason = match record.atom {
        place::SHARED => {
            let need = "an import".to_owned();
            GateReason::ImportNeedAdded { symbol, need, input }
        }
        _ => GateReason::NewUndefined { symbol, input },
    };
    // An archive in front of the first mention would have been asked.
    let contested = record.flags & symbol_flags::CONTESTED != 0;
    if !contested && record.dynsym != 0 && (!strong || record.flags & symbol_flags::STRONG != 0) {
        note_mention(context, row)?;
        return Ok(None);
    }
    let meant_by_options = is_linker_name(name) || is_named_by_options(context, name);
    if is_missed(context, &record, strong) || !is_dynamic(context) || meant_by_options || new.other & 3 != 0 {
        return Ok(Some(reason));
    }
    if contested {
        let member = context.store.text(context.store.files.get(record.input.0)?.name);
        return Ok(Some(GateReason::ArchiveMemberPulled { symbol: text(name), member }));
    }
    let flags = record.flags | symbol_flags::PREEMPTIBLE;
    context.plan.symbols.insert(row.0, SymbolRecord { flags, ..record });
    note_mention(context, row)?;
    context.frame.differ(reason);
    Ok(None)
}

/// Whether a full link would call a reference undefined.
fn is_missed(context: &Context<'_>, record: &SymbolRecord, strong: bool) -> bool {
    record.atom == place::UNDEFINED && strong && !is_left_to_loader(context)
}

/// A reference of an object to a name that it referred to before becomes weak or strong; `false` if that may say what the
/// name means. How strongly the image refers to it, Relocate finds out.
pub(super) fn rebind_import(
    context: &mut Context<'_>,
    row: SymbolRow,
    old: &GlobalRecord,
    new: &GlobalRecord,
) -> Result<bool, StoreError> {
    let record = context.symbol(row)?;
    let strong = new.info >> 4 != elf::STB_WEAK;
    let imported = matches!(record.atom, place::SHARED | place::UNDEFINED) && record.dynsym != 0;
    let known = is_reference(old) && is_reference(new) && old.other & 3 == new.other & 3;
    Ok(known
        && imported
        && is_dynamic(context)
        && record.flags & (symbol_flags::CONTESTED | symbol_flags::OPTION) == 0
        && !is_missed(context, &record, strong))
}

/// A name that an object mentions has an entry in `.symtab`.
fn note_mention(context: &mut Context<'_>, row: SymbolRow) -> Result<(), StoreError> {
    let record = context.symbol(row)?;
    if record.flags & symbol_flags::REFERENCED != 0 {
        return Ok(());
    }
    let flags = record.flags | symbol_flags::REFERENCED;
    context.plan.symbols.insert(row.0, SymbolRecord { flags, ..record });
    if record.symtab == 0 && context.options.strip != Strip::All {
        context.plan.added_symbols.push(row);
    }
    Ok(())
}

/// Plans that an object's last mention of an import goes; `false` if only a full link knows what is left.
pub(super) fn drop_import_mention(context: &mut Context<'_>, row: SymbolRow) -> Result<bool, StoreError> {
    let record = context.symbol(row)?;
    let copied = record.flags & symbol_flags::COPIED != 0;
    if !is_dynamic(context) || is_defined_here(&record) && !copied || record.flags & symbol_flags::OPTION != 0
    {
        return Ok(false);
    }
    if is_mentioned(context, row)? {
        return Ok(true);
    }
    let flags = record.flags & !symbol_flags::REFERENCED;
    if copied {
        // Its entry goes with the copy, to which other names may refer.
        context.plan.symbols.insert(row.0, SymbolRecord { flags, ..record });
        return Ok(true);
    }
    context.plan.symbols.insert(row.0, SymbolRecord { flags, symtab: 0, ..record });
    if record.symtab != 0 {
        context.plan.removed_symbols.push(OldSymbol { index: record.symtab, local: false });
    }
    Ok(true)
}

/// Whether an object goes on mentioning a name that another one drops.
pub(super) fn is_mentioned(context: &mut Context<'_>, row: SymbolRow) -> Result<bool, StoreError> {
    if context.referenced.contains(&row) || is_referred_to_nearby(context, row)? {
        return Ok(true);
    }
    let mut mentioned = false;
    find_mentions(context, |global| {
        mentioned = global.symbol == row;
        !mentioned
    })?;
    Ok(mentioned)
}

/// How many references are looked at before all mentions are.
const REFERENCES_EXAMINED: usize = 64;

/// Whether a relocation of an input that did not change refers to a name, as far as a look at a few references tells.
fn is_referred_to_nearby(context: &Context<'_>, row: SymbolRow) -> Result<bool, StoreError> {
    let store = context.store;
    let mut next = store.symbols.get(row.0)?.first_incoming;
    for _ in 0..REFERENCES_EXAMINED {
        let Some(at) = RelocRow::some(next) else { break };
        let reloc = store.relocs.get(at.0)?;
        next = reloc.next;
        let input = store.atoms.get(reloc.atom.0)?.input;
        let dead = reloc.flags & relink_engine::records::reloc_flags::DEAD != 0;
        if !dead && input.some().is_some() && !context.changed.contains(&input) {
            return Ok(true);
        }
    }
    Ok(false)
}
