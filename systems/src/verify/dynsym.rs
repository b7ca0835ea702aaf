//! Tables of dynamic symbols: each name that a full link imports or exports is there, once, as a full link has it, and
//! found by the hash tables; no other name is. Which entry it has, only the image says.

use formats::dynamic::hash::{GnuShape, gnu_hash, sysv_encode, sysv_hash};
use formats::dynamic::versions::{
    DefinedVersion, NeededFile, VERSYM_VERSION, encode_needed, read_defined, read_needed,
};
use formats::elf;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::options::LinkOptions;
use relink_engine::records::{ImageRecord, SectionRecord, place};
use relink_engine::rows::{SectionRow, Span, SymbolRow};
use relink_formats as formats;

use super::Checker;
use crate::ingest::libraries::split_version;
use crate::place::tables::has_ibt_plt;
use crate::relocate::dynamic::{dynamic_bytes, dynsym_bytes, unused_symbol};

/// A section's bytes in the image; none for one that is not there.
fn bytes_of<'a>(checker: &Checker<'a>, row: SectionRow) -> Result<Option<&'a [u8]>, StoreError> {
    let Some(row) = row.some() else { return Ok(None) };
    let record = checker.store.sections.get(row.0)?;
    let (start, end) = (record.offset as usize, record.offset.saturating_add(record.size) as usize);
    Ok(Some(checker.image.get(start..end).unwrap_or_default()))
}

fn text(strings: &[u8], at: u64) -> &[u8] {
    let rest = strings.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
    rest.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |half| u16::from_le_bytes(*half))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn owner(checker: &Checker<'_>, span: Span, at: u32) -> Result<Option<SymbolRow>, StoreError> {
    if at >= span.len {
        return Ok(None);
    }
    Ok(checker.store.owners.get(span.start.saturating_add(at))?.checked_sub(1).map(SymbolRow))
}

/// Each entry of `.got` and the PLT is that of the symbol that has it, and of no other one.
pub(super) fn check_owners(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    let mut wrong = Vec::new();
    let tables =
        [(".got", record.got_owners), ("the PLT", record.plt_owners), (".dynsym", record.dynsym_owners)];
    for (table, (what, span)) in tables.into_iter().enumerate() {
        for at in 0..span.len {
            let Some(row) = owner(checker, span, at)? else { continue };
            let symbol = checker.store.symbols.get(row.0)?;
            let own = [symbol.got.checked_sub(1), symbol.plt.checked_sub(1), Some(symbol.dynsym)][table];
            if own != Some(at) {
                wrong.push(format!("entry {at} of {what} is that of a symbol that has another one"));
            }
        }
    }
    for row in 0..checker.store.symbols.len() {
        let symbol = checker.store.symbols.get(row)?;
        for (span, own) in [
            (record.got_owners, symbol.got.checked_sub(1)),
            (record.plt_owners, symbol.plt.checked_sub(1)),
            (record.dynsym_owners, Some(symbol.dynsym).filter(|&at| at != 0)),
        ] {
            if let Some(at) = own
                && owner(checker, span, at)? != Some(SymbolRow(row))
            {
                wrong.push(format!(
                    "entry {at} of a table is not that of {}",
                    checker.store.text(symbol.name)
                ));
            }
        }
    }
    wrong.into_iter().for_each(|what| checker.report(4, what));
    Ok(())
}

/// All of it.
pub(super) fn check_dynamic_symbols(
    checker: &mut Checker<'_>,
    options: &LinkOptions,
) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    let strings = bytes_of(checker, record.dynstr)?.unwrap_or_default();
    let mut wrong = Vec::new();
    check_entries(checker, options, &record, strings, &mut wrong)?;
    check_needs(checker, &record, strings, &mut wrong)?;
    check_definitions(checker, strings, &mut wrong)?;
    check_hashes(checker, &record, &mut wrong)?;
    check_dynamic_section(checker, &record, strings, &mut wrong)?;
    wrong.into_iter().for_each(|what| checker.report(4, what));
    Ok(())
}

