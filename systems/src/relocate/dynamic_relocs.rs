//! `.rela.dyn` in a warm frame: the value of an entry changes, a pointer comes or goes.
//!
//! RELATIVE entries that the cold link sorted stand first, spare ones behind them. One that is of no use writes the load
//! address to a slot that nobody reads ([`scratch_slot`]), so that all entries that `DT_RELACOUNT` counts stay RELATIVE.
//! Entries that name symbols follow; of those, one of no use names none, and writes to that slot as well.
//!
//! With `-z pack-relative-relocs` even places stand in `.relr.dyn`, which is made anew if one comes or goes.

use std::collections::BTreeSet;

use formats::dynamic::relr;
use formats::elf;
use relink_engine::column::StoreError;
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::records::{SectionRecord, image_flags};
use relink_engine::store::Store;
use relink_formats as formats;

use super::dynamic::packed_bytes;

const ENTRY: u64 = 24;

/// The table as the frame would have it.
pub(crate) struct DynamicRelocs<'a> {
    image: &'a Image,
    draft: &'a mut Draft,
    section: Option<SectionRecord>,
    /// Entries in the order of their places, those of no use aside.
    sorted: u64,
    /// All RELATIVE entries.
    count: u64,
    /// All entries.
    end: u64,
    /// Behind the entry that was updated last: tables of pointers are updated in the order of their places.
    next: u64,
    scratch: Option<u64>,
    fixed: bool,
    /// `.relr.dyn`.
    packed: Option<SectionRecord>,
    /// The places that it tells, once they are asked for, and whether they are other ones than before.
    places: Option<BTreeSet<u64>>,
    places_differ: bool,
}

