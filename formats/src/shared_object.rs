//! A shared library (`ET_DYN`) as a link sees it: what it exports, what it wants, under which versions.
//!
//! Code and data of a library play no part in a link, so two builds with the same
//! [`interface_hash`](SharedObject::interface_hash) are the same input.

mod interface;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use object::LittleEndian as LE;
use object::elf::{self, Dyn64, FileHeader64, ProgramHeader64, SectionHeader64};
use object::endian::{U16, U32};

use crate::dynamic::versions::{
    VER_FLG_BASE, VER_NDX_GLOBAL, VER_NDX_LOCAL, VERSYM_HIDDEN, VERSYM_VERSION, read_defined, read_needed,
};
use crate::elf::{STT_FUNC, STT_GNU_IFUNC, STT_TLS};
use crate::error::FormatError;
use crate::object_file::{Headers, Sym, entries, file_header, file_range, slice_of, until_nul};
use crate::units::Align;

/// One symbol of `.dynsym` that other files can see or must provide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSymbol {
    /// Where in the file its name is, without the NUL and without a version.
    pub name: Range<u32>,
    /// `st_value`: an address, or for [`STT_TLS`] an offset. 0 if undefined.
    pub value: u64,
    /// `st_size`, bytes.
    pub size: u64,
    /// `STT_*`.
    pub kind: u8,
    /// `STB_GLOBAL`, `STB_WEAK` or `STB_GNU_UNIQUE`.
    pub binding: u8,
    /// `STV_*`. Of a definition: protected ones can't be copied; hidden and internal ones, which linkers
    /// should not have left here, are of no use to others.
    pub visibility: u8,
    /// Whether the library has it; else it wants it.
    pub defined: bool,
    /// Index of its version, see [`SharedObject::version_name`]; 1 if it has none.
    pub version: u16,
    /// A definition that only a reference to this very version gets: `name@V`, not `name@@V`.
    pub hidden: bool,
    /// A copy of it belongs in memory that becomes read-only: no writable segment has it, or `PT_GNU_RELRO`
    /// has.
    pub read_only: bool,
    /// What a copy of it must be aligned to: as its section is, but no more than its address.
    pub align: Align,
    /// `st_shndx`. With `value` it says which symbols are [aliases](SharedObject::aliases).
    pub section: u16,
}

impl SharedSymbol {
    /// Whether a program may have a copy of it (`R_X86_64_COPY`): defined, of some size, and neither code nor
    /// TLS. A symbol without a type counts as data.
    pub fn can_be_copied(&self) -> bool {
        self.defined && self.size > 0 && !matches!(self.kind, STT_FUNC | STT_GNU_IFUNC | STT_TLS)
    }
}

/// A version that the library defines or needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// What symbols call it.
    pub index: u16,
    /// Where in the file its name is, without the NUL.
    pub name: Range<u32>,
    /// Hash of its name, as the file has it.
    pub hash: u32,
    /// It stands for the library itself and is no symbol's version.
    pub is_base: bool,
}

/// A validated x86-64 shared library.
///
/// # Invariants
/// Established by [`SharedObject::parse`].
/// * Every range lies inside the file.
/// * Every defined symbol has a version that the library defines, or none ([`VER_NDX_GLOBAL`]).
#[derive(Clone)]
pub struct SharedObject {
    /// The whole file.
    pub bytes: Bytes,
    /// Where in the file its `DT_SONAME` is; without one it is known by the name under which it was found.
    pub soname: Option<Range<u32>>,
    /// Where in the file the names of the libraries that it needs are (`DT_NEEDED`), in order.
    pub needed: Vec<Range<u32>>,
    /// Global symbols in file order, defined or not. Definitions without a name or with the version
    /// [`VER_NDX_LOCAL`] are left out: nobody can refer to them.
    pub symbols: Vec<SharedSymbol>,
    /// Versions that it defines, in file order; the base is the first as a rule.
    pub versions: Vec<Version>,
    /// Versions that it needs from other libraries, in file order.
    pub needed_versions: Vec<Version>,
}

