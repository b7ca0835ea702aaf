//! `.eh_frame` and its sorted header, of a whole program.

use bevy_ecs::prelude::{Res, ResMut};
use formats::eh_frame;
use object::LittleEndian;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{EhPiece, Object, Program};
use relink_engine::records::atom_flags;
use relink_formats as formats;

use crate::kernel::{Places, SiteError, lower, store};
use crate::place::addresses::own_address;
use crate::resolve::scan::site_error;

/// Writes both tables.
pub(crate) fn write_unwind_tables(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let program = &mut *program;
    let Some(table) = program.synthetic.eh_frame.some() else { return };
    let address = program.atoms[table.index()].address;
    let size = program.atoms[table.index()].size as usize;
    let mut bytes = vec![0; size];
    let mut entries = Vec::new();
    for cie in &program.cies {
        let object = &program.objects[cie.object as usize];
        put_piece(program, object, &cie.piece, &mut bytes, address, None, &mut frame.errors);
    }
    for object in &program.objects {
        for fde in &object.fdes {
            let cie = program.cies[fde.cie as usize].piece.offset;
            put_piece(program, object, fde, &mut bytes, address, Some(cie), &mut frame.errors);
            let code = program.atoms[fde.atom.index()].address + u64::from(fde.atom_offset);
            entries.push((code, address + u64::from(fde.offset)));
        }
    }
    frame.counters.fdes_written = entries.len() as u64;
    // What is reserved stands in front of the terminator, as entries that readers pass over.
    let used = program.eh_frame_len as usize;
    let hole = &mut bytes[used..size - 4];
    if !hole.is_empty()
        && let Err(error) = eh_frame::fill(hole)
    {
        frame.errors.push(Diagnostic::Other { message: format!(".eh_frame: {error}") });
    }
    crate::relocate::tables::write_own(program, table, &bytes);
    if request.options.eh_frame_hdr {
        let header = own_address(program, program.synthetic.eh_frame_hdr);
        let capacity = program.atoms[program.synthetic.eh_frame_hdr.index()].size as usize;
        match eh_frame::encode_hdr(header, address, &entries, capacity) {
            Ok(bytes) => crate::relocate::tables::write_own(program, program.synthetic.eh_frame_hdr, &bytes),
            Err(error) => frame.errors.push(Diagnostic::Other { message: format!(".eh_frame_hdr: {error}") }),
        }
    }
}

/// A record of an object with its relocations applied, padded to its capacity, pointing at its CIE.
pub(crate) fn piece_bytes<P: Places>(
    places: &P,
    object: &Object,
    piece: &EhPiece,
    address: u64,
    cie: Option<u32>,
) -> Result<Vec<u8>, (usize, SiteError)> {
    let section = piece.section as usize;
    let pristine = object.parsed.section_bytes(section);
    let range = piece.start as usize..(piece.start + piece.len) as usize;
    let mut bytes = pristine.get(range).unwrap_or_default().to_vec();
    let relocs = object.parsed.relocations(section);
    let bases = places.bases();
    for index in piece.relocs.indexes() {
        let mut site = lower(places, object, atom_flags::ALLOC, pristine, relocs, index)
            .map_err(|error| (index, error))?;
        site.plan.offset = relocs[index].r_offset.get(LittleEndian) - u64::from(piece.start);
        store(&bases, &site, &mut bytes, address.wrapping_add(piece.offset.into()))
            .map_err(|error| (index, SiteError::Reloc(error)))?;
    }
    eh_frame::pad_record(&mut bytes, piece.capacity as usize);
    if let (Some(cie), Some(field)) = (cie, bytes.get_mut(4..8)) {
        field.copy_from_slice(&piece.offset.wrapping_add(4).wrapping_sub(cie).to_le_bytes());
    }
    Ok(bytes)
}

fn put_piece(
    program: &Program,
    object: &Object,
    piece: &EhPiece,
    table: &mut [u8],
    address: u64,
    cie: Option<u32>,
    errors: &mut Vec<Diagnostic>,
) {
    match piece_bytes(program, object, piece, address, cie) {
        Ok(bytes) => {
            let start = piece.offset as usize;
            if let Some(slot) = table.get_mut(start..start + bytes.len()) {
                slot.copy_from_slice(&bytes);
            }
        }
        Err((index, error)) => {
            let section = piece.section as usize;
            let rela = &object.parsed.relocations(section)[index];
            errors.push(site_error(program, object, section, rela, error));
        }
    }
}
