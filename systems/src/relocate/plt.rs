//! New PLT entries of a warm frame, of imports and IFUNCs: those that an import left, then the spare ones behind the others.

use formats::dynamic::plt;
use formats::elf;
use formats::reloc::RelocError;
use relink_engine::column::StoreError;
use relink_engine::records::{SectionRecord, SymbolRecord, image_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use super::dynamic::UNUSED_CODE;
use super::dynamic_symbols::{RELA, Tables};
use crate::debug::changed::Stop;
use crate::view::{View, text_of};

fn out_of_reach(error: RelocError) -> Stop {
    Stop::Reason(GateReason::RelocationUnpatchable { input: String::new(), why: format!("PLT: {error}") })
}

impl Tables<'_> {
    /// Makes sure that calls of a symbol have an entry to go through.
    pub(super) fn need_plt(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let symbol = self.need_symbol(row)?;
        let record = self.record(row)?;
        if record.plt != 0 {
            return Ok(());
        }
        let index = self.take_entry(row)?;
        let slot = self.write_entry(index)?;
        let info = u64::from(symbol) << 32 | u64::from(elf::R_X86_64_JUMP_SLOT);
        self.write_relocation(index, [slot, info, 0])
    }

    /// Makes sure that an IFUNC of the image has an entry, which leads to where its resolver says and is its address.
    pub(super) fn need_resolved(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let record = self.record(row)?;
        if record.plt != 0 {
            return Ok(());
        }
        if self.plan.image.flags & image_flags::DYNAMIC == 0 {
            // What its start-up code runs through has no spare entry.
            let symbol = text_of(self.store, self.plan, record.name);
            return Err(Stop::Reason(GateReason::IfuncChanged { symbol, input: String::new() }));
        }
        let resolver = View::new(self.store, self.plan).address_of(&record);
        let index = self.take_entry(row)?;
        let (called, got_plt, at, slot) = self.entry_places(index)?;
        let code = plt::ibt_entry(at, slot).map_err(out_of_reach)?;
        self.write(called.file_offset(at)?, &code)?;
        if self.plan.image.lazy_plt.some().is_some() {
            let lazy = self.section(self.plan.image.lazy_plt, ".plt")?;
            let stub = lazy.address.wrapping_add(plt::ENTRY_LEN * (u64::from(index) + 1));
            self.write(lazy.file_offset(stub)?, &[UNUSED_CODE; plt::ENTRY_LEN as usize])?;
        }
        self.write(got_plt.file_offset(slot)?, &resolver.to_le_bytes())?;
        self.write_relocation(index, [slot, elf::R_X86_64_IRELATIVE.into(), resolver])?;
        self.rewrite_definition(row)
    }

    fn take_entry(&mut self, row: SymbolRow) -> Result<u32, Stop> {
        let owners = self.plan.image.plt_owners;
        let used = self.plan.image.plt_used.min(owners.len);
        let mut index = used;
        for at in 0..used {
            if self.owner(owners, at)?.is_none() {
                index = at;
                break;
            }
        }
        if index >= owners.len {
            return Err(Stop::Reason(GateReason::LayoutExhausted { what: ".plt".to_owned() }));
        }
        self.plan.image.plt_used = used.max(index + 1);
        self.set_owner(owners, index, Some(row))?;
        let record = self.record(row)?;
        self.plan.symbols.insert(row.0, SymbolRecord { plt: index + 1, ..record });
        Ok(index)
    }

    /// The called part and `.got.plt`; the addresses of an entry and of its slot.
    fn entry_places(&self, index: u32) -> Result<(SectionRecord, SectionRecord, u64, u64), Stop> {
        let called = self.section(self.plan.image.plt, ".plt")?;
        let got_plt = self.section(self.plan.image.got_plt, ".got.plt")?;
        let at = self.plan.image.plt_address.wrapping_add(plt::ENTRY_LEN * u64::from(index));
        let slot = got_plt.address.wrapping_add(8 * (plt::RESERVED_SLOTS + u64::from(index)));
        Ok((called, got_plt, at, slot))
    }

    /// Writes an entry and its slot in `.got.plt`; returns the address of the slot.
    fn write_entry(&mut self, index: u32) -> Result<u64, Stop> {
        let image = self.plan.image;
        let (called, got_plt, at, slot) = self.entry_places(index)?;
        let (code, word) = if image.lazy_plt.some().is_some() {
            let lazy = self.section(image.lazy_plt, ".plt")?;
            let stub = lazy.address.wrapping_add(plt::ENTRY_LEN * (u64::from(index) + 1));
            let code = plt::ibt_lazy_entry(stub, index, lazy.address).map_err(out_of_reach)?;
            self.write(lazy.file_offset(stub)?, &code)?;
            (plt::ibt_entry(at, slot).map_err(out_of_reach)?, stub)
        } else {
            let code = plt::lazy_entry(at, slot, index, called.address).map_err(out_of_reach)?;
            (code, at.wrapping_add(plt::LAZY_RESUME))
        };
        self.write(called.file_offset(at)?, &code)?;
        self.write(got_plt.file_offset(slot)?, &word.to_le_bytes())?;
        Ok(slot)
    }

    fn write_relocation(&mut self, index: u32, words: [u64; 3]) -> Result<(), Stop> {
        let row = self.plan.image.rela_plt;
        let section = self.section(row, ".rela.plt")?;
        let end = RELA * (u64::from(index) + 1);
        if end > section.size {
            self.set_size(row, end, ".rela.plt")?;
            self.set_dynamic(elf::DT_PLTRELSZ, end)?;
        }
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        self.write(section.offset + end - RELA, &bytes)
    }

    /// Leaves an entry to nobody: its relocation names no symbol, so that the loader finds nothing to do.
    pub(super) fn leave_plt(&mut self, index: u32) -> Result<(), Stop> {
        if index >= self.plan.image.plt_used {
            return Err(StoreError::Malformed("a symbol is outside of the PLT".to_owned()).into());
        }
        let (.., slot) = self.entry_places(index)?;
        self.write_relocation(index, [slot, elf::R_X86_64_JUMP_SLOT.into(), 0])?;
        self.set_owner(self.plan.image.plt_owners, index, None)
    }
}
