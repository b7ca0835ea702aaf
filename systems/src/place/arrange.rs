//! Output sections: which atoms stand in which, in which order; and the atoms that the linker makes itself.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use hashbrown::HashMap;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::{BuildId, LinkOptions, Strip};
use relink_engine::program::{OutputSection, Program, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, SectionRow};
use relink_formats as formats;
use relink_formats::dwarf::{DebugSection, FILLER_ABBREVIATIONS};

use super::names::{init_priority, output_name, rank, segment};
use super::reserve;

const SHF_DROPPED: u64 =
    (elf::SHF_GROUP | elf::SHF_MERGE | elf::SHF_STRINGS | elf::SHF_LINK_ORDER | elf::SHF_COMPRESSED) as u64
        | 1 << 21;

/// Sorts all live atoms into output sections and the sections into file order.
pub(crate) fn arrange_sections(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    let mut outputs = Outputs::default();
    // Fillers of debug sections need an abbreviation table and a unit to speak of, in front of all others.
    if options.incremental.is_some() && options.strip == Strip::None {
        add_fillers(program, &mut outputs);
    }
    place_objects(program, &mut outputs);
    for row in 0..program.atoms.len() {
        let atom = program.atoms[row];
        if atom.flags & atom_flags::COMMON != 0 {
            let tls = atom.flags & atom_flags::TLS != 0;
            let (name, flags) = if tls {
                (&b".tbss"[..], elf::SHF_ALLOC | elf::SHF_WRITE | elf::SHF_TLS)
            } else {
                (&b".bss"[..], elf::SHF_ALLOC | elf::SHF_WRITE)
            };
            outputs.push(program, name, elf::SHT_NOBITS, u64::from(flags), AtomRow(row as u32));
        }
    }
    for pool in 0..program.pools.len() {
        let (name, flags, atom) =
            (program.pools[pool].output_name.clone(), program.pools[pool].flags, program.pools[pool].atom);
        let output = outputs.push(program, &name, elf::SHT_PROGBITS, flags, atom);
        if outputs.sections[output].atoms.len() == 1 && flags & u64::from(elf::SHF_ALLOC) == 0 {
            outputs.sections[output].flags |= flags & u64::from(elf::SHF_MERGE | elf::SHF_STRINGS);
            outputs.sections[output].entsize = program.pools[pool].entsize;
        }
    }
    add_tables(program, options, &mut outputs);
    let mut sections = outputs.sections;
    for section in &mut sections {
        if matches!(section.kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY) {
            section.atoms.sort_by_key(|row| {
                let atom = &program.atoms[row.index()];
                program
                    .object(atom)
                    .map_or(0, |object| init_priority(object.parsed.section_name(atom.section as usize)))
            });
        }
        section.rank = rank(&section.name, section.kind, section.flags);
    }
    sections.sort_by_key(|section| {
        (segment(&section.name, section.kind, section.flags, options.relro), section.rank)
    });
    for (row, section) in sections.iter().enumerate() {
        for atom in &section.atoms {
            program.atoms[atom.index()].output = SectionRow(row as u32);
        }
    }
    program.outputs = sections;
}

#[derive(Default)]
struct Outputs {
    sections: Vec<OutputSection>,
    by_name: HashMap<Vec<u8>, usize>,
}

impl Outputs {
    fn push(&mut self, program: &Program, name: &[u8], kind: u32, flags: u64, atom: AtomRow) -> usize {
        let flags = flags & !SHF_DROPPED;
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None => {
                self.sections.push(OutputSection { name: name.to_vec(), kind, flags, ..Default::default() });
                self.by_name.insert(name.to_vec(), self.sections.len() - 1);
                self.sections.len() - 1
            }
        };
        let section = &mut self.sections[index];
        section.flags |= flags;
        if section.kind != kind {
            // Mixed kinds: bytes win over no bytes, an array's kind over plain ones (`.ctors` in `.init_array`).
            let array =
                |kind| matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY);
            if section.kind == elf::SHT_NOBITS || array(kind) {
                section.kind = kind;
            }
        }
        section.align = section.align.max(program.atoms[atom.index()].align as u8);
        section.atoms.push(atom);
        index
    }
}

