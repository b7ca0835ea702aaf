//! The dynamic symbol table and what hangs on it: names, hash tables, versions, and which entries `.dynamic` has.

use bevy_ecs::prelude::{Res, ResMut};
use formats::dynamic::hash::{GnuHash, gnu_hash, sysv_encode, sysv_hash};
use formats::dynamic::relr;
use formats::dynamic::versions::{
    DefinedVersion, NeededFile, NeededVersion, VER_FLG_BASE, VER_NDX_FIRST, VER_NDX_GLOBAL, VER_NDX_LOCAL,
    VERSYM_HIDDEN, encode_defined, encode_needed,
};
use formats::elf;
use hashbrown::HashMap;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::{HashStyle, LinkOptions, OutputKind, Symbolic, Unresolved};
use relink_engine::program::{DynamicTables, DynamicValue, Program, SharedLibrary};
use relink_engine::records::{SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use super::bind::needs_dynamic_section;
use super::imports::library_of;
use crate::ingest::libraries::split_version;
use crate::place::reserve;

/// Builds all of it that does not depend on addresses.
pub(crate) fn build_dynamic_tables(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() || !needs_dynamic_section(request.options.output_kind) {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    need_libraries(program);
    let lacking = super::lacking::lacking_names(program, options);
    match options.dynamic.unresolved {
        Unresolved::Warn => frame.warnings.extend(lacking),
        _ => frame.errors.extend(lacking),
    }
    let tables = std::mem::take(&mut program.dynamic);
    let mut builder = Builder { program, options, tables, strings: HashMap::new(), errors: Vec::new() };
    builder.tables.strings.push(0);
    builder.list_symbols();
    builder.name_symbols();
    builder.give_versions();
    builder.fill_section();
    let Builder { tables, errors, .. } = builder;
    for (index, row) in (1..).zip(&tables.symbols).filter(|(_, row)| row.some().is_some()) {
        program.symbols[row.index()].dynsym = index;
    }
    program.dynamic = tables;
    frame.errors.extend(errors);
}

/// A library of `--as-needed` is needed if something that is part of the image really refers to it.
fn need_libraries(program: &mut Program) {
    let wanted = symbol_flags::USED | symbol_flags::STRONG;
    let needed: Vec<usize> = (0..program.globals as usize)
        .filter(|&row| program.symbols[row].flags & wanted == wanted)
        .filter_map(|row| Some(library_of(program, &program.symbols[row])?.0))
        .collect();
    for library in needed {
        program.shared[library].needed = true;
    }
}

/// What `.gnu.version` calls the nodes of a version script.
pub(crate) fn version_indexes(nodes: &[(Vec<u8>, Vec<u16>)]) -> Vec<u16> {
    let mut next = VER_NDX_FIRST;
    let mut index = |(name, _): &(Vec<u8>, Vec<u16>)| {
        let own = if name.is_empty() { VER_NDX_GLOBAL } else { next };
        next += u16::from(!name.is_empty());
        own
    };
    nodes.iter().map(&mut index).collect()
}

/// Whether a symbol of `.dynsym` is defined in this image, as its loader sees it.
pub(crate) fn is_defined_here(symbol: &SymbolRecord) -> bool {
    place::is_atom(symbol.atom) || symbol.atom == place::ABSOLUTE
}

/// What a loader that knows `DT_RELR` defines.
pub(crate) const RELR_VERSION: &[u8] = b"GLIBC_ABI_DT_RELR";

struct Builder<'a> {
    program: &'a mut Program,
    options: &'a LinkOptions,
    tables: DynamicTables,
    strings: HashMap<Vec<u8>, u32>,
    errors: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn string(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let offset = self.tables.strings.len() as u32;
        self.tables.strings.extend_from_slice(text);
        self.tables.strings.push(0);
        self.strings.insert(text.to_vec(), offset);
        offset
    }

    /// Imports first, then what other modules may look up, in the order that `.gnu.hash` asks for.
    fn list_symbols(&mut self) {
        let (mut imports, mut exports) = (Vec::new(), Vec::new());
        for row in (0..self.program.globals).map(SymbolRow) {
            let symbol = &self.program.symbols[row.index()];
            let used = symbol.flags & symbol_flags::USED != 0;
            if symbol.flags & symbol_flags::CANONICAL_PLT != 0 {
                exports.push(row);
            } else if !is_defined_here(symbol) {
                if symbol.flags & symbol_flags::PREEMPTIBLE != 0 && used {
                    imports.push(row);
                }
            } else if symbol.flags & symbol_flags::EXPORTED != 0 {
                let dead = place::is_atom(symbol.atom)
                    && self.program.atoms[symbol.atom.index()].flags & atom_flags::LIVE == 0;
                if !dead {
                    exports.push(row);
                }
            }
        }
        let base = |row: SymbolRow| split_version(self.program.names.of(row)).0;
        let table = GnuHash::new(exports.iter().map(|&row| gnu_hash(base(row))));
        let mut spare = 0;
        if self.options.incremental.is_some() && self.options.output_kind.is_dynamic() {
            spare = reserve::import_spare(imports.len());
            self.tables.tail = reserve::export_spare(exports.len());
        }
        let first = spare + imports.len() as u32 + 1;
        (self.tables.locals, self.tables.first_hashed) = (spare + 1, first);
        let ordered = table.order().iter().filter_map(|&index| exports.get(index as usize).copied());
        let unused = (0..spare).map(|_| SymbolRow::default());
        let symbols: Vec<SymbolRow> = unused.chain(imports).chain(ordered).collect();
        let style = self.options.dynamic.hash_style;
        if style != HashStyle::Sysv || !self.options.output_kind.is_dynamic() {
            self.tables.gnu_hash = table.encode(first);
        }
        if style != HashStyle::Gnu && self.options.output_kind.is_dynamic() {
            let hashes: Vec<Option<u32>> =
                symbols.iter().map(|row| row.some().map(|row| sysv_hash(base(row)))).collect();
            self.tables.hash = sysv_encode(hashes.len() as u32, &hashes);
        }
        self.tables.symbols = symbols;
    }

    fn name_symbols(&mut self) {
        let rows = self.tables.symbols.clone();
        self.tables.names = rows
            .iter()
            .map(|&row| {
                let name = split_version(self.program.names.of(row)).0.to_vec();
                self.string(&name)
            })
            .collect();
        for library in 0..self.program.shared.len() {
            if self.program.shared[library].needed {
                let name = self.program.shared[library].needed_name.clone();
                self.program.shared[library].name_offset = self.string(&name);
            }
        }
    }

    fn give_versions(&mut self) {
        let nodes: Vec<(Vec<u8>, Vec<u16>)> = std::mem::take(&mut self.tables.script_nodes);
        let named = nodes.iter().filter(|(name, _)| !name.is_empty()).count();
        // Index 1 is the base definition; the nodes follow.
        let indexes = version_indexes(&nodes);
        let mut next = VER_NDX_FIRST + named as u16;
        if named > 0 {
            self.define_versions(&nodes, &indexes);
        }
        let rows = self.tables.symbols.clone();
        let mut versions = vec![VER_NDX_LOCAL];
        let mut needs: Vec<(usize, Vec<(u16, NeededVersion)>)> = Vec::new();
        for row in rows {
            if row.some().is_none() {
                versions.push(VER_NDX_LOCAL);
                continue;
            }
            let symbol = self.program.symbols[row.index()];
            let index = if is_defined_here(&symbol) && symbol.flags & symbol_flags::COPIED == 0 {
                self.defined_version(row, &nodes, &indexes)
            } else {
                self.needed_version(row, &symbol, &mut needs, &mut next)
            };
            versions.push(index);
        }
        self.need_relr_loader(&mut needs, next);
        if needs.is_empty() && named == 0 {
            return;
        }
        needs.sort_by_key(|&(library, _)| library);
        let files: Vec<NeededFile> = needs
            .into_iter()
            .map(|(library, versions)| NeededFile {
                file: self.program.shared[library].name_offset,
                versions: versions.into_iter().map(|(_, version)| version).collect(),
            })
            .collect();
        match encode_needed(&files) {
            Ok(bytes) => self.tables.needs = (bytes, files.len() as u32),
            Err(error) => self.errors.push(Diagnostic::Other { message: error.to_string() }),
        }
        self.tables.versions = versions;
    }

    fn define_versions(&mut self, nodes: &[(Vec<u8>, Vec<u16>)], indexes: &[u16]) {
        let base = self.options.dynamic.soname.clone().unwrap_or_else(|| self.options.output_name.clone());
        let name = self.string(base.as_bytes());
        let mut definitions = vec![DefinedVersion {
            flags: VER_FLG_BASE,
            index: VER_NDX_GLOBAL,
            hash: sysv_hash(base.as_bytes()),
            name,
            parents: Vec::new(),
        }];
        for ((name, parents), &index) in nodes.iter().zip(indexes) {
            if name.is_empty() {
                continue;
            }
            let parents: Vec<u32> = parents
                .iter()
                .filter_map(|&parent| nodes.get(usize::from(parent)))
                .map(|(parent, _)| self.string(parent))
                .collect();
            let offset = self.string(name);
            definitions.push(DefinedVersion {
                flags: 0,
                index,
                hash: sysv_hash(name),
                name: offset,
                parents,
            });
        }
        match encode_defined(&definitions) {
            Ok(bytes) => self.tables.definitions = (bytes, definitions.len() as u32),
            Err(error) => self.errors.push(Diagnostic::Other { message: error.to_string() }),
        }
    }

    /// glibc demands that who uses `DT_RELR` needs this version, so that an older loader refuses the image instead of
    /// running it unrelocated.
    fn need_relr_loader(&mut self, needs: &mut Vec<(usize, Vec<(u16, NeededVersion)>)>, index: u16) {
        if !self.program.pack_relative {
            return;
        }
        let libc = |library: &SharedLibrary| library.needed && library.needed_name == b"libc.so.6";
        let Some(library) = self.program.shared.iter().position(libc) else { return };
        let name = self.string(RELR_VERSION);
        let needed = NeededVersion { hash: sysv_hash(RELR_VERSION), flags: 0, index, name };
        match needs.iter_mut().find(|(known, _)| *known == library) {
            // No symbol has it, so its library's number for it plays no part.
            Some((_, versions)) => versions.push((VER_NDX_LOCAL, needed)),
            None => needs.push((library, vec![(VER_NDX_LOCAL, needed)])),
        }
    }

    /// The version of a symbol that this image defines: `.symver` before the version script.
    fn defined_version(&mut self, row: SymbolRow, nodes: &[(Vec<u8>, Vec<u16>)], indexes: &[u16]) -> u16 {
        let (name, hidden) = split_version(self.program.names.of(row));
        let explicit = match hidden {
            Some(version) => Some((version.to_vec(), VERSYM_HIDDEN)),
            None => self
                .tables
                .default_versions
                .iter()
                .find(|(known, _)| *known == row)
                .map(|(_, version)| (version.clone(), 0)),
        };
        if let Some((version, flag)) = explicit {
            if let Some(at) = nodes.iter().position(|(known, _)| *known == version) {
                return indexes[at] | flag;
            }
            let message = format!(
                "symbol {} has the version {}, which no --version-script defines",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(&version)
            );
            self.errors.push(Diagnostic::Other { message });
        }
        let node = self.tables.scripted_versions.get(&row).copied();
        node.and_then(|node| indexes.get(usize::from(node)).copied()).unwrap_or(VER_NDX_GLOBAL)
    }

    /// The version of a symbol that a library defines; the library's own number is replaced by one of this image.
    fn needed_version(
        &mut self,
        row: SymbolRow,
        symbol: &SymbolRecord,
        needs: &mut Vec<(usize, Vec<(u16, NeededVersion)>)>,
        next: &mut u16,
    ) -> u16 {
        let copied = self.program.copies.iter().find(|&&(_, atom, _)| atom == symbol.atom);
        let library = match copied {
            Some(&(_, _, library)) => Some(library as usize),
            None => library_of(self.program, symbol).map(|(library, _)| library),
        };
        let Some(library) = library.filter(|&library| self.program.shared[library].needed) else {
            return VER_NDX_GLOBAL;
        };
        let name = split_version(self.program.names.of(row)).0;
        let parsed = &self.program.shared[library].parsed;
        let definition = match copied {
            // The symbol's own record has forgotten where it came from.
            Some(_) => parsed.symbols.iter().find(|known| known.defined && parsed.name(&known.name) == name),
            None => parsed.symbols.get(symbol.value as usize),
        };
        let Some(definition) = definition.filter(|definition| definition.version > VER_NDX_GLOBAL) else {
            return VER_NDX_GLOBAL;
        };
        let version = definition.version;
        let Some(text) = parsed.version_name(version).map(<[u8]>::to_vec) else { return VER_NDX_GLOBAL };
        let slot = match needs.iter().position(|&(known, _)| known == library) {
            Some(slot) => slot,
            None => {
                needs.push((library, Vec::new()));
                needs.len() - 1
            }
        };
        if let Some((_, known)) = needs[slot].1.iter().find(|&&(known, _)| known == version) {
            return known.index;
        }
        let name = self.string(&text);
        let needed = NeededVersion { hash: sysv_hash(&text), flags: 0, index: *next, name };
        needs[slot].1.push((version, needed));
        *next += 1;
        *next - 1
    }

    fn fill_section(&mut self) {
        let options = self.options;
        let dynamic = &options.dynamic;
        let kind = options.output_kind;
        let mut entries: Vec<(u32, DynamicValue)> = Vec::new();
        let word = |value: u64| DynamicValue::Word(value);
        for library in self.program.shared.iter().filter(|library| library.needed) {
            entries.push((elf::DT_NEEDED, word(u64::from(library.name_offset))));
        }
        if let Some(soname) = dynamic.soname.as_ref().filter(|_| kind.is_shared()) {
            let offset = self.string(soname.as_bytes());
            entries.push((elf::DT_SONAME, word(u64::from(offset))));
        }
        if !dynamic.rpaths.is_empty() && kind.is_dynamic() {
            let offset = self.string(dynamic.rpaths.join(":").as_bytes());
            let tag = if dynamic.new_dtags { elf::DT_RUNPATH } else { elf::DT_RPATH };
            entries.push((tag, word(u64::from(offset))));
        }
        let (flags, flags_1) = self.flags();
        if flags & elf::DF_SYMBOLIC != 0 {
            entries.push((elf::DT_SYMBOLIC, word(0)));
        }
        if flags != 0 {
            entries.push((elf::DT_FLAGS, word(u64::from(flags))));
        }
        if flags_1 != 0 {
            entries.push((elf::DT_FLAGS_1, word(u64::from(flags_1))));
        }
        if kind == OutputKind::Executable || kind == OutputKind::Pie || kind == OutputKind::StaticPie {
            entries.push((elf::DT_DEBUG, word(0)));
        }
        for (tag, name) in [(elf::DT_INIT, &dynamic.init), (elf::DT_FINI, &dynamic.fini)] {
            if let Some(row) = self.program.names.find(name.as_bytes())
                && place::is_atom(self.program.symbols[row.index()].atom)
            {
                entries.push((tag, DynamicValue::Symbol(row)));
            }
        }
        let arrays: [(u32, u32, &'static [u8]); 3] = [
            (elf::DT_PREINIT_ARRAY, elf::DT_PREINIT_ARRAYSZ, b".preinit_array"),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, b".init_array"),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, b".fini_array"),
        ];
        for (address, size, name) in arrays {
            entries.push((address, DynamicValue::Address(name)));
            entries.push((size, DynamicValue::Size(name)));
        }
        entries.push((elf::DT_HASH, DynamicValue::Address(b".hash")));
        entries.push((elf::DT_GNU_HASH, DynamicValue::Address(b".gnu.hash")));
        entries.push((elf::DT_SYMTAB, DynamicValue::Address(b".dynsym")));
        entries.push((elf::DT_SYMENT, word(24)));
        entries.push((elf::DT_STRTAB, DynamicValue::Address(b".dynstr")));
        entries.push((elf::DT_STRSZ, DynamicValue::Size(b".dynstr")));
        if !self.tables.versions.is_empty() {
            entries.push((elf::DT_VERSYM, DynamicValue::Address(b".gnu.version")));
        }
        if self.tables.definitions.1 > 0 {
            entries.push((elf::DT_VERDEF, DynamicValue::Address(b".gnu.version_d")));
            entries.push((elf::DT_VERDEFNUM, word(u64::from(self.tables.definitions.1))));
        }
        if self.tables.needs.1 > 0 {
            entries.push((elf::DT_VERNEED, DynamicValue::Address(b".gnu.version_r")));
            entries.push((elf::DT_VERNEEDNUM, word(u64::from(self.tables.needs.1))));
        }
        entries.push((elf::DT_RELA, DynamicValue::Address(b".rela.dyn")));
        entries.push((elf::DT_RELASZ, DynamicValue::Size(b".rela.dyn")));
        entries.push((elf::DT_RELAENT, word(24)));
        entries.push((elf::DT_RELACOUNT, DynamicValue::RelativeCount));
        if self.program.pack_relative {
            entries.push((elf::DT_RELR, DynamicValue::Address(b".relr.dyn")));
            entries.push((elf::DT_RELRSZ, DynamicValue::Size(b".relr.dyn")));
            entries.push((elf::DT_RELRENT, word(relr::ENTRY_LEN)));
        }
        if kind.is_dynamic() && (!self.program.plt.is_empty() || options.incremental.is_some()) {
            entries.push((elf::DT_PLTGOT, DynamicValue::Address(b".got.plt")));
            entries.push((elf::DT_PLTREL, word(u64::from(elf::DT_RELA))));
            entries.push((elf::DT_JMPREL, DynamicValue::Address(b".rela.plt")));
            entries.push((elf::DT_PLTRELSZ, DynamicValue::Size(b".rela.plt")));
        }
        self.tables.entries = entries;
    }

    fn flags(&self) -> (u32, u32) {
        let options = self.options;
        let dynamic = &options.dynamic;
        let shared = options.output_kind.is_shared();
        let static_tls = shared
            && self
                .program
                .got
                .iter()
                .any(|row| self.program.symbols[row.index()].flags & symbol_flags::TLS != 0);
        let pie = matches!(options.output_kind, OutputKind::Pie | OutputKind::StaticPie);
        let sum =
            |flags: &[(bool, u32)]| flags.iter().filter(|(on, _)| *on).fold(0, |sum, (_, flag)| sum | flag);
        let flags = sum(&[
            (options.now, elf::DF_BIND_NOW),
            (dynamic.origin, elf::DF_ORIGIN),
            (shared && dynamic.symbolic == Symbolic::All, elf::DF_SYMBOLIC),
            (static_tls, elf::DF_STATIC_TLS),
            (dynamic.text_relocations, elf::DF_TEXTREL),
        ]);
        let flags_1 = sum(&[
            (options.now, elf::DF_1_NOW),
            (pie, elf::DF_1_PIE),
            (dynamic.origin, elf::DF_1_ORIGIN),
            (dynamic.nodelete, elf::DF_1_NODELETE),
            (dynamic.nodlopen, elf::DF_1_NOOPEN),
            (dynamic.initfirst, elf::DF_1_INITFIRST),
            (dynamic.interpose, elf::DF_1_INTERPOSE),
        ]);
        (flags, flags_1)
    }
}