const SYM_SIZE: u64 = size_of::<Sym>() as u64;

impl SharedObject {
    /// Reads and validates a library: by its section headers, or without these by its dynamic segment.
    ///
    /// # Errors
    /// Whatever isn't an ELF64 little-endian x86-64 `ET_DYN` is named for what it is; a position-independent
    /// executable is `Unsupported`, and so is a file without dynamic symbol table (a detached debug file).
    /// The rest are violations of the invariants above. Offsets count from the start of the file.
    ///
    /// # Source
    /// gABI, "Dynamic Section", "Symbol Table", "Program Header"; LSB Core, "Symbol Versioning".
    pub fn parse(bytes: Bytes) -> Result<SharedObject, FormatError> {
        let file = &bytes[..];
        let header = shared_header(file)?;
        let headers = Headers::find(file, header)?;
        let segments = Segments::find(file, header)?;
        let tables = match Tables::from_sections(file, &headers)? {
            Some(tables) => tables,
            None => Tables::from_segments(file, &segments)?,
        };
        let mut names = Names::new(file, &tables.strings)?;
        let mut library = SharedObject {
            bytes: bytes.clone(),
            soname: None,
            needed: Vec::new(),
            symbols: Vec::new(),
            versions: Vec::new(),
            needed_versions: Vec::new(),
        };
        library.read_dynamic(file, &tables, &mut names)?;
        library.read_versions(file, &tables, &mut names)?;
        library.read_symbols(
            file,
            &tables,
            &mut names,
            &Places { headers: &headers, segments: &segments },
        )?;
        Ok(library)
    }

    /// Whether these bytes begin as an `ET_DYN` file does: a cheap choice between this parser and the one for
    /// relocatable objects. Other classes and machines count too: `parse` says what is wrong with them.
    pub fn is_shared(bytes: &[u8]) -> bool {
        let kind = bytes.get(16..18).and_then(|field| field.first_chunk()).copied();
        bytes.starts_with(b"\x7fELF") && kind.map(u16::from_le_bytes) == Some(elf::ET_DYN.0)
    }