fn place_objects(program: &mut Program, outputs: &mut Outputs) {
    let program = &*program;
    for object in &program.objects {
        for (index, used) in object.uses.iter().enumerate() {
            let SectionUse::Atom(row) = *used else { continue };
            if program.atoms[row.index()].flags & atom_flags::LIVE == 0 {
                continue;
            }
            let section = &object.parsed.sections[index];
            let name = output_name(object.parsed.section_name(index));
            let kind = match name {
                b".init_array" => elf::SHT_INIT_ARRAY,
                b".fini_array" => elf::SHT_FINI_ARRAY,
                _ => section.kind,
            };
            let output = outputs.push(program, name, kind, section.flags, row);
            if kind == elf::SHT_INIT_ARRAY || kind == elf::SHT_FINI_ARRAY {
                outputs.sections[output].entsize = 8;
            }
        }
    }
}

/// Adds an atom of the linker's own and returns its row.
fn own_atom(program: &mut Program, size: u64, align: u8, flags: u32, kind: u32) -> AtomRow {
    program.atoms.push(AtomRecord {
        input: InputRow::default(),
        section: NONE,
        flags: flags | atom_flags::SYNTHETIC | atom_flags::LIVE | atom_flags::EXACT,
        size,
        capacity: size,
        kind,
        align: u32::from(align),
        ..Default::default()
    });
    AtomRow(program.atoms.len() as u32 - 1)
}

fn add_fillers(program: &mut Program, outputs: &mut Outputs) {
    let debug = |name: &[u8]| {
        program.objects.iter().any(|object| {
            object.uses.iter().enumerate().any(|(index, used)| {
                matches!(used, SectionUse::Atom(_)) && object.parsed.section_name(index) == name
            })
        })
    };
    if !debug(b".debug_info") {
        return;
    }
    let abbrev =
        own_atom(program, FILLER_ABBREVIATIONS.len() as u64, 0, atom_flags::DEBUG, elf::SHT_PROGBITS);
    outputs.push(program, b".debug_abbrev", elf::SHT_PROGBITS, 0, abbrev);
    let unit = own_atom(program, FILLER_UNIT_BYTES, 0, atom_flags::DEBUG, elf::SHT_PROGBITS);
    outputs.push(program, b".debug_info", elf::SHT_PROGBITS, 0, unit);
    program.synthetic.filler_abbrev = abbrev;
    program.synthetic.filler_unit = unit;
}

/// A permanent unit that fillers in `.debug_aranges` may name.
pub(crate) const FILLER_UNIT_BYTES: u64 = 32;

