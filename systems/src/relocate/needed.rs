//! What the image asks of shared libraries: which ones it needs, and versions of their names. A library of `--as-needed`
//! comes with the first reference that is not weak, and goes with the last one.

use formats::dynamic::hash::sysv_hash;
use formats::dynamic::versions::{
    NeededFile, NeededVersion, VER_NDX_FIRST, VER_NDX_GLOBAL, VERSYM_VERSION, encode_needed, read_defined,
    read_needed,
};
use formats::elf;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::records::{SymbolRecord, file_flags, image_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use super::dynamic_symbols::{Tables, exhausted};
use crate::debug::changed::Stop;
use crate::ingest::libraries::{Library, definition_of, input_of, open_library};
use crate::resolve::dynamic::{RELR_VERSION, is_defined_here};
use crate::view::name_of;

/// The one whose version says that it knows `DT_RELR`.
const LIBC: &[u8] = b"libc.so.6";

impl Tables<'_> {
    /// Brings needed libraries and versions up to date. Comes behind all other changes of imports.
    pub(super) fn follow_libraries(&mut self) -> Result<(), Stop> {
        let mut files: Vec<u32> = self.changes.libraries.drain().collect();
        files.sort_unstable();
        let mut turned = HashMap::new();
        for file in files {
            if self.store.files.get(file)?.flags & file_flags::AS_NEEDED == 0 {
                continue;
            }
            let (needed, name) = (self.is_referred_to(file)?, self.library(file)?.needed_name);
            if needed == self.needed_offset(&name)?.is_some() {
                continue;
            }
            if name == LIBC && self.plan.image.flags & image_flags::PACKED_RELATIVE != 0 {
                return Err(exhausted(".gnu.version_r"));
            }
            if needed {
                self.check_lacking(file)?;
            }
            self.name_library(file, &name, needed)?;
            turned.insert(file, needed);
        }
        let mut rows = std::mem::take(&mut self.changes.imported);
        if !turned.is_empty() {
            self.changes.dropped = true;
            let owners = self.plan.image.dynsym_owners;
            for index in 0..owners.len {
                if let Some(row) = self.owner(owners, index)? {
                    let record = self.record(row)?;
                    let needed = turned.get(&record.input.0).filter(|_| record.atom == place::SHARED);
                    let Some(&needed) = needed else { continue };
                    rows.push(row);
                    // The address that weak references have for it is that of an entry, or zero.
                    let canonical = record.flags & symbol_flags::CANONICAL_PLT != 0;
                    if if needed { !canonical && self.has_address_uses(row)? } else { canonical } {
                        return Err(self.refused(&record, "an address that its library decides about"));
                    }
                }
            }
        }
        for row in rows {
            let record = self.record(row)?;
            if record.dynsym != 0 {
                let version = self.version_of(&record)?;
                self.set_version(record.dynsym, version)?;
            }
        }
        Ok(())
    }

    /// Whether the image needs the library of a symbol, as far as it does by now.
    pub(super) fn has_library(&mut self, row: SymbolRow) -> Result<bool, Stop> {
        let record = self.record(row)?;
        if record.atom != place::SHARED {
            return Ok(true);
        }
        let name = self.library(record.input.0)?.needed_name;
        Ok(self.needed_offset(&name)?.is_some())
    }

    /// Whether something in the image really refers to a library.
    fn is_referred_to(&self, file: u32) -> Result<bool, Stop> {
        let owners = self.plan.image.dynsym_owners;
        for index in 0..owners.len {
            let Some(row) = self.owner(owners, index)? else { continue };
            let record = self.record(row)?;
            let strong = record.atom == place::SHARED && record.flags & symbol_flags::STRONG != 0;
            if record.input.0 == file && (strong || record.flags & symbol_flags::COPIED != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn library(&mut self, file: u32) -> Result<Library<'_>, Stop> {
        let name = input_of(self.request, self.store, self.plan, file)?.map(|input| input.name.clone());
        let library = open_library(self.request, self.store, self.plan, file)?;
        library.ok_or_else(|| {
            Stop::Reason(GateReason::SharedLibraryChanged { library: name.unwrap_or_default() })
        })
    }

    /// With `--no-allow-shlib-undefined` a full link would say what the library lacks.
    fn check_lacking(&mut self, file: u32) -> Result<(), Stop> {
        let options = &self.request.options;
        let allowed = options.dynamic.allow_shlib_undefined;
        if allowed.unwrap_or(options.output_kind.is_shared()) {
            return Ok(());
        }
        let parsed = self.library(file)?.parsed;
        let text = |name: &[u8]| name.to_vec();
        let needed: Vec<Vec<u8>> = parsed.needed.iter().map(|name| text(parsed.name(name))).collect();
        let lacks = parsed.symbols.iter().filter(|symbol| !symbol.defined && symbol.binding != elf::STB_WEAK);
        let mut lacks: Vec<Vec<u8>> = lacks.map(|symbol| text(parsed.name(&symbol.name))).collect();
        let mut known = HashSet::new();
        for other in 0..self.store.files.len() {
            if self.store.files.get(other)?.flags & file_flags::SHARED == 0 {
                continue;
            }
            let library = self.library(other)?;
            let defined = library.parsed.symbols.iter().filter(|symbol| symbol.defined);
            let defined: HashSet<&[u8]> = defined.map(|symbol| library.parsed.name(&symbol.name)).collect();
            lacks.retain(|name| !defined.contains(name.as_slice()));
            known.insert(library.needed_name);
        }
        if !needed.iter().all(|name| known.contains(name)) {
            return Ok(()); // Others, which are no part of the link, may define it.
        }
        for name in lacks.into_iter().filter(|name| !name.is_empty()) {
            let row = match self.plan.new_names.get(&name) {
                Some(&row) => Some(row),
                None => self.store.global(&name)?,
            };
            let record = row.map(|row| self.record(row)).transpose()?;
            if !record.is_some_and(|record| is_defined_here(&record)) {
                let symbol = String::from_utf8_lossy(&name).into_owned();
                let need = "a definition, for a library that is needed now".to_owned();
                return Err(Stop::Reason(GateReason::ImportNeedAdded { symbol, need, input: String::new() }));
            }
        }
        Ok(())
    }

    /// Puts a library among those that `.dynamic` names, in the order of the command line, or takes it out.
    fn name_library(&mut self, file: u32, name: &[u8], needed: bool) -> Result<(), Stop> {
        let section = self.section(self.plan.image.dynamic, ".dynamic")?;
        let entries = self.dynamic_entries()?;
        let room = entries.len();
        let is_needed = |tag: u64| tag == u64::from(elf::DT_NEEDED);
        let mut named: Vec<u64> =
            entries.iter().filter(|entry| is_needed(entry.1)).map(|entry| entry.2).collect();
        let mut before = HashSet::new();
        for other in 0..file {
            if self.store.files.get(other)?.flags & file_flags::SHARED != 0 {
                before.insert(self.library(other)?.needed_name);
            }
        }
        let string = self.string(name)?;
        let strings = self.strings()?;
        let text = |at: u64| Self::text(&strings, u32::try_from(at).unwrap_or(u32::MAX));
        if needed {
            let place = named.iter().take_while(|&&at| before.contains(text(at))).count();
            named.insert(place, string.into());
        } else {
            named.retain(|&at| text(at) != name);
        }
        let others = entries.iter().filter(|entry| !is_needed(entry.1) && entry.1 != 0);
        let tag = u64::from(elf::DT_NEEDED);
        let mut pairs: Vec<[u64; 2]> = named.into_iter().map(|at| [tag, at]).collect();
        pairs.extend(others.map(|&(_, tag, value)| [tag, value]));
        // One ends the table.
        if pairs.len() >= room {
            return Err(exhausted(".dynamic"));
        }
        pairs.resize(room, [0; 2]);
        let bytes: Vec<u8> = pairs.into_iter().flatten().flat_map(u64::to_le_bytes).collect();
        self.write(section.offset, &bytes)
    }

    /// `.dynstr`.
    fn strings(&self) -> Result<Vec<u8>, Stop> {
        let section = self.section(self.plan.image.dynstr, ".dynstr")?;
        self.read(section.offset, section.size)
    }

    /// What `.gnu.version` says of an import: the index of its version among those that the image needs.
    fn version_of(&mut self, record: &SymbolRecord) -> Result<u16, Stop> {
        if record.atom != place::SHARED && record.flags & symbol_flags::COPIED == 0 {
            return Ok(VER_NDX_GLOBAL);
        }
        let name = name_of(self.store, self.plan, record.name)?.to_vec();
        let library = self.library(record.input.0)?;
        let definition = definition_of(library.parsed, &name).and_then(|at| library.parsed.symbols.get(at));
        let version = definition.map_or(VER_NDX_GLOBAL, |symbol| symbol.version);
        let version = if version > VER_NDX_GLOBAL { library.parsed.version_name(version) } else { None };
        let (version, needed) = (version.map(<[u8]>::to_vec), library.needed_name);
        // Of a library that only weak references ask for, any version will do, or none.
        match (self.needed_offset(&needed)?, version) {
            (Some(library), Some(version)) => self.version_index(library, &needed, &version),
            _ => Ok(VER_NDX_GLOBAL),
        }
    }

    /// Where in `.dynstr` the name of a needed library is, if the image needs it.
    fn needed_offset(&self, name: &[u8]) -> Result<Option<u32>, Stop> {
        let strings = self.strings()?;
        Ok(self.dynamic_entries()?.into_iter().find_map(|(_, tag, value)| {
            let at = u32::try_from(value).unwrap_or(u32::MAX);
            (tag == u64::from(elf::DT_NEEDED) && Self::text(&strings, at) == name).then_some(at)
        }))
    }

    /// File offset of the value, tag and value of each entry of `.dynamic`.
    pub(super) fn dynamic_entries(&self) -> Result<Vec<(u64, u64, u64)>, Stop> {
        let section = self.section(self.plan.image.dynamic, ".dynamic")?;
        let bytes = self.read(section.offset, section.size)?;
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
            word.map_or(0, |word| u64::from_le_bytes(*word))
        };
        let at = (0..bytes.len() / 16).map(|entry| entry * 16);
        Ok(at.map(|at| (section.offset + at as u64 + 8, word(at), word(at + 8))).collect())
    }

    pub(super) fn set_dynamic(&mut self, tag: u32, value: u64) -> Result<(), Stop> {
        let found = self.dynamic_entries()?.into_iter().find(|entry| entry.1 == u64::from(tag));
        let Some((at, ..)) = found else { return Err(exhausted(".dynamic")) };
        self.write(at, &value.to_le_bytes())
    }

    fn needed_versions(&self) -> Result<Vec<NeededFile>, Stop> {
        let section = self.section(self.plan.image.verneed, ".gnu.version_r")?;
        let bytes = self.read(section.offset, section.size)?;
        let count = if bytes.is_empty() { 0 } else { u32::MAX };
        read_needed(&bytes, count)
            .map_err(|error| StoreError::Malformed(format!(".gnu.version_r: {error}")).into())
    }

    fn version_index(&mut self, library: u32, needed: &[u8], version: &[u8]) -> Result<u16, Stop> {
        let mut files = self.needed_versions()?;
        let strings = self.strings()?;
        let known = files.iter().position(|file| Self::text(&strings, file.file) == needed);
        if let Some(file) = known
            && let Some(known) = files[file].versions.iter().find(|v| Self::text(&strings, v.name) == version)
        {
            return Ok(known.index);
        }
        let defined = match self.verdef_indexes()? {
            Some(last) => last,
            None => VER_NDX_FIRST - 1,
        };
        let used = files.iter().flat_map(|file| &file.versions).map(|version| version.index & VERSYM_VERSION);
        let index = used.chain([defined]).max().unwrap_or(0).saturating_add(1);
        if index > VERSYM_VERSION {
            return Err(exhausted(".gnu.version_r"));
        }
        let name = self.string(version)?;
        let new = NeededVersion { hash: sysv_hash(version), flags: 0, index, name };
        match known {
            Some(file) => files[file].versions.push(new),
            None => files.push(NeededFile { file: library, versions: vec![new] }),
        }
        self.put_needed(&files)?;
        Ok(index)
    }

    /// The largest index of a version that the image defines.
    fn verdef_indexes(&self) -> Result<Option<u16>, Stop> {
        for row in 0..self.store.sections.len() {
            let section = self.store.sections.get(row)?;
            if section.kind == elf::SHT_GNU_VERDEF && section.index != 0 {
                let bytes = self.read(section.offset, section.size)?;
                let defined = read_defined(&bytes, u32::MAX)
                    .map_err(|error| StoreError::Malformed(format!(".gnu.version_d: {error}")))?;
                return Ok(defined.iter().map(|version| version.index & VERSYM_VERSION).max());
            }
        }
        Ok(None)
    }

    fn put_needed(&mut self, files: &[NeededFile]) -> Result<(), Stop> {
        let row = self.plan.image.verneed;
        let known = self.section(row, ".gnu.version_r")?;
        let mut bytes = encode_needed(files).map_err(|_| exhausted(".gnu.version_r"))?;
        self.set_size(row, bytes.len() as u64, ".gnu.version_r")?;
        bytes.resize(bytes.len().max(known.size as usize), 0);
        self.write(known.offset, &bytes)?;
        let count = files.iter().filter(|file| !file.versions.is_empty()).count() as u32;
        self.set_info(row, count)?;
        self.set_dynamic(elf::DT_VERNEEDNUM, count.into())
    }

    /// Versions that no symbol has any more are not asked for.
    pub(super) fn prune_versions(&mut self) -> Result<(), Stop> {
        if self.plan.image.verneed.some().is_none() || self.plan.image.versym.some().is_none() {
            return Ok(());
        }
        let table = self.section(self.plan.image.versym, ".gnu.version")?;
        let versions = self.read(table.offset, table.size)?;
        let (halves, _) = versions.as_chunks::<2>();
        let used: HashSet<u16> =
            halves.iter().map(|half| u16::from_le_bytes(*half) & VERSYM_VERSION).collect();
        let strings = self.strings()?;
        let mut files = self.needed_versions()?;
        let count = |files: &[NeededFile]| files.iter().map(|file| file.versions.len()).sum::<usize>();
        let before = count(&files);
        for file in &mut files {
            file.versions.retain(|version| {
                used.contains(&(version.index & VERSYM_VERSION))
                    || Self::text(&strings, version.name) == RELR_VERSION
            });
        }
        files.retain(|file| !file.versions.is_empty());
        if count(&files) == before {
            return Ok(());
        }
        if files.is_empty() {
            // No table, and no entry of `.dynamic` that says where it is: another layout.
            return Err(exhausted(".gnu.version_r"));
        }
        self.put_needed(&files)
    }
}
