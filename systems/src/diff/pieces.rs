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
        merge.pool = pool.0;
        let record = context.store.pools.get(pool.0)?;
        let found = if strings && section.entsize == 1 && record.align == 0 {
            find_strings(context, pool, &record, bytes)?
        } else {
            find_pieces(context, pool, bytes, section.entsize, strings)?
        };
        let Some(runs) = found else {
            context.frame.refuse(exhausted());
            return Ok(());
        };
        merge.offsets = runs.offsets;
        merge.set_starts(runs.starts);
    }
    Ok(())
}

/// Where pieces of a section are in its pool; those that lie behind each other in both are one run.
#[derive(Default)]
struct Runs {
    starts: Vec<u32>,
    offsets: Vec<u32>,
}

impl Runs {
    fn push(&mut self, start: u32, offset: u32) {
        let distance = |starts: &u32, offsets: &u32| offsets.wrapping_sub(*starts);
        let last = self.starts.last().zip(self.offsets.last());
        if last.is_none_or(|(starts, offsets)| distance(starts, offsets) != distance(&start, &offset)) {
            self.starts.push(start);
            self.offsets.push(offset);
        }
    }
}

/// Gives each piece its place; `None` if there is no room, or the section is none of pieces.
fn find_pieces(
    context: &mut Context<'_>,
    pool: PoolRow,
    bytes: &[u8],
    entsize: u64,
    strings: bool,
) -> Result<Option<Runs>, StoreError> {
    let Ok(starts) = split(bytes, entsize, strings) else { return Ok(None) };
    let mut runs = Runs::default();
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(bytes.len(), |&next| next as usize);
        let Some(offset) = place_piece(context, pool, &bytes[start as usize..end])? else { return Ok(None) };
        runs.push(start, offset);
    }
    Ok(Some(runs))
}

/// The same for strings of bytes, whose pool has no gap between two of them. Those that an object was the first to bring
/// lie there in its own order: behind one of its strings stands its next one, and comparing bytes finds it sooner than
/// its hash does.
fn find_strings(
    context: &mut Context<'_>,
    row: PoolRow,
    pool: &PoolRecord,
    bytes: &[u8],
) -> Result<Option<Runs>, StoreError> {
    let atom = context.store.atoms.get(pool.atom.0)?;
    let base = context.store.sections.get(pool.output.0)?.file_offset(atom.address)?;
    let mut runs = Runs::default();
    let mut from = 0;
    while from < bytes.len() {
        let (Some(end), Ok(start)) = (bytes[from..].iter().position(|&byte| byte == 0), u32::try_from(from))
        else {
            return Ok(None);
        };
        let piece = &bytes[from..=from + end];
        let Some(offset) = place_piece(context, row, piece)? else { return Ok(None) };
        runs.push(start, offset);
        from += piece.len();
        let behind = u64::from(offset) + piece.len() as u64;
        let room = usize::try_from(pool.used.saturating_sub(behind)).unwrap_or(usize::MAX);
        let wanted = &bytes[from..bytes.len().min(from.saturating_add(room))];
        // Whatever is whole of what the two have in common are pieces: strings end themselves.
        let common = context.image.common_prefix(base.saturating_add(behind), wanted);
        from += wanted[..common].iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
    }
    Ok(Some(runs))
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
