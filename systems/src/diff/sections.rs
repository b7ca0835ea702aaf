//! Sections of a changed object against its atoms: same name and ordinal, same kind and flags.

use formats::dwarf::{DebugSection, UNIT_MIN};
use formats::elf;
use formats::object_file::SymbolPlace;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::plan::EmptySet;
use relink_engine::program::{MergeInput, Object, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, SectionRow};
use relink_formats as formats;

use super::Context;
use super::anonymous::{self, Members, class_of};
use super::rows::vacant_atom;
use crate::ingest::bulk::SIZE_MAX;
use crate::ingest::classify::{Class, classify};
use crate::place::names::output_name;
use crate::resolve::liveness::SHF_GNU_RETAIN;
use crate::view::atoms_of;

/// Flags of an atom that come from the section itself.
const OWN_FLAGS: u32 = atom_flags::CODE
    | atom_flags::WRITE
    | atom_flags::ALLOC
    | atom_flags::NOBITS
    | atom_flags::DEBUG
    | atom_flags::TLS
    | atom_flags::EXACT
    | atom_flags::MERGE
    | atom_flags::COMDAT
    | atom_flags::FIXED
    | atom_flags::EH_FRAME;

/// An atom of the new object: its row, its section, the record that the row had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matched {
    pub row: AtomRow,
    pub section: u32,
    pub old: AtomRecord,
    /// The row is new, or its atom had no place before.
    pub unplaced: bool,
}