/// The sections that no object brings.
fn add_tables(program: &mut Program, options: &LinkOptions, outputs: &mut Outputs) {
    let alloc = u64::from(elf::SHF_ALLOC);
    let write = alloc | u64::from(elf::SHF_WRITE);
    let incremental = options.incremental.is_some();
    let mut add =
        |program: &mut Program, name: &[u8], kind, flags: u64, size: u64, align: u8, entsize: u64| {
            let mut bits = atom_flags::ALLOC;
            if flags & u64::from(elf::SHF_WRITE) != 0 {
                bits |= atom_flags::WRITE;
            }
            if flags & u64::from(elf::SHF_EXECINSTR) != 0 {
                bits |= atom_flags::CODE;
            }
            let row = own_atom(program, size, align, bits, kind);
            let output = outputs.push(program, name, kind, flags, row);
            outputs.sections[output].entsize = entsize;
            row
        };
    let property = program.property.encode();
    if !property.is_empty() {
        program.synthetic.property =
            add(program, b".note.gnu.property", elf::SHT_NOTE, alloc, property.len() as u64, 3, 0);
    }
    let id_len = match &options.build_id {
        BuildId::None => 0,
        BuildId::Tree { len } => u64::from(*len),
        BuildId::Uuid(bytes) => bytes.len() as u64,
        BuildId::Hex(bytes) => bytes.len() as u64,
    };
    if id_len > 0 {
        let size = 16 + id_len.next_multiple_of(4);
        program.synthetic.build_id = add(program, b".note.gnu.build-id", elf::SHT_NOTE, alloc, size, 2, 0);
    }
    if program.position_independent {
        program.synthetic.dynsym = add(program, b".dynsym", elf::SHT_DYNSYM, alloc, 24, 3, 24);
        program.synthetic.gnu_hash = add(program, b".gnu.hash", elf::SHT_GNU_HASH, alloc, 28, 3, 0);
        program.synthetic.dynstr = add(program, b".dynstr", elf::SHT_STRTAB, alloc, 1, 0, 0);
        let entries = crate::relocate::dynamic::dynamic_entries(options).len() as u64;
        program.synthetic.dynamic = add(program, b".dynamic", elf::SHT_DYNAMIC, write, entries * 16, 3, 16);
    }
    let in_atoms: u32 = program.objects.iter().map(|object| object.dynamic_relocs).sum();
    let in_got =
        program.got.iter().filter(|&&row| crate::relocate::dynamic::slot_is_relative(program, row)).count();
    let spare_slots = if incremental { reserve::got_spare(program.got.len()) } else { 0 };
    let in_spare = if program.position_independent { spare_slots } else { 0 };
    program.dynamic_relocs = in_atoms + (in_got + in_spare + program.plt.len()) as u32;
    if program.dynamic_relocs > 0 {
        let size = u64::from(program.dynamic_relocs) * 24;
        program.synthetic.rela = add(program, b".rela.dyn", elf::SHT_RELA, alloc, size, 3, 24);
    }
    if !program.plt.is_empty() {
        let code = alloc | u64::from(elf::SHF_EXECINSTR);
        let count = program.plt.len() as u64;
        program.synthetic.plt = add(program, b".iplt", elf::SHT_PROGBITS, code, count * 16, 4, 16);
    }
    let got_base = program.names.find(b"_GLOBAL_OFFSET_TABLE_").is_some();
    if !program.plt.is_empty() || got_base {
        let size = program.plt.len() as u64 * 8;
        program.synthetic.got_plt = add(program, b".got.plt", elf::SHT_PROGBITS, write, size.max(8), 3, 8);
    }
    let slots = program.got.len() + spare_slots;
    if slots > 0 {
        program.synthetic.got = add(program, b".got", elf::SHT_PROGBITS, write, slots as u64 * 8, 3, 8);
    }
    if program.eh_frame_len > 0 {
        let spare = if incremental { reserve::unwind_reserve(program.eh_frame_len) } else { 0 };
        let size = u64::from(program.eh_frame_len) + u64::from(spare) + 4;
        program.synthetic.eh_frame = add(program, b".eh_frame", elf::SHT_PROGBITS, alloc, size, 3, 0);
        if options.eh_frame_hdr {
            let fdes: usize = program.objects.iter().map(|object| object.fdes.len()).sum();
            let entries = if incremental { reserve::header_entries(fdes) } else { fdes };
            let size = 12 + 8 * entries as u64;
            program.synthetic.eh_frame_hdr =
                add(program, b".eh_frame_hdr", elf::SHT_PROGBITS, alloc, size, 2, 0);
        }
    }
    if options.relro {
        add(program, b".pad.relro", elf::SHT_NOBITS, write, 0, 0, 0);
    }
}

/// The debug section that an output section is, if it is one.
pub(crate) fn debug_section(section: &OutputSection) -> Option<DebugSection> {
    if section.flags & u64::from(elf::SHF_ALLOC) != 0 { None } else { DebugSection::from_name(&section.name) }
}
