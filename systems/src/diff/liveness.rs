//! With `--gc-sections`: which atoms of the changed objects come to life because of what the edit refers to. Those that
//! nothing refers to any more stay: a full link would drop them, a patch has no need to.

use bevy_ecs::prelude::Query;
use formats::elf;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::{Object, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags, place};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, Target, TargetKind};
use relink_formats as formats;

use super::sections::find_output;
use super::{Context, Unit};
use crate::resolve::unwind::described_code;

/// Brings dead atoms of changed inputs to life that live ones refer to. What is dead in another input stays so, and
/// Relocate refuses the reference.
pub(super) fn revive_atoms(
    context: &mut Context<'_>,
    inputs: &Query<'_, '_, &mut Input>,
    units: &mut [Unit],
) -> Result<(), StoreError> {
    // Dead atoms of the changed inputs: unit and position in it.
    let mut dead: HashMap<AtomRow, (usize, usize)> = HashMap::new();
    let mut queue: Vec<(usize, u32)> = Vec::new();
    for (at, unit) in units.iter().enumerate() {
        for (position, matched) in unit.matched.iter().enumerate() {
            let flags = context.atom(matched.row)?.flags;
            let cut = atom_flags::DEBUG | atom_flags::EH_FRAME | atom_flags::MERGE;
            if flags & (atom_flags::DEAD | atom_flags::DISCARDED | cut) == atom_flags::DEAD {
                dead.insert(matched.row, (at, position));
            } else if flags & (atom_flags::LIVE | cut) == atom_flags::LIVE {
                queue.push((at, matched.section));
            }
        }
    }
    let mut roots = rehomed_code(context, units)?;
    while !dead.is_empty() {
        // What other modules may look up lives on its own.
        let mut targets = std::mem::take(&mut roots);
        targets.extend(context.plan.exports.iter().map(|&(row, _)| Target::symbol(row)));
        for (at, section) in std::mem::take(&mut queue) {
            let Ok(input) = inputs.get(units[at].entity) else { continue };
            targets.extend(targets_of(&input.object, section));
        }
        // Beside code, what its unwind entries speak of: tables of the language.
        for unit in &*units {
            let Ok(input) = inputs.get(unit.entity) else { continue };
            targets.extend(unwind_targets(context, &input.object)?);
        }
        let mut found = false;
        for target in targets {
            let row = match target.kind() {
                TargetKind::Atom(row) => row,
                TargetKind::Symbol(symbol) => context.symbol(symbol)?.atom,
                TargetKind::None => continue,
            };
            if let Some(own) = dead.remove(&row).filter(|_| place::is_atom(row)) {
                revive(context, inputs, units, own, &mut queue)?;
                found = true;
            }
        }
        if !found {
            return Ok(());
        }
    }
    Ok(())
}

/// Atoms that live names have got: what does not change may refer to them.
fn rehomed_code(context: &Context<'_>, units: &[Unit]) -> Result<Vec<Target>, StoreError> {
    let mut roots = Vec::new();
    for (_, old, new) in units.iter().flat_map(|unit| &unit.changes) {
        if old.atom != new.atom
            && place::is_atom(old.atom)
            && place::is_atom(new.atom)
            && context.store.atoms.get(old.atom.0)?.flags & atom_flags::LIVE != 0
        {
            roots.push(Target::atom(new.atom));
        }
    }
    Ok(roots)
}

/// What a section refers to, and the others of its group: they live and die as one.
fn targets_of(object: &Object, section: u32) -> Vec<Target> {
    let index = section as usize;
    let relocs = object.parsed.relocations(index).iter();
    let mut targets: Vec<Target> = relocs
        .filter_map(|rela| object.targets.get(rela.r_sym(LittleEndian, false) as usize).copied())
        .collect();
    let group = object.parsed.sections.get(index).map_or(0, |section| section.group as usize);
    if let Some(group) = object.parsed.groups.get(group.wrapping_sub(1)) {
        let members = group.sections.iter().filter_map(|&member| object.uses.get(member as usize)?.atom());
        targets.extend(members.map(Target::atom));
    }
    targets
}

fn revive(
    context: &mut Context<'_>,
    inputs: &Query<'_, '_, &mut Input>,
    units: &mut [Unit],
    (at, position): (usize, usize),
    queue: &mut Vec<(usize, u32)>,
) -> Result<(), StoreError> {
    let matched = &mut units[at].matched[position];
    let record = context.atom(matched.row)?;
    let Ok(input) = inputs.get(units[at].entity) else { return Ok(()) };
    let object = &input.object;
    let name = object.parsed.section_name(matched.section as usize);
    let alive = AtomRecord {
        flags: record.flags & !atom_flags::DEAD | atom_flags::LIVE,
        section: matched.section,
        size: object.parsed.sections[matched.section as usize].size,
        ..record
    };
    let ordered = object
        .parsed
        .sections
        .iter()
        .any(|other| other.flags & u64::from(elf::SHF_LINK_ORDER) != 0 && other.link == matched.section);
    let bound = alive.flags & (atom_flags::EXACT | atom_flags::FIXED | atom_flags::TLS) != 0;
    let output = if ordered || bound { None } else { find_output(context, name, &alive)? };
    let Some(output) = output else {
        let section = String::from_utf8_lossy(name).into_owned();
        let input = object.name.clone();
        context.frame.refuse(GateReason::DeadAtomReferenced { section, input });
        return Ok(());
    };
    let alive = AtomRecord { output, ..alive };
    (matched.old, matched.unplaced) = (alive, true);
    context.plan.atoms.insert(matched.row.0, alive);
    queue.push((at, matched.section));
    let section = String::from_utf8_lossy(name).into_owned();
    context.frame.differ(GateReason::DeadAtomReferenced { section, input: object.name.clone() });
    Ok(())
}

/// What frame descriptions of live code refer to beside it.
fn unwind_targets(context: &Context<'_>, object: &Object) -> Result<Vec<Target>, StoreError> {
    let mut targets = Vec::new();
    for (index, used) in object.uses.iter().enumerate() {
        let SectionUse::EhFrame(_) = used else { continue };
        for (atom, span) in described_code(object, index) {
            if context.atom(atom)?.flags & atom_flags::LIVE == 0 {
                continue;
            }
            let relocs = object.parsed.relocations(index).get(span.indexes()).unwrap_or_default();
            targets.extend(
                relocs.iter().filter_map(|rela| object.targets.get(rela.r_sym(LittleEndian, false) as usize)),
            );
        }
    }
    Ok(targets)
}
