//! Sections of a changed object against its atoms: same name and ordinal, same kind and flags.

use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::{MergeInput, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::AtomRow;

use super::Context;
use super::anonymous::{self, Members, class_of};
use crate::ingest::classify::{Class, classify};

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

/// Matches sections with rows and fills the object's `uses`; returns row, section and old record of each match.
pub(super) fn match_sections(
    context: &mut Context<'_>,
    input: &mut Input,
) -> Result<Vec<(AtomRow, u32, AtomRecord)>, StoreError> {
    let store = context.store;
    let mut known: HashMap<(&[u8], u32), (AtomRow, AtomRecord)> = HashMap::new();
    let mut ordinals: HashMap<&[u8], u32> = HashMap::new();
    let mut nameless: HashMap<&[u8], Members<'_>> = HashMap::new();
    for row in input.record.atoms.range() {
        let record = store.atoms.get(row)?;
        let name = store.strings.bytes(record.name)?;
        if let Some(class) = class_of(name) {
            nameless.entry(class).or_default().0.push((AtomRow(row), record, name));
            continue;
        }
        let ordinal = ordinals.entry(name).or_default();
        known.insert((name, *ordinal), (AtomRow(row), record));
        *ordinal += 1;
    }
    let object = &mut input.object;
    for (index, section) in object.parsed.sections.iter().enumerate() {
        let class = class_of(object.parsed.section_name(index));
        if let Some(class) =
            class.filter(|_| classify(&object.parsed, index, section, context.strip) != Class::Ignore)
        {
            nameless.entry(class).or_default().1.push(index);
        }
    }
    let mut pairs = HashMap::new();
    let mut gone: Vec<AtomRow> = Vec::new();
    for (atoms, sections) in nameless.into_values() {
        let rows: Vec<AtomRow> = atoms.iter().map(|(row, _, _)| *row).collect();
        let paired = anonymous::pair(store, context.image, &object.parsed, atoms, &sections)?;
        let used: HashSet<AtomRow> = paired.values().map(|(row, _)| *row).collect();
        gone.extend(rows.into_iter().filter(|row| !used.contains(row)));
        pairs.extend(paired);
    }
    let mut uses = vec![SectionUse::None; object.parsed.sections.len()];
    let mut merges = Vec::new();
    let mut matched = Vec::new();
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for (index, section) in object.parsed.sections.iter().enumerate() {
        let name = object.parsed.section_name(index);
        let flags = match classify(&object.parsed, index, section, context.strip) {
            Class::Ignore => continue,
            Class::Atom(flags) | Class::Merge(flags) | Class::EhFrame(flags) => flags,
        };
        let found = if class_of(name).is_some() {
            pairs.remove(&index)
        } else {
            let ordinal = seen.entry(name).or_default();
            *ordinal += 1;
            known.remove(&(name, *ordinal - 1))
        };
        let names = || (String::from_utf8_lossy(name).into_owned(), object.name.clone());
        let Some((row, old)) = found else {
            let (section, input) = names();
            context.frame.refuse(GateReason::AtomAdded { section, input });
            continue;
        };
        if flags != old.flags & OWN_FLAGS
            || section.kind != old.kind
            || u32::from(section.align.exponent()) > old.align
        {
            let (section, input) = names();
            context.frame.refuse(GateReason::SectionFlagsChanged { section, input });
            continue;
        }
        uses[index] = if flags & atom_flags::EH_FRAME != 0 {
            SectionUse::EhFrame(row)
        } else if flags & atom_flags::MERGE != 0 {
            merges.push(MergeInput::new(index as u32, section.size));
            SectionUse::Merge(row, merges.len() as u32 - 1)
        } else {
            SectionUse::Atom(row)
        };
        matched.push((row, index as u32, old));
        if old.flags & (atom_flags::DISCARDED | atom_flags::DEAD) == 0
            && let Some(reason) = size_reason(&old, section.size, names)
        {
            context.frame.refuse(reason);
        }
    }
    gone.extend(known.into_values().map(|(row, _)| row));
    gone.sort_unstable();
    for row in gone {
        let section = store.text(store.atoms.get(row.0)?.name);
        context.frame.refuse(GateReason::AtomRemoved { section, input: object.name.clone() });
    }
    object.uses = uses;
    object.merges = merges;
    Ok(matched)
}

/// Why a new size does not fit the contract, if it does not. Code may move; nothing else may.
fn size_reason(old: &AtomRecord, size: u64, names: impl Fn() -> (String, String)) -> Option<GateReason> {
    if size == old.size || old.flags & (atom_flags::MERGE | atom_flags::EH_FRAME) != 0 {
        return None;
    }
    let (section, input) = names();
    if old.flags & atom_flags::TLS != 0 {
        return Some(GateReason::TlsChanged { section, input });
    }
    if old.flags & (atom_flags::EXACT | atom_flags::FIXED) != 0 {
        return Some(GateReason::OrderedSectionChanged { section, input });
    }
    let movable = old.flags & (atom_flags::CODE | atom_flags::DEBUG) != 0;
    (size > old.capacity && !movable).then(|| GateReason::DataGrew {
        section,
        input,
        by: size.saturating_sub(old.size),
    })
}

/// The groups must be the same: who owns a signature is part of the resolution table.
pub(super) fn match_groups(context: &mut Context<'_>, input: &mut Input) -> Result<(), StoreError> {
    let object = &mut input.object;
    let mut old = Vec::new();
    for row in input.record.groups.range() {
        let group = context.store.groups.get(row)?;
        old.push((context.store.strings.bytes(group.signature)?.to_vec(), group.owner != 0));
    }
    let mut differing = None;
    for (index, group) in object.parsed.groups.iter().enumerate() {
        let signature = object.parsed.group_signature(group);
        match old.iter().position(|(known, _)| known == signature) {
            Some(position) => object.owns[index] = old.swap_remove(position).1,
            None => differing = Some(signature.to_vec()),
        }
    }
    let differing = differing.or_else(|| old.into_iter().next().map(|(signature, _)| signature));
    if let Some(signature) = differing {
        let group = String::from_utf8_lossy(&signature).into_owned();
        context.frame.refuse(GateReason::ComdatChanged { group, input: object.name.clone() });
    }
    Ok(())
}