    /// The bytes of a name: of a symbol, version or library.
    #[inline]
    pub fn name(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Its `DT_SONAME`.
    pub fn soname(&self) -> Option<&[u8]> {
        self.soname.as_ref().map(|range| self.name(range))
    }

    /// The name of a version, defined or needed. `None` for [`VER_NDX_LOCAL`], [`VER_NDX_GLOBAL`] and an
    /// index that no version has, which undefined symbols may.
    pub fn version_name(&self, index: u16) -> Option<&[u8]> {
        self.version(index).map(|version| self.name(&version.name))
    }

    /// All symbols at the place of `symbol`, itself included: if one is copied, all must lead to the copy.
    ///
    /// * Work: O(symbols), for there are few copies.
    pub fn aliases<'a>(&'a self, symbol: &'a SharedSymbol) -> impl Iterator<Item = &'a SharedSymbol> {
        let place = (symbol.section, symbol.value);
        self.symbols
            .iter()
            .filter(move |other| other.can_be_copied() && (other.section, other.value) == place)
    }

    fn version(&self, index: u16) -> Option<&Version> {
        // Linkers number versions in order, the base first; but nothing demands it.
        let guess = usize::from(index).checked_sub(1).and_then(|at| self.versions.get(at));
        let all = || self.versions.iter().chain(&self.needed_versions);
        let found = guess.filter(|version| version.index == index);
        found.or_else(|| all().find(|version| version.index == index)).filter(|_| index > VER_NDX_GLOBAL)
    }

    fn read_dynamic(
        &mut self,
        file: &[u8],
        tables: &Tables,
        names: &mut Names<'_>,
    ) -> Result<(), FormatError> {
        for (at, tag, value) in dynamic_entries(file, &tables.dynamic) {
            match tag {
                elf::DT_SONAME => self.soname = Some(names.get(value, "DT_SONAME", at)?),
                elf::DT_NEEDED => self.needed.push(names.get(value, "DT_NEEDED", at)?),
                elf::DT_FLAGS_1 if value & elf::DF_1_PIE.0 != 0 => {
                    let what = "position-independent executable where a shared library is expected".into();
                    return Err(FormatError::Unsupported { what, offset: at });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_versions(
        &mut self,
        file: &[u8],
        tables: &Tables,
        names: &mut Names<'_>,
    ) -> Result<(), FormatError> {
        let (range, count) = &tables.defined;
        let at = range.start as u64;
        let bytes = file.get(range.clone()).unwrap_or_default();
        for version in read_defined(bytes, *count).map_err(|error| error.rebased(at))? {
            let name = names.get(version.name.into(), "name of version definition", at)?;
            self.versions.push(Version {
                index: version.index & VERSYM_VERSION,
                name,
                hash: version.hash,
                is_base: version.flags & VER_FLG_BASE != 0,
            });
        }
        let (range, count) = &tables.needed;
        let at = range.start as u64;
        let bytes = file.get(range.clone()).unwrap_or_default();
        for file in read_needed(bytes, *count).map_err(|error| error.rebased(at))? {
            for version in file.versions {
                let name = names.get(version.name.into(), "name of needed version", at)?;
                let index = version.index & VERSYM_VERSION;
                self.needed_versions.push(Version { index, name, hash: version.hash, is_base: false });
            }
        }
        Ok(())
    }

    fn read_symbols(
        &mut self,
        file: &[u8],
        tables: &Tables,
        names: &mut Names<'_>,
        places: &Places<'_>,
    ) -> Result<(), FormatError> {
        let symbols = entries::<Sym>(file.get(tables.symbols.clone()).unwrap_or_default());
        let versions: &[U16<LE>] = match &tables.versions {
            Some(range) => entries(file.get(range.clone()).unwrap_or_default()),
            None => &[],
        };
        if tables.versions.is_some() && versions.len() < symbols.len() {
            return Err(FormatError::Truncated {
                what: ".gnu.version",
                offset: tables.versions.as_ref().map_or(0, |range| range.start as u64),
                need: symbols.len() as u64 * 2,
                have: versions.len() as u64 * 2,
            });
        }
        self.symbols.reserve(symbols.len());
        for (index, symbol) in symbols.iter().enumerate().skip(1) {
            let at = (tables.symbols.start + index * SYM_SIZE as usize) as u64;
            let binding = symbol.st_bind();
            let kind = symbol.st_type();
            match binding {
                elf::STB_LOCAL => continue,
                elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE => {}
                other => {
                    let (what, value) = ("binding of dynamic symbol", other.0.into());
                    return Err(FormatError::BadValue { what, value, offset: at });
                }
            }
            if matches!(kind, elf::STT_SECTION | elf::STT_FILE) {
                continue;
            }
            let section = symbol.st_shndx.get(LE);
            let defined = section != elf::SHN_UNDEF;
            let version = versions.get(index).map_or(VER_NDX_GLOBAL, |version| version.get(LE));
            let hidden = defined && version & VERSYM_HIDDEN != 0;
            let version = match version & VERSYM_VERSION {
                VER_NDX_LOCAL if defined => continue,
                VER_NDX_LOCAL => VER_NDX_GLOBAL,
                version => version,
            };
            if defined && version > VER_NDX_GLOBAL && !self.defines_version(version) {
                let (what, limit) = ("version of dynamic symbol", self.versions.len() as u64);
                return Err(FormatError::BadIndex { what, index: version.into(), limit, offset: at });
            }
            let name = names.get(symbol.st_name.get(LE).into(), "name of dynamic symbol", at)?;
            if name.is_empty() {
                continue;
            }
            let value = symbol.st_value.get(LE);
            let in_memory = defined && kind != elf::STT_TLS && section != elf::SHN_ABS;
            self.symbols.push(SharedSymbol {
                name,
                value: if defined { value } else { 0 },
                size: symbol.st_size.get(LE),
                kind: kind.0,
                binding: binding.0,
                visibility: symbol.st_visibility().0,
                defined,
                version,
                hidden,
                read_only: in_memory && places.read_only(value, section),
                align: if in_memory { places.align(value, section) } else { Align::ONE },
                section: section.0,
            });
        }
        Ok(())
    }

    fn defines_version(&self, index: u16) -> bool {
        let guess = self.versions.get(usize::from(index).saturating_sub(1));
        guess.is_some_and(|version| version.index == index)
            || self.versions.iter().any(|version| version.index == index)
    }
}

/// Sizes only: the derived form would print the whole file.
impl fmt::Debug for SharedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedObject")
            .field("soname", &self.soname().map(String::from_utf8_lossy))
            .field("bytes", &self.bytes.len())
            .field("symbols", &self.symbols.len())
            .field("versions", &self.versions.len())
            .finish_non_exhaustive()
    }
}

fn shared_header(file: &[u8]) -> Result<&FileHeader64<LE>, FormatError> {
    let header = file_header(file)?;
    let unsupported = |what: &str| Err(FormatError::Unsupported { what: what.into(), offset: E_TYPE });
    match header.e_type.get(LE) {
        elf::ET_DYN => Ok(header),
        elf::ET_REL => unsupported("relocatable object where a shared library is expected"),
        elf::ET_EXEC => unsupported("executable where a shared library is expected"),
        elf::ET_CORE => unsupported("core dump as input"),
        kind => Err(FormatError::BadValue { what: "ELF file type", value: kind.0.into(), offset: E_TYPE }),
    }
}

/// Offset of `e_type` in the ELF header: gABI, "ELF Header".
const E_TYPE: u64 = 16;

/// Where in the file everything is that has to be read.
#[derive(Debug, Default)]
struct Tables {
    symbols: Range<usize>,
    /// Ends with NUL, unless it is empty.
    strings: Range<usize>,
    versions: Option<Range<usize>>,
    /// Range and number of definitions. The range may be longer than the section.
    defined: (Range<usize>, u32),
    /// Range and number of files. The range may be longer than the section.
    needed: (Range<usize>, u32),
    dynamic: Range<usize>,
}

impl Tables {
    /// By section headers. `None` if there is no dynamic symbol table among them.
    fn from_sections(file: &[u8], headers: &Headers<'_>) -> Result<Option<Tables>, FormatError> {
        let mut tables = Tables::default();
        let mut found = None;
        for (index, header) in headers.table.iter().enumerate() {
            let range = || {
                let (start, size) = (header.sh_offset.get(LE), header.sh_size.get(LE));
                slice_of(file, start, size, "section of dynamic linking")?;
                Ok(file_range(start, size).unwrap_or_default())
            };
            let count = header.sh_info.get(LE);
            match header.sh_type.get(LE) {
                elf::SHT_DYNSYM => {
                    if found.is_some() {
                        let what = "second dynamic symbol table".into();
                        return Err(FormatError::Unsupported { what, offset: headers.offset_of(index) });
                    }
                    found = Some((index, header));
                    tables.symbols = range()?;
                }
                elf::SHT_DYNAMIC => tables.dynamic = range()?,
                elf::SHT_GNU_VERSYM => tables.versions = Some(range()?),
                elf::SHT_GNU_VERDEF => tables.defined = (range()?, count),
                elf::SHT_GNU_VERNEED => tables.needed = (range()?, count),
                _ => {}
            }
        }
        let Some((index, header)) = found else { return Ok(None) };
        let offset = headers.offset_of(index);
        check_entry_size(header, offset)?;
        tables.strings = headers.string_table(header.sh_link.get(LE), offset)?;
        Ok(Some(tables))
    }

    /// By the dynamic segment: addresses instead of offsets, and the number of symbols from a hash table. Of
    /// a library that exports nothing, some linkers' `.gnu.hash` does not count the undefined symbols.
    fn from_segments(file: &[u8], segments: &Segments<'_>) -> Result<Tables, FormatError> {
        let unsupported = |what: &str| FormatError::Unsupported { what: what.into(), offset: E_TYPE };
        let dynamic = segments.of_kind(elf::PT_DYNAMIC).next();
        let (start, size) = dynamic
            .map(|header| (header.p_offset.get(LE), header.p_filesz.get(LE)))
            .filter(|(_, size)| *size > 0)
            .ok_or(unsupported("no dynamic symbol table: a static program, or symbols for a debugger?"))?;
        slice_of(file, start, size, "dynamic segment")?;
        let dynamic = file_range(start, size).unwrap_or_default();
        // The last entry of a tag counts, as in the loader.
        let value = |wanted| {
            let entries = dynamic_entries(file, &dynamic);
            entries.filter(|(_, tag, _)| *tag == wanted).last().map(|(at, _, value)| (at, value))
        };
        let at = |wanted| value(wanted).map(|(at, address)| segments.range_at(file, address, at)).transpose();
        let count = |wanted| value(wanted).map_or(0, |(_, count)| u32::try_from(count).unwrap_or(u32::MAX));
        if let Some((offset, size)) = value(elf::DT_SYMENT).filter(|(_, size)| *size != SYM_SIZE) {
            return Err(FormatError::BadValue { what: "DT_SYMENT", value: size, offset });
        }
        let missing = |what: &str| unsupported(&format!("dynamic section without {what}"));
        let strings = at(elf::DT_STRTAB)?.ok_or_else(|| missing("DT_STRTAB"))?;
        let (offset, size) = value(elf::DT_STRSZ).ok_or_else(|| missing("DT_STRSZ"))?;
        let strings = cut(strings, size, "dynamic string table", offset)?;
        let symbols = at(elf::DT_SYMTAB)?.ok_or_else(|| missing("DT_SYMTAB"))?;
        let symbol_count = match (at(elf::DT_HASH)?, at(elf::DT_GNU_HASH)?) {
            (Some(hash), _) => sysv_symbol_count(file, hash)?,
            (None, Some(hash)) => gnu_symbol_count(file, hash)?,
            (None, None) => return Err(missing("DT_HASH and DT_GNU_HASH")),
        };
        let offset = symbols.start as u64;
        Ok(Tables {
            symbols: cut(symbols, symbol_count.saturating_mul(SYM_SIZE), "dynamic symbol table", offset)?,
            strings,
            versions: at(elf::DT_VERSYM)?,
            defined: (at(elf::DT_VERDEF)?.unwrap_or_default(), count(elf::DT_VERDEFNUM)),
            needed: (at(elf::DT_VERNEED)?.unwrap_or_default(), count(elf::DT_VERNEEDNUM)),
            dynamic: dynamic.clone(),
        })
    }
}

fn check_entry_size(header: &SectionHeader64<LE>, offset: u64) -> Result<(), FormatError> {
    let (entsize, size) = (header.sh_entsize.get(LE), header.sh_size.get(LE));
    if entsize != SYM_SIZE {
        let what = "entry size of dynamic symbol table";
        return Err(FormatError::BadValue { what, value: entsize, offset });
    }
    if !size.is_multiple_of(SYM_SIZE) {
        let what = "size of dynamic symbol table";
        return Err(FormatError::BadValue { what, value: size, offset });
    }
    Ok(())
}

/// The first `size` bytes of `range`.
fn cut(range: Range<usize>, size: u64, what: &'static str, offset: u64) -> Result<Range<usize>, FormatError> {
    let have = (range.end - range.start) as u64;
    match size <= have {
        true => Ok(range.start..range.start + size as usize),
        false => Err(FormatError::Truncated { what, offset, need: size, have }),
    }
}

/// `nchain` of a `.hash` table, which is the number of symbols.
fn sysv_symbol_count(file: &[u8], table: Range<usize>) -> Result<u64, FormatError> {
    let offset = table.start as u64;
    let words = entries::<U32<LE>>(file.get(table).unwrap_or_default());
    let have = words.len() as u64 * 4;
    let count = words.get(1).ok_or(FormatError::Truncated { what: "DT_HASH", offset, need: 8, have })?;
    Ok(count.get(LE).into())
}

/// One more than the last index in a `.gnu.hash` table: the end of the chain of the bucket that starts last.
fn gnu_symbol_count(file: &[u8], table: Range<usize>) -> Result<u64, FormatError> {
    let offset = table.start as u64;
    let bytes = file.get(table).unwrap_or_default();
    let (have, what) = (bytes.len() as u64, "DT_GNU_HASH");
    let words = entries::<U32<LE>>(bytes);
    let word = |index: u64| {
        let word = usize::try_from(index).ok().and_then(|index| words.get(index));
        let need = index.saturating_add(1).saturating_mul(4);
        word.map(|word| word.get(LE)).ok_or(FormatError::Truncated { what, offset, need, have })
    };
    let (buckets, first, bloom) = (u64::from(word(0)?), word(1)?, u64::from(word(2)?));
    let (starts, chains) = (4 + 2 * bloom, 4 + 2 * bloom + buckets);
    word(chains.saturating_sub(1))?;
    let buckets = words.get(starts as usize..chains as usize).unwrap_or_default();
    // Empty buckets hold 0. Without any symbol, `first` is where symbols would begin.
    let last = buckets.iter().map(|start| start.get(LE)).max().unwrap_or_default();
    let Some(mut position) = last.checked_sub(first).map(u64::from) else { return Ok(first.into()) };
    // The lowest bit marks the end of a chain.
    while word(chains + position)? & 1 == 0 {
        position += 1;
    }
    Ok(u64::from(first) + position + 1)
}

/// Offset in the file, tag and value of each entry up to `DT_NULL`.
fn dynamic_entries<'a>(
    file: &'a [u8],
    range: &Range<usize>,
) -> impl Iterator<Item = (u64, elf::DynamicTag, u64)> + 'a {
    let offsets = (range.start as u64..).step_by(size_of::<Dyn64<LE>>());
    let entries = entries::<Dyn64<LE>>(file.get(range.clone()).unwrap_or_default());
    offsets
        .zip(entries)
        .map(|(at, entry)| (at, entry.d_tag.get(LE), entry.d_val.get(LE)))
        .take_while(|(_, tag, _)| *tag != elf::DT_NULL)
}

/// The program header table.
struct Segments<'a> {
    headers: &'a [ProgramHeader64<LE>],
}

