//! New GOT slots of a warm frame: the spare ones that the cold link left at the end of the table.

use formats::elf;
use relink_engine::column::StoreError;
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::records::{SymbolRecord, image_flags, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;
use relink_engine::store::Store;
use relink_formats as formats;

use super::dynamic::{SlotKind, slot_kind};
use super::dynamic_relocs::DynamicRelocs;
use super::dynamic_symbols::Tables;
use crate::debug::changed::Stop;
use crate::kernel::Places;
use crate::view::{View, offset_of_address};

/// Gives a symbol that has none the next spare slot, and writes it; `false` if the image has none for it.
///
/// In position-independent output every spare slot has a RELATIVE relocation: only what moves with the image can stand there, not the
/// offset of a thread-local variable, nor a constant.
pub(super) fn take_spare_slot(
    store: &Store,
    plan: &mut Plan,
    image: &Image,
    draft: &mut Draft,
    row: SymbolRow,
) -> Result<bool, StoreError> {
    let view = View::new(store, plan);
    let symbol = view.symbol_record(row);
    let address = view.address_of(&symbol);
    view.damage()?;
    if symbol.got != 0 {
        return Ok(true); // Two references asked for it.
    }
    let bases = view.bases();
    let tls = symbol.flags & symbol_flags::TLS != 0;
    let without_plt = symbol.flags & symbol_flags::IFUNC != 0 && symbol.plt == 0;
    let relative = match slot_kind(&symbol, bases.position_independent, bases.shared) {
        SlotKind::Relative => true,
        SlotKind::Constant if !bases.position_independent => false,
        // The loader would have to be told.
        _ => return Ok(false),
    };
    // Spare relocations write to the last slot.
    let usable = plan.image.got_slots.saturating_sub(u32::from(bases.position_independent || bases.dynamic));
    if without_plt || plan.image.got_used >= usable {
        return Ok(false);
    }
    let slot = plan.image.got_address + 8 * u64::from(plan.image.got_used);
    let value = if tls { address.wrapping_sub(plan.image.tp) } else { address };
    let offset = offset_of_address(store, slot)?;
    if !draft.write(image, offset, &value.to_le_bytes()) {
        return Err(StoreError::Malformed(format!("the GOT slot at {slot:#x} is outside the image")));
    }
    if relative && !DynamicRelocs::new(store, plan, image, draft)?.update(slot, address) {
        return Ok(false);
    }
    let owners = plan.image.got_owners;
    let owner = owners.start.saturating_add(plan.image.got_used);
    if plan.image.got_used >= owners.len || owner >= store.owners.len() {
        return Err(StoreError::Malformed("a GOT slot has no row".to_owned()));
    }
    plan.owners.insert(owner, row.0 + 1);
    plan.image.got_used += 1;
    plan.symbols.insert(row.0, SymbolRecord { got: plan.image.got_used, ..symbol });
    Ok(true)
}

impl Tables<'_> {
    /// A GOT slot that the loader fills with a symbol's address.
    pub(super) fn need_slot(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let symbol = self.need_symbol(row)?;
        let record = self.record(row)?;
        if record.got != 0 {
            return Ok(());
        }
        let no_slot = || {
            let symbol = crate::view::text_of(self.store, self.plan, record.name);
            Stop::Reason(GateReason::GotSlotAdded { symbol, input: String::new() })
        };
        let image = self.plan.image;
        let tls = record.flags & symbol_flags::TLS != 0;
        if tls && image.flags & image_flags::SHARED != 0 && !self.has_static_tls()? {
            return Err(no_slot());
        }
        let mut free = None;
        for at in 0..image.got_used.min(image.got_owners.len) {
            if self.owner(image.got_owners, at)?.is_none() {
                free = Some(at);
                break;
            }
        }
        // The last slot is where spare relocations write to.
        let last = image.got_slots.saturating_sub(1);
        let at = match free {
            Some(at) => at,
            None if image.got_used < last => image.got_used,
            None => return Err(no_slot()),
        };
        let slot = image.got_address.wrapping_add(8 * u64::from(at));
        let offset = offset_of_address(self.store, slot)?;
        self.write(offset, &[0; 8])?;
        let mut table = DynamicRelocs::new(self.store, self.plan, self.image, self.draft)?;
        // A spare slot has a relocation of its own, in output that may be loaded anywhere.
        let plain = free.is_some() || table.is_fixed() || table.remove(slot);
        let kind = if tls { elf::R_X86_64_TPOFF64 } else { elf::R_X86_64_GLOB_DAT };
        if !plain || !table.insert_named(symbol, slot, kind, 0) || !table.finish() {
            let section = ".got".to_owned();
            return Err(Stop::Reason(GateReason::DynamicRelocationChanged { section, input: String::new() }));
        }
        self.plan.image.got_used = image.got_used.max(at + 1);
        self.set_owner(image.got_owners, at, Some(row))?;
        let record = self.record(row)?;
        self.plan.symbols.insert(row.0, SymbolRecord { got: at + 1, ..record });
        Ok(())
    }

    /// Whether `.dynamic` says that the library's thread-local variables are there from the start.
    fn has_static_tls(&self) -> Result<bool, Stop> {
        let flags = self.dynamic_entries()?.into_iter().find(|entry| entry.1 == u64::from(elf::DT_FLAGS));
        Ok(flags.is_some_and(|(.., value)| value & u64::from(elf::DF_STATIC_TLS) != 0))
    }

    pub(super) fn leave_slot(&mut self, record: &SymbolRecord) -> Result<(), Stop> {
        let bases = View::new(self.store, self.plan).bases();
        let slot = bases.got_address.wrapping_add(8 * u64::from(record.got - 1));
        let mut table = DynamicRelocs::new(self.store, self.plan, self.image, self.draft)?;
        let left = match slot_kind(record, bases.position_independent, bases.shared) {
            SlotKind::Constant => true,
            SlotKind::Relative => table.remove(slot),
            SlotKind::GlobDat => table.remove_named(slot, elf::R_X86_64_GLOB_DAT),
            // That a library has none any more, `DT_FLAGS` would say.
            SlotKind::TpOffset => !bases.shared && table.remove_named(slot, elf::R_X86_64_TPOFF64),
        };
        if !left || !table.finish() {
            let section = ".got".to_owned();
            return Err(Stop::Reason(GateReason::DynamicRelocationChanged { section, input: String::new() }));
        }
        let offset = offset_of_address(self.store, slot)?;
        self.write(offset, &[0; 8])?;
        self.set_owner(self.plan.image.got_owners, record.got - 1, None)
    }
}
