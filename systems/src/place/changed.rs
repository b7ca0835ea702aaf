//! Place of a warm frame: in place if it fits; else a free range of its segment's class, or the section's tail.

use bevy_ecs::prelude::{Commands, Entity, Query, Res, ResMut};
use formats::dwarf::DebugSection;
use formats::dwarf::extend::entry_bytes;
use formats::units::Align;
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Moved, Slot};
use relink_engine::frame::{Frame, Request};
use relink_engine::options::IncrementalOptions;
use relink_engine::plan::Plan;
use relink_engine::policy::FreeRange;
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::SectionRow;
use relink_engine::store::Store;
use relink_formats as formats;

use super::{free, reserve};
use crate::view::text_of;

/// Gives each atom of a changed input the slot that it will have.
pub(crate) fn place_changed_atoms(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    mut plan: ResMut<'_, Plan>,
    mut frame: ResMut<'_, Frame>,
    mut atoms: Query<'_, '_, (&Atom, &mut Slot)>,
    mut commands: Commands<'_, '_>,
) {
    let Some(store) = store.filter(|_| frame.warm()) else { return };
    let Some(options) = &request.options.incremental else { return };
    for entity in plan.atom_entities.clone() {
        let Ok((atom, mut slot)) = atoms.get_mut(entity) else { continue };
        let mut placer = Placer { store: &store, plan: &mut plan, options };
        match placer.place(atom, &mut slot) {
            Ok(Placed::InPlace) => {}
            Ok(Placed::Moved) => {
                frame.counters.atoms_placed += 1;
                mark_moved(&mut commands, entity);
            }
            Ok(Placed::NoRoom(reason)) => frame.refuse(reason),
            Err(error) => {
                frame.check::<()>(Err(error));
                return;
            }
        }
    }
}

fn mark_moved(commands: &mut Commands<'_, '_>, entity: Entity) {
    commands.entity(entity).insert(Moved);
}

enum Placed {
    InPlace,
    Moved,
    NoRoom(GateReason),
}

struct Placer<'a> {
    store: &'a Store,
    plan: &'a mut Plan,
    options: &'a IncrementalOptions,
}

impl Placer<'_> {
    fn place(&mut self, atom: &Atom, slot: &mut Slot) -> Result<Placed, StoreError> {
        let old = &atom.old;
        let mut record = AtomRecord { size: slot.size, section: atom.section, align: atom.align, ..*old };
        let debug = self.debug_section(old)?;
        // A hole of its own; what stands behind a contribution, its last table may take in.
        let entry = debug.and_then(entry_bytes);
        let hole_ok =
            |hole: u64| hole == 0 || debug.is_none_or(|debug| debug.fillable(hole) && entry.is_none());
        let slack_ok = |slack: u64| entry.map_or_else(|| hole_ok(slack), |entry| slack.is_multiple_of(entry));
        // What has no debug filler at all (a debug contribution of an unknown kind) can't change its size.
        let align = Align::from_exponent(atom.align as u8);
        let fits = slot.size <= old.capacity
            && slack_ok(old.capacity - slot.size)
            && align.up(old.address) == old.address;
        if fits && !atom.unplaced {
            self.plan.atoms.insert(atom.row.0, record);
            return Ok(Placed::InPlace);
        }
        let names = || {
            let input = self.store.inputs.get(old.input.0).map(|input| self.store.text(input.name));
            (text_of(self.store, self.plan, old.name), input.unwrap_or_default())
        };
        let (section, input) = names();
        // An atom without a byte still has an address.
        let empty = u64::from(atom.unplaced && debug.is_none());
        let wanted = reserve::capacity(self.options, &record, debug).max(slot.size).max(empty);
        let found = if debug.is_some() {
            if !hole_ok(old.capacity) || old.flags & atom_flags::COMDAT != 0 && !atom.unplaced {
                return Ok(Placed::NoRoom(GateReason::DebugShared { section, input }));
            }
            match self.take(old.output, wanted, align, &hole_ok)? {
                Some(start) => Some(start),
                None => self.append(old.output, wanted, &hole_ok)?,
            }
        } else if old.flags & atom_flags::CODE != 0 {
            self.take(old.output, wanted, align.max(Align::from_exponent(4)), &|_| true)?
        } else if old.flags & (atom_flags::EXACT | atom_flags::FIXED | atom_flags::COMMON) == 0 {
            // Free data is cut at multiples of 16: what is left has room for another one.
            self.take(old.output, wanted.next_multiple_of(16), align.max(Align::from_exponent(4)), &|_| true)?
        } else {
            None
        };
        let Some(address) = found else {
            return Ok(Placed::NoRoom(if debug.is_some() {
                GateReason::DebugSpaceExhausted { section, input }
            } else if old.flags & atom_flags::CODE != 0 {
                GateReason::CodeSpaceExhausted { section, input }
            } else {
                GateReason::DataGrew { section, input, by: slot.size.saturating_sub(old.size) }
            }));
        };
        let plain_data = debug.is_none() && old.flags & atom_flags::CODE == 0;
        let wanted = if plain_data { wanted.next_multiple_of(16) } else { wanted };
        (slot.address, slot.capacity) = (address, wanted);
        (record.address, record.capacity) = (address, wanted);
        self.plan.atoms.insert(atom.row.0, record);
        if old.capacity > 0 && !atom.unplaced {
            self.plan.moved.push((atom.row, *old));
            if debug.is_some() {
                self.plan.freed.push((old.output, old.address, old.capacity));
            }
        }
        Ok(Placed::Moved)
    }

    fn debug_section(&self, atom: &AtomRecord) -> Result<Option<DebugSection>, StoreError> {
        if atom.flags & atom_flags::DEBUG == 0 {
            return Ok(None);
        }
        let section = self.store.sections.get(atom.output.0)?;
        let name = self.store.strings.bytes(section.name)?;
        Ok(Some(DebugSection::from_name(name).unwrap_or(DebugSection::Other)))
    }

    /// Takes a free range of the section.
    fn take(
        &mut self,
        section: SectionRow,
        wanted: u64,
        align: Align,
        hole_ok: &dyn Fn(u64) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let fits = |range: FreeRange| {
            let start = align.up(range.start);
            let end = start.checked_add(wanted)?;
            let range_end = range.start + range.len;
            (end <= range_end && hole_ok(start - range.start) && hole_ok(range_end - end)).then_some(start)
        };
        let policy = crate::policies::place(self.options.place_kind);
        let space = free::space(self.store, self.plan)?;
        let Some((range, start)) = free::take(space, section, wanted, policy, &fits) else {
            return Ok(None);
        };
        // One filler stood in the whole range; what is left of it needs its own. If the range is itself what an atom
        // of this frame left, its filler would be written over the second one.
        let (end, range_end) = (start + wanted, range.start + range.len);
        let inside = |at: u64| (range.start..range_end).contains(&at);
        self.plan.refilled.retain(|&(other, at, _)| other != section || !inside(at));
        self.plan.refilled.push((section, range.start, start - range.start));
        self.plan.refilled.push((section, end, range_end - end));
        Ok(Some(start))
    }

    /// Grows a section that has no addresses at its tail.
    fn append(
        &mut self,
        section: SectionRow,
        wanted: u64,
        hole_ok: &dyn Fn(u64) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let known = self.store.sections.get(section.0)?;
        let record = self.plan.sections.entry(section.0).or_insert(known);
        let start = Align::from_exponent(record.align as u8).up(record.size);
        let end = start.saturating_add(wanted);
        if end > record.capacity || !hole_ok(start - record.size) {
            return Ok(None);
        }
        record.size = end;
        Ok(Some(start))
    }
}