impl<'a> Segments<'a> {
    fn find(file: &'a [u8], header: &FileHeader64<LE>) -> Result<Segments<'a>, FormatError> {
        let (offset, count) = (header.e_phoff.get(LE), header.e_phnum.get(LE));
        if offset == 0 || count == 0 {
            return Ok(Segments { headers: &[] });
        }
        let size = size_of::<ProgramHeader64<LE>>();
        // Offsets of fields in the ELF header: gABI, "ELF Header".
        match (header.e_phentsize.get(LE), count) {
            (_, elf::PN_XNUM) => {
                let what = "more than 65534 program headers".into();
                Err(FormatError::Unsupported { what, offset: 56 })
            }
            (entry, _) if usize::from(entry) != size => {
                Err(FormatError::BadValue { what: "e_phentsize", value: entry.into(), offset: 54 })
            }
            _ => {
                let size = u64::from(count) * size as u64;
                let headers = entries(slice_of(file, offset, size, "program header table")?);
                Ok(Segments { headers })
            }
        }
    }

    fn of_kind(&self, kind: elf::ProgramType) -> impl Iterator<Item = &'a ProgramHeader64<LE>> + use<'a> {
        self.headers.iter().filter(move |header| header.p_type.get(LE) == kind)
    }

    /// From the byte at `address` to the end of its segment's part of the file. `at` is where the address
    /// stands.
    fn range_at(&self, file: &[u8], address: u64, at: u64) -> Result<Range<usize>, FormatError> {
        let found = self.of_kind(elf::PT_LOAD).find_map(|header| {
            let skip = address.checked_sub(header.p_vaddr.get(LE))?;
            let left = header.p_filesz.get(LE).checked_sub(skip).filter(|left| *left > 0)?;
            let start = header.p_offset.get(LE).checked_add(skip)?;
            let range = file_range(start, left)?;
            // A file that is cut short may still have what is looked for.
            (range.start <= file.len()).then(|| range.start..range.end.min(file.len()))
        });
        found.ok_or(FormatError::BadValue { what: "address in dynamic section", value: address, offset: at })
    }
}

/// Where symbols live.
struct Places<'a> {
    headers: &'a Headers<'a>,
    segments: &'a Segments<'a>,
}

