//! The bytes of the output object.

use formats::elf;
use object::Endianness;
use object::elf as raw;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, Writer};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::program::Program;
use relink_formats as formats;

use super::arrange::{Combined, Entry, OutSection};
use super::symbols::{OutPlace, OutSymbols};

const SHF_GNU_RETAIN: u64 = 1 << 21;
const SYMBOL_BYTES: usize = 24;

/// Places of a section in the output.
#[derive(Clone, Copy, Debug, Default)]
struct Home {
    index: SectionIndex,
    offset: u64,
    relocs_index: SectionIndex,
    relocs_offset: u64,
}

pub(crate) fn object(
    program: &Program,
    combined: &Combined<'_>,
    symbols: &OutSymbols,
) -> Result<Vec<u8>, Box<Diagnostic>> {
    let failed =
        |error: object::write::Error| Box::new(Diagnostic::Other { message: format!("-r: {error}") });
    let relocation_names: Vec<Vec<u8>> =
        combined.sections.iter().map(|section| [b".rela", &section.name[..]].concat()).collect();
    let relocs = resolved(program, combined, symbols)?;
    let mut image = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut image);
    writer.reserve_file_header();
    // Numbers, in the order of the section headers: a group stands before its members.
    let mut homes = vec![Home::default(); combined.sections.len()];
    let mut groups = vec![SectionIndex::default(); combined.groups.len()];
    let mut names = vec![None; combined.sections.len()];
    let mut relocs_names = vec![None; combined.sections.len()];
    let group_name = writer.add_section_name(b".group");
    for entry in &combined.order {
        match *entry {
            Entry::Group(group) => groups[group] = writer.reserve_section_index(),
            Entry::Section(section) => {
                homes[section].index = writer.reserve_section_index();
                names[section] = Some(writer.add_section_name(&combined.sections[section].name));
                if !relocs[section].is_empty() {
                    homes[section].relocs_index = writer.reserve_section_index();
                    relocs_names[section] = Some(writer.add_section_name(&relocation_names[section]));
                }
            }
        }
    }
    let symtab = writer.reserve_symtab_section_index();
    writer.reserve_null_symbol_index();
    let strings: Vec<_> = symbols
        .all
        .iter()
        .map(|symbol| {
            let section = match symbol.place {
                OutPlace::Section(section) => Some(homes[section].index),
                OutPlace::Group(group) => Some(groups[group]),
                _ => None,
            };
            writer.reserve_symbol_index(section);
            (!symbol.name.is_empty()).then(|| writer.add_string(&symbol.name))
        })
        .collect();
    if writer.symtab_shndx_needed() {
        writer.reserve_symtab_shndx_section_index();
    }
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    // Places in the file.
    for (section, home) in combined.sections.iter().zip(&mut homes) {
        let stored = if section.kind == elf::SHT_NOBITS { 0 } else { section.size };
        home.offset = writer.reserve(stored, section.align);
    }
    let group_offsets: Vec<u64> = combined
        .groups
        .iter()
        .map(|group| writer.reserve(4 * (1 + members(group.members.iter(), &homes).count() as u64), 4))
        .collect();
    for (relocs, home) in relocs.iter().zip(&mut homes) {
        if !relocs.is_empty() {
            home.relocs_offset = writer.reserve_relocations(relocs.len(), true);
        }
    }
    writer.reserve_symtab();
    writer.reserve_symtab_shndx();
    writer.reserve_strtab().map_err(failed)?;
    writer.reserve_shstrtab().map_err(failed)?;
    writer.reserve_section_headers();
    // Bytes.
    writer
        .write_file_header(&FileHeader {
            os_abi: if asks_for_gnu(combined, symbols) { raw::ELFOSABI_GNU } else { raw::ELFOSABI_SYSV },
            abi_version: 0,
            e_type: raw::ET_REL,
            e_machine: raw::EM_X86_64,
            e_entry: 0,
            e_flags: raw::FileFlags(0),
        })
        .map_err(failed)?;
    for (section, home) in combined.sections.iter().zip(&homes) {
        writer.pad_until(home.offset);
        write_contents(&mut writer, section);
    }
    for (group, offset) in combined.groups.iter().zip(&group_offsets) {
        writer.pad_until(*offset);
        let comdat = program.objects[group.object].parsed.groups[group.group].comdat;
        writer.write(&u32::from(comdat).to_le_bytes());
        for member in members(group.members.iter(), &homes) {
            writer.write(&member.0.to_le_bytes());
        }
    }
    for (relocs, home) in relocs.iter().zip(&homes) {
        if !relocs.is_empty() {
            writer.pad_until(home.relocs_offset);
            relocs.iter().for_each(|reloc| writer.write_relocation(true, reloc));
        }
    }
    writer.write_null_symbol();
    for (symbol, name) in symbols.all.iter().zip(&strings) {
        let (section, special) = match symbol.place {
            OutPlace::Section(section) => (Some(homes[section].index.0), raw::SHN_UNDEF),
            OutPlace::Group(group) => (Some(groups[group].0), raw::SHN_UNDEF),
            OutPlace::Undefined => (None, raw::SHN_UNDEF),
            OutPlace::Absolute => (None, raw::SHN_ABS),
            OutPlace::Common => (None, raw::SHN_COMMON),
        };
        writer.write_symbol(&Sym {
            section,
            st_name: writer.string_offset(*name),
            st_info: raw::SymbolInfo(symbol.info),
            st_other: raw::SymbolOther(symbol.other),
            st_shndx: special,
            st_value: symbol.value,
            st_size: symbol.size,
        });
    }
    writer.write_symtab_shndx();
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    for entry in &combined.order {
        match *entry {
            Entry::Group(group) => {
                let known = &combined.groups[group];
                let signature = program.objects[known.object].parsed.groups[known.group].signature as usize;
                let signature = symbols.of(program, combined, (known.object, signature));
                writer.write_section_header(&SectionHeader {
                    sh_name: writer.section_name_offset(Some(group_name)),
                    sh_type: raw::SHT_GROUP,
                    sh_flags: raw::SectionFlags(0),
                    sh_addr: 0,
                    sh_offset: group_offsets[group],
                    sh_size: 4 * (1 + members(known.members.iter(), &homes).count() as u64),
                    sh_link: symtab.0,
                    sh_info: signature.map_or(0, |(symbol, _)| symbol),
                    sh_addralign: 4,
                    sh_entsize: 4,
                });
            }
            Entry::Section(index) => {
                let (section, home) = (&combined.sections[index], &homes[index]);
                let link = section.link.and_then(|(object, section)| combined.place(object, section));
                writer.write_section_header(&SectionHeader {
                    sh_name: writer.section_name_offset(names[index]),
                    sh_type: raw::SectionType(section.kind),
                    sh_flags: raw::SectionFlags(section.flags),
                    sh_addr: 0,
                    sh_offset: home.offset,
                    sh_size: section.size,
                    sh_link: link.map_or(0, |(section, _)| homes[section].index.0),
                    sh_info: 0,
                    sh_addralign: section.align,
                    sh_entsize: section.entsize,
                });
                if relocs[index].is_empty() {
                    continue;
                }
                let group = if section.group.is_some() { u64::from(elf::SHF_GROUP) } else { 0 };
                writer.write_section_header(&SectionHeader {
                    sh_name: writer.section_name_offset(relocs_names[index]),
                    sh_type: raw::SHT_RELA,
                    sh_flags: raw::SectionFlags(raw::SHF_INFO_LINK.0 | group),
                    sh_addr: 0,
                    sh_offset: home.relocs_offset,
                    sh_size: (relocs[index].len() * SYMBOL_BYTES) as u64,
                    sh_link: symtab.0,
                    sh_info: home.index.0,
                    sh_addralign: 8,
                    sh_entsize: SYMBOL_BYTES as u64,
                });
            }
        }
    }
    writer.write_symtab_section_header(symbols.locals as u32 + 1);
    writer.write_symtab_shndx_section_header();
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(image)
}

