//! `.eh_frame_hdr` of a warm frame: the rows that go and come, and of the rest as little as keeps the table sorted.

use formats::eh_frame::{HdrEntry, hdr_len};
use relink_engine::column::StoreError;
use relink_engine::image::{Draft, Image};
use relink_engine::records::SectionRecord;
use relink_engine::report::GateReason;
use relink_formats as formats;

use super::changed::Stop;

/// Takes rows out of the table and puts others in: address of the code and offset of the FDE in `.eh_frame`, which is
/// at `eh_frame`. Returns how many rows there are then.
///
/// The table stays exact: with a missing or unsorted row the next throw aborts. Rows that go and come balance within
/// an atom that keeps its place, and within the first row of one that left an island behind; rows behind a place where
/// they balance are neither read nor written. An atom that went away comes back in the reserve, whose addresses are
/// the last: if it has one row, nothing in between moves; with more, the rows in between move up.
pub(super) fn rewrite(
    image: &Image,
    draft: &mut Draft,
    header: &SectionRecord,
    eh_frame: u64,
    removed: &[(u64, u32)],
    added: &[(u64, u32)],
) -> Result<u32, Stop> {
    let mut table = Table::open(image, draft, *header)?;
    let mut changes = Vec::with_capacity(removed.len() + added.len());
    for (rows, goes) in [(removed, true), (added, false)] {
        for &(pc, fde) in rows {
            let entry = HdrEntry::new(header.address, pc, eh_frame + u64::from(fde));
            let entry = entry.ok_or_else(|| exhausted("32-bit offsets of .eh_frame_hdr"))?;
            let at = table.lower_bound(entry)?;
            if goes && (at == table.count || table.entry(at)? != entry) {
                let what = format!(".eh_frame_hdr has no entry for {pc:#x}");
                return Err(StoreError::Malformed(what).into());
            }
            changes.push(Change { at, goes, entry });
        }
    }
    changes.sort_unstable();
    if changes.windows(2).any(|pair| pair[0].goes && pair[0] == pair[1]) {
        return Err(StoreError::Malformed("two frame descriptions are one".to_owned()).into());
    }
    // Rows that go are distinct rows of the table.
    let count = u64::from(table.count) + added.len() as u64 - removed.len() as u64;
    if hdr_len(count as usize) as u64 > header.size {
        return Err(exhausted(".eh_frame_hdr"));
    }
    let mut rest = &changes[..];
    while !rest.is_empty() {
        let (window, behind) = rest.split_at(balanced(rest));
        table.rewrite_window(window)?;
        rest = behind;
    }
    table.set_count(count as u32)?;
    Ok(count as u32)
}

fn exhausted(what: &str) -> Stop {
    Stop::Reason(GateReason::LayoutExhausted { what: what.to_owned() })
}

/// A row that goes, or one that comes in front of the row at `at`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at: u32,
    goes: bool,
    entry: HdrEntry,
}

/// How many of the first changes have as many rows going as coming; all, if there is no such number.
fn balanced(changes: &[Change]) -> usize {
    let mut balance = 0_i64;
    for (index, change) in changes.iter().enumerate() {
        balance += if change.goes { -1 } else { 1 };
        if balance == 0 {
            return index + 1;
        }
    }
    changes.len()
}

/// The rows as they are in image and draft.
struct Table<'a> {
    image: &'a Image,
    draft: &'a mut Draft,
    header: SectionRecord,
    count: u32,
}