/// `.dynsym` and `.gnu.version`.
fn check_entries(
    checker: &Checker<'_>,
    options: &LinkOptions,
    record: &ImageRecord,
    strings: &[u8],
    wrong: &mut Vec<String>,
) -> Result<(), StoreError> {
    let program = &checker.program;
    let table = bytes_of(checker, record.dynsym)?.unwrap_or_default();
    let versions = bytes_of(checker, record.versym)?;
    let (entries, _) = table.as_chunks::<24>();
    if versions.is_some_and(|versions| versions.len() != entries.len() * 2) {
        wrong.push(".gnu.version has not as many entries as .dynsym".to_owned());
    }
    if versions.is_none() && program.dynamic.versions.iter().any(|version| version & VERSYM_VERSION > 1) {
        wrong.push(".gnu.version is missing".to_owned());
    }
    let mut wanted: HashMap<&[u8], (SymbolRow, u16)> = HashMap::new();
    for (at, row) in program.dynamic.symbols.iter().enumerate() {
        if let Some(row) = row.some() {
            let version = program.dynamic.versions.get(at + 1).copied().unwrap_or(1);
            wanted.insert(program.names.of(row), (row, version));
        }
    }
    let called: &[u8] = if has_ibt_plt(program, options) { b".plt.sec" } else { b".plt" };
    let plt = super::slots::section(checker, called)?.map_or(0, |section| section.index as u16);
    let fresh_needs = read_needed(&program.dynamic.needs.0, program.dynamic.needs.1).unwrap_or_default();
    let fresh = Versions { files: &fresh_needs, strings: &program.dynamic.strings };
    let image_needs = needed_files(checker, record)?;
    let known = Versions { files: &image_needs, strings };
    for (index, entry) in (0..).zip(entries) {
        let version = versions.map(|versions| half(versions, 2 * index as usize));
        let Some(owner) = owner(checker, record.dynsym_owners, index)? else {
            let local = index < record.dynsym_locals;
            let unused = if index == 0 { [0; 24] } else { unused_symbol(local) };
            if *entry != unused
                || version.is_some_and(|version| version & VERSYM_VERSION != u16::from(!local))
            {
                wrong.push(format!("entry {index} of .dynsym is nobody's, but not unused"));
            }
            continue;
        };
        let name = checker.store.strings.bytes(checker.store.symbols.get(owner.0)?.name)?;
        let shown = String::from_utf8_lossy(name).into_owned();
        let Some((row, fresh_version)) = wanted.remove(name) else {
            wrong.push(format!("{shown} is in .dynsym, and would not be in a full link's"));
            continue;
        };
        let (symbol, at) = (&program.symbols[row.index()], word(entry, 0));
        if text(strings, at.into()) != split_version(name).0 {
            wrong.push(format!("the name of {shown} in .dynsym is another one"));
        }
        let (section, own) = match symbol.atom {
            place::ABSOLUTE => (elf::SHN_ABS, symbol.value),
            atom if place::is_atom(atom) => {
                let atom = &program.atoms[atom.index()];
                let index = match atom.output.some() {
                    Some(row) => checker.store.sections.get(row.0)?.index,
                    None => 0,
                };
                (index as u16, atom.address.wrapping_add(symbol.value))
            }
            _ => (elf::SHN_UNDEF, 0),
        };
        let address = program.addresses[row.index()];
        if dynsym_bytes(symbol, at, (section, plt), own, address, program.tls_start) != *entry {
            wrong.push(format!("the entry of {shown} in .dynsym is not that of a full link"));
        }
        if index < record.dynsym_locals {
            wrong.push(format!("{shown} stands among the local symbols of .dynsym"));
        }
        if version.is_some_and(|version| known.meaning(version) != fresh.meaning(fresh_version)) {
            wrong.push(format!("the version of {shown} is another one"));
        }
    }
    let mut missing: Vec<&[u8]> = wanted.into_keys().collect();
    missing.sort_unstable();
    for name in missing {
        wrong.push(format!("{} is not in .dynsym", String::from_utf8_lossy(name)));
    }
    Ok(())
}

/// What indexes of `.gnu.version` mean.
struct Versions<'a> {
    files: &'a [NeededFile],
    strings: &'a [u8],
}

impl<'a> Versions<'a> {
    /// The number as it is if it is none of those that the image needs: library and name of one that it needs.
    fn meaning(&self, version: u16) -> (u16, &'a [u8], &'a [u8]) {
        for file in self.files {
            if let Some(found) = file.versions.iter().find(|known| known.index == version & VERSYM_VERSION) {
                let (library, name) =
                    (text(self.strings, file.file.into()), text(self.strings, found.name.into()));
                return (version & !VERSYM_VERSION, library, name);
            }
        }
        (version, &[], &[])
    }

