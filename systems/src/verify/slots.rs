//! GOT, what a loader reads, entry point.

use formats::elf;
use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::options::LinkOptions;
use relink_engine::program::Program;
use relink_engine::program::SectionUse;
use relink_engine::records::{ImageRecord, SectionRecord, atom_flags};
use relink_formats as formats;

use super::Checker;
use crate::kernel::{Dynamic, lower};
use crate::place::tables::{has_ibt_plt, interpreter};
use crate::relocate::bulk::{dynamic_reloc, site_offset};
use crate::relocate::dynamic::{
    DynamicReloc, RelocTables, dynamic_tables, got_words, packed_bytes, plt_bytes, scratch_slot,
};

fn word(checker: &Checker<'_>, offset: u64) -> u64 {
    let bytes = checker.image.get(offset as usize..offset as usize + 8).unwrap_or_default();
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

pub(super) fn section(checker: &Checker<'_>, name: &[u8]) -> Result<Option<SectionRecord>, StoreError> {
    for row in 0..checker.store.sections.len() {
        let section = checker.store.sections.get(row)?;
        if checker.store.strings.bytes(section.name)? == name {
            return Ok(Some(section));
        }
    }
    Ok(None)
}

/// Each GOT slot has one symbol and holds what its loader starts from, or is spare and zero; execution starts at the
/// entry symbol.
pub(super) fn check_got(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let mut wrong = Vec::new();
    let record = checker.store.image_record()?;
    let got = section(checker, b".got")?;
    let slot_offset = |slot: u32| {
        let address = record.got_address.wrapping_add(8 * u64::from(slot));
        got.map_or(Ok(0), |got| got.file_offset(address))
    };
    for (slot, expected) in (0..).zip(got_words(&checker.program)) {
        let found = word(checker, slot_offset(slot)?);
        if found != expected {
            wrong.push(format!("GOT slot {slot} holds {found:#x} instead of {expected:#x}"));
        }
    }
    let mut owned = HashSet::new();
    for row in 0..checker.store.symbols.len() {
        let slot = checker.store.symbols.get(row)?.got;
        if slot > record.got_used || slot != 0 && !owned.insert(slot) {
            wrong.push(format!("GOT slot {} is spare, or that of two symbols", slot - 1));
        }
    }
    for slot in record.got_used..record.got_slots {
        if word(checker, slot_offset(slot)?) != 0 {
            wrong.push(format!("the spare GOT slot {slot} is not zero"));
        }
    }
    if let Some(entry) = record.entry.some() {
        let name = checker.store.strings.bytes(checker.store.symbols.get(entry.0)?.name)?;
        let address = checker.program.names.find(name).map(|row| checker.program.addresses[row.index()]);
        if address.is_some_and(|address| address != word(checker, 24)) {
            wrong.push(format!("the entry point is {:#x}", word(checker, 24)));
        }
    }
    for what in wrong {
        checker.report(4, what);
    }
    Ok(())
}

/// The dynamic relocations are those of the inputs' pointers and of the tables; the tables that a loader looks names up
/// in are those of a full link.
pub(super) fn check_dynamic(checker: &mut Checker<'_>, options: &LinkOptions) -> Result<(), StoreError> {
    if checker.program.kind.is_dynamic() {
        super::dynsym::check_dynamic_symbols(checker, options)?;
    }
    let program = &checker.program;
    let mut wrong = Vec::new();
    let RelocTables { rela, rela_plt, relr } = dynamic_tables(program, pointers(checker))
        .map_err(|error| StoreError::Malformed(format!(".relr.dyn: {error}")))?;
    let mut tables: Vec<(&[u8], Vec<u8>)> = vec![(b".rela.dyn", rela)];
    // An object may have sections of these names, which are bytes to us.
    let is_table = |name: &[u8], table: &SectionRecord| match name {
        b".rela.dyn" => table.kind == elf::SHT_RELA,
        b".relr.dyn" => table.kind == elf::SHT_RELR,
        _ => true,
    };
    let packed = section(checker, b".relr.dyn")?.filter(|table| is_table(b".relr.dyn", table));
    let len = packed.map_or(0, |table| table.size);
    tables.push((b".relr.dyn", packed_bytes(&relr, len)));
    if program.kind.is_dynamic() {
        tables.push((b".rela.plt", rela_plt));
        let interpreter = interpreter(options).map(|path| [path.as_bytes(), &[0]].concat());
        tables.push((b".interp", interpreter.unwrap_or_default()));
        if let Ok((called, lazy, words)) = plt_bytes(program, options) {
            let two = has_ibt_plt(program, options);
            tables.push((if two { b".plt.sec" } else { b".plt" }, called));
            tables.push((if two { b".plt" } else { b".plt.sec" }, lazy));
            tables.push((b".got.plt", words.into_iter().flat_map(u64::to_le_bytes).collect()));
        }
    }
    let record = checker.store.image_record()?;
    if program.relative_relocs != record.relative_relocs {
        let (fresh, known) = (program.relative_relocs, record.relative_relocs);
        wrong.push(format!("a full link has {fresh} RELATIVE relocations, the image room for {known}"));
    }
    for (name, expected) in tables {
        let Some(table) = section(checker, name)?.filter(|table| is_table(name, table)) else {
            if !expected.is_empty() {
                wrong.push(format!("{} is missing", String::from_utf8_lossy(name)));
            }
            continue;
        };
        let (start, end) = (table.offset as usize, table.offset.saturating_add(table.size) as usize);
        let mut actual = std::borrow::Cow::from(checker.image.get(start..end).unwrap_or_default());
        if name == b".rela.dyn" {
            check_sorted(&actual, &record, program, &mut wrong);
            sort_entries(actual.to_mut(), program);
        }
        if *actual != *expected {
            let at = actual.iter().zip(&expected).position(|(a, b)| a != b);
            let at = at.unwrap_or(actual.len().min(expected.len()));
            wrong.push(format!(
                "{} is not that of a full link, from byte {at:#x} on",
                String::from_utf8_lossy(name)
            ));
        }
    }
    for what in wrong {
        checker.report(4, what);
    }
    Ok(())
}

/// Bytes of an entry of `.rela.dyn`.
const RELA: usize = 24;

/// Puts entries in the order that a full link has them in: patches use spare ones, which stand at the ends of their kinds.
fn sort_entries(table: &mut [u8], program: &Program) {
    let scratch = scratch_slot(program);
    let count = (program.relative_relocs as usize).min(table.len() / RELA);
    let word =
        |entry: &[u8; RELA], at: usize| entry[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let others = &mut table[count * RELA..];
    let mut entries: Vec<[u8; RELA]> =
        others.chunks_exact(RELA).filter_map(|entry| entry.try_into().ok()).collect();
    entries.sort_by_key(|entry| {
        let info = word(entry, 8);
        (
            Some(place_of(&entry[..])) == scratch,
            info >> 32,
            word(entry, 0),
            info & 0xffff_ffff,
            word(entry, 16) as i64,
        )
    });
    others.copy_from_slice(&entries.concat());
    let mut entries: Vec<[u8; RELA]> =
        table[..count * RELA].chunks_exact(RELA).filter_map(|entry| entry.try_into().ok()).collect();
    entries.sort_unstable_by_key(|entry| (Some(place_of(&entry[..])) == scratch, place_of(&entry[..])));
    table[..count * RELA].copy_from_slice(&entries.concat());
}

/// Entries that patches find by bisection must stand in the order of their places.
fn check_sorted(table: &[u8], record: &ImageRecord, program: &Program, wrong: &mut Vec<String>) {
    let scratch = scratch_slot(program);
    let sorted = table.chunks_exact(RELA).take(record.sorted_relocs as usize).map(place_of);
    if !sorted.filter(|&place| Some(place) != scratch).is_sorted() {
        wrong.push(".rela.dyn is not in the order of its places".to_owned());
    }
}

fn place_of(entry: &[u8]) -> u64 {
    entry.first_chunk().map_or(0, |place| u64::from_le_bytes(*place))
}

/// Name; address and size.
pub(super) type Bounds = (Vec<u8>, (u64, u64));

/// Where the image's sections are.
pub(super) fn sections_of(checker: &Checker<'_>) -> Result<Vec<Bounds>, StoreError> {
    (0..checker.store.sections.len())
        .map(|row| {
            let section = checker.store.sections.get(row)?;
            let name = checker.store.strings.bytes(section.name)?.to_vec();
            Ok((name, (section.address, section.size)))
        })
        .collect()
}

/// The dynamic relocation of each word of the inputs that has one.
fn pointers(checker: &Checker<'_>) -> Vec<DynamicReloc> {
    let program = &checker.program;
    let mut found = Vec::new();
    for object in &program.objects {
        for (section, used) in object.uses.iter().enumerate() {
            let SectionUse::Atom(row) = *used else { continue };
            let atom = &program.atoms[row.index()];
            let placed = atom_flags::LIVE | atom_flags::ALLOC;
            if atom.flags & (placed | atom_flags::NOBITS) != placed {
                continue;
            }
            let bytes = object.parsed.section_bytes(section);
            let relocs = object.parsed.relocations(section);
            let mut next = 0;
            while next < relocs.len() {
                let at = next;
                next += 1;
                let Ok(site) = lower(program, object, atom.flags, bytes, relocs, at) else { continue };
                next += usize::from(site.plan.skip_next);
                if site.dynamic != Dynamic::None {
                    let offset = site_offset(object, section, &site);
                    found.push(dynamic_reloc(program, &site, atom, offset));
                }
            }
        }
    }
    found
}
