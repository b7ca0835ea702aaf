//! Debug of a warm frame: the changed units' debug contributions, their unwind entries, the symbol table.

use std::collections::BTreeSet;

use bevy_ecs::prelude::{Query, Res, ResMut};
use formats::dwarf::filler::has_offsets;
use formats::dwarf::{self, DebugSection, FillerContext};
use formats::eh_frame;
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Input, Slot};
use relink_engine::frame::Frame;
use relink_engine::image::{Draft, Image};
use relink_engine::options::PlaceKind;
use relink_engine::plan::Plan;
use relink_engine::policy::FreeRange;
use relink_engine::records::{FdeRecord, IslandRecord, SectionRecord, atom_flags, place};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, CieRow, FdeRow, SectionRow, TargetKind};
use relink_engine::store::Store;
use relink_formats as formats;

use super::unwind::piece_bytes;
use super::unwind_header;
use crate::diff::rows::is_vacant_fde;
use crate::place::free;
use crate::relocate::bulk::{close_hole, relocate_contribution};
use crate::view::{Memo, View, text_of};

/// Header of a table of location lists, bytes.
const FIRST_TABLE: u64 = 12;

/// What the verbs of this set share.
pub(super) struct Writer<'a> {
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    pub(super) plan: &'a mut Plan,
    pub(super) draft: &'a mut Draft,
    pub(super) frame: &'a mut Frame,
}

/// Why the frame can't go on: damage, or a reason.
pub(crate) enum Stop {
    Damage(StoreError),
    Reason(GateReason),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Damage(error)
    }
}

/// Writes everything that follows code and data about.
pub(crate) fn write_changed_satellites(
    store: Option<Res<'_, Store>>,
    image: Option<Res<'_, Image>>,
    mut plan: ResMut<'_, Plan>,
    mut draft: ResMut<'_, Draft>,
    mut frame: ResMut<'_, Frame>,
    inputs: Query<'_, '_, &Input>,
    atoms: Query<'_, '_, (&Atom, &Slot)>,
) {
    let (Some(store), Some(image)) = (store, image) else { return };
    if !frame.warm() {
        return;
    }
    let entities = (plan.atom_entities.clone(), plan.inputs.clone());
    let mut writer =
        Writer { store: &store, image: &image, plan: &mut plan, draft: &mut draft, frame: &mut frame };
    let result = (|| {
        writer.write_pieces()?;
        for (atom, slot) in entities.0.iter().filter_map(|&entity| atoms.get(entity).ok()) {
            if atom.old.flags & atom_flags::DEBUG != 0
                && let Ok(input) = inputs.get(atom.input)
            {
                writer.write_contribution(input, atom, slot)?;
            }
        }
        writer.fill_freed_contributions()?;
        writer.remove_fdes()?;
        for input in entities.1.iter().filter_map(|&entity| inputs.get(entity).ok()) {
            writer.write_fdes(input)?;
        }
        writer.follow_personalities()?;
        writer.write_islands()?;
        writer.write_unwind_header()?;
        writer.write_symbols()?;
        writer.write_section_sizes()
    })();
    match result {
        Ok(()) => {}
        Err(Stop::Reason(reason)) => frame.refuse(reason),
        Err(Stop::Damage(error)) => {
            frame.check::<()>(Err(error));
        }
    }
}

/// Vacated slots that a section of code may have.
const DEBRIS_PERCENT: u64 = 10;
/// And may have in any case: the reserve of a small program is as large.
const DEBRIS_MIN: u64 = 64 << 10;

