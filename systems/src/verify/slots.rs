//! GOT, RELATIVE relocations, entry point.

use formats::elf;
use formats::reloc::Op;
use hashbrown::{HashMap, HashSet};
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::program::SectionUse;
use relink_engine::records::{SectionRecord, atom_flags, symbol_flags};
use relink_formats as formats;

use super::Checker;
use crate::kernel::{Places, lower};
use crate::place::names::is_reversed;

fn word(checker: &Checker<'_>, offset: u64) -> u64 {
    let bytes = checker.image.get(offset as usize..offset as usize + 8).unwrap_or_default();
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

fn section(checker: &Checker<'_>, name: &[u8]) -> Result<Option<SectionRecord>, StoreError> {
    for row in 0..checker.store.sections.len() {
        let section = checker.store.sections.get(row)?;
        if checker.store.strings.bytes(section.name)? == name {
            return Ok(Some(section));
        }
    }
    Ok(None)
}

/// Each GOT slot has one symbol and holds its address, or is spare and zero; execution starts at the entry symbol.
pub(super) fn check_got(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let mut wrong = Vec::new();
    let record = checker.store.image_record()?;
    let got = section(checker, b".got")?;
    let slot_offset = |slot: u32| {
        got.map_or(0, |got| got.offset + (record.got_address - got.address) + 8 * u64::from(slot))
    };
    for (row, symbol) in checker.program.symbols.iter().enumerate().filter(|(_, symbol)| symbol.got != 0) {
        let address = checker.program.addresses[row];
        let tls = symbol.flags & symbol_flags::TLS != 0;
        let expected = if tls { address.wrapping_sub(record.tp) } else { address };
        let found = word(checker, slot_offset(symbol.got - 1));
        if found != expected {
            wrong.push(format!("GOT slot {} holds {found:#x} instead of {expected:#x}", symbol.got - 1));
        }
    }
    let mut owned = HashSet::new();
    for row in 0..checker.store.symbols.len() {
        let slot = checker.store.symbols.get(row)?.got;
        if slot > record.got_used || slot != 0 && !owned.insert(slot) {
            wrong.push(format!("GOT slot {} is spare, or that of two symbols", slot - 1));
        }
    }
    for slot in record.got_used..record.got_slots {
        if word(checker, slot_offset(slot)) != 0 {
            wrong.push(format!("the spare GOT slot {slot} is not zero"));
        }
    }
    if let Some(entry) = record.entry.some() {
        let name = checker.store.strings.bytes(checker.store.symbols.get(entry.0)?.name)?;
        let address = checker.program.names.find(name).map(|row| checker.program.addresses[row.index()]);
        if address.is_some_and(|address| address != word(checker, 24)) {
            wrong.push(format!("the entry point is {:#x}", word(checker, 24)));
        }
    }
    for what in wrong {
        checker.report(4, what);
    }
    Ok(())
}

/// The RELATIVE relocations are those of the inputs' pointers and of all GOT slots but those that hold offsets or
/// constants, sorted by place, each with the value that the place has in the file.
pub(super) fn check_relative(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    if record.position_independent == 0 {
        return Ok(());
    }
    let mut expected = pointers(checker);
    let mut fixed = HashSet::new();
    let mut values = HashMap::new();
    for (row, symbol) in checker.program.symbols.iter().enumerate().filter(|(_, symbol)| symbol.got != 0) {
        let moves = relink_engine::records::place::is_atom(symbol.atom);
        if moves && symbol.flags & symbol_flags::TLS == 0 {
            values.insert(symbol.got - 1, checker.program.addresses[row]);
        } else {
            fixed.insert(symbol.got - 1);
        }
    }
    for slot in (0..record.got_slots).filter(|slot| !fixed.contains(slot)) {
        let value = values.get(&slot).copied().unwrap_or(0);
        expected.push((record.got_address + 8 * u64::from(slot), value));
    }
    expected.sort_unstable();
    let mut actual = Vec::new();
    if let Some(row) = record.rela_dyn.some() {
        let table = checker.store.sections.get(row.0)?;
        for at in (table.offset..table.offset + table.size).step_by(24) {
            if word(checker, at + 8) == u64::from(elf::R_X86_64_RELATIVE) {
                actual.push((word(checker, at), word(checker, at + 16)));
            }
        }
    }
    if actual != expected {
        let at = actual.iter().zip(&expected).position(|(a, b)| a != b);
        let at = at.unwrap_or(actual.len().min(expected.len()));
        let (found, wanted) = (actual.get(at).copied(), expected.get(at).copied());
        checker.report(4, format!("RELATIVE relocation {at} is {found:x?} instead of {wanted:x?}"));
    }
    Ok(())
}

/// Address and value of each word of the inputs that moves with the image.
fn pointers(checker: &Checker<'_>) -> Vec<(u64, u64)> {
    let program = &checker.program;
    let mut found = Vec::new();
    for object in &program.objects {
        for (section, used) in object.uses.iter().enumerate() {
            let SectionUse::Atom(row) = *used else { continue };
            let atom = &program.atoms[row.index()];
            let placed = atom_flags::LIVE | atom_flags::ALLOC;
            if atom.flags & (placed | atom_flags::NOBITS) != placed {
                continue;
            }
            let bytes = object.parsed.section_bytes(section);
            let reversed = is_reversed(object.parsed.section_name(section));
            let relocs = object.parsed.relocations(section);
            let mut next = 0;
            while next < relocs.len() {
                let at = next;
                next += 1;
                let Ok(site) = lower(program, object, atom.flags, bytes, relocs, at) else { continue };
                next += usize::from(site.plan.skip_next);
                if program.bases().position_independent && site.relative && site.plan.op == Op::Abs64 {
                    let offset = relocs[at].r_offset.get(LittleEndian);
                    let offset = if reversed { bytes.len() as u64 - 8 - offset } else { offset };
                    found.push((atom.address + offset, site.s.wrapping_add_signed(site.plan.addend)));
                }
            }
        }
    }
    found
}
