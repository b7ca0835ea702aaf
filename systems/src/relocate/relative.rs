//! RELATIVE entries of `.rela.dyn` in a warm frame: the value of one changes, a pointer comes or goes.
//!
//! The entries that the cold link sorted stand first, spare ones behind them. One that is of no use writes the load
//! address to a slot that nobody reads ([`scratch_slot`]), so that all entries that `DT_RELACOUNT` counts stay RELATIVE.

use formats::elf;
use relink_engine::column::StoreError;
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::records::{SectionRecord, image_flags};
use relink_engine::store::Store;
use relink_formats as formats;

const ENTRY: u64 = 24;

/// The table as the frame would have it.
pub(crate) struct RelativeTable<'a> {
    image: &'a Image,
    draft: &'a mut Draft,
    section: Option<SectionRecord>,
    /// Entries in the order of their places, those of no use aside.
    sorted: u64,
    /// All RELATIVE entries.
    count: u64,
    scratch: Option<u64>,
    packed: bool,
}

impl<'a> RelativeTable<'a> {
    pub(crate) fn new(
        store: &Store,
        plan: &Plan,
        image: &'a Image,
        draft: &'a mut Draft,
    ) -> Result<RelativeTable<'a>, StoreError> {
        let section = match plan.image.rela_dyn.some() {
            Some(row) => Some(store.sections.get(row.0)?),
            None => None,
        };
        let entries = section.map_or(0, |section| section.size / ENTRY);
        let count = u64::from(plan.image.relative_relocs).min(entries);
        let sorted = u64::from(plan.image.sorted_relocs).min(count);
        let packed = plan.image.flags & image_flags::PACKED_RELATIVE != 0;
        let scratch = scratch_slot(plan).filter(|_| !packed);
        Ok(RelativeTable { image, draft, section, sorted, count, scratch, packed })
    }

    /// Brings the value of a place up to date; `false` if the table has no entry for it.
    pub(crate) fn update(&mut self, place: u64, value: u64) -> bool {
        match self.find(place) {
            Some(index) => self.put(index, place, value),
            // Places stay: an even one that isn't in the table of odd ones is told by `.relr.dyn`, and holds its value
            // itself.
            None => self.packed && place.is_multiple_of(2),
        }
    }

    /// Adds an entry for a place; `false` if no spare one is left.
    pub(crate) fn insert(&mut self, place: u64, value: u64) -> bool {
        let Some(scratch) = self.scratch else { return false };
        let spare = (self.sorted..self.count).find(|&index| self.place(index) == Some(scratch));
        spare.is_some_and(|index| self.put(index, place, value))
    }

    /// Takes the entry of a place out of use; `false` if there is none.
    pub(crate) fn remove(&mut self, place: u64) -> bool {
        let Some(scratch) = self.scratch else { return false };
        self.find(place).is_some_and(|index| self.put(index, scratch, 0))
    }

    fn find(&self, place: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.sorted);
        while low < high {
            let middle = low.midpoint(high);
            // Entries of no use are out of order: the next one that is of use decides.
            let mut at = middle;
            while at < high && self.place(at) == self.scratch {
                at += 1;
            }
            match self.place(at).filter(|_| at < high) {
                Some(known) if known < place => low = at + 1,
                _ => high = middle,
            }
        }
        let mut at = low;
        while at < self.sorted && self.place(at) == self.scratch {
            at += 1;
        }
        if at < self.sorted && self.place(at) == Some(place) {
            return Some(at);
        }
        (self.sorted..self.count).find(|&index| self.place(index) == Some(place))
    }

    /// The place of an entry; any other kind has none.
    fn place(&self, index: u64) -> Option<u64> {
        let bytes = self.draft.read(self.image, self.section?.offset + ENTRY * index, 16)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        (word(8) == u64::from(elf::R_X86_64_RELATIVE)).then(|| word(0))
    }

    fn put(&mut self, index: u64, place: u64, value: u64) -> bool {
        let Some(section) = self.section else { return false };
        let offset = section.offset + ENTRY * index;
        self.draft.write(self.image, offset, &place.to_le_bytes())
            && self.draft.write(self.image, offset + 16, &value.to_le_bytes())
    }
}

/// The address of the slot that entries of no use write to.
pub(crate) fn scratch_slot(plan: &Plan) -> Option<u64> {
    let image = &plan.image;
    let last = image.got_slots.checked_sub(1).filter(|&last| last >= image.got_used)?;
    let moves = image.flags & image_flags::POSITION_INDEPENDENT != 0;
    moves.then(|| image.got_address.wrapping_add(8 * u64::from(last)))
}