/// Matches sections with rows and fills the object's `uses`.
pub(super) fn match_sections(
    context: &mut Context<'_>,
    input: &mut Input,
) -> Result<Vec<Matched>, StoreError> {
    let store = context.store;
    let strip = context.options.strip;
    let mut known: HashMap<(&[u8], u32), (AtomRow, AtomRecord)> = HashMap::new();
    let mut ordinals: HashMap<&[u8], u32> = HashMap::new();
    let mut nameless: HashMap<&[u8], Members<'_>> = HashMap::new();
    for (row, record) in atoms_of(store, &input.record)? {
        let name = store.strings.bytes(record.name)?;
        if let Some(class) = class_of(name) {
            nameless.entry(class).or_default().0.push((row, record, name));
            continue;
        }
        let ordinal = ordinals.entry(name).or_default();
        known.insert((name, *ordinal), (row, record));
        *ordinal += 1;
    }
    let object = &mut input.object;
    for (index, section) in object.parsed.sections.iter().enumerate() {
        let class = class_of(object.parsed.section_name(index));
        if let Some(class) =
            class.filter(|_| classify(&object.parsed, index, section, strip) != Class::Ignore)
        {
            nameless.entry(class).or_default().1.push(index);
        }
    }
    let mut pairs = HashMap::new();
    let mut gone: Vec<(AtomRow, AtomRecord)> = Vec::new();
    for (atoms, sections) in nameless.into_values() {
        let rows: Vec<(AtomRow, AtomRecord)> = atoms.iter().map(|(row, record, _)| (*row, *record)).collect();
        let paired = anonymous::pair(store, context.image, &object.parsed, atoms, &sections)?;
        let used: HashSet<AtomRow> = paired.values().map(|(row, _)| *row).collect();
        gone.extend(rows.into_iter().filter(|(row, _)| !used.contains(row)));
        pairs.extend(paired);
    }
    let discarded = sections_of_groups(object, |_, owns| !owns);
    let handed_over = sections_of_groups(object, |signature, _| context.owners.contains_key(signature));
    let mut uses = vec![SectionUse::None; object.parsed.sections.len()];
    let mut merges = Vec::new();
    let mut matched = Vec::new();
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for (index, section) in object.parsed.sections.iter().enumerate() {
        let name = object.parsed.section_name(index);
        let flags = match classify(&object.parsed, index, section, strip) {
            Class::Ignore => continue,
            Class::Atom(flags) | Class::Merge(flags) | Class::EhFrame(flags) => flags,
        };
        let mut found = if class_of(name).is_some() {
            pairs.remove(&index)
        } else {
            let ordinal = seen.entry(name).or_default();
            *ordinal += 1;
            known.remove(&(name, *ordinal - 1))
        };
        // What a group holds from now on, or no more, is another section: it has another owner.
        let regrouped = |old: &AtomRecord| context.wide && (flags ^ old.flags) & atom_flags::COMDAT != 0;
        gone.extend(found.take_if(|(_, old)| regrouped(old)));
        let names = || (String::from_utf8_lossy(name).into_owned(), object.name.clone());
        let dropped = discarded.contains(&(index as u32));
        let differs = |old: &AtomRecord| dropped != (old.flags & atom_flags::DISCARDED != 0);
        let (row, old, unplaced) = match found {
            Some((row, old)) if !(handed_over.contains(&(index as u32)) && differs(&old)) => {
                (row, old, false)
            }
            found => {
                let added = match found {
                    Some(known) => hand_over(context, object, index, flags, known)?,
                    None => add_atom(context, input.row, object, index, flags, dropped)?,
                };
                let goes = found.is_some() && dropped;
                let (section, input) = names();
                let reason = if goes {
                    GateReason::AtomRemoved { section, input }
                } else {
                    GateReason::AtomAdded { section, input }
                };
                let Some((row, record)) = added else {
                    context.frame.refuse(reason);
                    continue;
                };
                context.frame.differ(reason);
                (row, record, true)
            }
        };
        if flags != old.flags & OWN_FLAGS || section.kind != old.kind || differs(&old) {
            let (section, input) = names();
            context.frame.refuse(GateReason::SectionFlagsChanged { section, input });
            continue;
        }
        let align = u32::from(section.align.exponent());
        if align > old.align && old.flags & (atom_flags::DISCARDED | atom_flags::DEAD) == 0 {
            let (section, input) = names();
            let reason = GateReason::SectionFlagsChanged { section, input };
            // What may move can be aligned anew, if its section is aligned as well.
            let cut = atom_flags::MERGE | atom_flags::EH_FRAME | atom_flags::DEBUG;
            let room = old.flags & (BOUND | cut) == 0 && align <= store.sections.get(old.output.0)?.align;
            if room { context.frame.differ(reason) } else { context.frame.refuse(reason) }
        }
        uses[index] = if flags & atom_flags::EH_FRAME != 0 {
            SectionUse::EhFrame(row)
        } else if flags & atom_flags::MERGE != 0 {
            merges.push(MergeInput::new(index as u32, section.size));
            SectionUse::Merge(row, merges.len() as u32 - 1)
        } else {
            SectionUse::Atom(row)
        };
        matched.push(Matched { row, section: index as u32, old, unplaced });
        if !unplaced && old.flags & (atom_flags::DISCARDED | atom_flags::DEAD) == 0 {
            judge_size(context, &old, section.size, names);
        }
    }
    gone.extend(known.into_values());
    gone.sort_unstable_by_key(|(row, _)| *row);
    let kept = empty_address_sets(context, &gone)?;
    for (row, record) in gone {
        let section = store.text(record.name);
        let reason = GateReason::AtomRemoved { section, input: object.name.clone() };
        if remove_atom(context, row, &record, kept.get(&row).copied())? {
            context.frame.differ(reason);
        } else {
            context.frame.refuse(reason);
        }
    }
    object.uses = uses;
    object.merges = merges;
    Ok(matched)
}

/// Sections of those COMDAT groups that are `meant`, by their signatures and by whether the object owns them.
fn sections_of_groups(object: &Object, meant: impl Fn(&[u8], bool) -> bool) -> HashSet<u32> {
    let groups = object.parsed.groups.iter().zip(&object.owns);
    let groups =
        groups.filter(|&(group, &owns)| group.comdat && meant(object.parsed.group_signature(group), owns));
    groups.flat_map(|(group, _)| group.sections.iter().copied()).collect()
}

/// What has its place by its order, its bounds or its kind, and can't come, go or move alone.
const BOUND: u32 = atom_flags::EXACT | atom_flags::FIXED | atom_flags::TLS | atom_flags::COMMON;

/// A row for a section that the object did not have; `None` if the image has no place for such a one.
fn add_atom(
    context: &mut Context<'_>,
    input: InputRow,
    object: &Object,
    index: usize,
    flags: u32,
    discarded: bool,
) -> Result<Option<(AtomRow, AtomRecord)>, StoreError> {
    let Some(mut record) = new_atom(context, input, object, index, flags, discarded)? else {
        return Ok(None);
    };
    let Some(row) = context.take_atom(input)? else { return Ok(None) };
    record.name = context.add_name(object.parsed.section_name(index));
    if row.0 < context.store.atoms.len() {
        // Rows of the relocations of what was there before: unused ones, to be used again.
        record.relocs = context.store.atoms.get(row.0)?.relocs;
    }
    context.plan.atoms.insert(row.0, record);
    Ok(Some((row, record)))
}

