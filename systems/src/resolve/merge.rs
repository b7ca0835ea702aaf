//! Mergeable sections: pieces of equal bytes become one, in pools by output section, size and alignment.

use bevy_ecs::prelude::ResMut;
use formats::elf;
use formats::merge::split;
use rayon::prelude::*;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::Frame;
use relink_engine::program::{MergeInput, Object, Pool, Program, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags, place};
use relink_engine::rows::{AtomRow, InputRow, NONE};
use relink_engine::store::hash_name;
use relink_formats as formats;

use crate::place::names::output_name;

/// Splits live mergeable sections, fills the pools, and points local labels in them at their pieces.
pub(crate) fn merge_pieces(mut program: ResMut<'_, Program>, mut frame: ResMut<'_, Frame>) {
    if !frame.resolving() {
        return;
    }
    let Program { objects, atoms, pools, symbols, globals, .. } = &mut *program;
    let failed: Vec<Diagnostic> =
        objects.par_iter_mut().flat_map_iter(|object| split_sections(object, atoms)).collect();
    frame.errors.extend(failed);
    for object in objects.iter_mut() {
        let Object { merges, parsed, .. } = object;
        for merge in merges.iter_mut().filter(|merge| !merge.starts.is_empty()) {
            let section = &parsed.sections[merge.section as usize];
            let name = output_name(parsed.section_name(merge.section as usize));
            let strings = section.flags & u64::from(elf::SHF_STRINGS) != 0;
            let pool = pool_for(pools, name, section, strings);
            merge.pool = pool as u32;
            intern_pieces(&mut pools[pool], parsed.section_bytes(merge.section as usize), merge);
        }
    }
    for pool in pools.iter_mut() {
        let row = AtomRow(atoms.len() as u32);
        let data =
            if pool.flags & u64::from(elf::SHF_ALLOC) != 0 { atom_flags::ALLOC } else { atom_flags::DEBUG };
        atoms.push(AtomRecord {
            input: InputRow::default(),
            section: NONE,
            flags: atom_flags::SYNTHETIC | atom_flags::LIVE | data,
            size: pool.data.len() as u64,
            kind: elf::SHT_PROGBITS,
            align: u32::from(pool.align),
            ..Default::default()
        });
        pool.atom = row;
    }
    // Labels in merged sections: their value chooses the piece.
    let mut outside = Vec::new();
    let (global, local) = symbols.split_at_mut(*globals as usize);
    for object in objects.iter() {
        let parsed = &object.parsed;
        if object.merges.is_empty() {
            continue;
        }
        for (index, target) in object.targets.iter().enumerate() {
            let relink_engine::rows::TargetKind::Symbol(row) = target.kind() else { continue };
            let record = if row.0 < *globals {
                &mut global[row.index()]
            } else {
                &mut local[row.index() - *globals as usize]
            };
            let formats::object_file::SymbolPlace::Section(section) = parsed.symbol_place(index) else {
                continue;
            };
            let Some(&SectionUse::Merge(atom, merge)) = object.uses.get(section as usize) else { continue };
            if record.atom != atom || !place::is_atom(atom) {
                continue;
            }
            let merge = &object.merges[merge as usize];
            if merge.pool == NONE {
                continue; // It was dropped.
            }
            match merge.map(record.value) {
                Some(offset) => {
                    record.atom = pools[merge.pool as usize].atom;
                    record.value = offset;
                }
                None => outside.push(label_outside(object, index, merge, record.value)),
            }
        }
    }
    frame.errors.extend(outside);
}

fn label_outside(object: &Object, symbol: usize, merge: &MergeInput, offset: u64) -> Diagnostic {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let name = text(object.parsed.symbol_name(symbol));
    let section = text(object.parsed.section_name(merge.section as usize));
    Diagnostic::BadInput {
        input: object.name.clone(),
        why: format!(
            "symbol {name}: offset {offset} is outside of the {} bytes of its mergeable section {section}",
            merge.size
        ),
    }
}

fn split_sections(object: &mut Object, atoms: &[AtomRecord]) -> Vec<Diagnostic> {
    let mut failed = Vec::new();
    for merge in &mut object.merges {
        let index = merge.section as usize;
        let live =
            object.uses[index].atom().is_some_and(|row| atoms[row.index()].flags & atom_flags::LIVE != 0);
        if !live {
            continue;
        }
        let section = &object.parsed.sections[index];
        let strings = section.flags & u64::from(elf::SHF_STRINGS) != 0;
        match split(object.parsed.section_bytes(index), section.entsize, strings) {
            Ok(starts) => merge.set_starts(starts),
            Err(error) => failed.push(Diagnostic::BadInput {
                input: object.name.clone(),
                why: format!(
                    "section {}: {error}",
                    String::from_utf8_lossy(object.parsed.section_name(index))
                ),
            }),
        }
    }
    failed
}

fn pool_for(
    pools: &mut Vec<Pool>,
    name: &[u8],
    section: &formats::object_file::Section,
    strings: bool,
) -> usize {
    let align = section.align.exponent();
    let alloc = section.flags & u64::from(elf::SHF_ALLOC);
    let found = pools.iter().position(|pool| {
        pool.output_name == name
            && pool.entsize == section.entsize
            && pool.strings == strings
            && pool.align == align
            && pool.flags & u64::from(elf::SHF_ALLOC) == alloc
    });
    found.unwrap_or_else(|| {
        pools.push(Pool {
            output_name: name.to_vec(),
            flags: section.flags & !u64::from(elf::SHF_GROUP),
            entsize: section.entsize,
            strings,
            align,
            ..Default::default()
        });
        pools.len() - 1
    })
}

/// Puts each piece into the pool, unless it is there.
pub(crate) fn intern_pieces(pool: &mut Pool, bytes: &[u8], merge: &mut MergeInput) {
    let align = 1usize << pool.align;
    merge.offsets = Vec::with_capacity(merge.starts.len());
    for (index, &start) in merge.starts.iter().enumerate() {
        let end = merge.starts.get(index + 1).map_or(bytes.len(), |&next| next as usize);
        let piece = &bytes[start as usize..end];
        let Pool { data, table, .. } = pool;
        let of = |&(offset, len): &(u32, u32)| offset as usize..offset as usize + len as usize;
        let entry = table.entry(
            hash_name(piece),
            |known| &data[of(known)] == piece,
            |known| hash_name(&data[of(known)]),
        );
        let offset = match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => entry.get().0,
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let offset = data.len().next_multiple_of(align);
                data.resize(offset, 0);
                data.extend_from_slice(piece);
                entry.insert((offset as u32, piece.len() as u32));
                offset as u32
            }
        };
        merge.offsets.push(offset);
    }
}
