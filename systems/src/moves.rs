//! Move: every reference to what changed its address is retargeted, or goes through an island.
//!
//! Only branches to the entry of a moved atom may keep their bytes. Everything else (pointers, GOT slots, interior
//! labels, debug information) is rewritten in the same frame, so that a function has one address.

use bevy_ecs::prelude::{Query, Res, ResMut};
use formats::island;
use formats::reloc::Op;
use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::components::{Input, Relocation, RelocationPool, Symbol};
use relink_engine::frame::{Frame, Request};
use relink_engine::image::{Draft, Image};
use relink_engine::options::DefsymValue;
use relink_engine::plan::{NewIsland, Plan};
use relink_engine::policy::MovePolicy;
use relink_engine::records::{
    AtomRecord, IslandRecord, RelocRecord, SymbolRecord, atom_flags, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{FdeRow, IslandRow, NONE, RelocRow, SymbolRow};
use relink_engine::store::Store;
use relink_formats as formats;

use crate::ingest::wrap::wrapped;
use crate::kernel::Places;
use crate::place::assign::follows_sizes;
use crate::relocate::dynamic::{SlotKind, slot_kind};
use crate::relocate::dynamic_relocs::DynamicRelocs;
use crate::view::{View, offset_of_address};

/// Finds all sites that refer to a changed address.
#[expect(clippy::too_many_arguments, reason = "each is a resource or a query of the frame")]
pub(crate) fn move_references(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    image: Option<Res<'_, Image>>,
    mut plan: ResMut<'_, Plan>,
    mut draft: ResMut<'_, Draft>,
    mut frame: ResMut<'_, Frame>,
    inputs: Query<'_, '_, &Input>,
    symbols: Query<'_, '_, &Symbol>,
    mut pool: ResMut<'_, RelocationPool>,
    mut relocations: Query<'_, '_, &mut Relocation>,
    mut commands: bevy_ecs::prelude::Commands<'_, '_>,
) {
    let (Some(store), Some(image)) = (store, image) else { return };
    let Some(options) = request.options.incremental.as_ref().filter(|_| frame.warm()) else { return };
    draft.clear();
    pool.used = 0;
    let changed: HashSet<u32> =
        plan.inputs.iter().filter_map(|&e| inputs.get(e).ok()).map(|i| i.row.0).collect();
    let symbols: Vec<Symbol> =
        plan.symbol_entities.iter().filter_map(|&entity| symbols.get(entity).ok()).copied().collect();
    let mut mover = Mover {
        store: &store,
        image: &image,
        plan: &mut plan,
        draft: &mut draft,
        frame: &mut frame,
        changed,
        policy: crate::policies::moves(options.move_kind),
        sites: Vec::new(),
    };
    let result = mover.run(&request, &symbols);
    let sites = std::mem::take(&mut mover.sites);
    frame.check(result);
    crate::pool::extend(&mut pool, &mut relocations, &mut commands, sites);
}

struct Mover<'a> {
    store: &'a Store,
    image: &'a Image,
    plan: &'a mut Plan,
    draft: &'a mut Draft,
    frame: &'a mut Frame,
    changed: HashSet<u32>,
    policy: &'static dyn MovePolicy,
    sites: Vec<Relocation>,
}

