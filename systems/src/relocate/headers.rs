//! ELF header, program headers, section headers and their names.

use bevy_ecs::prelude::{Res, ResMut};
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::endian::{U16, U32, U64};
use object::{LittleEndian as LE, pod};
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{OutputSection, Program};
use relink_engine::records::{SymbolRecord, atom_flags, place, symbol_flags};
use relink_formats::elf::STB_GNU_UNIQUE;

/// Writes the headers and `.shstrtab`.
pub(crate) fn write_headers(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    put_headers(&mut program, request.options.output_kind.is_position_independent());
}

/// Writes them as sections stand now.
pub(crate) fn put_headers(program: &mut Program, movable: bool) {
    let mut image = std::mem::take(&mut program.image);
    let sections: Vec<&OutputSection> = program.outputs.iter().filter(|section| section.index != 0).collect();
    let shstrtab = &program.outputs[program.synthetic.shstrtab.index()];
    let header = FileHeader64::<LE> {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            // GNU extensions (IFUNC symbols, unique symbols) ask for the GNU ABI mark.
            os_abi: if has_gnu_symbols(program) { elf::ELFOSABI_GNU } else { elf::ELFOSABI_SYSV },
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, if movable { elf::ET_DYN } else { elf::ET_EXEC }),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, u32::from(elf::EV_CURRENT.0)),
        e_entry: U64::new(LE, program.entry),
        e_phoff: U64::new(LE, 64),
        e_shoff: U64::new(LE, program.section_headers),
        e_flags: U32::new(LE, elf::FileFlags(0)),
        e_ehsize: U16::new(LE, 64),
        e_phentsize: U16::new(LE, 56),
        e_phnum: U16::new(LE, program.segments.len() as u16),
        e_shentsize: U16::new(LE, 64),
        e_shnum: U16::new(LE, sections.len() as u16 + 1),
        e_shstrndx: U16::new(LE, elf::SymbolSection(shstrtab.index as u16)),
    };
    put(&mut image, 0, pod::bytes_of(&header));
    for (index, segment) in program.segments.iter().enumerate() {
        let header = ProgramHeader64::<LE> {
            p_type: U32::new(LE, elf::ProgramType(segment.kind)),
            p_flags: U32::new(LE, elf::ProgramFlags(segment.flags)),
            p_offset: U64::new(LE, segment.offset),
            p_vaddr: U64::new(LE, segment.address),
            p_paddr: U64::new(LE, segment.address),
            p_filesz: U64::new(LE, segment.file_size),
            p_memsz: U64::new(LE, segment.memory_size),
            p_align: U64::new(LE, segment.align),
        };
        put(&mut image, 64 + 56 * index as u64, pod::bytes_of(&header));
    }
    let mut names = vec![0];
    for section in &sections {
        let header = section_header(section, section_link(program, section), names.len() as u32);
        put(&mut image, program.section_headers + 64 * u64::from(section.index), pod::bytes_of(&header));
        names.extend_from_slice(&section.name);
        names.push(0);
    }
    put(&mut image, shstrtab.offset, &names);
    program.image = image;
}

fn section_header(section: &OutputSection, (link, info): (u32, u32), name: u32) -> SectionHeader64<LE> {
    SectionHeader64 {
        sh_name: U32::new(LE, name),
        sh_type: U32::new(LE, elf::SectionType(section.kind)),
        sh_flags: U64::new(LE, elf::SectionFlags(section.flags)),
        sh_addr: U64::new(LE, section.address),
        sh_offset: U64::new(LE, section.offset),
        sh_size: U64::new(LE, section.size),
        sh_link: U32::new(LE, link),
        sh_info: U32::new(LE, info),
        sh_addralign: U64::new(LE, 1 << section.align),
        sh_entsize: U64::new(LE, section.entsize),
    }
}

/// IFUNCs and unique symbols of its own.
fn has_gnu_symbols(program: &Program) -> bool {
    let resolved = |symbol: &SymbolRecord| {
        symbol.flags & symbol_flags::IFUNC != 0
            && place::is_atom(symbol.atom)
            && program.atoms[symbol.atom.index()].flags & atom_flags::LIVE != 0
    };
    program.symbols.par_iter().any(resolved)
        || program.dynamic.symbols.iter().filter_map(|row| row.some()).any(|row| {
            let symbol = &program.symbols[row.index()];
            place::is_atom(symbol.atom) && symbol.info >> 4 == STB_GNU_UNIQUE
        })
}

fn section_link(program: &Program, section: &OutputSection) -> (u32, u32) {
    let index = |name: &[u8]| program.output(name).map_or(0, |section| section.index);
    match &section.name[..] {
        b".dynsym" => (index(b".dynstr"), program.dynamic.locals.max(1)),
        b".dynamic" => (index(b".dynstr"), 0),
        b".gnu.hash" | b".hash" | b".gnu.version" => (index(b".dynsym"), 0),
        b".gnu.version_d" => (index(b".dynstr"), program.dynamic.definitions.1),
        b".gnu.version_r" => (index(b".dynstr"), program.dynamic.needs.1),
        b".rela.plt" => (index(b".dynsym"), index(b".got.plt")),
        b".rela.dyn" if program.synthetic.dynsym.some().is_some() => (index(b".dynsym"), 0),
        // elfutils wants a symbol table even where no entry has a symbol.
        b".rela.dyn" => (index(b".symtab"), 0),
        _ => (section.link, section.info),
    }
}

/// Writes bytes at a file offset; what would be beyond the image is a bug of the layout and is left out.
pub(crate) fn put(image: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    if let Some(slot) = image.get_mut(start..start + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}