impl Places<'_> {
    fn section(&self, section: elf::SymbolSection) -> Option<&SectionHeader64<LE>> {
        self.headers.table.get(usize::from(section.0)).filter(|_| section.0 < elf::SHN_LORESERVE)
    }

    /// Whether memory at `address` can't be written once the program runs.
    fn read_only(&self, address: u64, section: elf::SymbolSection) -> bool {
        let within = |header: &&ProgramHeader64<LE>| {
            address.checked_sub(header.p_vaddr.get(LE)).is_some_and(|skip| skip < header.p_memsz.get(LE))
        };
        if self.segments.of_kind(elf::PT_GNU_RELRO).any(|header| within(&header)) {
            return true;
        }
        match self.segments.of_kind(elf::PT_LOAD).find(within) {
            Some(header) => header.p_flags.get(LE) & elf::PF_W == elf::ProgramFlags(0),
            None => {
                self.section(section).is_some_and(|header| header.sh_flags.get(LE).0 & elf::SHF_WRITE.0 == 0)
            }
        }
    }

    /// The alignment of the section as far as the address bears it out.
    fn align(&self, address: u64, section: elf::SymbolSection) -> Align {
        let stated = self.section(section).and_then(|header| Align::from_bytes(header.sh_addralign.get(LE)));
        // Without section headers the address has to do. Segments are aligned to pages, so more than that is
        // chance.
        stated.unwrap_or(Align::PAGE).min(Align::from_exponent(address.trailing_zeros() as u8))
    }
}