impl<'a> DynamicRelocs<'a> {
    pub(crate) fn new(
        store: &Store,
        plan: &Plan,
        image: &'a Image,
        draft: &'a mut Draft,
    ) -> Result<DynamicRelocs<'a>, StoreError> {
        let section = match plan.image.rela_dyn.some() {
            Some(row) => Some(store.sections.get(row.0)?),
            None => None,
        };
        let entries = section.map_or(0, |section| section.size / ENTRY);
        let count = u64::from(plan.image.relative_relocs).min(entries);
        let sorted = u64::from(plan.image.sorted_relocs).min(count);
        let packed = match plan.image.flags & image_flags::PACKED_RELATIVE {
            0 => None,
            _ => packed_section(store)?,
        };
        let scratch = scratch_slot(plan);
        let fixed = plan.image.flags & image_flags::POSITION_INDEPENDENT == 0;
        let (end, places, places_differ) = (entries, None, false);
        Ok(DynamicRelocs {
            image,
            draft,
            section,
            sorted,
            count,
            end,
            next: 0,
            scratch,
            fixed,
            packed,
            places,
            places_differ,
        })
    }

    /// Writes what was put off; `false` if `.relr.dyn` has no room for it.
    pub(crate) fn finish(self) -> bool {
        let Some((section, places)) = self.packed.zip(self.places).filter(|_| self.places_differ) else {
            return true;
        };
        let places: Vec<u64> = places.into_iter().collect();
        let entries = relr::encode(&places).unwrap_or_default();
        let fits = !entries.is_empty() && entries.len() as u64 * relr::ENTRY_LEN <= section.size;
        fits && self.draft.write(self.image, section.offset, &packed_bytes(&entries, section.size))
    }

    /// The places that `.relr.dyn` tells; none if it is damaged.
    fn places(&mut self) -> Option<&mut BTreeSet<u64>> {
        let section = self.packed?;
        if self.places.is_none() {
            let bytes = self.draft.read(self.image, section.offset, usize::try_from(section.size).ok()?)?;
            let (words, _) = bytes.as_chunks::<8>();
            let entries: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            self.places = Some(relr::decode(&entries).ok()?.into_iter().collect());
        }
        self.places.as_mut()
    }

    /// Brings the value of a place up to date; `false` if the table has no entry for it.
    pub(crate) fn update(&mut self, place: u64, value: u64) -> bool {
        let near = Some(self.next).filter(|&next| next < self.sorted && self.place(next) == Some(place));
        match near.or_else(|| self.find(place)) {
            Some(index) => {
                self.next = index + 1;
                self.put(index, place, value)
            }
            // Places stay: an even one that isn't in the table of odd ones is told by `.relr.dyn`, and holds its value
            // itself.
            None => self.packed.is_some() && place.is_multiple_of(2),
        }
    }

    /// Adds an entry for a place; `false` if no spare one is left.
    pub(crate) fn insert(&mut self, place: u64, value: u64) -> bool {
        if self.packed.is_some() && place.is_multiple_of(2) {
            self.places_differ = true;
            return self.places().is_some_and(|places| places.insert(place));
        }
        let Some(scratch) = self.scratch else { return false };
        let spare = (self.sorted..self.count).find(|&index| self.place(index) == Some(scratch));
        spare.is_some_and(|index| self.put(index, place, value))
    }

    /// Takes the entry of a place out of use; `false` if there is none.
    pub(crate) fn remove(&mut self, place: u64) -> bool {
        if self.places().is_some_and(|places| places.remove(&place)) {
            self.places_differ = true;
            return true;
        }
        let Some(scratch) = self.scratch else { return false };
        self.find(place).is_some_and(|index| self.put(index, scratch, 0))
    }

    /// Adds an entry by which the loader looks a symbol of `.dynsym` up; `false` if no spare one is left.
    pub(crate) fn insert_symbolic(&mut self, symbol: u32, place: u64, addend: i64) -> bool {
        self.insert_named(symbol, place, elf::R_X86_64_64, addend)
    }

    /// The same with a kind of relocation of one's choice.
    pub(crate) fn insert_named(&mut self, symbol: u32, place: u64, kind: u32, addend: i64) -> bool {
        let scratch = self.scratch;
        let spare = (self.count..self.end).find(|&index| scratch.is_some() && self.word(index, 0) == scratch);
        let info = u64::from(symbol) << 32 | u64::from(kind);
        symbol != 0 && spare.is_some_and(|index| self.put_entry(index, [place, info, addend as u64]))
    }

    /// Takes such an entry out of use; `false` if there is none.
    pub(crate) fn remove_symbolic(&mut self, place: u64) -> bool {
        self.remove_named(place, elf::R_X86_64_64)
    }

    /// The same of a kind of one's choice.
    pub(crate) fn remove_named(&mut self, place: u64, kind: u32) -> bool {
        let own = (self.count..self.end).find(|&index| {
            self.word(index, 0) == Some(place)
                && self.info(index).is_some_and(|info| info & 0xffff_ffff == u64::from(kind))
        });
        let info = u64::from(elf::R_X86_64_64);
        own.zip(self.scratch).is_some_and(|(index, scratch)| self.put_entry(index, [scratch, info, 0]))
    }

    /// Whether even places stand in `.relr.dyn`.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Whether the output is loaded where it was linked for.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed
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

    /// The place of a RELATIVE entry; any other kind has none.
    fn place(&self, index: u64) -> Option<u64> {
        (self.info(index)? == u64::from(elf::R_X86_64_RELATIVE)).then(|| self.word(index, 0))?
    }

    /// Symbol and kind.
    fn info(&self, index: u64) -> Option<u64> {
        self.word(index, 8)
    }

    fn word(&self, index: u64, at: u64) -> Option<u64> {
        let offset = self.section?.offset + ENTRY * index + at;
        self.draft.read_array(self.image, offset).map(u64::from_le_bytes)
    }

    fn put(&mut self, index: u64, place: u64, value: u64) -> bool {
        self.put_entry(index, [place, elf::R_X86_64_RELATIVE.into(), value])
    }

    fn put_entry(&mut self, index: u64, words: [u64; 3]) -> bool {
        let Some(section) = self.section else { return false };
        let mut bytes = [0; ENTRY as usize];
        for (field, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *field = u64::to_le_bytes(word);
        }
        self.draft.write(self.image, section.offset + ENTRY * index, &bytes)
    }
}

fn packed_section(store: &Store) -> Result<Option<SectionRecord>, StoreError> {
    for row in 0..store.sections.len() {
        let section = store.sections.get(row)?;
        // An object may have a section of that name, which is bytes to us.
        if section.kind == elf::SHT_RELR
            && section.index != 0
            && store.strings.bytes(section.name)? == b".relr.dyn"
        {
            return Ok(Some(section));
        }
    }
    Ok(None)
}

/// The address of the slot that entries of no use write to.
pub(crate) fn scratch_slot(plan: &Plan) -> Option<u64> {
    let image = &plan.image;
    let last = image.got_slots.checked_sub(1).filter(|&last| last >= image.got_used)?;
    let has = |flag: u32| image.flags & flag != 0;
    let moves = has(image_flags::POSITION_INDEPENDENT) && !has(image_flags::PACKED_RELATIVE);
    (moves || has(image_flags::DYNAMIC)).then(|| image.got_address.wrapping_add(8 * u64::from(last)))
}
