//! Mergeable sections of a changed object: each piece is found in its pool, or appended to the pool's reserve.

use formats::elf;
use formats::merge::split;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::image::Image;
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
        if context.store.atoms.get(row.0)?.flags & atom_flags::LIVE == 0 {
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
        merge.offsets = Vec::with_capacity(starts.len());
        let run = Run::of(context, pool)?;
        let end_of = |piece: usize| starts.get(piece + 1).map_or(bytes.len(), |&next| next as usize);
        while let Some(&start) = starts.get(merge.offsets.len()) {
            let piece = merge.offsets.len();
            let Some(offset) = place_piece(context, pool, &bytes[start as usize..end_of(piece)])? else {
                context.frame.refuse(exhausted());
                return Ok(());
            };
            merge.offsets.push(offset);
            let (from, at) = (end_of(piece), u64::from(offset) + (end_of(piece) - start as usize) as u64);
            let common = run.as_ref().map_or(0, |run| run.common(context.image, at, &bytes[from..]));
            while let Some(&start) = starts.get(merge.offsets.len())
                && end_of(merge.offsets.len()) - from <= common
            {
                merge.offsets.push((at + u64::from(start) - from as u64) as u32);
            }
        }
        merge.set_starts(starts);
    }
    Ok(())
}

/// A pool whose pieces lie without a gap between them. Those that an object was the first to bring lie there in its own
/// order: behind one of its strings stands its next one, and is found by comparing bytes instead of by its hash.
struct Run {
    /// File offset of the pool.
    base: u64,
    /// Bytes of it that hold pieces.
    used: u64,
}

impl Run {
    fn of(context: &Context<'_>, row: PoolRow) -> Result<Option<Run>, StoreError> {
        let pool = context.store.pools.get(row.0)?;
        if pool.strings == 0 || pool.align != 0 {
            return Ok(None);
        }
        let atom = context.store.atoms.get(pool.atom.0)?;
        let base = context.store.sections.get(pool.output.0)?.file_offset(atom.address)?;
        Ok(Some(Run { base, used: pool.used }))
    }

    /// How many of the bytes of strings stand at an offset of the pool, at which a piece begins. Whatever of these
    /// strings is whole is a piece: strings end themselves.
    fn common(&self, image: &Image, at: u64, bytes: &[u8]) -> usize {
        let room = usize::try_from(self.used.saturating_sub(at)).unwrap_or(usize::MAX);
        image.common_prefix(self.base.saturating_add(at), &bytes[..bytes.len().min(room)])
    }
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
                if context.image.matches(base + u64::from(offset), piece) {
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
