//! `.symtab` of a warm frame: entries change, come and go.
//!
//! Local ones, islands among them, take the nameless entries that the cold link left in their midst, and leave such.
//! Global ones stand close: the last takes the place of one that goes, and new ones follow it.

use formats::elf;
use formats::units::VirtAddr;
use relink_engine::column::StoreError;
use relink_engine::options::PlaceKind;
use relink_engine::policy::FreeRange;
use relink_engine::records::{IslandRecord, SymbolRecord, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{SectionRow, SymbolRow};
use relink_formats as formats;

use super::changed::{Stop, Writer};
use super::symtab::symbol_bytes;
use crate::diff::symbols::is_hidden;
use crate::place::free;
use crate::view::{View, name_of};

/// Bytes of an entry.
const ENTRY: u64 = 24;
/// Bytes of its name's offset, in front of everything else.
const NAME: u64 = 4;
/// Bytes at the end of `.strtab` that a name is looked for in; a few microseconds.
const RECENT_NAMES: u64 = 8 << 10;
/// How much of a name is read at once.
const NAME_CHUNK: usize = 256;

impl Writer<'_> {
    /// What goes makes room for what comes; what stays is written last, for it may have changed its place.
    pub(super) fn write_symbols(&mut self) -> Result<(), Stop> {
        let Some(table) = self.plan.image.symtab.some() else { return Ok(()) };
        let mut removed = std::mem::take(&mut self.plan.removed_symbols);
        // From the end: then no entry that is moved is one that goes.
        removed.sort_unstable_by_key(|old| std::cmp::Reverse(old.index));
        for old in removed {
            if old.local {
                self.free_local(table, old.index)?;
            } else {
                self.remove_global(table, old.index)?;
            }
        }
        for row in std::mem::take(&mut self.plan.added_symbols) {
            self.add_symbol(table, row)?;
        }
        let offset = self.store.sections.get(table.0)?.offset;
        for row in std::mem::take(&mut self.plan.written_symbols) {
            let symbol = View::new(self.store, self.plan).symbol_record(row);
            if symbol.symtab != 0 {
                let bytes = self.symbol_entry(&symbol, 0)?;
                let at = offset + ENTRY * u64::from(symbol.symtab);
                self.write(at + NAME, &bytes[NAME as usize..])?;
                self.frame.counters.symbols_written += 1;
            }
        }
        Ok(())
    }

    fn add_symbol(&mut self, table: SectionRow, row: SymbolRow) -> Result<(), Stop> {
        let mut symbol = View::new(self.store, self.plan).symbol_record(row);
        let name = name_of(self.store, self.plan, symbol.name)?.to_vec();
        let name = self.add_string(&name)?;
        symbol.symtab = if is_local(&symbol) { self.take_local(table)? } else { self.append_global(table)? };
        self.plan.symbols.insert(row.0, symbol);
        let bytes = self.symbol_entry(&symbol, name)?;
        self.write_entry(table, symbol.symtab, &bytes)?;
        self.frame.counters.symbols_written += 1;
        Ok(())
    }

    fn symbol_entry(&self, symbol: &SymbolRecord, name: u32) -> Result<[u8; 24], Stop> {
        let view = View::new(self.store, self.plan);
        let (section, mut value) = if place::is_atom(symbol.atom) {
            let atom = view.atom_record(symbol.atom);
            let index = atom.output.some().map_or(0, |row| view.section_record(row).index);
            let section = if index == 0 { elf::SHN_ABS } else { index as u16 };
            (section, atom.address.wrapping_add(symbol.value))
        } else if symbol.atom == place::ABSOLUTE {
            (elf::SHN_ABS, symbol.value)
        } else {
            (elf::SHN_UNDEF, 0)
        };
        view.damage()?;
        if symbol.flags & symbol_flags::TLS != 0 && section != elf::SHN_UNDEF {
            value = value.wrapping_sub(self.plan.image.tls_start);
        }
        Ok(symbol_bytes(symbol, name, section, VirtAddr(value), is_local(symbol)))
    }

    fn write_entry(&mut self, table: SectionRow, index: u32, bytes: &[u8]) -> Result<(), Stop> {
        let offset = self.store.sections.get(table.0)?.offset;
        self.write(offset + ENTRY * u64::from(index), bytes)
    }

    /// A nameless entry among the local ones.
    fn take_local(&mut self, table: SectionRow) -> Result<u32, Stop> {
        let fits = |range: FreeRange| (range.len > 0).then_some(range.start);
        let policy = crate::policies::place(PlaceKind::FirstFit);
        let space = free::space(self.store, self.plan)?;
        if let Some((_, start)) = free::take(space, table, 1, policy, &fits) {
            return u32::try_from(start).map_err(|_| {
                StoreError::Malformed("a free symbol is outside of its table".to_owned()).into()
            });
        }
        let index = self.plan.image.next_local;
        if index >= self.plan.image.locals_end {
            return Err(Stop::Reason(GateReason::SymbolTableExhausted));
        }
        self.plan.image.next_local += 1;
        Ok(index)
    }

    fn free_local(&mut self, table: SectionRow, index: u32) -> Result<(), Stop> {
        let hole = SymbolRecord { info: elf::STT_FILE, ..Default::default() };
        let bytes = symbol_bytes(&hole, 0, elf::SHN_ABS, VirtAddr(0), true);
        self.write_entry(table, index, &bytes)?;
        free::give_back(free::space(self.store, self.plan)?, table, index.into(), 1);
        Ok(())
    }

    /// The entry behind the last one.
    fn append_global(&mut self, table: SectionRow) -> Result<u32, Stop> {
        let known = self.store.sections.get(table.0)?;
        let record = self.plan.sections.entry(table.0).or_insert(known);
        if record.size + ENTRY > record.capacity {
            return Err(Stop::Reason(GateReason::SymbolTableExhausted));
        }
        record.size += ENTRY;
        Ok((record.size / ENTRY - 1) as u32)
    }

    fn remove_global(&mut self, table: SectionRow, index: u32) -> Result<(), Stop> {
        let known = self.store.sections.get(table.0)?;
        let record = self.plan.sections.entry(table.0).or_insert(known);
        let Some(last) = (record.size / ENTRY).checked_sub(1) else { return Ok(()) };
        record.size -= ENTRY;
        let at = known.offset + ENTRY * last;
        if last != u64::from(index) {
            let entry = self.draft.read(self.image, at, ENTRY as usize).unwrap_or_default();
            let name = self.name_of_entry(&entry)?;
            let row = match self.plan.new_names.get(&name) {
                Some(&row) => Some(row),
                None => self.store.global(&name)?,
            };
            let moved = row.map(|row| (row, View::new(self.store, self.plan).symbol_record(row)));
            let Some((row, symbol)) = moved.filter(|(_, symbol)| u64::from(symbol.symtab) == last) else {
                return Err(Stop::Reason(GateReason::SymbolTableExhausted));
            };
            self.plan.symbols.insert(row.0, SymbolRecord { symtab: index, ..symbol });
            self.write_entry(table, index, &entry)?;
        }
        self.write(at, &[0; ENTRY as usize])
    }

    fn name_of_entry(&self, entry: &[u8]) -> Result<Vec<u8>, Stop> {
        let damaged = || StoreError::Malformed("a symbol of the image has no name".to_owned());
        let word = entry.first_chunk().ok_or_else(damaged)?;
        let strings = self.plan.image.strtab.some().ok_or_else(damaged)?;
        let strings = self.store.sections.get(strings.0)?;
        let mut at = strings.offset + u64::from(u32::from_le_bytes(*word));
        let end = strings.offset + strings.capacity.max(strings.size);
        let mut name = Vec::new();
        while at < end {
            let len = (end - at).min(NAME_CHUNK as u64);
            let chunk = self.draft.read(self.image, at, len as usize).ok_or_else(damaged)?;
            if let Some(terminator) = chunk.iter().position(|&byte| byte == 0) {
                name.extend_from_slice(&chunk[..terminator]);
                return Ok(name);
            }
            name.extend(chunk);
            at += len;
        }
        Err(damaged().into())
    }

    /// Puts a name into `.strtab`: behind its end, unless it is among those that stand last. Nothing is ever taken out,
    /// so a name that comes and goes again and again takes room once (`it::wide`).
    fn add_string(&mut self, name: &[u8]) -> Result<u32, Stop> {
        let Some(row) = self.plan.image.strtab.some() else {
            return Err(Stop::Reason(GateReason::SymbolTableExhausted));
        };
        let known = self.store.sections.get(row.0)?;
        let strings = self.plan.sections.entry(row.0).or_insert(known);
        let at = strings.size;
        let name = [name, &[0]].concat();
        let len = name.len() as u64;
        let recent = at.saturating_sub(RECENT_NAMES);
        let last =
            self.draft.read(self.image, known.offset + recent, (at - recent) as usize).unwrap_or_default();
        if let Some(found) = last.windows(name.len()).position(|bytes| bytes == name) {
            return Ok((recent + found as u64) as u32);
        }
        if at + len > strings.capacity {
            return Err(Stop::Reason(GateReason::SymbolTableExhausted));
        }
        strings.size += len;
        self.write(known.offset + at, &name)?;
        Ok(at as u32)
    }

    /// A new island's symbol: profilers and debuggers may stop on it.
    pub(super) fn write_island_symbol(&mut self, island: &IslandRecord) -> Result<u32, Stop> {
        let (Some(table), Some(_)) = (self.plan.image.symtab.some(), self.plan.image.strtab.some()) else {
            return Ok(0);
        };
        let symbol = self.store.symbols.get(island.symbol.0)?;
        let name = [self.store.strings.bytes(symbol.name)?, b".island"].concat();
        let name = self.add_string(&name)?;
        let index = self.take_local(table)?;
        let code = self.store.sections.get(self.store.atoms.get(island.atom.0)?.output.0)?;
        let record = SymbolRecord { size: u64::from(island.size), info: elf::STT_FUNC, ..Default::default() };
        let bytes = symbol_bytes(&record, name, code.index as u16, VirtAddr(island.address), true);
        self.write_entry(table, index, &bytes)?;
        self.frame.counters.symbols_written += 1;
        Ok(index)
    }
}

/// Whether a symbol stands among the local ones of the image.
fn is_local(symbol: &SymbolRecord) -> bool {
    symbol.flags & symbol_flags::GLOBAL == 0 || is_hidden(symbol.other)
}
