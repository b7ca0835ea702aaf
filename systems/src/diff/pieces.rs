//! Mergeable sections of a changed object: each piece is found in its pool, or appended to the pool's reserve.

use formats::elf;
use formats::merge::split;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::plan::NewPiece;
use relink_engine::program::SectionUse;
use relink_engine::records::{PoolRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::PoolRow;
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::Context;

/// Gives every piece its offset in a pool.
pub(super) fn match_pieces(context: &mut Context<'_>, input: &mut Input) -> Result<(), StoreError> {
    let object = &mut input.object;
    for merge in &mut object.merges {
        let index = merge.section as usize;
        let SectionUse::Merge(row, _) = object.uses[index] else { continue };
        if context.atom(row)?.flags & atom_flags::LIVE == 0 {
            continue;
        }
        let section = &object.parsed.sections[index];
        let name = object.parsed.section_name(index);
        let exhausted =
            || GateReason::MergePoolExhausted { section: String::from_utf8_lossy(name).into_owned() };
        let strings = section.flags & u64::from(elf::SHF_STRINGS) != 0;
        let bytes = object.parsed.section_bytes(index);
        let Some(pool) = find_pool(context, name, section, strings)? else {
            context.frame.refuse(exhausted());
            continue;
        };
        let Ok(starts) = split(bytes, section.entsize, strings) else {
            context.frame.refuse(exhausted());
            continue;
        };
        merge.pool = pool.0;
        for (position, &start) in starts.iter().enumerate() {
            let end = starts.get(position + 1).map_or(bytes.len(), |&next| next as usize);
            match place_piece(context, pool, &bytes[start as usize..end])? {
                Some(offset) => merge.offsets.push(offset),
                None => {
                    context.frame.refuse(exhausted());
                    return Ok(());
                }
            }
        }
        merge.starts = starts;
    }
    Ok(())
}

/// The pool that such a section's pieces go to: same section of the image, piece size and alignment.
fn find_pool(
    context: &Context<'_>,
    name: &[u8],
    section: &formats::object_file::Section,
    strings: bool,
) -> Result<Option<PoolRow>, StoreError> {
    let output = crate::place::names::output_name(name);
    let alloc = section.flags & u64::from(elf::SHF_ALLOC) != 0;
    for row in 0..context.store.pools.len() {
        let pool = context.store.pools.get(row)?;
        let record = context.store.sections.get(pool.output.0)?;
        if u64::from(pool.entsize) == section.entsize
            && (pool.strings != 0) == strings
            && pool.align == u32::from(section.align.exponent())
            && (record.flags & u64::from(elf::SHF_ALLOC) != 0) == alloc
            && context.store.strings.bytes(record.name)? == output
        {
            return Ok(Some(PoolRow(row)));
        }
    }
    Ok(None)
}

fn place_piece(context: &mut Context<'_>, row: PoolRow, piece: &[u8]) -> Result<Option<u32>, StoreError> {
    let pool = match context.plan.pools.get(&row.0) {
        Some(pool) => *pool,
        None => context.store.pools.get(row.0)?,
    };
    let atom = context.store.atoms.get(pool.atom.0)?;
    let section = context.store.sections.get(pool.output.0)?;
    let base = section.file_offset(atom.address)?;
    let mask = pool.slots.len.saturating_sub(1);
    let mut slot = hash_name(piece) as u32 & mask;
    for _ in 0..pool.slots.len {
        match context.store.pool_slots.get(pool.slots.start + slot)? {
            0 => break,
            entry => {
                let offset = entry - 1;
                // Equal bytes are the same piece: strings end themselves, constants have one size.
                if context.image.read(base + u64::from(offset), piece.len()).as_deref() == Some(piece) {
                    return Ok(Some(offset));
                }
            }
        }
        slot = (slot + 1) & mask;
    }
    let pending = context.plan.pieces.iter().find(|known| known.pool == row && known.bytes == piece);
    if let Some(known) = pending {
        return Ok(Some(known.offset));
    }
    let offset = pool.used.next_multiple_of(1 << pool.align);
    let used = offset + piece.len() as u64;
    // The index must stay sparse: at three quarters full a probe is still short. Its offsets have 32 bits.
    if used > atom.capacity.min(u32::MAX.into()) || pool.pieces >= pool.slots.len / 4 * 3 {
        return Ok(None);
    }
    context.plan.pools.insert(row.0, PoolRecord { used, pieces: pool.pieces + 1, ..pool });
    context.plan.pieces.push(NewPiece { pool: row, offset: offset as u32, bytes: piece.to_vec() });
    Ok(Some(offset as u32))
}