impl<'a> Table<'a> {
    fn open(image: &'a Image, draft: &'a mut Draft, header: SectionRecord) -> Result<Table<'a>, Stop> {
        let count = draft.read_array(image, header.offset + COUNT).map_or(u32::MAX, u32::from_le_bytes);
        if hdr_len(count as usize) as u64 > header.size {
            let what = "the count of .eh_frame_hdr is beyond its end".to_owned();
            return Err(StoreError::Malformed(what).into());
        }
        Ok(Table { image, draft, header, count })
    }

    fn offset(&self, index: u32) -> u64 {
        self.header.offset + hdr_len(index as usize) as u64
    }

    fn read(&self, index: u32, count: u32) -> Result<Vec<HdrEntry>, Stop> {
        let bytes = self.draft.read(self.image, self.offset(index), 8 * count as usize);
        let bytes = bytes.ok_or_else(outside)?;
        Ok(bytes.as_chunks::<8>().0.iter().copied().map(HdrEntry::from_bytes).collect())
    }

    fn entry(&self, index: u32) -> Result<HdrEntry, Stop> {
        let bytes = self.draft.read_array(self.image, self.offset(index));
        bytes.map(HdrEntry::from_bytes).ok_or_else(outside)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        if self.draft.write(self.image, offset, bytes) { Ok(()) } else { Err(outside()) }
    }

    fn lower_bound(&self, entry: HdrEntry) -> Result<u32, Stop> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(middle)? < entry { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Changes that balance, or the last ones, which reach to the end of the table. What is behind them is as it was:
    /// windows are done from the front, and each reads none but its own rows.
    fn rewrite_window(&mut self, changes: &[Change]) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(()) };
        let gone = changes.iter().filter(|change| change.goes).count();
        let is_balanced = gone * 2 == changes.len();
        let end = if is_balanced { last.at + u32::from(last.goes) } else { self.count };
        let mut entries = Vec::with_capacity((end - first.at) as usize + changes.len());
        let mut goes = changes.iter().filter(|change| change.goes).map(|change| change.at).peekable();
        for (index, entry) in (first.at..end).zip(self.read(first.at, end - first.at)?) {
            if goes.next_if_eq(&index).is_none() {
                entries.push(entry);
            }
        }
        entries.extend(changes.iter().filter(|change| !change.goes).map(|change| change.entry));
        entries.sort_unstable();
        let mut bytes: Vec<u8> = entries.into_iter().flat_map(HdrEntry::to_bytes).collect();
        // Room that a shorter table leaves behind is zero, as a full link's is.
        bytes.resize(bytes.len().max(8 * (end - first.at) as usize), 0);
        self.write(self.offset(first.at), &bytes)
    }

    fn set_count(&mut self, count: u32) -> Result<(), Stop> {
        self.write(self.header.offset + COUNT, &count.to_le_bytes())
    }
}

/// Where the number of rows stands.
const COUNT: u64 = 8;

fn outside() -> Stop {
    StoreError::Malformed(".eh_frame_hdr is outside the image".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: u64 = 0x1000;
    const TABLE: u64 = 0x2000;

    fn image_of(rows: &[(u64, u32)], capacity: usize) -> Image {
        let rows: Vec<(u64, u64)> = rows.iter().map(|&(pc, fde)| (pc, TABLE + u64::from(fde))).collect();
        let bytes = formats::eh_frame::encode_hdr(HEADER, TABLE, &rows, hdr_len(capacity));
        Image::owned(bytes.expect("rows that fit"))
    }

    /// Applies a change to a table of so many rows of capacity; the pages as they would be.
    fn rewritten(rows: &[(u64, u32)], removed: &[(u64, u32)], added: &[(u64, u32)]) -> Option<Vec<u8>> {
        let image = image_of(rows, 12);
        let header = SectionRecord { address: HEADER, size: image.len(), ..Default::default() };
        let mut draft = Draft::default();
        rewrite(&image, &mut draft, &header, TABLE, removed, added).ok()?;
        draft.read(&image, 0, image.len() as usize)
    }

    #[test]
    fn any_change_gives_the_table_of_a_full_link() {
        let rows: Vec<(u64, u32)> = (0..8).map(|n| (0x4000 + 16 * u64::from(n), 32 * n)).collect();
        // Each row stays, goes, or comes back at a place that depends on the seed.
        for seed in 0..4000_u64 {
            let (mut removed, mut added, mut left) = (Vec::new(), Vec::new(), Vec::new());
            let mut state = seed;
            for &(pc, fde) in &rows {
                let choice = state % 5;
                state = (state / 5).wrapping_mul(0x9e37_79b9).wrapping_add(seed) % 100_000;
                match choice {
                    0 => removed.push((pc, fde)),
                    1 | 2 => {
                        removed.push((pc, fde));
                        added.push((pc.wrapping_add(state % 96).wrapping_sub(40), fde));
                    }
                    _ => left.push((pc, fde)),
                }
            }
            left.extend(&added);
            let expected = image_of(&left, 12);
            let found = rewritten(&rows, &removed, &added).expect("rows that fit");
            assert_eq!(found, &*expected.bytes(), "seed {seed}: -{removed:x?} +{added:x?}");
        }
    }

    #[test]
    fn rows_that_are_not_there_or_have_no_room_are_refused() {
        let rows = [(0x4000, 0), (0x4010, 32)];
        assert!(rewritten(&rows, &[(0x4000, 32)], &[]).is_none());
        assert!(rewritten(&rows, &[(0x4000, 0), (0x4000, 0)], &[]).is_none());
        let many: Vec<(u64, u32)> = (0..11).map(|n| (0x5000 + u64::from(n), 64 + 32 * n)).collect();
        assert!(rewritten(&rows, &[], &many[..10]).is_some());
        assert!(rewritten(&rows, &[], &many).is_none());
        assert!(rewritten(&rows, &[], &[(1 << 40, 64)]).is_none());
    }
}
