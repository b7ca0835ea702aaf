//! New PLT entries of a warm frame: those that an import left, then the spare ones behind the others.

use formats::dynamic::plt;
use formats::elf;
use formats::reloc::RelocError;
use relink_engine::column::StoreError;
use relink_engine::records::SymbolRecord;
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use super::dynamic_symbols::{RELA, Tables};
use crate::debug::changed::Stop;

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
        let slot = self.write_entry(index)?;
        self.write_relocation(index, symbol, slot)?;
        self.plan.image.plt_used = used.max(index + 1);
        self.set_owner(owners, index, Some(row))?;
        let record = self.record(row)?;
        self.plan.symbols.insert(row.0, SymbolRecord { plt: index + 1, ..record });
        Ok(())
    }

    /// Writes an entry and its slot in `.got.plt`; returns the address of the slot.
    fn write_entry(&mut self, index: u32) -> Result<u64, Stop> {
        let image = self.plan.image;
        let called = self.section(image.plt, ".plt")?;
        let got_plt = self.section(image.got_plt, ".got.plt")?;
        let at = image.plt_address.wrapping_add(plt::ENTRY_LEN * u64::from(index));
        let slot = got_plt.address.wrapping_add(8 * (plt::RESERVED_SLOTS + u64::from(index)));
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

    fn write_relocation(&mut self, index: u32, symbol: u32, slot: u64) -> Result<(), Stop> {
        let row = self.plan.image.rela_plt;
        let section = self.section(row, ".rela.plt")?;
        let end = RELA * (u64::from(index) + 1);
        if end > section.size {
            self.set_size(row, end, ".rela.plt")?;
            self.set_dynamic(elf::DT_PLTRELSZ, end)?;
        }
        let info = u64::from(symbol) << 32 | u64::from(elf::R_X86_64_JUMP_SLOT);
        let bytes: Vec<u8> = [slot, info, 0].into_iter().flat_map(u64::to_le_bytes).collect();
        self.write(section.offset + end - RELA, &bytes)
    }

    /// Leaves an entry to nobody: its relocation names no symbol, so that the loader finds nothing to do.
    pub(super) fn leave_plt(&mut self, index: u32) -> Result<(), Stop> {
        if index >= self.plan.image.plt_used {
            return Err(StoreError::Malformed("a symbol is outside of the PLT".to_owned()).into());
        }
        let got_plt = self.section(self.plan.image.got_plt, ".got.plt")?;
        let slot = got_plt.address.wrapping_add(8 * (plt::RESERVED_SLOTS + u64::from(index)));
        self.write_relocation(index, 0, slot)?;
        self.set_owner(self.plan.image.plt_owners, index, None)
    }
}
