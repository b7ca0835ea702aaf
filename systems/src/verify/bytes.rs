//! Bytes of every atom, derived anew; slots that do not overlap.

use formats::dwarf::DebugSection;
use formats::dwarf::extend::{entry_bytes, extend};
use formats::reloc::Op;
use hashbrown::HashMap;
use relink_engine::column::StoreError;
use relink_engine::policy::FreeLevel;
use relink_engine::program::SectionUse;
use relink_engine::records::{AtomRecord, atom_flags, place};
use relink_engine::rows::{AtomRow, TargetKind};
use relink_formats as formats;

use super::Checker;
use super::placement::{Placement, file_offset, input_name};
use crate::kernel::{Places, lower, store};
use crate::relocate::bulk::relocate_contribution;

/// Every live atom's bytes must be what its pristine bytes and the present placement make of it (invariant 4), and
/// only branches may go through islands (invariant 3).
pub(super) fn check_atoms(checker: &mut Checker<'_>, placement: &Placement) -> Result<(), StoreError> {
    for object in 0..checker.program.objects.len() {
        for section in 0..checker.program.objects[object].uses.len() {
            let SectionUse::Atom(row) = checker.program.objects[object].uses[section] else { continue };
            let atom = checker.program.atoms[row.index()];
            if atom.flags & atom_flags::LIVE == 0 || atom.flags & atom_flags::NOBITS != 0 || atom.size == 0 {
                continue;
            }
            let expected = expected_bytes(checker, placement, object, section, row)?;
            let start = file_offset(checker, &atom)? as usize;
            let actual = checker.image.get(start..start + expected.len()).unwrap_or_default();
            if actual != expected {
                let at = actual.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(actual.len());
                let (name, section) = (input_name(checker, atom.input), checker.program.section_name(&atom));
                let bytes = (actual.get(at).copied(), expected.get(at).copied());
                checker
                    .report(4, format!("{name}:({section}+{at:#x}): image and inputs differ: {bytes:02x?}"));
            }
        }
    }
    Ok(())
}

fn expected_bytes(
    checker: &Checker<'_>,
    placement: &Placement,
    object: usize,
    section: usize,
    row: AtomRow,
) -> Result<Vec<u8>, StoreError> {
    let program = &checker.program;
    let atom = &program.atoms[row.index()];
    let object = &program.objects[object];
    let pristine = object.parsed.section_bytes(section);
    let mut bytes = pristine.to_vec();
    if atom.flags & atom_flags::DEBUG != 0 {
        relocate_contribution(program, object, section, atom.address, &mut bytes);
        let name = checker.store.strings.bytes(checker.store.sections.get(atom.output.0)?.name)?;
        if let Some(debug) = DebugSection::from_name(name).filter(|&debug| entry_bytes(debug).is_some()) {
            // The hole is part of the last table.
            let (len, room) = (bytes.len(), atom.capacity.min(checker.image.len() as u64) as usize);
            bytes.resize(room.max(len), 0);
            if !extend(debug, &mut bytes, len) {
                bytes.truncate(len);
            }
        }
        return Ok(bytes);
    }
    let start = file_offset(checker, atom)? as usize;
    let bases = program.bases();
    let relocs = object.parsed.relocations(section);
    let mut next = 0;
    while next < relocs.len() {
        let at = next;
        next += 1;
        let Ok(site) = lower(program, object, atom.flags, pristine, relocs, at) else { continue };
        next += usize::from(site.plan.skip_next);
        let stored = store(&bases, &site, &mut bytes, atom.address);
        if stored.is_err() || site.plan.op != Op::Branch32 {
            continue;
        }
        // A branch may go to the island of what it calls.
        let Some(island) = island_of(checker, placement, site.target.kind())? else { continue };
        let mut through = site;
        through.s = island;
        let range = site.plan.offset as usize..site.plan.offset as usize + 4;
        let direct = bytes.get(range.clone()).map(<[u8]>::to_vec).unwrap_or_default();
        let actual = checker.image.get(start + range.start..start + range.end).unwrap_or_default();
        if actual != direct
            && store(&bases, &through, &mut bytes, atom.address).is_ok()
            && bytes[range.clone()] != *actual
        {
            bytes[range].copy_from_slice(&direct);
        }
    }
    if crate::place::names::is_reversed(object.parsed.section_name(section)) {
        let words: Vec<Vec<u8>> = bytes.chunks_exact(8).rev().map(<[u8]>::to_vec).collect();
        bytes = words.concat();
    }
    Ok(bytes)
}

/// The address of the island that stands at a symbol's first place.
fn island_of(
    checker: &Checker<'_>,
    placement: &Placement,
    target: TargetKind,
) -> Result<Option<u64>, StoreError> {
    let TargetKind::Symbol(symbol) = target else { return Ok(None) };
    let symbol = &checker.program.symbols[symbol.index()];
    if !place::is_atom(symbol.atom) || symbol.value != 0 {
        return Ok(None);
    }
    let Some(row) = placement.store_atom(symbol.atom) else { return Ok(None) };
    match checker.store.atoms.get(row.0)?.island.some() {
        Some(island) => Ok(Some(checker.store.islands.get(island.0)?.address)),
        None => Ok(None),
    }
}