    /// All, each with its hash.
    fn all(&self) -> HashSet<(&'a [u8], &'a [u8], u32, u16)> {
        let of_file = |file: &'a NeededFile| {
            let library = text(self.strings, file.file.into());
            let known = file.versions.iter();
            known.map(move |known| (library, text(self.strings, known.name.into()), known.hash, known.flags))
        };
        self.files.iter().flat_map(of_file).collect()
    }
}

fn needed_files(checker: &Checker<'_>, record: &ImageRecord) -> Result<Vec<NeededFile>, StoreError> {
    let bytes = bytes_of(checker, record.verneed)?.unwrap_or_default();
    let count = if bytes.is_empty() { 0 } else { u32::MAX };
    read_needed(bytes, count).map_err(|error| StoreError::Malformed(format!(".gnu.version_r: {error}")))
}

/// `.gnu.version_r` asks for what a full link's does.
fn check_needs(
    checker: &Checker<'_>,
    record: &ImageRecord,
    strings: &[u8],
    wrong: &mut Vec<String>,
) -> Result<(), StoreError> {
    let dynamic = &checker.program.dynamic;
    let fresh = read_needed(&dynamic.needs.0, dynamic.needs.1).unwrap_or_default();
    let files = needed_files(checker, record)?;
    let known = Versions { files: &files, strings };
    if known.all() != (Versions { files: &fresh, strings: &dynamic.strings }).all() {
        wrong.push(".gnu.version_r asks for other versions than a full link's".to_owned());
    }
    let table = bytes_of(checker, record.verneed)?.unwrap_or_default();
    if encode_needed(&files).ok().as_deref() != Some(table) {
        wrong.push(".gnu.version_r is not in a row".to_owned());
    }
    let mut indexes = HashSet::new();
    if !files.iter().flat_map(|file| &file.versions).all(|version| indexes.insert(version.index)) {
        wrong.push(".gnu.version_r has two versions of one index".to_owned());
    }
    if let Some(row) = record.verneed.some() {
        let header = checker.store.sections.get(row.0)?;
        if info(checker, record, &header) != files.len() as u32 {
            wrong.push(".gnu.version_r has another number of libraries than its header says".to_owned());
        }
    }
    if let Some(row) = record.dynsym.some() {
        let header = checker.store.sections.get(row.0)?;
        if info(checker, record, &header) != record.dynsym_locals {
            wrong.push(".dynsym has another number of local symbols than its header says".to_owned());
        }
    }
    Ok(())
}

/// Flags, index, hash and names of a version that the image defines.
type Definition = (u16, u16, u32, Vec<Vec<u8>>);

/// `.gnu.version_d` defines what a full link's does.
fn check_definitions(
    checker: &Checker<'_>,
    strings: &[u8],
    wrong: &mut Vec<String>,
) -> Result<(), StoreError> {
    let dynamic = &checker.program.dynamic;
    let table = super::slots::section(checker, b".gnu.version_d")?;
    let range = table.map_or(0..0, |table| table.offset as usize..(table.offset + table.size) as usize);
    let bytes = checker.image.get(range).unwrap_or_default();
    let meanings = |bytes: &[u8], strings: &[u8]| -> Option<Vec<Definition>> {
        let count = if bytes.is_empty() { 0 } else { u32::MAX };
        let definitions = read_defined(bytes, count).ok()?;
        let meaning = |definition: &DefinedVersion| {
            let names = std::iter::once(&definition.name).chain(&definition.parents);
            let names = names.map(|&name| text(strings, name.into()).to_vec()).collect();
            (definition.flags, definition.index, definition.hash, names)
        };
        Some(definitions.iter().map(meaning).collect())
    };
    if meanings(bytes, strings) != meanings(&dynamic.definitions.0, &dynamic.strings) {
        wrong.push(".gnu.version_d is not that of a full link".to_owned());
    }
    Ok(())
}

/// `sh_info` of a section.
fn info(checker: &Checker<'_>, record: &ImageRecord, section: &SectionRecord) -> u32 {
    word(checker.image, record.section_headers as usize + 64 * section.index as usize + 44)
}

