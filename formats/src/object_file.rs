//! A relocatable object (`ET_REL`): sections, groups, symbols and relocations, validated once.
//!
//! Nothing is copied: names, symbols and relocations stay in the file's bytes, and an [`ObjectFile`] holds
//! ranges into them. So an object can be kept for as long as its bytes, and rereading a symbol is free.

use std::ffi::CStr;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, SectionHeader64};
use object::endian::U32;
use object::pod::{self, Pod};

use crate::compress;
use crate::error::FormatError;
use crate::property::Property;
use crate::units::Align;

/// One entry of `.symtab`, 24 bytes, readable at any alignment.
pub type Sym = elf::Sym64<LE>;
/// One entry of an `SHT_RELA` section, 24 bytes, readable at any alignment.
pub type Rela = elf::Rela64<LE>;

/// One section header, checked against the file.
#[derive(Clone, Debug)]
pub struct Section {
    /// Where in the file its name is, without the NUL.
    pub name: Range<u32>,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_offset`, bytes. Inside the file with `size`, unless `SHT_NOBITS` or compressed there.
    pub offset: u64,
    /// `sh_size`, bytes; of a compressed one, that of its contents. 0 for `SHT_NULL`, whose field is used for other things.
    pub size: u64,
    /// `sh_addralign`.
    pub align: Align,
    /// `sh_entsize`, bytes.
    pub entsize: u64,
    /// `sh_link`, as it stands: only the links that this module follows are checked.
    pub link: u32,
    /// `sh_info`, as it stands.
    pub info: u32,
    /// Where in the file the entries of its `SHT_RELA` section are; empty if it has none.
    pub relocations: Range<usize>,
    /// The group that it belongs to: 1 + index into [`ObjectFile::groups`], or 0.
    pub group: u32,
}

/// One `SHT_GROUP` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Index of the signature symbol. The name of the group is [`ObjectFile::group_signature`].
    pub signature: u32,
    /// `GRP_COMDAT`: only one group with this signature is kept in a link.
    pub comdat: bool,
    /// Indices of the members, relocation sections included, in file order.
    pub sections: Vec<u32>,
    /// Index of the `SHT_GROUP` section itself.
    pub section: u32,
}

/// Where a symbol is defined: `st_shndx` with the extended index looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolPlace {
    /// In another file.
    Undefined,
    /// Nowhere: the value is the address.
    Absolute,
    /// To be allocated; the value is the alignment.
    Common,
    /// In this section; always a valid index.
    Section(u32),
}

/// What `.note.GNU-stack` says about the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackNote {
    /// No such section: by tradition that means an executable stack.
    Absent,
    /// The object does well without an executable stack.
    NonExecutable,
    /// The object asks for an executable stack.
    Executable,
}

/// A validated x86-64 relocatable object.
///
/// # Invariants
/// Established by [`ObjectFile::parse`]; accessors rely on them for speed, never for safety.
/// * Every section but `SHT_NOBITS` lies inside the file, or was decompressed from bytes that do.
/// * Every relocation names an existing symbol and begins inside, or at the end of, its section.
/// * Every symbol has a terminated name, and a place that exists.
/// * Every section is in at most one group.
#[derive(Clone)]
pub struct ObjectFile {
    /// The whole file.
    pub bytes: Bytes,
    /// All sections; positions are section indices, so the first is the null section.
    pub sections: Vec<Section>,
    /// All section groups, in file order.
    pub groups: Vec<Group>,
    /// Index of the first symbol that isn't local.
    pub first_global: u32,
    /// From `.note.gnu.property`; the default if there is none.
    pub property: Property,
    /// From `.note.GNU-stack`.
    pub stack: StackNote,
    symbols: Range<usize>,
    strings: Range<usize>,
    extended: Range<usize>,
    /// Sections that the file has in compressed form, by index.
    inflated: Vec<Inflated>,
}

/// A section that was decompressed.
#[derive(Clone)]
struct Inflated {
    section: u32,
    /// `.debug_x` for `.zdebug_x`.
    name: Option<Bytes>,
    bytes: Bytes,
}

/// What the decompressed sections of an object may have beyond 64 times the object's bytes. Debug information shrinks to
/// a third or a tenth: more is a bomb.
const INFLATED_ALLOWANCE: u64 = 64 << 20;

const SYM_SIZE: usize = size_of::<Sym>();
const RELA_SIZE: usize = size_of::<Rela>();
const HEADER_SIZE: usize = size_of::<SectionHeader64<LE>>();

impl ObjectFile {
    /// Reads and validates an object.
    ///
    /// # Errors
    /// Whatever isn't an ELF64 little-endian x86-64 `ET_REL` is named for what it is. Bitcode, slim LTO
    /// objects and `SHT_REL` are `Unsupported`, and so are compressed sections that can't be decompressed or would
    /// be absurdly large. The rest are violations of the invariants above. Offsets count from the start of the file.
    ///
    /// # Source
    /// gABI, "ELF Header", "Sections", "Symbol Table", "Relocation"; AMD64 psABI, "Object Files".
    pub fn parse(bytes: Bytes) -> Result<ObjectFile, FormatError> {
        let file = &bytes[..];
        let headers = Headers::find(file, relocatable_header(file)?)?;
        let sections = headers.sections()?;
        let table = SymbolTable::find(&headers, &sections)?;
        let mut object = ObjectFile {
            bytes: bytes.clone(),
            sections,
            groups: Vec::new(),
            first_global: table.first_global,
            property: Property::default(),
            stack: StackNote::Absent,
            symbols: table.symbols,
            strings: table.strings,
            extended: table.extended,
            inflated: Vec::new(),
        };
        object.check_symbols()?;
        object.refuse_lto()?;
        object.inflate_sections(&headers)?;
        object.link_relocations(&headers, table.section)?;
        object.link_groups(&headers, table.section)?;
        object.read_notes()?;
        Ok(object)
    }

    /// The symbol table; empty if the object has none. The first entry is the null symbol.
    #[inline]
    pub fn symbols(&self) -> &[Sym] {
        entries(self.slice(&self.symbols))
    }

    /// The name of a symbol, without its NUL. Section symbols mostly have none.
    #[inline]
    pub fn symbol_name(&self, index: usize) -> &[u8] {
        let Some(symbol) = self.symbols().get(index) else { return &[] };
        let strings = self.slice(&self.strings);
        until_nul(strings.get(symbol.st_name.get(LE) as usize..).unwrap_or_default())
    }

    /// Where a symbol is defined.
    #[inline]
    pub fn symbol_place(&self, index: usize) -> SymbolPlace {
        let Some(symbol) = self.symbols().get(index) else { return SymbolPlace::Undefined };
        match symbol.st_shndx.get(LE) {
            elf::SHN_UNDEF => SymbolPlace::Undefined,
            elf::SHN_ABS => SymbolPlace::Absolute,
            elf::SHN_COMMON => SymbolPlace::Common,
            elf::SHN_XINDEX => match entries::<U32<LE>>(self.slice(&self.extended)).get(index) {
                Some(section) if section.get(LE) != 0 => SymbolPlace::Section(section.get(LE)),
                _ => SymbolPlace::Undefined,
            },
            section => SymbolPlace::Section(section.0.into()),
        }
    }

    /// The name of a section.
    #[inline]
    pub fn section_name(&self, index: usize) -> &[u8] {
        if let Some(name) = self.inflated(index).and_then(|inflated| inflated.name.as_deref()) {
            return name;
        }
        self.sections
            .get(index)
            .and_then(|section| self.bytes.get(section.name.start as usize..section.name.end as usize))
            .unwrap_or_default()
    }

    /// The contents of a section; empty for `SHT_NOBITS`.
    #[inline]
    pub fn section_bytes(&self, index: usize) -> &[u8] {
        if let Some(inflated) = self.inflated(index) {
            return &inflated.bytes;
        }
        self.sections
            .get(index)
            .filter(|section| section.kind != elf::SHT_NOBITS.0)
            .and_then(|section| self.bytes.get(file_range(section.offset, section.size)?))
            .unwrap_or_default()
    }

    /// The relocations to apply to a section, in file order; those of call frames ascend.
    #[inline]
    pub fn relocations(&self, index: usize) -> &[Rela] {
        self.sections.get(index).map(|section| entries(self.slice(&section.relocations))).unwrap_or_default()
    }

    /// The name that identifies a group: its signature symbol's, or for a section symbol the section's.
    pub fn group_signature(&self, group: &Group) -> &[u8] {
        let index = group.signature as usize;
        match (self.symbols().get(index).map(Sym::st_type), self.symbol_place(index)) {
            (Some(elf::STT_SECTION), SymbolPlace::Section(section)) => self.section_name(section as usize),
            _ => self.symbol_name(index),
        }
    }

    #[inline]
    fn inflated(&self, index: usize) -> Option<&Inflated> {
        if self.inflated.is_empty() {
            return None;
        }
        let at = self.inflated.binary_search_by_key(&index, |inflated| inflated.section as usize).ok()?;
        self.inflated.get(at)
    }

    #[inline]
    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.start..range.end).unwrap_or_default()
    }

    fn check_symbols(&self) -> Result<(), FormatError> {
        let extended = entries::<U32<LE>>(self.slice(&self.extended));
        let strings = (self.strings.end - self.strings.start) as u64;
        let sections = self.sections.len() as u64;
        for (index, symbol) in self.symbols().iter().enumerate() {
            let offset = (self.symbols.start + index * SYM_SIZE) as u64;
            let name = u64::from(symbol.st_name.get(LE));
            // Name 0 means "none" and needs no string table.
            if name >= strings && name != 0 {
                return Err(FormatError::BadIndex {
                    what: "symbol name",
                    index: name,
                    limit: strings,
                    offset,
                });
            }
            let section = match symbol.st_shndx.get(LE) {
                elf::SHN_ABS | elf::SHN_COMMON => 0,
                elf::SHN_XINDEX => match extended.get(index) {
                    Some(section) => section.get(LE).into(),
                    None => {
                        let limit = extended.len() as u64;
                        let what = "extended section index of symbol";
                        return Err(FormatError::BadIndex { what, index: index as u64, limit, offset });
                    }
                },
                reserved if reserved.0 >= elf::SHN_LORESERVE => {
                    let name = String::from_utf8_lossy(self.symbol_name(index));
                    let what = format!("reserved section index {:#x} of symbol `{name}`", reserved.0);
                    return Err(FormatError::Unsupported { what, offset });
                }
                section => section.0.into(),
            };
            if section != 0 && section >= sections {
                let what = "section index of symbol";
                return Err(FormatError::BadIndex { what, index: section, limit: sections, offset });
            }
            let local = symbol.st_bind() == elf::STB_LOCAL;
            if local != (index < self.first_global as usize) {
                let value = symbol.st_info.0.into();
                return Err(FormatError::BadValue { what: "binding of symbol by its index", value, offset });
            }
        }
        Ok(())
    }

    /// A slim LTO object has bytes of GCC's intermediate language and no code: linking it would silently
    /// define nothing.
    fn refuse_lto(&self) -> Result<(), FormatError> {
        let lto = |index: &usize| self.section_name(*index).starts_with(b".gnu.lto_");
        let Some(first) = (0..self.sections.len()).find(lto) else { return Ok(()) };
        let marked = (0..self.symbols().len()).any(|index| self.symbol_name(index) == b"__gnu_lto_slim");
        // GCC's `struct lto_section`: two 16-bit versions, then the flag.
        let flagged = (0..self.sections.len()).any(|index| {
            self.section_name(index).starts_with(b".gnu.lto_.lto.")
                && self.section_bytes(index).get(4).is_some_and(|slim| *slim != 0)
        });
        if marked || flagged {
            let what = "LTO object (GCC, slim): recompile without -flto or with -ffat-lto-objects".into();
            return Err(FormatError::Unsupported { what, offset: self.sections[first].offset });
        }
        Ok(())
    }

    /// Replaces compressed sections by what they were made of, headers included.
    fn inflate_sections(&mut self, headers: &Headers<'_>) -> Result<(), FormatError> {
        let mut budget = (self.bytes.len() as u64).saturating_mul(64).saturating_add(INFLATED_ALLOWANCE);
        for index in 0..self.sections.len() {
            let section = &self.sections[index];
            let modern = section.flags & elf::SHF_COMPRESSED.0 != 0;
            let old = self.section_name(index).strip_prefix(b".z").filter(|rest| rest.starts_with(b"debug_"));
            if !modern && old.is_none() {
                continue;
            }
            let offset = headers.offset_of(index);
            let name = String::from_utf8_lossy(self.section_name(index)).into_owned();
            let refused = |why: &str| {
                let what = format!("compressed section `{name}`: {why}; recompile without -gz");
                FormatError::Unsupported { what, offset }
            };
            if section.kind != elf::SHT_PROGBITS.0 || section.flags & elf::SHF_ALLOC.0 != 0 {
                return Err(refused("only debug information can be compressed"));
            }
            let bytes = self.section_bytes(index);
            let header = if modern { compress::header(bytes) } else { compress::old_header(bytes) };
            let header = header.map_err(|error| error.rebased(section.offset))?;
            budget = budget.checked_sub(header.size).ok_or_else(|| {
                refused(&format!("it claims {} bytes, far more than the file has", header.size))
            })?;
            let contents = compress::inflate(&header, bytes).map_err(|why| refused(&why))?;
            let name = old.map(|rest| Bytes::from([b".", rest].concat()));
            let section = &mut self.sections[index];
            section.size = header.size;
            section.flags &= !elf::SHF_COMPRESSED.0;
            section.align = header.align.unwrap_or(section.align);
            self.inflated.push(Inflated { section: index as u32, name, bytes: Bytes::from(contents) });
        }
        Ok(())
    }

    fn link_relocations(&mut self, headers: &Headers<'_>, symtab: u32) -> Result<(), FormatError> {
        for index in 0..self.sections.len() {
            let section = &self.sections[index];
            let offset = headers.offset_of(index);
            let target = section.info as usize;
            match elf::SectionType(section.kind) {
                elf::SHT_RELA if section.size == 0 => continue,
                elf::SHT_RELA => {}
                // Clang's call graph profile is the one x86-64 user, and a link leaves that section out.
                elf::SHT_REL
                    if self.sections.get(target).is_some_and(|t| t.flags & elf::SHF_EXCLUDE.0 != 0) =>
                {
                    continue;
                }
                elf::SHT_REL | elf::SHT_CREL => {
                    let kind = if section.kind == elf::SHT_REL.0 { "SHT_REL" } else { "SHT_CREL" };
                    let name = String::from_utf8_lossy(self.section_name(index));
                    let what = format!("{kind} relocation section `{name}`: x86-64 objects have SHT_RELA");
                    return Err(FormatError::Unsupported { what, offset });
                }
                _ => continue,
            }
            let (size, link, file_offset) = (section.size, section.link, section.offset);
            if section.entsize != RELA_SIZE as u64 {
                let what = "entry size of relocation section";
                return Err(FormatError::BadValue { what, value: section.entsize, offset });
            }
            if !size.is_multiple_of(RELA_SIZE as u64) {
                return Err(FormatError::BadValue {
                    what: "size of relocation section",
                    value: size,
                    offset,
                });
            }
            if link != symtab || symtab == 0 {
                let what = "symbol table of relocation section";
                return Err(FormatError::BadValue { what, value: link.into(), offset });
            }
            let limit = self.sections.len() as u64;
            let Some(patched) = self.sections.get(target).filter(|_| target != 0) else {
                let what = "target of relocation section";
                return Err(FormatError::BadIndex { what, index: target as u64, limit, offset });
            };
            if matches!(elf::SectionType(patched.kind), elf::SHT_NOBITS | elf::SHT_NULL) {
                let what = "target, without contents, of relocation section";
                return Err(FormatError::BadValue { what, value: target as u64, offset });
            }
            if !patched.relocations.is_empty() {
                let name = String::from_utf8_lossy(self.section_name(target));
                let what = format!("second relocation section for `{name}`");
                return Err(FormatError::Unsupported { what, offset });
            }
            // Inside the file: `Headers::sections` has checked it.
            let range = file_range(file_offset, size).unwrap_or_default();
            self.check_relocations(&range, patched.size)?;
            // Records of call frames find theirs by bisection; no compiler writes them otherwise.
            let ascend = entries::<Rela>(self.slice(&range)).is_sorted_by_key(|rela| rela.r_offset.get(LE));
            if !ascend && self.has_call_frames(target) {
                let what =
                    "relocations of call frames (`.eh_frame`) that are not in the order of their places";
                return unsupported(what, offset);
            }
            self.sections[target].relocations = range;
        }
        Ok(())
    }

    fn has_call_frames(&self, index: usize) -> bool {
        self.section_name(index) == b".eh_frame"
            || self.sections.get(index).is_some_and(|section| section.kind == elf::SHT_X86_64_UNWIND.0)
    }

    fn check_relocations(&self, range: &Range<usize>, size: u64) -> Result<(), FormatError> {
        let symbols = self.symbols().len() as u64;
        for (index, relocation) in entries::<Rela>(self.slice(range)).iter().enumerate() {
            let offset = || (range.start + index * RELA_SIZE) as u64;
            let symbol = relocation.r_info.get(LE) >> 32;
            if symbol >= symbols {
                let what = "symbol of relocation";
                return Err(FormatError::BadIndex { what, index: symbol, limit: symbols, offset: offset() });
            }
            let place = relocation.r_offset.get(LE);
            if place > size {
                let what = "place of relocation";
                return Err(FormatError::BadIndex { what, index: place, limit: size, offset: offset() });
            }
        }
        Ok(())
    }

    fn link_groups(&mut self, headers: &Headers<'_>, symtab: u32) -> Result<(), FormatError> {
        let limit = self.sections.len() as u64;
        for index in 0..self.sections.len() {
            let Section { kind, link, info, size, .. } = self.sections[index];
            if kind != elf::SHT_GROUP.0 {
                continue;
            }
            let offset = headers.offset_of(index);
            if link != symtab || symtab == 0 {
                let what = "symbol table of section group";
                return Err(FormatError::BadValue { what, value: link.into(), offset });
            }
            let symbols = self.symbols().len() as u64;
            if u64::from(info) >= symbols {
                let what = "signature symbol of section group";
                return Err(FormatError::BadIndex { what, index: info.into(), limit: symbols, offset });
            }
            let words = entries::<U32<LE>>(self.section_bytes(index));
            let (Some((flags, members)), true) = (words.split_first(), size.is_multiple_of(4)) else {
                return Err(FormatError::BadValue { what: "size of section group", value: size, offset });
            };
            let flags = flags.get(LE);
            if flags & !1 != 0 {
                let what = format!("section group with flags {flags:#x}");
                return Err(FormatError::Unsupported { what, offset });
            }
            let sections: Vec<u32> = members.iter().map(|member| member.get(LE)).collect();
            let group = self.groups.len() as u32 + 1;
            for member in &sections {
                let found = self.sections.get_mut(*member as usize);
                let Some(section) = found.filter(|_| *member != 0 && *member as usize != index) else {
                    let what = "member of section group";
                    return Err(FormatError::BadIndex { what, index: (*member).into(), limit, offset });
                };
                if section.group != 0 && section.group != group {
                    let what = "section of two groups";
                    return Err(FormatError::BadValue { what, value: (*member).into(), offset });
                }
                section.group = group;
            }
            let comdat = flags & 1 != 0;
            self.groups.push(Group { signature: info, comdat, sections, section: index as u32 });
        }
        Ok(())
    }

    fn read_notes(&mut self) -> Result<(), FormatError> {
        for index in 0..self.sections.len() {
            match self.section_name(index) {
                b".note.GNU-stack" => {
                    let executable = self.sections[index].flags & elf::SHF_EXECINSTR.0 != 0;
                    self.stack = if executable { StackNote::Executable } else { StackNote::NonExecutable };
                }
                b".note.gnu.property" if self.sections[index].kind == elf::SHT_NOTE.0 => {
                    let base = self.sections[index].offset;
                    self.property =
                        Property::parse(self.section_bytes(index)).map_err(|error| error.rebased(base))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Sizes only: the derived form would print the whole file.
impl fmt::Debug for ObjectFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectFile")
            .field("bytes", &self.bytes.len())
            .field("sections", &self.sections.len())
            .field("groups", &self.groups.len())
            .field("symbols", &self.symbols().len())
            .finish_non_exhaustive()
    }
}

/// The section header table and the names it refers to.
pub(crate) struct Headers<'a> {
    file: &'a [u8],
    pub(crate) table: &'a [SectionHeader64<LE>],
    table_offset: u64,
    names: Range<usize>,
}

impl<'a> Headers<'a> {
    pub(crate) fn find(file: &'a [u8], header: &FileHeader64<LE>) -> Result<Self, FormatError> {
        let table_offset = header.e_shoff.get(LE);
        if table_offset == 0 {
            return Ok(Headers { file, table: &[], table_offset, names: 0..0 });
        }
        let entry_size = u64::from(header.e_shentsize.get(LE));
        if entry_size != HEADER_SIZE as u64 {
            // Offsets of fields in the ELF header: gABI, "ELF Header".
            return Err(FormatError::BadValue { what: "e_shentsize", value: entry_size, offset: 58 });
        }
        let what = "section header table";
        let null = entries::<SectionHeader64<LE>>(slice_of(file, table_offset, HEADER_SIZE as u64, what)?);
        // Counts above 0xfeff don't fit the ELF header and move into the null section.
        let (extended_count, extended_names) =
            null.first().map_or((0, 0), |null| (null.sh_size.get(LE), null.sh_link.get(LE)));
        let count = match header.e_shnum.get(LE) {
            0 => extended_count,
            count => count.into(),
        };
        if count == 0 || count > u64::from(u32::MAX) {
            return Err(FormatError::BadValue { what: "section count", value: count, offset: table_offset });
        }
        let table = entries(slice_of(file, table_offset, count * HEADER_SIZE as u64, what)?);
        let names = match header.e_shstrndx.get(LE) {
            elf::SHN_XINDEX => extended_names,
            index => index.0.into(),
        };
        let mut headers = Headers { file, table, table_offset, names: 0..0 };
        if names != 0 {
            headers.names = headers.string_table(names, 62)?;
        }
        Ok(headers)
    }

    /// Where in the file the header of a section is.
    pub(crate) fn offset_of(&self, index: usize) -> u64 {
        self.table_offset.saturating_add((index as u64).saturating_mul(HEADER_SIZE as u64))
    }

    /// The range of a string table, which begins and ends inside the file and ends with NUL; so that each
    /// offset into it is the start of a terminated string.
    pub(crate) fn string_table(&self, index: u32, offset: u64) -> Result<Range<usize>, FormatError> {
        let limit = self.table.len() as u64;
        let Some(header) = self.table.get(index as usize) else {
            return Err(FormatError::BadIndex { what: "string table", index: index.into(), limit, offset });
        };
        let offset = self.offset_of(index as usize);
        let kind = header.sh_type.get(LE);
        if kind != elf::SHT_STRTAB {
            return Err(FormatError::BadValue { what: "type of string table", value: kind.0.into(), offset });
        }
        let (start, size) = (header.sh_offset.get(LE), header.sh_size.get(LE));
        let strings = slice_of(self.file, start, size, "string table")?;
        if strings.last().is_some_and(|last| *last != 0) {
            return Err(FormatError::Unterminated { what: "string table", offset: start });
        }
        Ok(file_range(start, size).unwrap_or_default())
    }

    fn sections(&self) -> Result<Vec<Section>, FormatError> {
        self.table.iter().enumerate().map(|(index, header)| self.section(index, header)).collect()
    }

    fn section(&self, index: usize, header: &SectionHeader64<LE>) -> Result<Section, FormatError> {
        let at = self.offset_of(index);
        let kind = header.sh_type.get(LE);
        let offset = header.sh_offset.get(LE);
        let size = if kind == elf::SHT_NULL { 0 } else { header.sh_size.get(LE) };
        if !matches!(kind, elf::SHT_NULL | elf::SHT_NOBITS) {
            slice_of(self.file, offset, size, "section")?;
        }
        let align = header.sh_addralign.get(LE);
        let align = Align::from_bytes(align).ok_or(FormatError::BadValue {
            what: "section alignment",
            value: align,
            offset: at,
        })?;
        let flags = header.sh_flags.get(LE).0;
        // Anything else could not be part of the one range that `PT_TLS` names.
        let tls = (elf::SHF_ALLOC | elf::SHF_WRITE | elf::SHF_TLS).0;
        let of_tls = flags & (tls | elf::SHF_EXECINSTR.0) == tls
            && matches!(kind, elf::SHT_PROGBITS | elf::SHT_NOBITS);
        if flags & elf::SHF_TLS.0 != 0 && !of_tls {
            return Err(FormatError::BadValue { what: "flags of TLS section", value: flags, offset: at });
        }
        Ok(Section {
            name: self.name(header.sh_name.get(LE), at)?,
            kind: kind.0,
            flags,
            offset,
            size,
            align,
            entsize: header.sh_entsize.get(LE),
            link: header.sh_link.get(LE),
            info: header.sh_info.get(LE),
            relocations: 0..0,
            group: 0,
        })
    }

    fn name(&self, name: u32, offset: u64) -> Result<Range<u32>, FormatError> {
        let names = self.file.get(self.names.clone()).unwrap_or_default();
        let Some(rest) = names.get(name as usize..).filter(|rest| !rest.is_empty()) else {
            let limit = names.len() as u64;
            return match name {
                0 => Ok(0..0),
                _ => Err(FormatError::BadIndex { what: "section name", index: name.into(), limit, offset }),
            };
        };
        let start = self.names.start + name as usize;
        let end = start + until_nul(rest).len();
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(start..end),
            _ => Err(FormatError::Unsupported { what: "section names beyond 4 GiB".into(), offset }),
        }
    }
}

/// Where the symbol table and its companions are, all zero if there is none.
#[derive(Default)]
struct SymbolTable {
    section: u32,
    first_global: u32,
    symbols: Range<usize>,
    strings: Range<usize>,
    extended: Range<usize>,
}

impl SymbolTable {
    fn find(headers: &Headers<'_>, sections: &[Section]) -> Result<Self, FormatError> {
        let of_kind = |kind: elf::SectionType| {
            sections.iter().enumerate().filter(move |(_, section)| section.kind == kind.0)
        };
        let mut tables = of_kind(elf::SHT_SYMTAB);
        let Some((index, section)) = tables.next() else { return Ok(SymbolTable::default()) };
        if let Some((second, _)) = tables.next() {
            let offset = headers.offset_of(second);
            return Err(FormatError::Unsupported { what: "second symbol table".into(), offset });
        }
        let offset = headers.offset_of(index);
        let Section { size, entsize, .. } = *section;
        if entsize != SYM_SIZE as u64 {
            return Err(FormatError::BadValue { what: "entry size of symbol table", value: entsize, offset });
        }
        let count = size / SYM_SIZE as u64;
        if !size.is_multiple_of(SYM_SIZE as u64) || count > u64::from(u32::MAX) {
            return Err(FormatError::BadValue { what: "size of symbol table", value: size, offset });
        }
        if u64::from(section.info) > count {
            let (what, index) = ("first global symbol", section.info.into());
            return Err(FormatError::BadIndex { what, index, limit: count, offset });
        }
        let strings = headers.string_table(section.link, offset)?;
        let symbols = file_range(section.offset, size).unwrap_or_default();
        let extended = match of_kind(elf::SHT_SYMTAB_SHNDX).find(|(_, table)| table.link as usize == index) {
            Some((at, table)) if table.size < count * 4 => {
                let (what, value, offset) = ("size of extended indices", table.size, headers.offset_of(at));
                return Err(FormatError::BadValue { what, value, offset });
            }
            Some((_, table)) => file_range(table.offset, count * 4).unwrap_or_default(),
            None => 0..0,
        };
        Ok(SymbolTable { section: index as u32, first_global: section.info, symbols, strings, extended })
    }
}

fn unsupported<T>(what: &str, offset: u64) -> Result<T, FormatError> {
    Err(FormatError::Unsupported { what: what.into(), offset })
}

/// The ELF header of a relocatable object, or an error that says what the file is.
fn relocatable_header(file: &[u8]) -> Result<&FileHeader64<LE>, FormatError> {
    let header = file_header(file)?;
    match header.e_type.get(LE) {
        elf::ET_REL => Ok(header),
        elf::ET_EXEC => unsupported("executable as input: only relocatable objects can be linked", 16),
        elf::ET_DYN => unsupported("shared library (or PIE) where a relocatable object is expected", 16),
        elf::ET_CORE => unsupported("core dump as input", 16),
        kind => Err(FormatError::BadValue { what: "ELF file type", value: kind.0.into(), offset: 16 }),
    }
}

/// The ELF header of a file for this machine, of whatever type, or an error that says what the file is.
pub(crate) fn file_header(file: &[u8]) -> Result<&FileHeader64<LE>, FormatError> {
    if file.starts_with(b"BC\xc0\xde") || file.starts_with(b"\xde\xc0\x17\x0b") {
        return unsupported("LLVM bitcode (LTO object): recompile without -flto", 0);
    }
    if !file.starts_with(b"\x7fELF") {
        let mut found = [0; 4];
        found.iter_mut().zip(file).for_each(|(to, from)| *to = *from);
        return Err(FormatError::BadMagic { what: "ELF object", offset: 0, found });
    }
    match file.get(4) {
        None | Some(2) => {}
        Some(1) => return unsupported("ELF32 object (i386 or x32): recompile with -m64", 4),
        Some(class) => return Err(bad_header("ELF class", *class, 4)),
    }
    match file.get(5) {
        None | Some(1) => {}
        Some(2) => return unsupported("big-endian ELF object", 5),
        Some(data) => return Err(bad_header("ELF data encoding", *data, 5)),
    }
    let Ok((header, _)) = pod::from_bytes::<FileHeader64<LE>>(file) else {
        let (need, have) = (size_of::<FileHeader64<LE>>() as u64, file.len() as u64);
        return Err(FormatError::Truncated { what: "ELF header", offset: 0, need, have });
    };
    let machine = header.e_machine.get(LE);
    if machine != elf::EM_X86_64 {
        return unsupported(&format!("machine {} ({}): only x86-64", machine.0, machine_name(machine)), 18);
    }
    Ok(header)
}

fn bad_header(what: &'static str, value: u8, offset: u64) -> FormatError {
    FormatError::BadValue { what, value: value.into(), offset }
}

fn machine_name(machine: elf::Machine) -> &'static str {
    match machine {
        elf::EM_386 => "i386",
        elf::EM_ARM => "arm",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC64 => "ppc64",
        elf::EM_S390 => "s390",
        elf::EM_LOONGARCH => "loongarch",
        elf::EM_BPF => "bpf",
        elf::EM_NONE => "none",
        _ => "unknown",
    }
}

/// `offset..offset + size` if that can be indexed at all.
#[inline]
pub(crate) fn file_range(offset: u64, size: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(size)?;
    Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

pub(crate) fn slice_of<'a>(
    file: &'a [u8],
    offset: u64,
    size: u64,
    what: &'static str,
) -> Result<&'a [u8], FormatError> {
    file_range(offset, size).and_then(|range| file.get(range)).ok_or(FormatError::Truncated {
        what,
        offset,
        need: size,
        have: (file.len() as u64).saturating_sub(offset),
    })
}

/// As many whole entries as there are.
#[inline]
pub(crate) fn entries<T: Pod>(bytes: &[u8]) -> &[T] {
    pod::slice_from_bytes(bytes, bytes.len() / size_of::<T>()).map_or(&[], |(entries, _)| entries)
}

#[inline]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes)
}

mod empty;
#[cfg(test)]
mod tests;
