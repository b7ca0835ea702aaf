//! Unwind tables, symbol table, GOT and build-id.

use formats::eh_frame::{parse_hdr, scan_fdes};
use formats::elf;
use hashbrown::{HashMap, HashSet};
use object::LittleEndian;
use object::elf::Sym64;
use relink_engine::column::StoreError;
use relink_engine::program::{EhPiece, Object};
use relink_engine::records::{SectionRecord, place, symbol_flags};
use relink_engine::rows::{SectionRow, SymbolRow};
use relink_formats as formats;

use super::Checker;
use super::placement::Placement;
use crate::debug::unwind::piece_bytes;
use crate::ingest::bulk::local_symbols;
use crate::place::symtab::global_form;

fn section_bytes<'a>(
    checker: &Checker<'a>,
    row: SectionRow,
) -> Result<Option<(SectionRecord, &'a [u8])>, StoreError> {
    let Some(row) = row.some() else { return Ok(None) };
    let record = checker.store.sections.get(row.0)?;
    let range = record.offset as usize..(record.offset + record.size) as usize;
    Ok(Some((record, checker.image.get(range).unwrap_or_default())))
}

/// One FDE for each that a full link has, with the same bytes; one for each island; a sorted, complete header.
pub(super) fn check_unwind(checker: &mut Checker<'_>, placement: &Placement) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    let Some((table, bytes)) = section_bytes(checker, record.eh_frame)? else { return Ok(()) };
    let fdes = match scan_fdes(bytes, table.address) {
        Ok(fdes) => fdes,
        Err(error) => {
            checker.report(4, format!(".eh_frame: {error}"));
            return Ok(());
        }
    };
    let mut by_code: HashMap<u64, Vec<u32>> = HashMap::new();
    for (pc, _, offset, _) in &fdes {
        by_code.entry(*pc).or_default().push(*offset);
    }
    let mut wrong = Vec::new();
    for object in &checker.program.objects {
        for fde in &object.fdes {
            let code = checker.program.atoms[fde.atom.index()].address.wrapping_add(fde.atom_offset.into());
            let own = by_code.get_mut(&code).filter(|own| !own.is_empty());
            let Some(own) = own else {
                wrong.push(format!("{}: no frame description for {code:#x}", object.name));
                continue;
            };
            // Functions without a byte share their address with the next one.
            let equal = own.iter().position(|&offset| is_fde(checker, object, fde, &table, bytes, offset));
            if equal.is_none() {
                wrong.push(format!("{}: the frame description of {code:#x} differs", object.name));
            }
            own.remove(equal.unwrap_or(0));
        }
    }
    let known: HashSet<(u64, u32)> = fdes.iter().map(|(pc, _, offset, _)| (*pc, *offset)).collect();
    for row in 0..checker.store.fdes.len() {
        let fde = checker.store.fdes.get(row)?;
        if !place::is_atom(fde.atom) {
            continue; // An island's.
        }
        let code = checker.store.atoms.get(fde.atom.0)?.address + u64::from(fde.start);
        if !known.contains(&(code, fde.offset)) {
            wrong.push(format!("the store's frame description for {code:#x} is none of the image"));
        }
    }
    for row in 0..checker.store.islands.len() {
        let island = checker.store.islands.get(row)?;
        let found = by_code.get_mut(&island.address).and_then(Vec::pop);
        if found.is_none() && island.fde.some().is_some() {
            wrong.push(format!("no frame description for the island at {:#x}", island.address));
        }
    }
    for (pc, left) in by_code {
        if !left.is_empty() {
            wrong.push(format!("a frame description for {pc:#x}, where no code of the inputs is"));
        }
    }
    if let Some((header, header_bytes)) = section_bytes(checker, record.eh_frame_hdr)? {
        let mut expected: Vec<(u64, u64)> = fdes
            .iter()
            .map(|(pc, _, offset, _)| (*pc, table.address.wrapping_add((*offset).into())))
            .collect();
        expected.sort_unstable();
        let at = |value: i32| header.address.wrapping_add_signed(i64::from(value));
        let actual: Vec<(u64, u64)> = parse_hdr(header_bytes)
            .unwrap_or_default()
            .iter()
            .map(|entry| (at(entry.pc), at(entry.fde)))
            .collect();
        if actual != expected {
            wrong.push(".eh_frame_hdr is not the sorted list of all frame descriptions".to_owned());
        }
    }
    let _ = placement;
    for what in wrong {
        checker.report(4, what);
    }
    Ok(())
}

/// Whether the record at an offset of `.eh_frame` is what pristine bytes make of a FDE and its CIE there.
fn is_fde(
    checker: &Checker<'_>,
    object: &Object,
    fde: &EhPiece,
    table: &SectionRecord,
    bytes: &[u8],
    offset: u32,
) -> bool {
    let program = &checker.program;
    let word = |at: u32| {
        let word = bytes.get(at as usize..at as usize + 4).unwrap_or_default();
        u32::from_le_bytes(word.try_into().unwrap_or_default())
    };
    let equal = |object: &Object, piece: &EhPiece, offset: u32, cie: Option<u32>| {
        let capacity = word(offset).saturating_add(4);
        let piece = EhPiece { offset, capacity, ..*piece };
        let expected = piece_bytes(program, object, &piece, table.address, cie);
        expected.ok().as_deref() == bytes.get(offset as usize..offset as usize + capacity as usize)
    };
    let cie = (offset + 4).wrapping_sub(word(offset + 4));
    let common = &program.cies[fde.cie as usize];
    equal(object, fde, offset, Some(cie))
        && equal(&program.objects[common.object as usize], &common.piece, cie, None)
}