/// Slots, islands and free ranges share no byte; atoms fit theirs and are aligned (invariant 2). Islands jump to
/// where their atom is (invariant 3).
pub(super) fn check_slots(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let store = checker.store;
    let mut ranges: Vec<(u32, u64, u64, String)> = Vec::new();
    for row in 0..store.atoms.len() {
        let atom: AtomRecord = store.atoms.get(row)?;
        let cut = atom_flags::MERGE | atom_flags::EH_FRAME;
        if atom.flags & atom_flags::LIVE == 0 || atom.flags & cut != 0 || atom.output.some().is_none() {
            continue;
        }
        let section = store.sections.get(atom.output.0)?;
        let name = || format!("{} in {}", store.text(atom.name), store.text(section.name));
        if atom.size > atom.capacity {
            checker
                .findings
                .push(super::Finding { invariant: 2, what: format!("{} outgrows its slot", name()) });
        }
        if atom.size > 0 && atom.address & ((1 << atom.align) - 1) != 0 {
            checker
                .findings
                .push(super::Finding { invariant: 2, what: format!("{} is not aligned", name()) });
        }
        if atom.capacity > 0 && atom.flags & atom_flags::SYNTHETIC == 0 {
            let end = atom.address + atom.capacity;
            if atom.address < section.address || end > section.address + section.size {
                checker
                    .findings
                    .push(super::Finding { invariant: 2, what: format!("{} leaves its section", name()) });
            }
            ranges.push((atom.output.0, atom.address, end, name()));
        }
    }
    for (level, column) in [(FreeLevel::Slots, &store.free_slots), (FreeLevel::Blocks, &store.free_blocks)] {
        for row in 0..column.len() {
            let free = column.get(row)?;
            if free.len == 0 {
                continue;
            }
            if FreeLevel::of(free.len) != level {
                let what = format!("{} free bytes at {:#x} are listed as {level:?}", free.len, free.start);
                checker.findings.push(super::Finding { invariant: 2, what });
            }
            ranges.push((free.section.0, free.start, free.start + free.len, "a free range".to_owned()));
        }
    }
    for row in 0..store.islands.len() {
        let island = store.islands.get(row)?;
        let atom = store.atoms.get(island.atom.0)?;
        ranges.push((
            atom.output.0,
            island.address,
            island.address + island.capacity,
            "an island".to_owned(),
        ));
        let section = store.sections.get(atom.output.0)?;
        let start = section.file_offset(island.address)? as usize;
        let code = checker.image.get(start..start + island.size as usize).unwrap_or_default();
        let expected = formats::island::island(code, island.address, atom.address).unwrap_or_default();
        if code != expected {
            checker.report(3, format!("the island at {:#x} does not lead to its function", island.address));
        }
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        let [(section, start, end, a), (other, next, _, b)] = pair else { continue };
        if section == other && next < end && start != end {
            checker.report(2, format!("{a} and {b} overlap at {next:#x}"));
        }
    }
    Ok(())
}

/// Debug sections must be walkable from unit to unit, over every contribution and every filler (invariant 4): one
/// length that leads astray hides all units behind it.
pub(super) fn check_debug_units(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let store = checker.store;
    let mut starts: HashMap<u32, Vec<u64>> = HashMap::new();
    for row in 0..store.atoms.len() {
        let atom = store.atoms.get(row)?;
        if atom.flags & (atom_flags::LIVE | atom_flags::DEBUG) == atom_flags::LIVE | atom_flags::DEBUG
            && atom.size > 0
        {
            starts.entry(atom.output.0).or_default().push(atom.address);
        }
    }
    for row in 0..store.sections.len() {
        let section = store.sections.get(row)?;
        let name = store.strings.bytes(section.name)?;
        let walkable = [
            &b".debug_info"[..],
            b".debug_line",
            b".debug_aranges",
            b".debug_rnglists",
            b".debug_loclists",
            b".debug_addr",
            b".debug_str_offsets",
            b".debug_frame",
        ];
        if !walkable.contains(&name) {
            continue;
        }
        let bytes = checker.image.get(section.offset as usize..(section.offset + section.size) as usize);
        let bytes = bytes.unwrap_or_default();
        let units = unit_starts(bytes);
        let text = String::from_utf8_lossy(name).into_owned();
        let mut wrong = Vec::new();
        if units.last() != Some(&(bytes.len() as u64)) {
            wrong.push(format!("{text} can't be walked to its end"));
        }
        for start in starts.remove(&row).unwrap_or_default() {
            if units.binary_search(&start).is_err() {
                wrong.push(format!("{text}+{start:#x}: a contribution that no walk from unit to unit meets"));
            }
        }
        for what in wrong {
            checker.report(4, what);
        }
    }
    Ok(())
}

/// Where units start, by their length words, and where the last of them ends.
fn unit_starts(bytes: &[u8]) -> Vec<u64> {
    let mut starts = vec![0];
    let mut at = 0;
    while let Some(word) = bytes.get(at..at + 4) {
        let len = u32::from_le_bytes(word.try_into().unwrap_or_default());
        let next = match (len, bytes.get(at + 4..at + 12)) {
            (u32::MAX, Some(long)) => {
                (at as u64 + 12).checked_add(u64::from_le_bytes(long.try_into().unwrap_or_default()))
            }
            (u32::MAX, None) => None,
            (len, _) => Some(at as u64 + 4 + u64::from(len)),
        };
        let Some(next) = next.filter(|&next| next <= bytes.len() as u64) else { break };
        starts.push(next);
        at = next as usize;
    }
    starts
}
