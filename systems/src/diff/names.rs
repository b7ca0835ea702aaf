//! Definitions of global names of a changed object against the resolution table: what names mean must stay, values may
//! move; names that nothing else speaks of come and go.

use formats::elf;
use formats::object_file::SymbolPlace;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::frame::Request;
use relink_engine::program::Object;
use relink_engine::records::{GlobalRecord, SymbolRecord, atom_flags, global_state, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{Span, SymbolRow, Target};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;
use super::asked::Asked;
use super::exports::is_mentioned_by_library;
use super::heirs::{inherit, is_rebound, rehome};
use super::imports::is_dynamic;
use super::members::{claim_name, doubt, from_archive, is_linked_elsewhere};
use super::references::visibility_stays;
use super::rows::{add_global, is_vacant_global, vacant_symbol};
use super::symbols::{Change, Mentions, defined_record, drop_symbol, is_hidden, text};
use crate::commit::bulk::global_records;
use crate::resolve::definitions::stricter;

/// Matches the object's definitions, and returns the mentions that are left.
pub(super) fn define_globals(
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
        let given_up = |context: &Context<'_>, old: &GlobalRecord| {
            context.released.contains_key(&old.symbol) && (is_reference(old) || is_rebound(old, &new))
        };
        let reason = match found {
            Some((row, old))
                if (given_up(context, &old) || is_reference(&old) && is_defined(context, old.symbol)?)
                    && is_dropped_copy(context, object, index)? =>
            {
                targets[index] = Target::symbol(old.symbol);
                let global = GlobalRecord { symbol: old.symbol, name_hash: hash, ..new };
                context.plan.globals.insert(row, global);
                if is_reference(&old) {
                    note_copy(context, input, old.symbol, name)?;
                }
                yield_to_owner(context, input, index, old.symbol, &new)?
            }
            Some((row, old)) if given_up(context, &old) => {
                rehome(context, input, index, (old.symbol, Some(row)), &new, targets, changes)?
            }
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
    let versioned = name.contains(&b'@');
    if common
        || versioned
        || matches!(kind, elf::STT_TLS | elf::STT_GNU_IFUNC)
        || is_named_by_options(context, name)
    {
        return Ok(Some(reason));
    }
    if let SymbolPlace::Section(section) = object.parsed.symbol_place(index)
        && object.uses.get(section as usize).and_then(|used| used.atom()).is_none()
    {
        return Ok(Some(reason));
    }
    let discarded = is_dropped_copy(context, object, index)?;
    let known = match find_global(context, name)? {
        Some(row) => Some((row, context.symbol(row)?)),
        None => None,
    };
    let (row, old) = match known {
        Some((row, record)) if discarded && place::is_atom(record.atom) => {
            targets[index] = Target::symbol(row);
            note_copy(context, input, row, name)?;
            return match yield_to_owner(context, input, index, row, new)? {
                None => mention(context, input, row, new, name),
                reason => Ok(reason),
            };
        }
        _ if discarded => return Ok(Some(reason)),
        Some((row, _)) if context.released.contains_key(&row) => {
            return rehome(context, input, index, (row, None), new, targets, changes);
        }
        Some((row, record)) if record.atom == place::VACANT => {
            (row, new_record(context, input, record.name)?)
        }
        Some((row, record)) if record.atom == place::LAZY => {
            let elsewhere =
                record.flags & symbol_flags::REFERENCED != 0 || is_linked_elsewhere(context, row)?;
            let flags = if elsewhere { None } else { claim_name(context, input.row, row, name, false)? };
            let Some(flags) = flags else { return Ok(Some(reason)) };
            let flags = flags | symbol_flags::GLOBAL;
            (row, SymbolRecord { name: record.name, flags, ..vacant_symbol() })
        }
        Some((row, record)) => match yields(context, input, index, &record, new)? {
            Some(known) => {
                context.plan.symbols.insert(row.0, known);
                targets[index] = Target::symbol(row);
                context.frame.differ(reason);
                return mention(context, input, row, new, name);
            }
            None => return Ok(Some(reason)),
        },
        None => match add_global(context.store, context.plan, name) {
            Some((row, record)) => (row, new_record(context, input, record.name)?),
            None => return Ok(Some(reason)),
        },
    };
    let old = SymbolRecord { input: input.row, other: new.other, ..old };
    let Some(record) = defined_record(context, object, index, &old)? else { return Ok(Some(reason)) };
    context.plan.symbols.insert(row.0, record);
    if !is_hidden(new.other) {
        context.exposed.push((name.to_vec(), row, reason.clone()));
    }
    targets[index] = Target::symbol(row);
    changes.push((row, old, record));
    context.frame.differ(reason);
    mention(context, input, row, new, name)
}

/// Whether a definition is in the copy of a group that another object owns.
fn is_dropped_copy(context: &Context<'_>, object: &Object, index: usize) -> Result<bool, StoreError> {
    let SymbolPlace::Section(section) = object.parsed.symbol_place(index) else { return Ok(false) };
    match object.uses.get(section as usize).and_then(|used| used.atom()) {
        Some(row) => Ok(context.atom(row)?.flags & atom_flags::DISCARDED != 0),
        None => Ok(false),
    }
}

/// Notes that an object has a copy of what it did not define. A member that owns it may have been in the link for the
/// object's sake, or for that of somebody for whom the object would do from now on.
fn note_copy(
    context: &mut Context<'_>,
    input: &Input,
    row: SymbolRow,
    name: &[u8],
) -> Result<(), StoreError> {
    let owner = context.symbol(row)?.input;
    if owner.some().is_some() && from_archive(context, owner)? {
        doubt(context, owner, name, &input.object.name);
        let reason = GateReason::NewGlobal { symbol: text(name), input: input.object.name.clone() };
        context.questions.insert(row, Asked::Copied(reason));
    }
    Ok(())
}

/// Whether an object defines a name, as far as is known yet.
fn is_defined(context: &Context<'_>, row: SymbolRow) -> Result<bool, StoreError> {
    Ok(place::is_atom(context.symbol(row)?.atom))
}

/// A copy of a definition that the group's owner has: a mention of the name. What was defined elsewhere before, the owner
/// must define from now on.
fn yield_to_owner(
    context: &mut Context<'_>,
    input: &Input,
    index: usize,
    row: SymbolRow,
    new: &GlobalRecord,
) -> Result<Option<GateReason>, StoreError> {
    let record = context.symbol(row)?;
    let (symbol, input) = (text(input.object.parsed.symbol_name(index)), input.object.name.clone());
    if stricter(record.other, new.other) != record.other {
        return Ok(Some(GateReason::VisibilityChanged { symbol, input }));
    }
    if context.released.contains_key(&row) {
        context.yielded.push((row, GateReason::NewGlobal { symbol, input }));
    }
    Ok(None)
}

/// Refuses what was left to the owners of groups, and none of them defines.
pub(super) fn judge_yielded(context: &mut Context<'_>) {
    for (row, reason) in std::mem::take(&mut context.yielded) {
        if context.rehomed.contains(&row) {
            context.frame.differ(reason);
        } else {
            context.frame.refuse(reason);
        }
    }
}

/// The record of a name that an object defines for the first time, before its place is known.
fn new_record(context: &Context<'_>, input: &Input, name: Span) -> Result<SymbolRecord, StoreError> {
    // Its archive offers what a member defines.
    let offered = if from_archive(context, input.row)? { symbol_flags::OFFERED } else { 0 };
    Ok(SymbolRecord { name, flags: symbol_flags::GLOBAL | offered, ..vacant_symbol() })
}

/// A weak definition of a name that an object defines already. If that one prevails, or is the same piece of a pool, the
/// name means what it meant: its record from now on.
fn yields(
    context: &Context<'_>,
    input: &Input,
    index: usize,
    known: &SymbolRecord,
    new: &GlobalRecord,
) -> Result<Option<SymbolRecord>, StoreError> {
    let bound =
        symbol_flags::LINKER_DEFINED | symbol_flags::OPTION | symbol_flags::COMMON | symbol_flags::COPIED;
    let weak = new.info >> 4 == elf::STB_WEAK && new.state == global_state::DEFINED;
    if !weak
        || !place::is_atom(known.atom)
        || known.flags & bound != 0
        || known.input.some().is_none()
        || stricter(known.other, new.other) != known.other
        || from_archive(context, known.input)?
    {
        return Ok(None);
    }
    let contested = SymbolRecord { flags: known.flags | symbol_flags::CONTESTED, ..*known };
    if known.info >> 4 != elf::STB_WEAK || context.is_before(known.input, input.row)? {
        return Ok(Some(contested));
    }
    let first = SymbolRecord { input: input.row, ..contested };
    Ok(defined_record(context, &input.object, index, &first)?.filter(|own| *own == first))
}

/// Notes that an object mentions a name.
pub(super) fn mention(
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
pub(super) fn is_named_by_options(context: &Context<'_>, name: &[u8]) -> bool {
    let options = context.options;
    let is =
        |known: &str| known.as_bytes() == name || name.strip_prefix(b"__wrap_") == Some(known.as_bytes());
    options.wrap.iter().any(|known| is(known))
        || options.undefined.iter().any(|known| is(known))
        || options.defsyms.iter().any(|(known, _)| is(known))
        || options.entry.as_deref().is_some_and(is)
        || [&options.dynamic.init, &options.dynamic.fini].iter().any(|known| is(known))
}

/// Whether a mention is no definition.
pub(super) fn is_reference(global: &GlobalRecord) -> bool {
    global.state == global_state::UNDEFINED
}

/// The row of a global name, as it will be.
pub(super) fn find_global(context: &Context<'_>, name: &[u8]) -> Result<Option<SymbolRow>, StoreError> {
    match context.plan.new_names.get(name) {
        Some(&row) => Ok(Some(row)),
        None => context.store.global(name),
    }
}

/// A name that the object had before: everything that resolution looks at must be as it was.
pub(super) fn match_global(
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
    if context.heirs.get(&old.symbol) == Some(&input.row) {
        return inherit(context, input, index, old.symbol, new, changes);
    }
    if record.input != input.row || context.lost.contains(&(input.row, old.symbol)) {
        return Ok(None); // Another object's definition prevails, as before or from now on.
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

/// Whether another object's definition prevails over one: a copy of a group that was dropped, or a weaker one, which is of
/// use if that goes as well.
pub(super) fn is_of_no_use(
    context: &Context<'_>,
    record: &SymbolRecord,
    old: &GlobalRecord,
) -> Result<bool, StoreError> {
    let row = old.symbol;
    let prevails = place::is_atom(record.atom)
        && record.input.some().is_some()
        && record.flags & (symbol_flags::LINKER_DEFINED | symbol_flags::COPIED) == 0
        && old.state == global_state::DEFINED;
    let only = record.flags & (symbol_flags::OFFERED | symbol_flags::CONTESTED) == 0;
    let stays = || -> Result<bool, StoreError> {
        Ok(!context.released.contains_key(&row) && !from_archive(context, record.input)?)
    };
    let as_visible =
        || -> Result<bool, StoreError> { Ok(old.other & 3 == 0 || visibility_stays(context, record, row)?) };
    Ok(prevails && (only || stays()?) && as_visible()?)
}

/// Plans that a definition goes; `false` if anything else may speak of it.
pub(super) fn remove_definition(
    context: &mut Context<'_>,
    request: &Request,
    input: &Input,
    old: &GlobalRecord,
) -> Result<bool, StoreError> {
    let row = old.symbol;
    if context.rehomed.contains(&row) {
        return Ok(true);
    }
    let record = context.store.symbols.get(row.0)?;
    let flags = context.symbol(row)?.flags;
    if record.input != input.row || !place::is_atom(record.atom) && record.atom != place::ABSOLUTE {
        return is_of_no_use(context, &record, old);
    }
    let dynamic = is_dynamic(context);
    let exported = if dynamic { 0 } else { symbol_flags::EXPORTED };
    let offered = flags & symbol_flags::OFFERED != 0;
    if offered && !context.wide {
        return Ok(false);
    }
    let kept = symbol_flags::CONTESTED
        | symbol_flags::OPTION
        | symbol_flags::LINKER_DEFINED
        | exported
        | symbol_flags::IFUNC
        | symbol_flags::TLS
        | symbol_flags::COMMON;
    let slots = [record.got, record.plt, record.dynsym, record.tls_pair, record.tls_descriptor];
    // What the loader knows it by goes with it, unless a library refers to it.
    let bound = slots != [0; 5];
    if bound && (!dynamic || is_mentioned_by_library(context, request, row)?) {
        return Ok(false);
    }
    if flags & kept != 0
        || row == context.plan.image.entry
        || context.plan.symbols.get(&row.0).is_some_and(|planned| planned.atom != record.atom)
    {
        return Ok(false);
    }
    let linked = context.referenced.contains(&row) || is_linked_elsewhere(context, row)?;
    // Another member may have it now, for those who want one.
    if flags & symbol_flags::REFERENCED != 0 && !linked || offered && linked {
        let symbol = text(context.store.strings.bytes(record.name)?);
        let reason = GateReason::RemovedGlobal { symbol, input: input.object.name.clone() };
        context.questions.insert(row, Asked::Dropped(reason));
    }
    if linked {
        return Ok(false);
    }
    if bound {
        context.plan.dropped_exports.push((row, record));
    }
    drop_symbol(context, row, &record, false);
    Ok(true)
}