/// `.gnu.hash` and `.hash` lead to each name that a loader may look for.
fn check_hashes(
    checker: &Checker<'_>,
    record: &ImageRecord,
    wrong: &mut Vec<String>,
) -> Result<(), StoreError> {
    let entries = bytes_of(checker, record.dynsym)?.unwrap_or_default().len() / 24;
    let dynamic = &checker.program.dynamic;
    let exports =
        dynamic.symbols.get((dynamic.first_hashed as usize).saturating_sub(1)..).unwrap_or_default();
    let exports: HashSet<SymbolRow> = exports.iter().copied().collect();
    let mut names = Vec::with_capacity(entries);
    for index in 0..entries as u32 {
        names.push(match owner(checker, record.dynsym_owners, index)? {
            Some(row) => {
                let name = checker.store.strings.bytes(checker.store.symbols.get(row.0)?.name)?;
                let fresh = checker.program.names.find(name);
                let exported = fresh.is_some_and(|row| exports.contains(&row));
                if exported != (index >= record.first_hashed) {
                    let name = String::from_utf8_lossy(name);
                    wrong.push(format!("{name} stands on the wrong side of what .gnu.hash holds"));
                }
                Some(split_version(name).0)
            }
            None => None,
        });
    }
    if let Some(table) = bytes_of(checker, record.gnu_hash)? {
        let hashed = names.get(record.first_hashed as usize..).unwrap_or_default();
        let hashes: Vec<Option<u32>> = hashed.iter().map(|name| name.map(gnu_hash)).collect();
        let shape = GnuShape::read(table).filter(|shape| shape.first == record.first_hashed);
        if shape.and_then(|shape| shape.encode(&hashes)).as_deref() != Some(table) {
            wrong.push(".gnu.hash does not lead to the names that it has to hold".to_owned());
        }
    }
    if let Some(table) = bytes_of(checker, record.hash)? {
        let hashes: Vec<Option<u32>> = names.iter().skip(1).map(|name| name.map(sysv_hash)).collect();
        let buckets = word(table, 0);
        if u64::from(buckets) * 4 > table.len() as u64 || sysv_encode(buckets, &hashes) != table {
            wrong.push(".hash does not lead to the names of .dynsym".to_owned());
        }
    }
    let lacks = |row: SectionRow, fresh: &[u8]| row.some().is_none() && !fresh.is_empty();
    if lacks(record.gnu_hash, &dynamic.gnu_hash) || lacks(record.hash, &dynamic.hash) {
        wrong.push("a hash table is missing".to_owned());
    }
    Ok(())
}

/// `.dynamic`: names as names, everything else as it is.
fn check_dynamic_section(
    checker: &Checker<'_>,
    record: &ImageRecord,
    strings: &[u8],
    wrong: &mut Vec<String>,
) -> Result<(), StoreError> {
    let program = &checker.program;
    let bounds = super::slots::sections_of(checker)?;
    let fresh =
        dynamic_bytes(program, |name| bounds.iter().find(|(known, _)| known == name).map(|&(_, at)| at));
    let count = needed_files(checker, record)?.len() as u64;
    let named = [elf::DT_NEEDED, elf::DT_SONAME, elf::DT_RPATH, elf::DT_RUNPATH].map(u64::from);
    let list = |bytes: &[u8], strings: &[u8]| -> Vec<(u64, u64, Vec<u8>)> {
        let (words, _) = bytes.as_chunks::<8>();
        let entries = words.chunks_exact(2).map(|pair| {
            let (tag, value) = (u64::from_le_bytes(pair[0]), u64::from_le_bytes(pair[1]));
            if named.contains(&tag) {
                (tag, 0, text(strings, value).to_vec())
            } else {
                (tag, value, Vec::new())
            }
        });
        entries.collect()
    };
    let mut fresh = list(&fresh, &program.dynamic.strings);
    for (tag, value, _) in &mut fresh {
        if *tag == u64::from(elf::DT_VERNEEDNUM) {
            *value = count;
        }
    }
    let table = bytes_of(checker, record.dynamic)?.unwrap_or_default();
    let known = list(table, strings);
    let ends = known.iter().skip(fresh.len()).all(|(tag, value, _)| (*tag, *value) == (0, 0));
    if known.len() <= fresh.len() || known[..fresh.len()] != fresh[..] || !ends {
        wrong.push(".dynamic is not that of a full link".to_owned());
    }
    Ok(())
}