/// Numbers of a group's sections, those of their relocations included.
fn members<'a>(
    sections: impl Iterator<Item = &'a usize>,
    homes: &[Home],
) -> impl Iterator<Item = SectionIndex> {
    sections
        .flat_map(|&section| [homes[section].index, homes[section].relocs_index])
        .filter(|index| index.0 != 0)
}

/// Relocations with the output's symbols.
fn resolved(
    program: &Program,
    combined: &Combined<'_>,
    symbols: &OutSymbols,
) -> Result<Vec<Vec<Rel>>, Box<Diagnostic>> {
    let of_section = |section: &OutSection<'_>| {
        let of_one = |reloc: &super::arrange::Reloc| {
            let (symbol, more) = symbols.of(program, combined, reloc.symbol).ok_or_else(|| {
                let object = &program.objects[reloc.symbol.0];
                let name = String::from_utf8_lossy(object.parsed.symbol_name(reloc.symbol.1)).into_owned();
                let why = format!("a relocation names the symbol '{name}', which the output does not have");
                Box::new(Diagnostic::BadInput { input: object.name.clone(), why })
            })?;
            Ok(Rel {
                r_offset: reloc.offset,
                r_sym: symbol,
                r_type: raw::RelocationType(reloc.kind),
                r_addend: reloc.addend.wrapping_add(more),
            })
        };
        section.relocs.iter().map(of_one).collect()
    };
    combined.sections.iter().map(of_section).collect()
}

fn write_contents(writer: &mut Writer<'_>, section: &OutSection<'_>) {
    if section.kind == elf::SHT_NOBITS {
        return;
    }
    // Code runs through the holes between the parts of .init and .fini.
    let filler = if section.flags & u64::from(elf::SHF_EXECINSTR) != 0 { 0x90 } else { 0 };
    let mut at = 0;
    for part in &section.parts {
        writer.write(&vec![filler; part.offset.saturating_sub(at) as usize]);
        writer.write(&part.bytes);
        at = part.offset + part.bytes.len() as u64;
    }
}

/// Whether something is in it that is GNU's own.
fn asks_for_gnu(combined: &Combined<'_>, symbols: &OutSymbols) -> bool {
    let of_gnu = |info: u8| info & 0xf == elf::STT_GNU_IFUNC || info >> 4 == elf::STB_GNU_UNIQUE;
    symbols.all.iter().any(|symbol| of_gnu(symbol.info))
        || combined.sections.iter().any(|section| section.flags & SHF_GNU_RETAIN != 0)
}