impl Writer<'_> {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        if self.draft.write(self.image, offset, bytes) {
            Ok(())
        } else {
            Err(StoreError::Malformed(format!("a write at {offset:#x} is outside the image")).into())
        }
    }

    /// New strings and constants of the pools.
    fn write_pieces(&mut self) -> Result<(), Stop> {
        for piece in std::mem::take(&mut self.plan.pieces) {
            let pool = self.store.pools.get(piece.pool.0)?;
            let atom = self.store.atoms.get(pool.atom.0)?;
            let offset = View::new(self.store, self.plan).file_offset(&atom);
            self.write(offset + u64::from(piece.offset), &piece.bytes)?;
            self.plan.pieces.push(piece);
        }
        Ok(())
    }

    fn fillers(&self) -> FillerContext {
        FillerContext {
            abbrev_offset: self.plan.image.filler_abbrev,
            unit_offset: self.plan.image.filler_unit,
            version: self.plan.image.filler_version as u16,
            has_offsets: false,
        }
    }

    fn debug_section(&self, section: SectionRow) -> Result<DebugSection, StoreError> {
        let record = self.store.sections.get(section.0)?;
        let name = self.store.strings.bytes(record.name)?;
        Ok(DebugSection::from_name(name).unwrap_or(DebugSection::Other))
    }

    fn write_contribution(&mut self, input: &Input, atom: &Atom, slot: &Slot) -> Result<(), Stop> {
        let section = atom.section as usize;
        let pristine = input.object.parsed.section_bytes(section);
        let mut bytes = self.image.padded(pristine, slot.capacity.max(slot.size), 0)?;
        let view = View::new(self.store, self.plan);
        let body = &mut bytes[..pristine.len()];
        let errors = relocate_contribution(&Memo::new(&view), &input.object, section, slot.address, body);
        let offset = view.file_offset(&view.atom_record(atom.row));
        view.damage()?;
        if !errors.is_empty() {
            let why = format!("{} relocations of its debug information do not fit", errors.len());
            let input = input.object.name.clone();
            return Err(Stop::Reason(GateReason::RelocationUnpatchable { input, why }));
        }
        let debug = self.debug_section(atom.old.output)?;
        if close_hole(debug, &mut bytes, pristine.len(), self.fillers()).is_err() {
            let section = text_of(self.store, self.plan, atom.old.name);
            let input = input.object.name.clone();
            return Err(Stop::Reason(GateReason::DebugSpaceExhausted { section, input }));
        }
        if !self.image.matches(offset, &bytes) {
            if atom.old.flags & atom_flags::COMDAT != 0 && !atom.unplaced {
                let (section, input) = (self.store.text(atom.old.name), input.object.name.clone());
                return Err(Stop::Reason(GateReason::DebugShared { section, input }));
            }
            self.frame.counters.debug_contributions_written += 1;
        } else if !self.draft.touches(offset, bytes.len()) {
            return Ok(());
        }
        self.write(offset, &bytes)
    }

    /// Contributions that went elsewhere leave fillers; what was vacated goes to the free list.
    fn fill_freed_contributions(&mut self) -> Result<(), Stop> {
        for set in std::mem::take(&mut self.plan.emptied) {
            self.fill_debug_hole(set.units, set.unit, dwarf::UNIT_MIN)?;
            let Ok(unit_offset) = u32::try_from(set.unit) else {
                return Err(StoreError::Malformed("a unit is outside of .debug_info".to_owned()).into());
            };
            let fillers = FillerContext { unit_offset, ..self.fillers() };
            let mut hole = self.image.padded(&[], set.len, 0)?;
            let record = self.store.sections.get(set.section.0)?;
            if dwarf::fill(DebugSection::Aranges, &mut hole, fillers).is_err() {
                let section = self.store.text(record.name);
                return Err(Stop::Reason(GateReason::DebugSpaceExhausted { section, input: String::new() }));
            }
            self.write(record.file_offset(set.start)?, &hole)?;
            // It is taken as a whole, or not at all.
            free::add(free::space(self.store, self.plan)?, set.section, set.start, set.len);
        }
        for (section, start, len) in std::mem::take(&mut self.plan.refilled) {
            self.fill_debug_hole(section, start, len)?;
        }
        let freed = std::mem::take(&mut self.plan.freed);
        for &(section, start, len) in &freed {
            self.fill_debug_hole(section, start, len)?;
            free::give_back(free::space(self.store, self.plan)?, section, start, len);
        }
        let sections: BTreeSet<SectionRow> = freed.into_iter().map(|(section, ..)| section).collect();
        for section in sections {
            self.check_left(section)?;
        }
        self.check_debris()
    }

    /// A debug section that nothing is left of but fillers would not be there: of location lists without a unit that refers to
    /// them readelf says so.
    fn check_left(&mut self, section: SectionRow) -> Result<(), Stop> {
        let known = View::new(self.store, self.plan).section_record(section);
        if known.address != 0 {
            return Ok(());
        }
        let space = free::space(self.store, self.plan)?;
        let own = space.slots.iter().chain(&space.blocks).filter(|range| range.section == section);
        let free = own.fold(0_u64, |sum, range| sum.saturating_add(range.len));
        if free >= known.size {
            let (section, input) = (self.store.text(known.name), String::new());
            return Err(Stop::Reason(GateReason::AtomRemoved { section, input }));
        }
        Ok(())
    }

    /// A filler in a free range of a debug section; code is filled where it is vacated.
    fn fill_debug_hole(&mut self, section: SectionRow, start: u64, len: u64) -> Result<(), Stop> {
        let record = self.store.sections.get(section.0)?;
        if record.address != 0 || len == 0 {
            return Ok(());
        }
        let debug = self.debug_section(section)?;
        let mut hole = self.image.padded(&[], len, 0)?;
        let first = self.draft.read(self.image, record.offset, FIRST_TABLE.min(record.size) as usize);
        let fillers =
            FillerContext { has_offsets: has_offsets(&first.unwrap_or_default()), ..self.fillers() };
        if dwarf::filler::fill(debug, &mut hole, fillers).is_err() {
            let section = self.store.text(record.name);
            return Err(Stop::Reason(GateReason::DebugSpaceExhausted { section, input: String::new() }));
        }
        self.write(record.file_offset(start)?, &hole)
    }

    /// Too many vacated slots: a full link tidies up.
    fn check_debris(&mut self) -> Result<(), Stop> {
        let Some(free) = &self.plan.free else { return Ok(()) };
        for &(_, atom) in self.plan.moved.iter().filter(|(_, atom)| atom.flags & atom_flags::CODE != 0) {
            let section = self.store.sections.get(atom.output.0)?;
            let ranges = free.slots.iter().chain(&free.blocks).filter(|range| range.section == atom.output);
            let (total, largest) = ranges
                .map(|range| range.len)
                .fold((0_u64, 0), |(sum, max), len| (sum.saturating_add(len), len.max(max)));
            let dead_bytes = total - largest; // The largest is what is left of the reserve.
            if dead_bytes > (section.size / 100 * DEBRIS_PERCENT).max(DEBRIS_MIN) {
                return Err(Stop::Reason(GateReason::DebrisLimit { dead_bytes }));
            }
        }
        Ok(())
    }

    fn eh_frame(&self) -> Result<SectionRecord, Stop> {
        let Some(row) = self.plan.image.eh_frame.some() else {
            return Err(StoreError::Malformed("an unwind table is missing".to_owned()).into());
        };
        Ok(self.store.sections.get(row.0)?)
    }

    /// Room for an entry behind its CIE, to which it counts back: a multiple of 8; what is left of a range must take a filler.
    fn take_unwind_room(&mut self, len: u32, cie: u32) -> Result<(u32, u32), Stop> {
        let wanted = len.next_multiple_of(8);
        let fits = |range: FreeRange| {
            let rest = range.len.checked_sub(u64::from(wanted))?;
            let behind = range.start > u64::from(cie);
            (behind && (rest == 0 || rest >= eh_frame::MIN_FILLER as u64)).then_some(range.start)
        };
        let section = self.plan.image.eh_frame;
        let policy = crate::policies::place(PlaceKind::FirstFit);
        let space = free::space(self.store, self.plan)?;
        if let Some((range, start)) = free::take(space, section, u64::from(wanted), policy, &fits) {
            let end = start + u64::from(wanted);
            if range.start + range.len > end {
                self.fill_unwind(end, range.start + range.len - end)?;
            }
            let Ok(start) = u32::try_from(start) else {
                return Err(StoreError::Malformed("a free range is outside of .eh_frame".to_owned()).into());
            };
            return Ok((start, wanted));
        }
        Err(Stop::Reason(GateReason::UnwindChanged {
            input: String::new(),
            why: "its table is full".to_owned(),
        }))
    }

    fn fill_unwind(&mut self, start: u64, len: u64) -> Result<(), Stop> {
        let mut hole = self.image.padded(&[], len, 0)?;
        if eh_frame::fill(&mut hole).is_err() {
            return Err(StoreError::Malformed(format!("no filler for {len} bytes of .eh_frame")).into());
        }
        let table = self.eh_frame()?;
        self.write(table.offset + start, &hole)
    }

    fn free_unwind(&mut self, start: u32, len: u32) -> Result<(), Stop> {
        self.fill_unwind(u64::from(start), u64::from(len))?;
        // Fillers are not joined: each free range is one entry of the table.
        let section = self.plan.image.eh_frame;
        free::add(free::space(self.store, self.plan)?, section, u64::from(start), u64::from(len));
        Ok(())
    }

    /// Entries of code that is gone leave room for others.
    fn remove_fdes(&mut self) -> Result<(), Stop> {
        for (row, fde, code) in std::mem::take(&mut self.plan.removed_fdes) {
            self.free_unwind(fde.offset, fde.capacity)?;
            self.plan.hdr_removed.push((code, fde.offset));
            self.plan.fdes.push((row, FdeRecord::default()));
        }
        Ok(())
    }

    fn write_fdes(&mut self, input: &Input) -> Result<(), Stop> {
        let refuse = |why: &str| {
            Stop::Reason(GateReason::UnwindChanged { input: input.object.name.clone(), why: why.to_owned() })
        };
        for (&row, piece) in input.fde_rows.iter().zip(&input.object.fdes) {
            // What has no row yet has no room either.
            let known = if row.0 < self.store.fdes.len() {
                self.store.fdes.get(row.0)?
            } else {
                FdeRecord::default()
            };
            let old = Some(known).filter(|fde| !is_vacant_fde(fde));
            let mut new = FdeRecord {
                cie: CieRow(piece.cie),
                atom: piece.atom,
                start: piece.atom_offset,
                input: input.row,
                ..known
            };
            let cie = self.store.cies.get(piece.cie)?;
            if piece.len > known.capacity || old.is_some() && known.offset < cie.offset {
                (new.offset, new.capacity) = self.take_unwind_room(piece.len, cie.offset)?;
                if let Some(old) = old {
                    self.free_unwind(old.offset, old.capacity)?;
                }
            }
            self.image.room(new.capacity.into())?;
            let table = self.eh_frame()?;
            let placed =
                relink_engine::program::EhPiece { offset: new.offset, capacity: new.capacity, ..*piece };
            let view = View::new(self.store, self.plan);
            let bytes = piece_bytes(&view, &input.object, &placed, table.address, Some(cie.offset));
            let old_code = match old {
                Some(old) => Some(self.store.atoms.get(old.atom.0)?.address.wrapping_add(old.start.into())),
                None => None,
            };
            let new_code = view.atom_record(new.atom).address.wrapping_add(new.start.into());
            view.damage()?;
            let bytes = bytes.map_err(|_| refuse("a relocation of it can't be applied"))?;
            let at = table.offset + u64::from(new.offset);
            if !self.image.matches(at, &bytes) {
                self.frame.counters.fdes_written += 1;
            }
            self.write(at, &bytes)?;
            if old != Some(new) {
                self.plan.fdes.push((row, new));
            }
            if (old_code, known.offset) != (Some(new_code), new.offset) {
                self.plan.hdr_removed.extend(old_code.map(|code| (code, known.offset)));
                self.plan.hdr_added.push((new_code, new.offset));
            }
        }
        Ok(())
    }

    /// CIEs follow their personality routines, to which no relocation of the store refers: one may move, and the pointer to
    /// one is data of a group that may change hands. The fields are relative or not, and have four bytes.
    fn follow_personalities(&mut self) -> Result<(), Stop> {
        if self.plan.atoms.is_empty() && self.plan.symbols.is_empty() {
            return Ok(());
        }
        for row in 0..self.store.cies.len() {
            let cie = self.store.cies.get(row)?;
            let view = View::new(self.store, self.plan);
            let (old, new) = match cie.personality.kind() {
                TargetKind::Symbol(row) => {
                    let (old, new) = (self.store.symbols.get(row.0)?, view.symbol_record(row));
                    ((old.atom, old.value), (new.atom, new.value))
                }
                TargetKind::Atom(row) => ((row, 0), (row, 0)),
                TargetKind::None => continue,
            };
            if !place::is_atom(old.0) || !place::is_atom(new.0) {
                continue;
            }
            let before = self.store.atoms.get(old.0.0)?.address.wrapping_add(old.1);
            let after = view.atom_record(new.0).address.wrapping_add(new.1);
            view.damage()?;
            if before == after {
                continue;
            }
            let at = self.eh_frame()?.offset + u64::from(cie.offset) + u64::from(cie.personality_offset);
            let field = self.draft.read_array(self.image, at).map(u32::from_le_bytes);
            let outside = || StoreError::Malformed("a CIE is outside of the image".to_owned());
            let field = field.ok_or_else(outside)?.wrapping_add(after.wrapping_sub(before) as u32);
            self.write(at, &field.to_le_bytes())?;
        }
        Ok(())
    }

    /// A new island gets a symbol and a frame description of its own: profilers and debuggers may stop on it.
    fn write_islands(&mut self) -> Result<(), Stop> {
        for index in 0..self.plan.islands.len() {
            let island = self.plan.islands[index];
            if island.row.some().is_some() {
                continue;
            }
            let fde = self.write_island_fde(&island.record)?;
            let symtab = self.write_island_symbol(&island.record)?;
            let record = &mut self.plan.islands[index].record;
            record.symtab = symtab;
            record.fde = fde;
        }
        Ok(())
    }

    fn write_island_fde(&mut self, island: &IslandRecord) -> Result<FdeRow, Stop> {
        let input = self.store.inputs.get(self.store.atoms.get(island.atom.0)?.input.0)?;
        let mut own = None;
        for row in input.fdes.and(input.more_fdes) {
            let fde = self.store.fdes.get(row)?;
            if (fde.atom, fde.start) == (island.atom, 0) {
                own = Some(fde);
            }
        }
        let Some(own) = own else { return Ok(FdeRow::default()) }; // Code without unwind information.
        let table = self.eh_frame()?;
        let cie_record = self.store.cies.get(own.cie.0)?;
        let cie = self.image.read(table.offset + u64::from(cie_record.offset), cie_record.len as usize);
        let cie = cie.as_deref().map(eh_frame::parse_cie);
        let Some(Ok(cie)) = cie else {
            return Err(StoreError::Malformed("a CIE of the image can't be read".to_owned()).into());
        };
        let len = eh_frame::island_fde(&cie, 0, island.size).len() as u32;
        let (offset, capacity) = self.take_unwind_room(len, cie_record.offset)?;
        let mut bytes =
            eh_frame::island_fde(&cie, offset.wrapping_add(4).wrapping_sub(cie_record.offset), island.size);
        eh_frame::pad_record(&mut bytes, capacity as usize);
        let field = table.address.wrapping_add(u64::from(offset) + 8);
        let begin = island.address.wrapping_sub(field) as u32;
        bytes[8..12].copy_from_slice(&begin.to_le_bytes());
        self.write(table.offset + u64::from(offset), &bytes)?;
        self.frame.counters.fdes_written += 1;
        self.plan.hdr_added.push((island.address, offset));
        let record = FdeRecord {
            atom: AtomRow(relink_engine::rows::NONE),
            start: 0,
            offset,
            capacity,
            cie: own.cie,
            input: relink_engine::rows::InputRow::default(),
        };
        let row = FdeRow(self.plan.ends.fdes);
        self.plan.ends.fdes += 1;
        self.plan.fdes.push((row, record));
        Ok(row)
    }

    fn write_unwind_header(&mut self) -> Result<(), Stop> {
        let Some(row) = self.plan.image.eh_frame_hdr.some() else { return Ok(()) };
        let (removed, added) = (&self.plan.hdr_removed, &self.plan.hdr_added);
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let (header, table) = (self.store.sections.get(row.0)?, self.eh_frame()?.address);
        self.plan.image.hdr_entries =
            unwind_header::rewrite(self.image, self.draft, &header, table, removed, added)?;
        Ok(())
    }

    /// Sections that grew at their tail.
    fn write_section_sizes(&mut self) -> Result<(), Stop> {
        let changed: Vec<(u32, SectionRecord)> =
            self.plan.sections.iter().map(|(row, record)| (*row, *record)).collect();
        for (row, record) in changed {
            if self.store.sections.get(row)?.size != record.size {
                let offset = self.plan.image.section_headers + 64 * u64::from(record.index) + 32;
                self.write(offset, &record.size.to_le_bytes())?;
            }
        }
        Ok(())
    }
}
