//! Images as `nm` and the `object` crate see them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol};

use crate::tools;

/// Every symbol's address as `nm` prints it. Names that stand there several times (local ones) get their number.
#[track_caller]
pub fn nm(path: &Path) -> BTreeMap<String, u64> {
    let said = tools::NM.run([Path::new("-a"), Path::new("-p"), path]).ok();
    let mut addresses = BTreeMap::new();
    for line in said.stdout.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        let mut key = name.to_owned();
        let mut number = 1;
        while addresses.contains_key(&key) {
            number += 1;
            key = format!("{name}#{number}");
        }
        addresses.insert(key, address);
    }
    assert!(!addresses.is_empty(), "{said}");
    addresses
}

/// An image (or object) in memory.
#[derive(Debug)]
pub struct Elf<'data> {
    /// Its bytes.
    pub bytes: &'data [u8],
    /// The same, parsed.
    pub file: object::File<'data>,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sym {
    /// Address.
    pub address: u64,
    /// Size.
    pub size: u64,
    /// Row in `.symtab`.
    pub index: usize,
}

impl<'data> Elf<'data> {
    /// Parses.
    #[track_caller]
    pub fn parse(bytes: &'data [u8]) -> Elf<'data> {
        Elf { bytes, file: object::File::parse(bytes).unwrap_or_else(|error| panic!("no ELF file: {error}")) }
    }

    /// The symbol of a name; the first if there are several.
    #[track_caller]
    pub fn symbol(&self, name: &str) -> Sym {
        self.find(name).unwrap_or_else(|| panic!("no symbol {name}"))
    }

    /// The same, if there is one.
    pub fn find(&self, name: &str) -> Option<Sym> {
        let symbol = self.file.symbols().find(|symbol| symbol.name() == Ok(name))?;
        Some(Sym { address: symbol.address(), size: symbol.size(), index: symbol.index().0 })
    }

    /// Names of the symbols at an address, sections apart.
    pub fn names_at(&self, address: u64) -> Vec<String> {
        let symbols = self.file.symbols().filter(|s| s.address() == address);
        symbols.filter_map(|s| s.name().ok()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// Names of the defined symbols, sorted.
    pub fn defined_names(&self) -> Vec<String> {
        let defined = self.file.symbols().filter(|symbol| !symbol.is_undefined());
        let mut names: Vec<String> =
            defined.filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }

    /// Address and size of a section.
    #[track_caller]
    pub fn section_place(&self, name: &str) -> (u64, u64) {
        let section = self.file.section_by_name(name).unwrap_or_else(|| panic!("no section {name}"));
        (section.address(), section.size())
    }

    /// File range of a section; empty if there is none.
    pub fn section(&self, name: &str) -> Range<u64> {
        let range = self.file.section_by_name(name).and_then(|section| section.file_range());
        range.map_or(0..0, |(offset, size)| offset..offset + size)
    }

    /// Bytes of a section; none if there is no such section.
    pub fn section_bytes(&self, name: &str) -> &'data [u8] {
        self.slice(self.section(name))
    }

    /// Bytes of a file range.
    #[track_caller]
    pub fn slice(&self, range: Range<u64>) -> &'data [u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// File offset of an address.
    #[track_caller]
    pub fn offset_of(&self, address: u64) -> u64 {
        for section in self.file.sections() {
            let Some((offset, size)) = section.file_range() else { continue };
            if section.address() != 0 && (section.address()..section.address() + size).contains(&address) {
                return offset + (address - section.address());
            }
        }
        panic!("nothing of the file is at {address:#x}")
    }

    /// Bytes at addresses.
    #[track_caller]
    pub fn at(&self, address: u64, size: u64) -> &'data [u8] {
        let offset = self.offset_of(address);
        self.slice(offset..offset + size)
    }

    /// Bytes of a function or variable.
    #[track_caller]
    pub fn body(&self, name: &str) -> &'data [u8] {
        let symbol = self.symbol(name);
        self.at(symbol.address, symbol.size)
    }

    /// The descriptor of the build-id note.
    #[track_caller]
    pub fn build_id(&self) -> &'data [u8] {
        self.file.build_id().ok().flatten().expect("the image has a build-id")
    }

    /// Where an island at an address leads to: `[endbr64] jmp rel32`.
    pub fn island_target(&self, address: u64) -> Option<u64> {
        let (bytes, start) = match self.at(address, 9) {
            [0xf3, 0x0f, 0x1e, 0xfa, rest @ ..] => (rest, address + 4),
            bytes => (bytes, address),
        };
        let &[0xe9, a, b, c, d, ..] = bytes else { return None };
        Some((start + 5).wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))))
    }
}

/// File ranges in which two images of one length differ.
#[track_caller]
pub fn differences(left: &[u8], right: &[u8]) -> Vec<Range<u64>> {
    assert_eq!(left.len(), right.len(), "the images have one length");
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (at, _) in (0u64..).zip(left.iter().zip(right)).filter(|(_, (l, r))| l != r) {
        match ranges.last_mut() {
            Some(range) if range.end == at => range.end += 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// The section of a file range, for messages.
pub fn whose(elf: &Elf<'_>, range: &Range<u64>) -> String {
    let holds = |section: &object::Section<'_, '_>| {
        section.file_range().is_some_and(|(offset, size)| (offset..offset + size).contains(&range.start))
    };
    let name = elf.file.sections().find(holds).and_then(|s| s.name().ok().map(str::to_owned));
    format!("{:#x}..{:#x} in {}", range.start, range.end, name.as_deref().unwrap_or("no section"))
}

/// Up to 40 functions that a program's own units define: those behind the units' STT_FILE symbols, and `main`.
pub fn some_functions(elf: &Elf<'_>, sources: &[std::path::PathBuf]) -> Vec<String> {
    let units: Vec<_> = sources.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    let mut own = false;
    let mut names = vec!["main".to_owned()];
    let mut seen = BTreeMap::new();
    for symbol in elf.file.symbols() {
        let Ok(name) = symbol.name() else { continue };
        match symbol.kind() {
            object::SymbolKind::File => own = units.contains(&name),
            object::SymbolKind::Text if symbol.size() > 0 => {
                *seen.entry(name.to_owned()).or_insert(0) += 1;
                if own && symbol.is_local() {
                    names.push(name.to_owned());
                }
            }
            _ => {}
        }
    }
    names.retain(|name| seen.get(name) == Some(&1));
    names.sort();
    names.dedup();
    let step = names.len().div_ceil(40).max(1);
    names.into_iter().step_by(step).collect()
}

/// How many sections with SHF_ALLOC the members of an archive have.
#[track_caller]
pub fn allocated_sections(archive: &[u8]) -> u64 {
    let archive_file = object::read::archive::ArchiveFile::parse(archive).expect("an archive");
    let mut count = 0;
    for member in archive_file.members() {
        let data = member.expect("a member").data(archive).expect("its bytes");
        count += Elf::parse(data).file.sections().filter(|section| is_allocated(section)).count() as u64;
    }
    count
}

fn is_allocated(section: &object::Section<'_, '_>) -> bool {
    match section.flags() {
        object::SectionFlags::Elf { sh_flags, .. } => (sh_flags & object::elf::SHF_ALLOC).0 != 0,
        _ => false,
    }
}
