//! The loader's symbol tables in a warm frame: imports and exports come and go.
//!
//! An import takes an entry of `.dynsym` in front of those that `.gnu.hash` holds, the last local one at first. In a hash
//! table the names of a bucket stand in a row: one that finds no room beside the others takes them along to where a row is
//! free, the end of the table if need be. Entries that are left are nobody's, until another name takes them.

use formats::dynamic::hash::{GnuShape, gnu_hash, sysv_encode, sysv_hash};
use formats::dynamic::versions::{VER_NDX_GLOBAL, VER_NDX_LOCAL, VERSYM_VERSION};
use formats::elf;
use formats::units::VirtAddr;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::frame::Request;
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::records::{SectionRecord, SymbolRecord, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{SectionRow, Span, SymbolRow};
use relink_engine::store::Store;
use relink_formats as formats;

use super::dynamic::{dynsym_bytes, unused_symbol};
use crate::debug::changed::Stop;
use crate::debug::symtab::symbol_bytes;
use crate::ingest::libraries::split_version;
use crate::resolve::dynamic::is_defined_here;
use crate::view::{View, name_of};

/// Bytes of an entry of `.dynsym`.
const SYMBOL: u64 = 24;
/// The offset of `st_info` in one.
const ST_INFO: u64 = 4;
/// Bytes of an entry of `.gnu.version`.
const VERSION: u64 = 2;
/// Bytes of an entry of `.rela.dyn` and `.rela.plt`.
pub(super) const RELA: u64 = 24;
/// Bytes of a section header, and the offset of `sh_info` in one.
const HEADER: u64 = 64;
const SH_INFO: u64 = 44;

/// What the frame has done to the tables so far.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Hashes of the names from the first hashed entry on, once they are asked for; none for nobody's.
    hashed: Option<Vec<Option<u32>>>,
    /// An entry of `.dynsym` came, went or moved.
    touched: bool,
    /// One of those that `.gnu.hash` holds.
    rehash: bool,
    /// A name may have been the last of its version.
    pub(super) dropped: bool,
    /// Imports that have no version yet.
    pub(super) imported: Vec<SymbolRow>,
    /// Libraries, by file, to which a reference has come or gone.
    pub(super) libraries: HashSet<u32>,
    /// For the counters.
    pub(super) written: u64,
    pub(super) names_hashed: u64,
}

/// The tables as the frame would have them.
pub(crate) struct Tables<'a> {
    pub(super) request: &'a Request,
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    pub(super) plan: &'a mut Plan,
    pub(super) draft: &'a mut Draft,
    pub(super) changes: &'a mut Changes,
}

pub(super) fn exhausted(what: &str) -> Stop {
    Stop::Reason(GateReason::LayoutExhausted { what: what.to_owned() })
}

