//! Output sections: which atoms stand in which, in which order; and the atoms that the linker makes itself.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use hashbrown::HashMap;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::Strip;
use relink_engine::program::{OutputSection, Program, SectionUse};
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, SectionRow};
use relink_formats as formats;
use relink_formats::dwarf::{DebugSection, FILLER_ABBREVIATIONS};

use super::names::{Relro, init_priority, output_name, rank, segment};

const SHF_DROPPED: u64 =
    (elf::SHF_GROUP | elf::SHF_MERGE | elf::SHF_STRINGS | elf::SHF_LINK_ORDER | elf::SHF_COMPRESSED) as u64
        | 1 << 21;

/// Sorts all live atoms into output sections and the sections into file order.
pub(crate) fn arrange_sections(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
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
    place_objects(program, &mut outputs, &mut frame);
    for row in 0..program.atoms.len() {
        let atom = program.atoms[row];
        if atom.flags & atom_flags::RELRO != 0 {
            let flags = u64::from(elf::SHF_ALLOC | elf::SHF_WRITE);
            outputs.push(program, b".bss.rel.ro", elf::SHT_NOBITS, flags, AtomRow(row as u32));
        } else if atom.flags & atom_flags::COMMON != 0
            || program.copies.iter().any(|&(_, copy, _)| copy.index() == row)
        {
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
    super::tables::add_tables(program, options, &mut outputs);
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
        (segment(&section.name, section.kind, section.flags, Relro::of(options)), section.rank)
    });
    order_as_linked(program, &mut sections);
    for (row, section) in sections.iter().enumerate() {
        for atom in &section.atoms {
            program.atoms[atom.index()].output = SectionRow(row as u32);
        }
    }
    program.outputs = sections;
}

/// Sections with `SHF_LINK_ORDER` stand in the order of those that they describe, behind those without an order.
///
/// # Source
/// gABI, "Section Attribute Flags". A patch keeps the order that the last full link found.
fn order_as_linked(program: &Program, sections: &mut [OutputSection]) {
    let described = |row: &AtomRow| {
        let atom = &program.atoms[row.index()];
        let object = program.object(atom).filter(|_| atom.section != NONE)?;
        let section = object.parsed.sections.get(atom.section as usize)?;
        let ordered = section.flags & u64::from(elf::SHF_LINK_ORDER) != 0 && section.link != 0;
        object.uses.get(section.link as usize).filter(|_| ordered)?.atom()
    };
    let ordered: Vec<bool> =
        sections.iter().map(|section| section.atoms.iter().any(|row| described(row).is_some())).collect();
    if !ordered.contains(&true) {
        return;
    }
    let mut places = vec![u32::MAX; program.atoms.len()];
    for (place, row) in (0..).zip(sections.iter().flat_map(|section| &section.atoms)) {
        places[row.index()] = place;
    }
    for (section, _) in sections.iter_mut().zip(ordered).filter(|(_, ordered)| *ordered) {
        section.atoms.sort_by_key(|row| described(row).map(|described| places[described.index()]));
    }
}

#[derive(Default)]
pub(super) struct Outputs {
    pub(super) sections: Vec<OutputSection>,
    by_name: HashMap<Vec<u8>, usize>,
}

impl Outputs {
    pub(super) fn push(
        &mut self,
        program: &Program,
        name: &[u8],
        kind: u32,
        flags: u64,
        atom: AtomRow,
    ) -> usize {
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

fn place_objects(program: &Program, outputs: &mut Outputs, frame: &mut Frame) {
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
            if (outputs.sections[output].flags ^ section.flags) & u64::from(elf::SHF_TLS) != 0 {
                let (own, name) = (object.parsed.section_name(index), String::from_utf8_lossy(name));
                let own = String::from_utf8_lossy(own);
                let why = format!("section {own}: some sections of {name} are thread-local, others are not");
                frame.errors.push(Diagnostic::BadInput { input: object.name.clone(), why });
            }
            if kind == elf::SHT_INIT_ARRAY || kind == elf::SHT_FINI_ARRAY {
                outputs.sections[output].entsize = 8;
            }
        }
    }
}

/// Adds an atom of the linker's own and returns its row.
pub(super) fn own_atom(program: &mut Program, size: u64, align: u8, flags: u32, kind: u32) -> AtomRow {
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

/// The debug section that an output section is, if it is one.
pub(crate) fn debug_section(section: &OutputSection) -> Option<DebugSection> {
    if section.flags & u64::from(elf::SHF_ALLOC) != 0 { None } else { DebugSection::from_name(&section.name) }
}
