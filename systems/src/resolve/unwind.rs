//! Unwind tables: CIEs of equal meaning become one, FDEs of dropped code go, the rest is laid out in link order.

use bevy_ecs::prelude::{Res, ResMut};
use formats::eh_frame::{Record, parse_cie, records};
use formats::object_file::Rela;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{Cie, EhPiece, Object, Program, SectionUse};
use relink_engine::records::atom_flags;
use relink_engine::rows::{AtomRow, NONE, Span, Target};
use relink_formats as formats;

/// Chooses the CIEs and FDEs of the image and gives each its offset.
pub(crate) fn collect_unwind_tables(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() {
        return;
    }
    let program = &mut *program;
    let mut table = Table { incremental: request.options.incremental.is_some(), ..Table::default() };
    for row in 0..program.objects.len() {
        for index in 0..program.objects[row].uses.len() {
            let SectionUse::EhFrame(atom) = program.objects[row].uses[index] else { continue };
            if program.atoms[atom.index()].flags & atom_flags::LIVE == 0 {
                continue;
            }
            // Labels in the section (`__EH_FRAME_BEGIN__`) are where its first record goes.
            program.atoms[atom.index()].address = u64::from(table.len);
            let object = &program.objects[row];
            match table.add_section(program, row, index) {
                Ok(fdes) => program.objects[row].fdes.extend(fdes),
                Err(why) => frame.errors.push(Diagnostic::BadInput { input: object.name.clone(), why }),
            }
        }
    }
    program.cies = table.cies;
    program.eh_frame_len = table.len;
}

#[derive(Default)]
struct Table {
    incremental: bool,
    cies: Vec<Cie>,
    known: HashMap<(Vec<u8>, u32), u32>,
    len: u32,
}

impl Table {
    fn add_section(&mut self, program: &Program, row: usize, index: usize) -> Result<Vec<EhPiece>, String> {
        let object = &program.objects[row];
        let bytes = object.parsed.section_bytes(index);
        let relocs = object.parsed.relocations(index);
        let mut fdes = Vec::new();
        let mut own: HashMap<u32, (Record, Option<u32>)> = HashMap::new();
        for record in records(bytes).map_err(|error| format!(".eh_frame: {error}"))? {
            match record {
                Record::Cie { offset, .. } => {
                    own.insert(offset, (record, None));
                }
                Record::Fde { offset, len, cie } => {
                    let span = relocs_within(relocs, offset, len);
                    let Some((atom, atom_offset)) = code_of(object, relocs, offset, span) else { continue };
                    if program.atoms[atom.index()].flags & atom_flags::LIVE == 0 {
                        continue;
                    }
                    let (cie_record, known) = own
                        .get_mut(&cie)
                        .ok_or_else(|| format!(".eh_frame+{offset:#x}: no CIE at {cie:#x}"))?;
                    let cie_row = match known {
                        Some(row) => *row,
                        None => {
                            let added =
                                self.add_cie(object, row as u32, index as u32, *cie_record, bytes, relocs)?;
                            *known = Some(added);
                            added
                        }
                    };
                    // A FDE that may be rewritten by a later frame gets room for one more instruction or two.
                    let slack = if self.incremental { 8 } else { 0 };
                    let capacity = (len + slack).next_multiple_of(if self.incremental { 8 } else { 4 });
                    fdes.push(EhPiece {
                        section: index as u32,
                        start: offset,
                        len,
                        offset: self.len,
                        capacity,
                        cie: cie_row,
                        atom,
                        atom_offset,
                        relocs: span,
                    });
                    self.len += capacity;
                }
                Record::Terminator { .. } => {}
            }
        }
        Ok(fdes)
    }

    fn add_cie(
        &mut self,
        object: &Object,
        row: u32,
        section: u32,
        record: Record,
        bytes: &[u8],
        relocs: &[Rela],
    ) -> Result<u32, String> {
        let Record::Cie { offset, len } = record else { return Err(".eh_frame: not a CIE".to_owned()) };
        let raw = bytes.get(offset as usize..(offset + len) as usize).unwrap_or_default();
        let info = parse_cie(raw).map_err(|error| format!(".eh_frame+{offset:#x}: {error}"))?;
        let span = relocs_within(relocs, offset, len);
        let personality = relocs[span.indexes()]
            .first()
            .map_or(Target::NONE, |rela| object.targets[rela.r_sym(LittleEndian, false) as usize]);
        // Two CIEs are one if their bytes are equal and their personality is the same symbol; an object's
        // own label can't be told from another's by bytes, and is a target of its own.
        let key = (raw.to_vec(), personality.0);
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let capacity = len.next_multiple_of(if self.incremental { 8 } else { 4 });
        let added = self.cies.len() as u32;
        self.cies.push(Cie {
            object: row,
            piece: EhPiece {
                section,
                start: offset,
                len,
                offset: self.len,
                capacity,
                relocs: span,
                atom: AtomRow(NONE),
                ..Default::default()
            },
            personality,
            personality_offset: info.personality_offset.unwrap_or(0),
        });
        self.known.insert(key, added);
        self.len += capacity;
        Ok(added)
    }
}

/// The code that each FDE of a section describes, and the FDE's relocations.
pub(crate) fn described_code(object: &Object, index: usize) -> Vec<(AtomRow, Span)> {
    let relocs = object.parsed.relocations(index);
    let mut described = Vec::new();
    for record in records(object.parsed.section_bytes(index)).into_iter().flatten() {
        let Record::Fde { offset, len, .. } = record else { continue };
        let span = relocs_within(relocs, offset, len);
        if let Some((atom, _)) = code_of(object, relocs, offset, span) {
            described.push((atom, span));
        }
    }
    described
}

/// The relocations of a record, as indexes into those of its section, which assemblers write in order.
pub(crate) fn relocs_within(relocs: &[Rela], offset: u32, len: u32) -> Span {
    let start = relocs.partition_point(|rela| rela.r_offset.get(LittleEndian) < u64::from(offset));
    let end =
        relocs.partition_point(|rela| rela.r_offset.get(LittleEndian) < u64::from(offset) + u64::from(len));
    Span::new(start as u32, end.saturating_sub(start) as u32)
}

/// The code that a FDE describes: the target of its `pc_begin`, at offset 8. It is code of the same object,
/// whoever owns the name.
pub(crate) fn code_of(object: &Object, relocs: &[Rela], offset: u32, span: Span) -> Option<(AtomRow, u32)> {
    let rela = relocs.get(span.indexes())?.first()?;
    if rela.r_offset.get(LittleEndian) != u64::from(offset) + 8 {
        return None;
    }
    let index = rela.r_sym(LittleEndian, false) as usize;
    let formats::object_file::SymbolPlace::Section(section) = object.parsed.symbol_place(index) else {
        return None;
    };
    let atom = object.uses.get(section as usize)?.atom()?;
    let value = object.parsed.symbols().get(index)?.st_value.get(LittleEndian);
    let start = value.wrapping_add_signed(rela.r_addend.get(LittleEndian));
    u32::try_from(start).ok().map(|start| (atom, start))
}