impl Tables<'_> {
    pub(super) fn section(&self, row: SectionRow, what: &str) -> Result<SectionRecord, Stop> {
        let Some(row) = row.some() else { return Err(exhausted(what)) };
        match self.plan.sections.get(&row.0) {
            Some(record) => Ok(*record),
            None => Ok(self.store.sections.get(row.0)?),
        }
    }

    pub(super) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Stop> {
        let len = self.image.room(len)?;
        let bytes = self.draft.read(self.image, offset, len);
        bytes.ok_or_else(|| {
            StoreError::Malformed(format!("a read at {offset:#x} is outside the image")).into()
        })
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        if self.draft.write(self.image, offset, bytes) {
            Ok(())
        } else {
            Err(StoreError::Malformed(format!("a write at {offset:#x} is outside the image")).into())
        }
    }

    pub(super) fn set_size(&mut self, row: SectionRow, size: u64, what: &str) -> Result<(), Stop> {
        let known = self.section(row, what)?;
        if size > known.capacity {
            return Err(exhausted(what));
        }
        if size != known.size {
            self.plan.sections.insert(row.0, SectionRecord { size, ..known });
        }
        Ok(())
    }

    pub(super) fn owner(&self, span: Span, at: u32) -> Result<Option<SymbolRow>, Stop> {
        if at >= span.len {
            return Ok(None);
        }
        let row = span.start.saturating_add(at);
        let owner = match self.plan.owners.get(&row) {
            Some(&owner) => owner,
            None => self.store.owners.get(row)?,
        };
        Ok(owner.checked_sub(1).map(SymbolRow))
    }

    pub(super) fn set_owner(&mut self, span: Span, at: u32, owner: Option<SymbolRow>) -> Result<(), Stop> {
        let row = span.start.saturating_add(at);
        if at >= span.len || row >= self.store.owners.len() {
            return Err(StoreError::Malformed("a table has no such entry".to_owned()).into());
        }
        self.plan.owners.insert(row, owner.map_or(0, |row| row.0 + 1));
        Ok(())
    }

    pub(super) fn record(&self, row: SymbolRow) -> Result<SymbolRecord, Stop> {
        let view = View::new(self.store, self.plan);
        let record = view.symbol_record(row);
        view.damage()?;
        Ok(record)
    }

    /// A symbol's name without its version.
    fn base_name(&self, record: &SymbolRecord) -> Result<Vec<u8>, Stop> {
        Ok(split_version(name_of(self.store, self.plan, record.name)?).0.to_vec())
    }

    /// Entries of `.dynsym`.
    fn entries(&self) -> Result<u32, Stop> {
        let table = self.section(self.plan.image.dynsym, ".dynsym")?;
        Ok((self.image.room(table.size)? as u64 / SYMBOL) as u32)
    }

    /// Writes an entry of `.dynsym` and its version; the tables grow as far as that takes.
    fn put(&mut self, index: u32, row: SymbolRow, bytes: &[u8], version: u16) -> Result<(), Stop> {
        let (dynsym, versym) = (self.plan.image.dynsym, self.plan.image.versym);
        if index >= self.entries()? {
            let end = u64::from(index) + 1;
            self.set_size(dynsym, end * SYMBOL, ".dynsym")?;
            if versym.some().is_some() {
                self.set_size(versym, end * VERSION, ".gnu.version")?;
            }
        }
        self.put_bytes(index, bytes, version)?;
        self.set_owner(self.plan.image.dynsym_owners, index, Some(row))?;
        let record = self.record(row)?;
        self.plan.symbols.insert(row.0, SymbolRecord { dynsym: index, ..record });
        self.changes.touched = true;
        self.changes.written += 1;
        Ok(())
    }

    fn put_bytes(&mut self, index: u32, bytes: &[u8], version: u16) -> Result<(), Stop> {
        let at = self.section(self.plan.image.dynsym, ".dynsym")?.offset;
        self.write(at + SYMBOL * u64::from(index), bytes)?;
        if self.plan.image.versym.some().is_some() {
            let at = self.section(self.plan.image.versym, ".gnu.version")?.offset;
            self.write(at + VERSION * u64::from(index), &version.to_le_bytes())?;
        } else if version & VERSYM_VERSION > VER_NDX_GLOBAL {
            return Err(exhausted(".gnu.version"));
        }
        Ok(())
    }

    fn version_at(&self, index: u32) -> Result<u16, Stop> {
        if self.plan.image.versym.some().is_none() {
            return Ok(VER_NDX_GLOBAL);
        }
        let at = self.section(self.plan.image.versym, ".gnu.version")?.offset;
        let bytes = self.read(at + VERSION * u64::from(index), VERSION)?;
        Ok(bytes.first_chunk().map_or(VER_NDX_GLOBAL, |half| u16::from_le_bytes(*half)))
    }

    pub(super) fn set_version(&mut self, index: u32, version: u16) -> Result<(), Stop> {
        if self.version_at(index)? & VERSYM_VERSION == version {
            return Ok(());
        }
        if self.plan.image.versym.some().is_none() {
            return Err(exhausted(".gnu.version"));
        }
        let at = self.section(self.plan.image.versym, ".gnu.version")?.offset;
        self.write(at + VERSION * u64::from(index), &version.to_le_bytes())
    }

    /// Makes an import weak or strong, as its references are.
    pub(super) fn bind(&mut self, row: SymbolRow, strong: bool) -> Result<(), Stop> {
        let record = self.record(row)?;
        let flags = record.flags & !symbol_flags::STRONG;
        let flags = if strong { flags | symbol_flags::STRONG } else { flags };
        self.plan.symbols.insert(row.0, SymbolRecord { flags, ..record });
        self.plan.written_symbols.push(row);
        self.note_library(&record);
        let at = self.section(self.plan.image.dynsym, ".dynsym")?.offset;
        let at = at + SYMBOL * u64::from(record.dynsym) + ST_INFO;
        let binding = if strong { elf::STB_GLOBAL } else { elf::STB_WEAK };
        self.changes.written += 1;
        self.write(at, &[binding << 4 | record.info & 0xf])
    }

    /// The image may need the symbol's library from now on, or no more.
    fn note_library(&mut self, record: &SymbolRecord) {
        if record.atom == place::SHARED {
            self.changes.libraries.insert(record.input.0);
        }
    }

    /// Leaves an entry of `.dynsym` to nobody. In a hash table the last name of its bucket takes its place, so that the
    /// others go on standing in a row.
    fn vacate(&mut self, index: u32) -> Result<(), Stop> {
        if index == 0 || index >= self.entries()? {
            return Err(StoreError::Malformed("a symbol is outside of .dynsym".to_owned()).into());
        }
        self.changes.touched = true;
        self.changes.written += 1;
        let Some(at) = index.checked_sub(self.plan.image.first_hashed).map(|at| at as usize) else {
            return self.clear(index);
        };
        self.changes.rehash = true;
        let shape = self.shape()?;
        let hashes = self.hashed()?;
        let bucket =
            |at: usize| hashes.get(at).copied().flatten().zip(shape).map(|(hash, shape)| shape.bucket(hash));
        let last =
            (at..hashes.len()).rev().find(|&other| bucket(other).is_some() && bucket(other) == bucket(at));
        let last = last.unwrap_or(at);
        if hashes.len() <= at {
            return Err(StoreError::Malformed("a symbol is outside of .gnu.hash".to_owned()).into());
        }
        hashes.swap(at, last);
        hashes[last] = None;
        self.clear(index)?;
        let last = self.plan.image.first_hashed.saturating_add(last as u32);
        if last != index {
            self.move_entry(last, index)?;
            self.renumber(&HashMap::from([(last, index)]))?;
        }
        Ok(())
    }

    /// Writes an entry that nobody has.
    fn clear(&mut self, index: u32) -> Result<(), Stop> {
        self.put_bytes(index, &unused_symbol(false), VER_NDX_GLOBAL)?;
        self.set_owner(self.plan.image.dynsym_owners, index, None)
    }

    /// Takes an entry of `.dynsym` elsewhere.
    fn move_entry(&mut self, from: u32, to: u32) -> Result<(), Stop> {
        let Some(row) = self.owner(self.plan.image.dynsym_owners, from)? else {
            return Err(StoreError::Malformed("an entry of .dynsym has no symbol".to_owned()).into());
        };
        let table = self.section(self.plan.image.dynsym, ".dynsym")?.offset;
        let bytes = self.read(table + SYMBOL * u64::from(from), SYMBOL)?;
        let version = self.version_at(from)?;
        self.put(to, row, &bytes, version)?;
        self.clear(from)
    }

    /// The offset of a text in `.dynstr`, which has it or has room for it.
    pub(super) fn string(&mut self, text: &[u8]) -> Result<u32, Stop> {
        let section = self.section(self.plan.image.dynstr, ".dynstr")?;
        let bytes = self.read(section.offset, section.size)?;
        let wanted = [&[0], text, &[0]].concat();
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            return Ok(at as u32 + 1);
        }
        // Behind the last name stand its terminator and nothing else.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 2);
        let end = used + text.len() + 1;
        if end > bytes.len() {
            return Err(exhausted(".dynstr"));
        }
        self.write(section.offset + used as u64, text)?;
        Ok(used as u32)
    }

    /// A text of `.dynstr`.
    pub(super) fn text(strings: &[u8], at: u32) -> &[u8] {
        let rest = strings.get(at as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Makes sure that the loader knows an import; its entry in `.dynsym`.
    pub(super) fn need_symbol(&mut self, row: SymbolRow) -> Result<u32, Stop> {
        let record = self.record(row)?;
        if record.dynsym != 0 {
            return Ok(record.dynsym);
        }
        let imported = record.flags & symbol_flags::PREEMPTIBLE != 0 && !is_defined_here(&record);
        if !imported {
            return Err(self.refused(&record, "an import"));
        }
        let name = name_of(self.store, self.plan, record.name)?.to_vec();
        let index = self.take_import()?;
        let string = self.string(split_version(&name).0)?;
        let record = SymbolRecord { flags: record.flags | symbol_flags::USED, ..record };
        self.plan.symbols.insert(row.0, record);
        let bytes = symbol_bytes(&record, string, elf::SHN_UNDEF, VirtAddr(0), false);
        // Its version is that of a library which the image may not need yet.
        self.put(index, row, &bytes, VER_NDX_GLOBAL)?;
        self.changes.imported.push(row);
        Ok(index)
    }

    pub(super) fn refused(&self, record: &SymbolRecord, need: &str) -> Stop {
        let symbol = crate::view::text_of(self.store, self.plan, record.name);
        let need = need.to_owned();
        Stop::Reason(GateReason::ImportNeedAdded { symbol, need, input: String::new() })
    }

    fn take_import(&mut self) -> Result<u32, Stop> {
        let image = &self.plan.image;
        let (locals, first) = (image.dynsym_locals, image.first_hashed.min(image.dynsym_owners.len));
        for index in locals..first {
            if self.owner(self.plan.image.dynsym_owners, index)?.is_none() {
                return Ok(index);
            }
        }
        let index = locals.checked_sub(1).filter(|&index| index > 0).ok_or_else(|| exhausted(".dynsym"))?;
        self.plan.image.dynsym_locals = index;
        self.set_info(self.plan.image.dynsym, index)?;
        Ok(index)
    }

    pub(super) fn set_info(&mut self, section: SectionRow, info: u32) -> Result<(), Stop> {
        let index = self.section(section, "section headers")?.index;
        let header = self.plan.image.section_headers.wrapping_add(HEADER * u64::from(index));
        self.write(header.wrapping_add(SH_INFO), &info.to_le_bytes())
    }

    fn shape(&self) -> Result<Option<GnuShape>, Stop> {
        if self.plan.image.gnu_hash.some().is_none() {
            return Ok(None);
        }
        let section = self.section(self.plan.image.gnu_hash, ".gnu.hash")?;
        let shape = GnuShape::read(&self.read(section.offset, section.size)?);
        let shape = shape.filter(|shape| shape.first == self.plan.image.first_hashed);
        match shape {
            Some(shape) => Ok(Some(shape)),
            None => Err(StoreError::Malformed(".gnu.hash is damaged".to_owned()).into()),
        }
    }

    /// Hashes of the names that `.gnu.hash` holds.
    fn hashed(&mut self) -> Result<&mut Vec<Option<u32>>, Stop> {
        if self.changes.hashed.is_none() {
            let mut hashes = Vec::new();
            for index in self.plan.image.first_hashed..self.entries()? {
                hashes.push(match self.owner(self.plan.image.dynsym_owners, index)? {
                    Some(row) => Some(gnu_hash(&self.base_name(&self.record(row)?)?)),
                    None => None,
                });
            }
            self.changes.names_hashed += hashes.len() as u64;
            self.changes.hashed = Some(hashes);
        }
        Ok(self.changes.hashed.get_or_insert_default())
    }

    /// Gives a name a place in the hash table.
    fn insert_hashed(&mut self, row: SymbolRow, name: &[u8], bytes: &[u8], version: u16) -> Result<(), Stop> {
        let shape = self.shape()?;
        let first = self.plan.image.first_hashed;
        let hash = gnu_hash(name);
        let hashes = self.hashed()?;
        let bucket = |hash: u32| shape.map(|shape| shape.bucket(hash));
        let meets =
            |known: &Option<u32>| shape.is_some() && known.is_some_and(|known| bucket(known) == bucket(hash));
        let own: Vec<usize> = (0..hashes.len()).filter(|&at| meets(&hashes[at])).collect();
        let is_free = |at: usize| hashes.get(at).is_none_or(Option::is_none);
        let (from, to) = (own.first().copied().unwrap_or(0), own.last().map_or(0, |last| last + 1));
        let mut moves = Vec::new();
        let place = if own.is_empty() {
            (0..=hashes.len()).find(|&at| is_free(at)).unwrap_or(hashes.len())
        } else if is_free(to) {
            to
        } else if from > 0 && is_free(from - 1) {
            from - 1
        } else {
            let len = own.len() + 1;
            let start = (0..=hashes.len()).find(|&start| (start..start + len).all(is_free));
            let start = start.unwrap_or(hashes.len());
            moves = own.iter().copied().zip(start..).collect();
            start + len - 1
        };
        let end = place.max(moves.last().map_or(0, |&(_, to)| to)) + 1;
        if hashes.len() < end {
            hashes.resize(end, None);
        }
        for &(from, to) in &moves {
            hashes.swap(from, to);
        }
        hashes[place] = Some(hash);
        self.changes.names_hashed += 1;
        self.changes.rehash = true;
        let index = |at: usize| first.saturating_add(at as u32);
        let mut moved = HashMap::new();
        for (from, to) in moves {
            let (from, to) = (index(from), index(to));
            self.move_entry(from, to)?;
            moved.insert(from, to);
        }
        self.put(index(place), row, bytes, version)?;
        self.renumber(&moved)
    }

    /// Relocations name symbols by their entries in `.dynsym`.
    fn renumber(&mut self, moved: &HashMap<u32, u32>) -> Result<(), Stop> {
        if moved.is_empty() {
            return Ok(());
        }
        let skipped = u64::from(self.plan.image.relative_relocs) * RELA;
        for (row, start) in [(self.plan.image.rela_dyn, skipped), (self.plan.image.rela_plt, 0)] {
            if row.some().is_none() {
                continue;
            }
            let section = self.section(row, ".rela.dyn")?;
            let bytes = self.read(section.offset, section.size)?;
            for at in (start as usize..bytes.len()).step_by(RELA as usize) {
                let symbol = bytes.get(at + 12..).and_then(|rest| rest.first_chunk());
                let symbol = symbol.map_or(0, |word| u32::from_le_bytes(*word));
                if let Some(new) = moved.get(&symbol).filter(|_| symbol != 0) {
                    self.write(section.offset + at as u64 + 12, &new.to_le_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// A definition that other modules may look up from now on.
    pub(super) fn add_export(&mut self, row: SymbolRow, version: u16) -> Result<(), Stop> {
        let record = self.record(row)?;
        if record.dynsym != 0 {
            return Ok(());
        }
        let name = self.base_name(&record)?;
        let string = self.string(&name)?;
        let bytes = self.definition_bytes(&record, string)?;
        self.insert_hashed(row, &name, &bytes, version)
    }

    /// Brings the entry of a definition up to date, if it has one.
    pub(super) fn rewrite_definition(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let record = self.record(row)?;
        if record.dynsym == 0 {
            return Ok(());
        }
        let at = self.section(self.plan.image.dynsym, ".dynsym")?.offset + SYMBOL * u64::from(record.dynsym);
        let name = self.read(at, 4)?;
        let name = name.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let bytes = self.definition_bytes(&record, name)?;
        self.changes.written += 1;
        self.write(at, &bytes)
    }

    /// The entry of a definition; `name` is an offset in `.dynstr`.
    fn definition_bytes(&self, record: &SymbolRecord, name: u32) -> Result<[u8; 24], Stop> {
        let view = View::new(self.store, self.plan);
        let (section, own) = if place::is_atom(record.atom) {
            let atom = view.atom_record(record.atom);
            let index = atom.output.some().map_or(0, |row| view.section_record(row).index);
            (index as u16, atom.address.wrapping_add(record.value))
        } else {
            (elf::SHN_ABS, record.value)
        };
        let address = view.address_of(record);
        let plt = self.plan.image.plt.some().map_or(0, |row| view.section_record(row).index) as u16;
        view.damage()?;
        Ok(dynsym_bytes(record, name, (section, plt), own, address, self.plan.image.tls_start))
    }

    /// Definitions that go make room for those that come.
    pub(super) fn change_exports(
        &mut self,
        new: &[(SymbolRow, u16)],
        dropped: &[(SymbolRow, SymbolRecord)],
    ) -> Result<(), Stop> {
        // One that goes may make another one move.
        for (row, old) in dropped {
            let record = self.record(*row)?;
            self.plan.symbols.insert(row.0, SymbolRecord { dynsym: old.dynsym, ..record });
        }
        for (row, old) in dropped {
            let dynsym = self.record(*row)?.dynsym;
            self.forget(&SymbolRecord { dynsym, ..*old })?;
            let record = self.record(*row)?;
            self.plan.symbols.insert(row.0, SymbolRecord { dynsym: 0, ..record });
        }
        for &(row, version) in new {
            self.add_export(row, version)?;
        }
        Ok(())
    }

    /// A library's function gets an address in the program: that of its PLT entry, which others find by its name.
    pub(super) fn need_address(&mut self, row: SymbolRow) -> Result<(), Stop> {
        let record = self.record(row)?;
        if record.flags & symbol_flags::CANONICAL_PLT != 0 {
            return Ok(()); // Two references asked for it.
        }
        let kind = record.info & 0xf;
        let function = kind == elf::STT_FUNC || kind == elf::STT_NOTYPE && record.size == 0;
        if place::is_atom(record.atom) {
            return Ok(()); // The copy of another reference, or of another name.
        }
        if record.atom == place::SHARED && !function {
            return self.need_copy(row);
        }
        if record.atom != place::SHARED {
            return Err(self.refused(&record, "an address in the program"));
        }
        self.need_plt(row)?;
        let record = self.record(row)?;
        let old = record.dynsym;
        let record = SymbolRecord { flags: record.flags | symbol_flags::CANONICAL_PLT, ..record };
        self.plan.symbols.insert(row.0, record);
        let address = View::new(self.store, self.plan).address_of(&record);
        let name = self.base_name(&record)?;
        let string = self.string(&name)?;
        let bytes = symbol_bytes(&record, string, elf::SHN_UNDEF, VirtAddr(address), false);
        let version = self.version_at(old)?;
        self.insert_hashed(row, &name, &bytes, version)?;
        self.vacate(old)?;
        let new = self.record(row)?.dynsym;
        self.renumber(&HashMap::from([(old, new)]))
    }

    /// Takes a symbol out of all tables of the loader; its record without them.
    pub(super) fn forget(&mut self, record: &SymbolRecord) -> Result<SymbolRecord, Stop> {
        if record.tls_pair != 0 || record.tls_descriptor != 0 {
            return Err(self.refused(record, "a TLS slot less"));
        }
        if record.got != 0 {
            self.leave_slot(record)?;
        }
        if record.plt != 0 {
            self.leave_plt(record.plt - 1)?;
        }
        if record.dynsym != 0 {
            self.vacate(record.dynsym)?;
        }
        self.changes.dropped = true;
        self.note_library(record);
        let flags = symbol_flags::USED | symbol_flags::STRONG | symbol_flags::CANONICAL_PLT;
        Ok(SymbolRecord { got: 0, plt: 0, dynsym: 0, flags: record.flags & !flags, ..*record })
    }

    /// Brings the hash tables and sizes up to date. Comes last.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        self.follow_libraries()?;
        if !self.changes.touched && !self.changes.dropped {
            return Ok(());
        }
        self.trim()?;
        if self.changes.dropped {
            self.prune_versions()?;
        }
        if self.changes.rehash
            && let Some(shape) = self.shape()?
        {
            let hashes = self.hashed()?.clone();
            self.changes.names_hashed += hashes.len() as u64;
            let bytes = shape.encode(&hashes);
            let bytes = bytes.ok_or_else(|| StoreError::Malformed("a bucket is torn".to_owned()))?;
            self.put_table(self.plan.image.gnu_hash, bytes, ".gnu.hash")?;
        }
        if self.plan.image.hash.some().is_some() {
            let section = self.section(self.plan.image.hash, ".hash")?;
            let head = self.read(section.offset, section.size.min(4))?;
            let buckets = head.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            self.image.room(u64::from(buckets) * 4)?;
            let mut hashes = Vec::new();
            for index in 1..self.entries()? {
                hashes.push(match self.owner(self.plan.image.dynsym_owners, index)? {
                    Some(row) => Some(sysv_hash(&self.base_name(&self.record(row)?)?)),
                    None => None,
                });
            }
            self.changes.names_hashed += hashes.len() as u64;
            self.put_table(self.plan.image.hash, sysv_encode(buckets, &hashes), ".hash")?;
        }
        Ok(())
    }

    fn put_table(&mut self, row: SectionRow, mut bytes: Vec<u8>, what: &str) -> Result<(), Stop> {
        let known = self.section(row, what)?;
        self.set_size(row, bytes.len() as u64, what)?;
        bytes.resize(bytes.len().max(self.image.room(known.size)?), 0);
        self.write(known.offset, &bytes)
    }

    /// Entries of nobody at the end of `.dynsym` go.
    fn trim(&mut self) -> Result<(), Stop> {
        let before = self.entries()?;
        let mut end = before;
        while end > self.plan.image.first_hashed.max(1)
            && self.owner(self.plan.image.dynsym_owners, end - 1)?.is_none()
        {
            end -= 1;
        }
        if end == before {
            return Ok(());
        }
        for index in end..before {
            self.put_bytes(index, &[0; SYMBOL as usize], VER_NDX_LOCAL)?;
        }
        let first = self.plan.image.first_hashed;
        self.hashed()?.truncate(end.saturating_sub(first) as usize);
        self.changes.rehash = true;
        self.set_size(self.plan.image.dynsym, u64::from(end) * SYMBOL, ".dynsym")?;
        if self.plan.image.versym.some().is_some() {
            self.set_size(self.plan.image.versym, u64::from(end) * VERSION, ".gnu.version")?;
        }
        Ok(())
    }
}