/// The dynamic string table.
struct Names<'a> {
    strings: &'a [u8],
    start: usize,
    /// Bytes of names that may still be read. Names can overlap; without a limit a table of one long string
    /// and many symbols would cost the product of both.
    budget: usize,
}

/// How often the whole string table may be read. Names are shared by versions of a symbol and as ends of
/// longer names: of 1145 libraries of Debian 12, `libpthread.so.0` is the first with 2.1.
const NAMES_READ_MAX: usize = 64;

impl<'a> Names<'a> {
    fn new(file: &'a [u8], range: &Range<usize>) -> Result<Names<'a>, FormatError> {
        let what = "dynamic string table";
        let strings = file.get(range.clone()).unwrap_or_default();
        if strings.last().is_some_and(|last| *last != 0) {
            return Err(FormatError::Unterminated { what, offset: range.start as u64 });
        }
        if u32::try_from(range.end).is_err() {
            let what = "dynamic string table beyond 4 GiB".into();
            return Err(FormatError::Unsupported { what, offset: range.start as u64 });
        }
        let budget = strings.len().saturating_mul(NAMES_READ_MAX);
        Ok(Names { strings, start: range.start, budget })
    }

    /// Where in the file the string is that begins `index` bytes into the table; `what` stands at `offset`.
    fn get(&mut self, index: u64, what: &'static str, offset: u64) -> Result<Range<u32>, FormatError> {
        let limit = self.strings.len() as u64;
        let rest = usize::try_from(index).ok().and_then(|index| self.strings.get(index..));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return Err(FormatError::BadIndex { what, index, limit, offset });
        };
        let len = until_nul(rest).len();
        let Some(budget) = self.budget.checked_sub(len) else {
            let what = "dynamic names that overlap this much".into();
            return Err(FormatError::Unsupported { what, offset });
        };
        self.budget = budget;
        // Both fit: `new` has checked the end of the table.
        let start = self.start as u32 + index as u32;
        Ok(start..start + len as u32)
    }
}

#[cfg(test)]
mod tests;