/// The record of a section of a group that is in the image from now on, or no more; `None` if it can't come or go.
fn hand_over(
    context: &mut Context<'_>,
    object: &Object,
    index: usize,
    flags: u32,
    (row, old): (AtomRow, AtomRecord),
) -> Result<Option<(AtomRow, AtomRecord)>, StoreError> {
    // Contributions of others may speak of one that is of debug information.
    if flags & atom_flags::DEBUG != 0 {
        return Ok(None);
    }
    let comes = old.flags & atom_flags::DISCARDED != 0;
    if !comes && !remove_atom(context, row, &old, None)? {
        return Ok(None);
    }
    let Some(new) = new_atom(context, old.input, object, index, flags, !comes)? else { return Ok(None) };
    let record = AtomRecord { name: old.name, relocs: old.relocs, ..new };
    context.plan.atoms.insert(row.0, record);
    Ok(Some((row, record)))
}

/// What a section that is new in the image is there, but for its row; `None` if the image has no place for such a one.
fn new_atom(
    context: &Context<'_>,
    input: InputRow,
    object: &Object,
    index: usize,
    flags: u32,
    discarded: bool,
) -> Result<Option<AtomRecord>, StoreError> {
    let section = &object.parsed.sections[index];
    let name = object.parsed.section_name(index);
    let ordered = section.flags & u64::from(elf::SHF_LINK_ORDER) != 0;
    if !discarded && (flags & BOUND != 0 || ordered || section.size > SIZE_MAX) {
        return Ok(None);
    }
    let pieces = flags & (atom_flags::MERGE | atom_flags::EH_FRAME) != 0;
    let mut record = AtomRecord {
        input,
        section: index as u32,
        flags,
        size: section.size,
        kind: section.kind,
        align: u32::from(section.align.exponent()),
        ..Default::default()
    };
    if discarded {
        record.flags |= atom_flags::DISCARDED;
    } else {
        if !pieces {
            match find_output(context, name, &record)? {
                Some(output) => record.output = output,
                // Compilers leave a few in each object, whether the image has such a section or not.
                None if is_nothing(object, index) => {}
                None => return Ok(None),
            }
        }
        let retained = section.flags & SHF_GNU_RETAIN != 0;
        let collected = context.options.gc_sections
            && !retained
            && flags & (atom_flags::DEBUG | atom_flags::EH_FRAME | atom_flags::MERGE) == 0;
        record.flags |= if collected { atom_flags::DEAD } else { atom_flags::LIVE };
    }
    Ok(Some(record))
}

/// Whether a section has no byte, and nothing refers to it.
fn is_nothing(object: &Object, index: usize) -> bool {
    let parsed = &object.parsed;
    let named = |symbol: usize| {
        parsed.symbols()[symbol].st_type().0 != elf::STT_SECTION
            && parsed.symbol_place(symbol) == SymbolPlace::Section(index as u32)
    };
    parsed.sections[index].size == 0 && !(0..parsed.symbols().len()).any(named)
}

/// The section of the image that a new atom stands in, if there is one of its kind.
pub(super) fn find_output(
    context: &Context<'_>,
    name: &[u8],
    atom: &AtomRecord,
) -> Result<Option<SectionRow>, StoreError> {
    let output = output_name(name);
    let kind = u64::from(elf::SHF_ALLOC | elf::SHF_WRITE | elf::SHF_EXECINSTR | elf::SHF_TLS);
    let mut wanted = 0;
    for (flag, bit) in [
        (atom_flags::ALLOC, elf::SHF_ALLOC),
        (atom_flags::WRITE, elf::SHF_WRITE),
        (atom_flags::CODE, elf::SHF_EXECINSTR),
    ] {
        if atom.flags & flag != 0 {
            wanted |= u64::from(bit);
        }
    }
    let nobits = atom.flags & atom_flags::NOBITS != 0;
    for row in 0..context.store.sections.len() {
        let section = context.store.sections.get(row)?;
        if context.store.strings.bytes(section.name)? == output {
            let fits = section.index != 0
                && section.flags & kind == wanted
                && (section.kind == elf::SHT_NOBITS) == nobits
                && atom.align <= section.align;
            return Ok(fits.then_some(SectionRow(row)));
        }
    }
    Ok(None)
}