type Symbol = (Vec<u8>, u64, u64, u8, u8, u16);

/// The symbol table holds what a full link's does, at the image's addresses, and the islands.
pub(super) fn check_symbols(checker: &mut Checker<'_>, placement: &Placement) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    let (Some((_, table)), Some((_, strings))) =
        (section_bytes(checker, record.symtab)?, section_bytes(checker, record.strtab)?)
    else {
        return Ok(());
    };
    let symbols = object::pod::slice_from_all_bytes::<Sym64<LittleEndian>>(table).unwrap_or_default();
    let mut actual: HashMap<Symbol, i64> = HashMap::new();
    for symbol in symbols {
        let name = strings.get(symbol.st_name.get(LittleEndian) as usize..).unwrap_or_default();
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        let key = (
            name,
            symbol.st_value.get(LittleEndian),
            symbol.st_size.get(LittleEndian),
            symbol.st_info.0,
            symbol.st_other.0,
            symbol.st_shndx.get(LittleEndian).0,
        );
        if key.0.is_empty() {
            continue; // The null symbol and the hole for islands.
        }
        *actual.entry(key).or_default() += 1;
    }
    for key in expected_symbols(checker, placement)? {
        *actual.entry(key).or_default() -= 1;
    }
    for row in 0..checker.store.islands.len() {
        let island = checker.store.islands.get(row)?;
        actual.retain(|(name, value, ..), _| !(name.ends_with(b".island") && *value == island.address));
    }
    let mut wrong: Vec<(Symbol, i64)> = actual.into_iter().filter(|(_, count)| *count != 0).collect();
    wrong.sort();
    for ((name, value, size, ..), count) in wrong {
        let name = String::from_utf8_lossy(&name).into_owned();
        let what = if count > 0 { "has a symbol too many" } else { "lacks a symbol" };
        checker.report(1, format!("the symbol table {what}: {name} at {value:#x}, {size} bytes"));
    }
    Ok(())
}

fn expected_symbols(checker: &Checker<'_>, _: &Placement) -> Result<Vec<Symbol>, StoreError> {
    let program = &checker.program;
    let mut expected = Vec::new();
    let mut add = |row: SymbolRow, name: &[u8], local: bool| -> Result<(), StoreError> {
        let symbol = &program.symbols[row.index()];
        let (section, mut value) = if symbol.atom == place::ABSOLUTE {
            (elf::SHN_ABS, symbol.value)
        } else if place::is_atom(symbol.atom) {
            let atom = &program.atoms[symbol.atom.index()];
            let index = match atom.output.some() {
                Some(row) => checker.store.sections.get(row.0)?.index,
                None => 0,
            };
            let section = if index == 0 { elf::SHN_ABS } else { index as u16 };
            (section, atom.address.wrapping_add(symbol.value))
        } else {
            (elf::SHN_UNDEF, 0)
        };
        if symbol.flags & symbol_flags::TLS != 0 && section != elf::SHN_UNDEF {
            value = value.wrapping_sub(program.tls_start);
        }
        let bytes =
            crate::debug::symtab::symbol_bytes(symbol, 0, section, formats::units::VirtAddr(value), local);
        let size = if section == elf::SHN_UNDEF { 0 } else { symbol.size };
        expected.push((name.to_vec(), value, size, bytes[4], symbol.other, section));
        Ok(())
    };
    for object in &program.objects {
        for (row, index) in object.locals.range().zip(local_symbols(&object.parsed)) {
            // An index means that the fresh link wrote it, under the same options.
            if program.symbols[row as usize].symtab != 0 {
                add(SymbolRow(row), object.parsed.symbol_name(index), true)?;
            }
        }
    }
    for row in (0..program.globals).map(SymbolRow) {
        if program.symbols[row.index()].symtab != 0
            && let Some(local) = global_form(program, row)
        {
            add(row, program.names.of(row), local)?;
        }
    }
    Ok(expected)
}

/// The note is what the file's own bytes say (invariant 8).
pub(super) fn check_build_id(checker: &mut Checker<'_>) -> Result<(), StoreError> {
    let record = checker.store.image_record()?;
    if record.build_id_len == 0 || checker.store.digests.is_empty() {
        return Ok(());
    }
    let note = record.build_id_offset..record.build_id_offset + record.build_id_len;
    let digest = formats::build_id::of_image(checker.image, Some(note.clone()));
    let pages = formats::build_id::page_count(checker.image.len() as u64);
    let top = checker.store.digests.get(formats::build_id::top_index(pages) as u32)?;
    if formats::build_id::root(&top, checker.image.len() as u64) != digest {
        checker.report(8, "the digest tree is not that of the image".to_owned());
    }
    let tree = matches!(record.build_id_len, 8 | 16 | 20) && checker.tree_id;
    let shown = checker.image.get(note.start as usize..note.end as usize).unwrap_or_default();
    if tree && Some(shown) != digest.get(..shown.len()) {
        checker.report(8, "the build-id is not the digest of the image".to_owned());
    }
    Ok(())
}
