//! The two-level free lists of a warm frame: short ranges (slots) and such of at least a file block.
//!
//! A vacated slot never breaks up a block: small requests take the first slot that will do and a block only when there
//! is none, so the reserve stays whole for code that needs it. Neighbours that are joined rise a level.

use relink_engine::column::StoreError;
use relink_engine::plan::{FreeSpace, Plan};
use relink_engine::policy::{FreeLevel, FreeLevels, FreeRange, PlacePolicy};
use relink_engine::records::FreeRecord;
use relink_engine::rows::SectionRow;
use relink_engine::store::Store;

/// The free ranges, read when first asked for.
pub(crate) fn space<'a>(store: &Store, plan: &'a mut Plan) -> Result<&'a mut FreeSpace, StoreError> {
    if plan.free.is_none() {
        let (slots, blocks) = (store.free_slots.to_vec()?, store.free_blocks.to_vec()?);
        plan.free = Some(FreeSpace { slots, blocks });
    }
    Ok(plan.free.get_or_insert_default())
}

/// Takes `wanted` bytes where the policy says; the range that they were in, and their start.
pub(crate) fn take(
    free: &mut FreeSpace,
    section: SectionRow,
    wanted: u64,
    policy: &dyn PlacePolicy,
    fits: &dyn Fn(FreeRange) -> Option<u64>,
) -> Option<(FreeRange, u64)> {
    let slots = in_order(&free.slots, section);
    let blocks = in_order(&free.blocks, section);
    let ranges = |records: &[FreeRecord], rows: &[usize]| {
        rows.iter().map(|&row| FreeRange { start: records[row].start, len: records[row].len }).collect()
    };
    let levels = FreeLevels { slots: ranges(&free.slots, &slots), blocks: ranges(&free.blocks, &blocks) };
    let (level, index, start) = policy.choose(&levels, fits)?;
    let (rows, ranges) = match level {
        FreeLevel::Slots => (&slots, &levels.slots),
        FreeLevel::Blocks => (&blocks, &levels.blocks),
    };
    let range = *ranges.get(index)?;
    records(free, level)[rows[index]].len = 0;
    add(free, section, range.start, start - range.start);
    add(free, section, start + wanted, range.start + range.len - (start + wanted));
    Some((range, start))
}

/// Gives a range back, joined with the free ranges that it touches.
pub(crate) fn give_back(free: &mut FreeSpace, section: SectionRow, mut start: u64, mut len: u64) {
    if len == 0 {
        return;
    }
    for level in [FreeLevel::Slots, FreeLevel::Blocks] {
        for known in records(free, level).iter_mut().filter(|known| known.section == section) {
            let touches = known.start + known.len == start || start + len == known.start;
            if known.len > 0 && touches {
                start = start.min(known.start);
                len += known.len;
                known.len = 0;
            }
        }
    }
    add(free, section, start, len);
}

/// Adds a range that stays apart from its neighbours: each entry of an unwind table has its own filler.
pub(crate) fn add(free: &mut FreeSpace, section: SectionRow, start: u64, len: u64) {
    if len == 0 {
        return;
    }
    let record = FreeRecord { section, start, len, ..Default::default() };
    let records = records(free, FreeLevel::of(len));
    match records.iter_mut().find(|known| known.len == 0) {
        Some(unused) => *unused = record,
        None => records.push(record),
    }
}

fn records(free: &mut FreeSpace, level: FreeLevel) -> &mut Vec<FreeRecord> {
    match level {
        FreeLevel::Slots => &mut free.slots,
        FreeLevel::Blocks => &mut free.blocks,
    }
}

/// Indices of a section's ranges, by address.
fn in_order(records: &[FreeRecord], section: SectionRow) -> Vec<usize> {
    let own = |&index: &usize| records[index].section == section && records[index].len > 0;
    let mut own: Vec<usize> = (0..records.len()).filter(own).collect();
    own.sort_unstable_by_key(|&index| records[index].start);
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::place;
    use relink_engine::options::PlaceKind;

    const TEXT: SectionRow = SectionRow(3);

    fn anywhere(wanted: u64) -> impl Fn(FreeRange) -> Option<u64> {
        move |range| (range.len >= wanted).then_some(range.start)
    }

    fn ranges(records: &[FreeRecord]) -> Vec<(u64, u64)> {
        records.iter().filter(|record| record.len > 0).map(|record| (record.start, record.len)).collect()
    }

    #[test]
    fn small_requests_leave_blocks_whole_while_a_slot_will_do() {
        let mut free = FreeSpace::default();
        add(&mut free, TEXT, 0x10000, 0x8000);
        add(&mut free, TEXT, 0x40000, 64);
        add(&mut free, SectionRow(9), 0, 4000);
        let policy = place(PlaceKind::FirstFit);
        let first = take(&mut free, TEXT, 48, policy, &anywhere(48)).map(|(_, start)| start);
        assert_eq!(first, Some(0x40000), "the slot, though the block has the lower address");
        let second = take(&mut free, TEXT, 48, policy, &anywhere(48)).map(|(_, start)| start);
        assert_eq!(second, Some(0x10000), "only 16 bytes are left of the slot");
        assert_eq!(ranges(&free.slots), [(0x40030, 16), (0, 4000)]);
        assert_eq!(ranges(&free.blocks), [(0x10030, 0x8000 - 48)]);
    }

    #[test]
    fn a_block_that_is_used_up_falls_to_the_slots_and_rises_when_it_is_joined_again() {
        let mut free = FreeSpace::default();
        add(&mut free, TEXT, 0x1000, 0x1800);
        let taken = take(&mut free, TEXT, 0x1000, place(PlaceKind::FirstFit), &anywhere(0x1000));
        assert_eq!(taken.map(|(_, start)| start), Some(0x1000));
        assert_eq!((ranges(&free.slots), ranges(&free.blocks)), (vec![(0x2000, 0x800)], vec![]));
        give_back(&mut free, TEXT, 0x1000, 0x1000);
        assert_eq!((ranges(&free.slots), ranges(&free.blocks)), (vec![], vec![(0x1000, 0x1800)]));
    }

    #[test]
    fn a_range_between_two_joins_both() {
        let mut free = FreeSpace::default();
        add(&mut free, TEXT, 0, 16);
        add(&mut free, TEXT, 48, 16);
        give_back(&mut free, TEXT, 16, 32);
        assert_eq!(ranges(&free.slots), [(0, 64)]);
    }

    #[test]
    fn append_takes_the_end_of_the_section() {
        let mut free = FreeSpace::default();
        add(&mut free, TEXT, 0x1000, 0x2000);
        add(&mut free, TEXT, 0x9000, 0x2000);
        add(&mut free, TEXT, 0x8000, 64);
        let taken = take(&mut free, TEXT, 16, place(PlaceKind::Append), &anywhere(16));
        assert_eq!(taken.map(|(_, start)| start), Some(0x9000));
    }
}
