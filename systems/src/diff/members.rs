//! Members of archives: which ones the edit pulls, and which ones nothing wants any more. A full link loads a member if what is
//! loaded refers to a name, not only weakly, that nothing defines at that point and that no archive in front offers.

use std::collections::BTreeMap;

use bevy_ecs::prelude::Query;
use formats::elf;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::Object;
use relink_engine::records::{
    GlobalRecord, InputRecord, SymbolRecord, file_flags, global_state, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{FileRow, InputRow, RelocRow, SymbolRow, TargetKind};
use relink_formats as formats;

use super::Context;
use super::imports::{is_dynamic, offered_record};
use super::names::{find_global, is_named_by_options, is_reference};
use super::rows::{is_vacant_global, vacant_symbol};
use super::symbols::text;
use super::unwind::is_personality_elsewhere;
use crate::commit::bulk::global_records;
use crate::ingest::libraries::open_library;
use crate::ingest::offers::{Offer, find_offer, is_searched};
use crate::place::symbols::is_linker_name;

/// Members that lost a reference: the name of one, and the object that had it.
pub(super) type Doubtful = BTreeMap<InputRow, (String, String)>;

/// Rows that are looked at to find what keeps a member in the link, before all mentions of names are.
const ROWS_EXAMINED: usize = 4096;
/// Members that are looked at one by one.
const DOUBTFUL_EXAMINED: usize = 8;

/// Who offers a name that is lazy, or that a library of the command line offers as well.
fn offer_of(context: &mut Context<'_>, row: SymbolRow, name: &[u8]) -> Result<Offer, StoreError> {
    let record = context.symbol(row)?;
    let both = symbol_flags::OFFERED | symbol_flags::CONTESTED;
    let hint = if record.atom == place::LAZY {
        record.input.some().map(|input| FileRow(input.0))
    } else if record.flags & both == symbol_flags::OFFERED && record.input.0 < context.store.inputs.len() {
        // A member that is the first to offer what it defines.
        context.store.inputs.get(record.input.0)?.file.some()
    } else {
        None
    };
    find_offer(context.request, context.store, context.plan, name, hint)
}

/// A lazy name that no archive offers any more is one that the image does not know.
pub(super) fn forget_lost_offer(
    context: &mut Context<'_>,
    row: SymbolRow,
    name: &[u8],
) -> Result<(), StoreError> {
    let record = context.symbol(row)?;
    let lost = record.atom == place::LAZY
        && record.flags & symbol_flags::REFERENCED == 0
        && !is_linked_elsewhere(context, row)?
        && offer_of(context, row, name)? == Offer::Nobody;
    if lost {
        let (name, flags) = (record.name, symbol_flags::GLOBAL);
        context.plan.symbols.insert(row.0, SymbolRecord { name, flags, ..vacant_symbol() });
    }
    Ok(())
}

/// Asks for the member that a full link would pull for a name, if that is all that it would do; the frame is dropped, and
/// another one follows that has the member.
pub(super) fn pull(context: &mut Context<'_>, row: SymbolRow, name: &[u8]) -> Result<(), StoreError> {
    if !context.wide || is_linker_name(name) || is_named_by_options(context, name) {
        return Ok(());
    }
    let record = context.symbol(row)?;
    let lazy = record.atom == place::LAZY;
    // What is weak elsewhere was linked as nothing.
    if lazy && (record.flags & symbol_flags::REFERENCED != 0 || is_linked_elsewhere(context, row)?) {
        return Ok(());
    }
    // A library may be asked first: the place of the first reference decides.
    if is_dynamic(context) && offered_record(context, name)?.is_none_or(|found| found.atom == place::SHARED) {
        return Ok(());
    }
    if let Offer::Member(file, ordinal) = offer_of(context, row, name)?
        && !context.is_loaded(file, ordinal)?
    {
        context.frame.wanted.pulled.push((file, ordinal));
    }
    Ok(())
}

/// What archives say of a name that an object is to define, and that may be theirs: flags of its record; `None` if a full link
/// would pull another definition.
///
/// `wanted`: something that does not change refers to the name.
pub(super) fn claim_name(
    context: &mut Context<'_>,
    input: InputRow,
    row: SymbolRow,
    name: &[u8],
    wanted: bool,
) -> Result<Option<u16>, StoreError> {
    if !context.wide {
        return Ok(None);
    }
    let own = context.input_record(input)?;
    let contested = symbol_flags::OFFERED | symbol_flags::CONTESTED;
    Ok(match offer_of(context, row, name)? {
        Offer::Unknown => None,
        Offer::Nobody => Some(0),
        Offer::Member(file, ordinal) if from_archive(context, input)? => {
            let first = (own.file, own.member) == (file, ordinal);
            if first { Some(symbol_flags::OFFERED) } else { (!wanted).then_some(contested) }
        }
        Offer::Member(file, _) => (context.place_of(own.file) < context.place_of(file)).then_some(contested),
    })
}

/// Whether a reference may pull another definition of a name than the one that it has: an archive offers one as well, and
/// only the place of the first reference tells.
pub(super) fn may_pull_another(
    context: &mut Context<'_>,
    row: SymbolRow,
    name: &[u8],
) -> Result<bool, StoreError> {
    let record = context.symbol(row)?;
    let both = symbol_flags::OFFERED | symbol_flags::CONTESTED;
    if record.flags & both != both || record.input.some().is_none() {
        return Ok(false);
    }
    if from_archive(context, record.input)? {
        return Ok(true);
    }
    let definer = context.input_record(record.input)?.file;
    Ok(match offer_of(context, row, name)? {
        Offer::Unknown => true,
        Offer::Nobody => false,
        Offer::Member(file, _) => context.place_of(file) < context.place_of(definer),
    })
}

/// Whether an input that did not change refers to a symbol by a relocation, or by a CIE.
pub(super) fn is_linked_elsewhere(context: &Context<'_>, row: SymbolRow) -> Result<bool, StoreError> {
    let store = context.store;
    if row.0 >= store.symbols.len() {
        return Ok(false);
    }
    let mut next = store.symbols.get(row.0)?.first_incoming;
    let mut seen = 0;
    while let Some(at) = next.some() {
        let reloc = store.relocs.get(at.0)?;
        next = reloc.next;
        seen += 1;
        let site = store.atoms.get(reloc.atom.0)?;
        let changed = context.changed.contains(&site.input);
        if reloc.flags & reloc_flags::DEAD == 0 && !changed || seen > store.relocs.len() {
            return Ok(true);
        }
    }
    is_personality_elsewhere(context, row)
}

/// Notes that a member has lost a reference.
pub(super) fn doubt(context: &mut Context<'_>, member: InputRow, name: &[u8], input: &str) {
    context.doubtful.entry(member).or_insert_with(|| (text(name), input.to_owned()));
}

/// Asks for members that nothing wants any more to be dropped.
pub(super) fn judge_members(
    context: &mut Context<'_>,
    inputs: &Query<'_, '_, &mut Input>,
) -> Result<(), StoreError> {
    // What a member that comes refers to is not known yet.
    if !context.frame.wanted.pulled.is_empty() {
        return Ok(());
    }
    let mut doubtful = std::mem::take(&mut context.doubtful);
    // Of many it is quicker to ask for all at once.
    let beside = !context.request.beside.dropped.is_empty() || doubtful.len() > DOUBTFUL_EXAMINED;
    for member in doubtful.keys().copied().collect::<Vec<_>>() {
        if context.going.contains(&member) || !beside && is_wanted_nearby(context, member)? {
            doubtful.remove(&member);
        }
    }
    if doubtful.is_empty() && !beside {
        return Ok(());
    }
    let Some(reached) = reach_members(context, inputs)? else {
        let refused = doubtful.into_values();
        let reasons = refused.map(|(symbol, input)| GateReason::ArchiveMemberDropped { symbol, input });
        context.frame.reasons.extend(reasons);
        return Ok(());
    };
    for row in all_inputs(context)? {
        if !from_archive(context, row)? || reached.contains(&row) {
            continue;
        }
        let known = doubtful.remove(&row);
        let (symbol, input) = match known {
            Some(known) => known,
            None => {
                let member = context.input_record(row)?.name;
                (String::new(), crate::view::text_of(context.store, context.plan, member))
            }
        };
        let store = context.store;
        if context.wide && row.0 < store.inputs.len() && store.inputs.get(row.0)?.file.some().is_some() {
            context.frame.wanted.dropped.push(row);
        }
        context.frame.refuse(GateReason::ArchiveMemberDropped { symbol, input });
    }
    Ok(())
}

/// The inputs that are loaded after the frame.
fn all_inputs(context: &Context<'_>) -> Result<Vec<InputRow>, StoreError> {
    let mut rows = Vec::new();
    for row in (0..context.plan.ends.inputs).map(InputRow) {
        if context.loaded_record(row)?.file.some().is_some() {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Whether something of the command line still refers to a member, or to one that refers to it, as far as a look at a few
/// references tells.
fn is_wanted_nearby(context: &Context<'_>, member: InputRow) -> Result<bool, StoreError> {
    let store = context.store;
    let mut seen: HashSet<InputRow> = [member].into_iter().collect();
    let mut queue = vec![member];
    let mut left = ROWS_EXAMINED;
    while let Some(at) = queue.pop() {
        for global in names_of(context, at)? {
            let record = context.symbol(global.symbol)?;
            if is_reference(&global) || !pulls(&record) || record.input != at {
                continue;
            }
            if context.rooted.contains(&global.symbol) {
                return Ok(true);
            }
            let known = global.symbol.0 < store.symbols.len();
            let first =
                if known { store.symbols.get(global.symbol.0)?.first_incoming } else { RelocRow::default() };
            let (mut next, mut last) = (first, InputRow::default());
            while let Some(row) = next.some() {
                let reloc = store.relocs.get(row.0)?;
                next = reloc.next;
                let input = store.atoms.get(reloc.atom.0)?.input;
                left = left.saturating_sub(1);
                let other = input.some().is_some() && input != last && !seen.contains(&input);
                if !other || reloc.flags & reloc_flags::DEAD != 0 || context.changed.contains(&input) {
                    continue;
                }
                last = input;
                let names = names_of(context, input)?;
                left = left.saturating_sub(names.len());
                if names.iter().any(|name| name.symbol == global.symbol && is_want(name)) {
                    if from_archive(context, input)? {
                        seen.insert(input);
                        queue.push(input);
                    } else if !is_behind_a_library(context, input)? && !is_behind_a_library(context, member)?
                    {
                        return Ok(true);
                    }
                }
                if left == 0 {
                    return Ok(false);
                }
            }
        }
    }
    Ok(false)
}

/// The members that a full link would pull; `None` if a library can't be asked. O(names of all objects), and only where a
/// nearer look has found nothing.
fn reach_members(
    context: &mut Context<'_>,
    inputs: &Query<'_, '_, &mut Input>,
) -> Result<Option<HashSet<InputRow>>, StoreError> {
    let changed: HashMap<InputRow, &Object> = inputs.iter().map(|input| (input.row, &input.object)).collect();
    let mut queue = Vec::new();
    for row in all_inputs(context)? {
        if !from_archive(context, row)? {
            queue.push(row);
        }
    }
    let Some(mut wants) = names_of_link(context)? else { return Ok(None) };
    let mut reached = HashSet::new();
    let mut examined = 0;
    // Of an object behind a library.
    let mut behind = false;
    loop {
        for name in wants.drain(..) {
            let record = context.symbol(name)?;
            if !pulls(&record) || !from_archive(context, record.input)? {
                continue;
            }
            let behind = behind || is_behind_a_library(context, record.input)?;
            if behind && record.flags & symbol_flags::OFFERED != 0 {
                return Ok(None); // Perhaps the library's definition would do.
            }
            if reached.insert(record.input) {
                queue.push(record.input);
            }
        }
        let Some(row) = queue.pop() else { break };
        behind = !from_archive(context, row)? && is_behind_a_library(context, row)?;
        if let Some(object) = changed.get(&row) {
            let first = object.parsed.first_global as usize;
            for (target, global) in object.targets.iter().skip(first).zip(global_records(&object.parsed)) {
                if let (true, TargetKind::Symbol(symbol)) = (is_want(&global), target.kind()) {
                    wants.push(symbol);
                }
            }
            continue;
        }
        let names = names_of(context, row)?;
        examined += names.len() as u64;
        wants.extend(names.iter().filter(|name| is_want(name)).map(|name| name.symbol));
    }
    context.frame.counters.mentions_examined += examined;
    Ok(Some(reached))
}

/// Whether a shared library stands in front of an input, or of its archive.
fn is_behind_a_library(context: &Context<'_>, input: InputRow) -> Result<bool, StoreError> {
    Ok(context.place_of(context.input_record(input)?.file) > context.libraries)
}

/// The place of the first shared library; none is behind all.
pub(super) fn first_library(context: &Context<'_>) -> Result<u32, StoreError> {
    let mut first = u32::MAX;
    for file in (0..context.store.files.len()).map(FileRow) {
        if context.store.files.get(file.0)?.flags & file_flags::SHARED != 0 {
            first = first.min(context.place_of(file));
        }
    }
    Ok(first)
}

/// Names that options want, and those that shared libraries lack; `None` if one can't be asked.
fn names_of_link(context: &mut Context<'_>) -> Result<Option<Vec<SymbolRow>>, StoreError> {
    let options = context.options;
    let entry = options.entry.as_deref().unwrap_or("_start");
    let mut wants = Vec::new();
    for name in std::iter::once(entry).chain(options.undefined.iter().map(String::as_str)) {
        wants.extend(find_global(context, name.as_bytes())?);
    }
    for file in 0..context.store.files.len() {
        if context.store.files.get(file)?.flags & file_flags::SHARED == 0 {
            continue;
        }
        let opened = open_library(context.request, context.store, context.plan, file)?;
        let Some(library) = opened else { return Ok(None) };
        let lacking = library.parsed.symbols.iter();
        let lacking = lacking.filter(|symbol| !symbol.defined && symbol.binding != elf::STB_WEAK);
        let names: Vec<Vec<u8>> = lacking.map(|symbol| library.parsed.name(&symbol.name).to_vec()).collect();
        for name in names {
            wants.extend(find_global(context, &name)?);
        }
    }
    Ok(Some(wants))
}

/// Whether a mention wants a definition.
pub(super) fn is_want(global: &GlobalRecord) -> bool {
    global.state == global_state::UNDEFINED && global.info >> 4 != elf::STB_WEAK
}

/// Whether an object defines a symbol for which it would be pulled: a copied datum has a library's file as its input, and of
/// several definitions another one may be first.
fn pulls(symbol: &SymbolRecord) -> bool {
    (place::is_atom(symbol.atom) || symbol.atom == place::ABSOLUTE)
        && symbol.flags & (symbol_flags::COPIED | symbol_flags::CONTESTED) == 0
        && symbol.input.some().is_some()
}

/// The mentions of an input, as they will be.
fn names_of(context: &Context<'_>, input: InputRow) -> Result<Vec<GlobalRecord>, StoreError> {
    let record = context.loaded_record(input)?;
    let mut names = Vec::new();
    for row in record.globals.and(record.more_globals) {
        let global = match context.plan.globals.get(&row) {
            Some(global) => *global,
            None if row < context.store.globals.len() => context.store.globals.get(row)?,
            None => continue,
        };
        if !is_vacant_global(&global) {
            names.push(global);
        }
    }
    Ok(names)
}

impl Context<'_> {
    /// The record of an input, as it will be; one of an unused row that the frame adds.
    fn loaded_record(&self, row: InputRow) -> Result<InputRecord, StoreError> {
        let added = row.0 >= self.store.inputs.len() && !self.plan.input_records.contains_key(&row.0);
        if added { Ok(InputRecord::default()) } else { self.input_record(row) }
    }

    /// Whether a member is loaded after the frame.
    fn is_loaded(&self, file: FileRow, ordinal: u32) -> Result<bool, StoreError> {
        let known = match self.plan.files.get(&file.0) {
            Some(record) => *record,
            None => self.store.files.get(file.0)?,
        };
        for row in known.inputs.and(known.more_inputs) {
            let record = self.loaded_record(InputRow(row))?;
            if (record.file, record.member) == (file, ordinal) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a library's definition might do for what an object refers to, and no member be pulled: a library in front of the
/// object, or of the archive, offers the name. When a member comes to refer to it is not known.
pub(super) fn may_be_of_a_library(
    context: &Context<'_>,
    input: &Input,
    symbol: &SymbolRecord,
) -> Result<bool, StoreError> {
    if symbol.flags & symbol_flags::OFFERED == 0 || !pulls(symbol) || context.libraries == u32::MAX {
        return Ok(false);
    }
    Ok(from_archive(context, input.row)?
        || is_behind_a_library(context, input.row)?
        || is_behind_a_library(context, symbol.input)?)
}

/// Whether an object refers to something else in an input. Then what pulls what is as it was: of two references from
/// one object to one member, either is enough.
pub(super) fn still_needs(
    context: &Context<'_>,
    input: &Input,
    member: InputRow,
) -> Result<bool, StoreError> {
    let object = &input.object;
    let first = object.parsed.first_global as usize;
    for (index, global) in (first..).zip(global_records(&object.parsed)) {
        if global.state != global_state::UNDEFINED || global.info >> 4 == elf::STB_WEAK {
            continue;
        }
        if let Some(row) = context.store.global(object.parsed.symbol_name(index))? {
            let old = context.store.symbols.get(row.0)?;
            let now = context.symbol(row)?;
            if old.input == member
                && now.input == member
                && pulls(&old)
                && pulls(&now)
                && !may_be_of_a_library(context, input, &now)?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether an input is an archive's member, which is in the link because something refers to it.
pub(super) fn from_archive(context: &Context<'_>, input: InputRow) -> Result<bool, StoreError> {
    let file = context.loaded_record(input)?.file;
    if file.0 >= context.store.files.len() {
        return Ok(false); // Of files only objects come and go.
    }
    Ok(is_searched(&context.store.files.get(file.0)?))
}