impl Mover<'_> {
    fn run(&mut self, request: &Request, symbols: &[Symbol]) -> Result<(), StoreError> {
        self.check_aliases(request, symbols)?;
        for symbol in symbols {
            if symbol.old.flags & symbol_flags::IFUNC != 0 && self.resolver_moved(symbol)? {
                // Its address stands in an IRELATIVE relocation.
                let name = self.store.text(symbol.old.name);
                let input = self.input_name(&symbol.old)?;
                self.frame.refuse(GateReason::IfuncChanged { symbol: name, input });
                return Ok(());
            }
            let old = self.definition(&symbol.old, false)?;
            let new = self.definition(&symbol.new, true)?;
            let resized = symbol.old.size != symbol.new.size;
            let rebound = symbol.old.info != symbol.new.info;
            if resized {
                for (row, reloc) in self.incoming(&symbol.old)? {
                    if reloc.op == Op::Size32 as u16 || reloc.op == Op::Size64 as u16 {
                        self.retarget(row, reloc);
                    }
                }
            }
            if old == new && !resized && !rebound {
                continue;
            }
            self.plan.written_symbols.push(symbol.row);
            self.write_dynsym(symbol, new)?;
            if old != new {
                self.follow_table_slots(symbol, new)?;
            }
        }
        let mut left = HashSet::new();
        for (row, old) in self.plan.moved.clone() {
            if old.flags & atom_flags::CODE != 0 {
                self.leave_slot(row, &old, symbols)?;
                left.insert(row);
            } else if old.flags & atom_flags::DEBUG == 0 {
                self.frame.counters.atoms_moved += 1;
                self.vacate((old.output, old.address, old.capacity), old.flags)?;
            }
        }
        for (_, old) in self.plan.removed_atoms.clone() {
            let cut = atom_flags::MERGE | atom_flags::EH_FRAME;
            if old.flags & (atom_flags::LIVE | cut) == atom_flags::LIVE {
                self.vacate((old.output, old.address, old.capacity), old.flags)?;
            }
        }
        for symbol in symbols {
            let moved = left.contains(&symbol.old.atom);
            let new = self.definition(&symbol.new, true)?;
            if !moved && self.definition(&symbol.old, false)? != new {
                // Shifted within its atom: nothing of it can stand at the old place.
                for (row, reloc) in self.incoming(&symbol.old)? {
                    self.retarget(row, reloc);
                }
            }
        }
        Ok(())
    }

    fn resolver_moved(&self, symbol: &Symbol) -> Result<bool, StoreError> {
        if !place::is_atom(symbol.old.atom) {
            return Ok(false);
        }
        let old = self.store.atoms.get(symbol.old.atom.0)?.address.wrapping_add(symbol.old.value);
        let new = View::new(self.store, self.plan)
            .atom_record(symbol.new.atom)
            .address
            .wrapping_add(symbol.new.value);
        Ok(old != new)
    }

    /// A `--defsym` whose value depends on what moves is a number that no input would bring up to date.
    fn check_aliases(&mut self, request: &Request, symbols: &[Symbol]) -> Result<(), StoreError> {
        for (name, value) in &request.options.defsyms {
            for named in value.symbols() {
                let meant = wrapped(&request.options.wrap, named.as_bytes());
                let Some(row) = self.store.global(meant.as_deref().unwrap_or(named.as_bytes()))? else {
                    continue;
                };
                let mut moved =
                    self.plan.moved.iter().any(|(atom, _)| {
                        self.store.symbols.get(row.0).is_ok_and(|symbol| symbol.atom == *atom)
                    });
                for symbol in symbols.iter().filter(|symbol| symbol.row == row) {
                    moved |= self.definition(&symbol.old, false)? != self.definition(&symbol.new, true)?;
                }
                if moved {
                    let input = self.input_name(&self.store.symbols.get(row.0)?)?;
                    let why = format!("--defsym {name} depends on the address of {named}, which moved");
                    self.frame.refuse(GateReason::RelocationUnpatchable { input, why });
                }
            }
            if let DefsymValue::Expression(expression) = value
                && follows_sizes(expression, &|section| self.is_loaded(section))
            {
                let why = format!("--defsym {name} depends on the size of a section that is not loaded");
                self.frame.refuse(GateReason::RelocationUnpatchable { input: String::new(), why });
            }
        }
        Ok(())
    }

    fn is_loaded(&self, section: &str) -> bool {
        let known = (0..self.store.sections.len()).filter_map(|row| self.store.sections.get(row).ok());
        let mut named = known.filter(|known| self.store.text(known.name) == section);
        named.all(|known| known.flags & u64::from(formats::elf::SHF_ALLOC) != 0)
    }

    fn input_name(&self, symbol: &SymbolRecord) -> Result<String, StoreError> {
        Ok(self.store.text(self.store.inputs.get(symbol.input.0)?.name))
    }

    /// Where a symbol is defined: not its PLT entry.
    fn definition(&self, symbol: &SymbolRecord, planned: bool) -> Result<u64, StoreError> {
        if !place::is_atom(symbol.atom) {
            return Ok(symbol.value);
        }
        let atom = match self.plan.atoms.get(&symbol.atom.0).filter(|_| planned) {
            Some(record) => *record,
            None => self.store.atoms.get(symbol.atom.0)?,
        };
        Ok(atom.address.wrapping_add(symbol.value))
    }

    /// Value and size in `.dynsym`.
    fn write_dynsym(&mut self, symbol: &Symbol, address: u64) -> Result<(), StoreError> {
        let (Some(section), true) = (self.plan.image.dynsym.some(), symbol.new.dynsym != 0) else {
            return Ok(());
        };
        let section = self.store.sections.get(section.0)?;
        let has = |flag: u16| symbol.new.flags & flag != 0;
        if has(symbol_flags::IFUNC) && !has(symbol_flags::PREEMPTIBLE) && symbol.new.plt != 0 {
            return Ok(()); // Others know its PLT entry, whatever becomes of the resolver.
        }
        let tls = has(symbol_flags::TLS);
        let value = if tls { address.wrapping_sub(self.plan.image.tls_start) } else { address };
        let entry = section.offset.wrapping_add(24 * u64::from(symbol.new.dynsym));
        self.write(entry.wrapping_add(ST_VALUE), &value.to_le_bytes());
        self.write(entry.wrapping_add(ST_SIZE), &symbol.new.size.to_le_bytes());
        Ok(())
    }

    /// The GOT slot and the entry point.
    fn follow_table_slots(&mut self, symbol: &Symbol, address: u64) -> Result<(), StoreError> {
        let bases = View::new(self.store, self.plan).bases();
        if symbol.new.tls_pair != 0 || symbol.new.tls_descriptor != 0 {
            let input = self.input_name(&symbol.new)?;
            let why = "a thread-local symbol that is reached through the GOT has moved".to_owned();
            self.frame.refuse(GateReason::RelocationUnpatchable { input, why });
        }
        if symbol.new.got != 0 {
            let slot = self.plan.image.got_address.wrapping_add(8 * u64::from(symbol.new.got - 1));
            let offset = offset_of_address(self.store, slot)?;
            let tls = symbol.new.flags & symbol_flags::TLS != 0;
            match slot_kind(&symbol.new, bases.position_independent, bases.shared) {
                SlotKind::GlobDat => {}
                SlotKind::TpOffset => {
                    let input = self.input_name(&symbol.new)?;
                    let why = "a thread-local symbol that is reached through the GOT has moved".to_owned();
                    self.frame.refuse(GateReason::RelocationUnpatchable { input, why });
                }
                SlotKind::Constant => {
                    let value = if tls { address.wrapping_sub(bases.tp) } else { address };
                    self.write(offset, &value.to_le_bytes());
                }
                SlotKind::Relative => {
                    self.write(offset, &address.to_le_bytes());
                    self.write_relative(slot, address)?;
                }
            }
        }
        if symbol.row == self.plan.image.entry {
            self.write(E_ENTRY, &address.to_le_bytes());
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !self.draft.write(self.image, offset, bytes) {
            let why = format!("a write of {} bytes at {offset:#x} is outside the image", bytes.len());
            self.frame.refuse(GateReason::StateUnusable { why });
        }
    }

    fn write_relative(&mut self, place: u64, value: u64) -> Result<(), StoreError> {
        let mut table = DynamicRelocs::new(self.store, self.plan, self.image, self.draft)?;
        if !table.update(place, value) {
            let section = ".rela.dyn".to_owned();
            self.frame.refuse(GateReason::DynamicRelocationChanged { section, input: String::new() });
        }
        Ok(())
    }

    /// References to a symbol from inputs that did not change.
    fn incoming(&self, symbol: &SymbolRecord) -> Result<Vec<(RelocRow, RelocRecord)>, StoreError> {
        let mut found = Vec::new();
        let mut next = symbol.first_incoming;
        let mut seen = 0;
        while let Some(row) = next.some() {
            let reloc = self.store.relocs.get(row.0)?;
            next = reloc.next;
            seen += 1;
            if seen > self.store.relocs.len() {
                return Err(StoreError::Malformed("a list of references runs in a circle".to_owned()));
            }
            let site = self.store.atoms.get(reloc.atom.0)?;
            // What goes through a PLT entry or names the symbol to the loader does not encode its address, but may its size.
            let sized = reloc.op == Op::Size32 as u16 || reloc.op == Op::Size64 as u16;
            let named = reloc.flags & reloc_flags::SYMBOLIC != 0;
            let bound_late = named || symbol.plt != 0 && reloc.flags & reloc_flags::DEBUG == 0 && !sized;
            if reloc.flags & reloc_flags::DEAD == 0 && !bound_late && !self.changed.contains(&site.input.0) {
                found.push((row, reloc));
            }
        }
        Ok(found)
    }

    fn retarget(&mut self, row: RelocRow, reloc: RelocRecord) {
        let record = RelocRecord { flags: reloc.flags & !reloc_flags::VIA_ISLAND, ..reloc };
        self.sites.push(Relocation { row, record });
        self.frame.counters.sites_retargeted += 1;
    }

    /// A code atom went away: its references, its island, its old slot.
    fn leave_slot(
        &mut self,
        row: relink_engine::rows::AtomRow,
        old: &AtomRecord,
        symbols: &[Symbol],
    ) -> Result<(), StoreError> {
        let new = View::new(self.store, self.plan).atom_record(row);
        let mut branches = Vec::new();
        let mut entry = SymbolRow(NONE);
        for symbol in symbols.iter().filter(|symbol| symbol.old.atom == row) {
            let at_entry = symbol.old.value == 0 && (symbol.new.atom, symbol.new.value) == (row, 0);
            if at_entry && entry.some().is_none() && symbol.old.size > 0 {
                entry = symbol.row;
            }
            for (site, reloc) in self.incoming(&symbol.old)? {
                if reloc.flags & reloc_flags::VIA_ISLAND != 0 && at_entry {
                    continue; // It goes through the island already, and may go on.
                }
                if at_entry && reloc.op == Op::Branch32 as u16 && reloc.addend == -4 {
                    branches.push((site, reloc));
                } else {
                    self.retarget(site, reloc);
                }
            }
        }
        let island = match old.island.some() {
            Some(known) => Some(self.store.islands.get(known.0)?),
            None => None,
        };
        // A later move finds branches that encode the address in between; only the first slot has an island.
        let keep = island.is_none() && entry.some().is_some() && self.policy.keeps_branches(branches.len());
        for (site, reloc) in branches {
            if keep {
                self.plan.reloc_flags.push((site, reloc.flags | reloc_flags::VIA_ISLAND));
            } else {
                self.retarget(site, reloc);
            }
        }
        self.frame.counters.atoms_moved += 1;
        match island {
            Some(island) => {
                let code = self.island_bytes(island.address, new.address)?;
                let offset = offset_of_address(self.store, island.address)?;
                self.write(offset, &code);
                let vacated = (old.output, old.address, old.capacity);
                self.vacate(vacated, old.flags)?;
                self.plan.islands.push(NewIsland { row: old.island, record: island });
            }
            None if keep => {
                let code = self.island_bytes(old.address, new.address)?;
                let kept = (code.len() as u64).next_multiple_of(island::MIN_SLOT);
                if kept > old.capacity {
                    let why = "a slot is too small for an island".to_owned();
                    let input = self.store.text(old.name);
                    self.frame.refuse(GateReason::RelocationUnpatchable { input, why });
                    return Ok(());
                }
                self.vacate((old.output, old.address + kept, old.capacity - kept), old.flags)?;
                let offset = offset_of_address(self.store, old.address)?;
                let mut slot = vec![0xcc; kept as usize];
                slot[..code.len()].copy_from_slice(&code);
                self.write(offset, &slot);
                let record = IslandRecord {
                    atom: row,
                    symtab: 0,
                    address: old.address,
                    size: code.len() as u32,
                    fde: FdeRow(NONE),
                    capacity: kept,
                    symbol: entry,
                    reserved: 0,
                };
                self.plan.islands.push(NewIsland { row: IslandRow(NONE), record });
                self.frame.counters.islands_written += 1;
            }
            None => self.vacate((old.output, old.address, old.capacity), old.flags)?,
        }
        Ok(())
    }

    fn island_bytes(&mut self, address: u64, target: u64) -> Result<Vec<u8>, StoreError> {
        let offset = offset_of_address(self.store, address)?;
        let entry = self.image.read(offset, 4).unwrap_or_default();
        island::island(&entry, address, target).map_err(|error| StoreError::Malformed(error.to_string()))
    }

    fn vacate(
        &mut self,
        (section, start, len): (relink_engine::rows::SectionRow, u64, u64),
        flags: u32,
    ) -> Result<(), StoreError> {
        if len == 0 {
            return Ok(());
        }
        // Debug information is closed by fillers, later; zeros that are not in the file stay where they are.
        if flags & (atom_flags::NOBITS | atom_flags::DEBUG) == 0 {
            let offset = offset_of_address(self.store, start)?;
            let filler = if flags & atom_flags::CODE != 0 { 0xcc } else { 0 };
            let hole = self.image.padded(&[], len, filler)?;
            self.write(offset, &hole);
        }
        self.plan.freed.push((section, start, len));
        Ok(())
    }
}

/// Offsets in an entry of `.dynsym`.
const ST_VALUE: u64 = 8;
const ST_SIZE: u64 = 16;
/// Offset of `e_entry` in the ELF header.
const E_ENTRY: u64 = 24;