/// Sets of address ranges that go stay as empty ones, each with a unit of its own: two that name one unit make gdb ignore
/// them all. The unit stays at the start of the debug information that goes along. Tells how much of which atoms stays.
fn empty_address_sets(
    context: &mut Context<'_>,
    gone: &[(AtomRow, AtomRecord)],
) -> Result<HashMap<AtomRow, u64>, StoreError> {
    let (mut sets, mut units) = (Vec::new(), Vec::new());
    for (row, record) in gone {
        let wanted = atom_flags::LIVE | atom_flags::DEBUG;
        if record.flags & (wanted | atom_flags::MERGE) != wanted || record.capacity == 0 {
            continue;
        }
        let section = context.store.sections.get(record.output.0)?;
        match DebugSection::from_name(context.store.strings.bytes(section.name)?) {
            Some(DebugSection::Aranges) if DebugSection::Aranges.fillable(record.capacity) => {
                sets.push((*row, *record));
            }
            Some(DebugSection::Info) => {
                let rest = record.capacity.checked_sub(UNIT_MIN);
                if rest.is_some_and(|rest| DebugSection::Info.fillable(rest)) {
                    units.push((*row, *record));
                }
            }
            _ => {}
        }
    }
    let mut kept = HashMap::new();
    for ((set_row, set), (unit_row, unit)) in sets.into_iter().zip(units) {
        kept.insert(set_row, set.capacity);
        kept.insert(unit_row, UNIT_MIN);
        context.plan.emptied.push(EmptySet {
            section: set.output,
            start: set.address,
            len: set.capacity,
            units: unit.output,
            unit: unit.address,
        });
    }
    Ok(kept)
}

/// Plans that an atom goes, all but its first `kept` bytes; `false` if it can't without its neighbours.
fn remove_atom(
    context: &mut Context<'_>,
    row: AtomRow,
    record: &AtomRecord,
    kept: Option<u64>,
) -> Result<bool, StoreError> {
    let live = record.flags & atom_flags::LIVE != 0;
    if live {
        // An island would lead nowhere.
        if record.flags & BOUND != 0 || record.island.some().is_some() {
            return Ok(false);
        }
        if record.flags & atom_flags::DEBUG != 0 && record.capacity > 0 && kept.is_none() {
            let section = context.store.sections.get(record.output.0)?;
            let debug = DebugSection::from_name(context.store.strings.bytes(section.name)?);
            if !debug.is_some_and(|debug| debug.fillable(record.capacity) && debug != DebugSection::Aranges) {
                return Ok(false);
            }
        }
    }
    let kept = kept.unwrap_or(0).min(record.capacity);
    let left = AtomRecord {
        address: record.address + kept,
        capacity: record.capacity - kept,
        size: record.size.saturating_sub(kept),
        ..*record
    };
    context.plan.removed_atoms.push((row, left));
    context.plan.atoms.insert(row.0, AtomRecord { relocs: record.relocs, ..vacant_atom() });
    Ok(true)
}

/// Notes a new size that does not fit the contract. Code may move; data may if it has no order.
fn judge_size(context: &mut Context<'_>, old: &AtomRecord, size: u64, names: impl Fn() -> (String, String)) {
    if size == old.size || old.flags & (atom_flags::MERGE | atom_flags::EH_FRAME) != 0 {
        return;
    }
    let (section, input) = names();
    if old.flags & atom_flags::TLS != 0 {
        context.frame.refuse(GateReason::TlsChanged { section, input });
    } else if old.flags & (atom_flags::EXACT | atom_flags::FIXED) != 0 {
        context.frame.refuse(GateReason::OrderedSectionChanged { section, input });
    } else if size > old.capacity && old.flags & (atom_flags::CODE | atom_flags::DEBUG) == 0 {
        let reason = GateReason::DataGrew { section, input, by: size.saturating_sub(old.size) };
        if old.flags & atom_flags::COMMON != 0 {
            context.frame.refuse(reason);
        } else {
            context.frame.differ(reason);
        }
    }
}
