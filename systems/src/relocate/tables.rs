//! Tables that the linker makes: GOT, indirect PLT, notes, `.dynamic`.

use bevy_ecs::prelude::{Res, ResMut};
use formats::reloc::RelocError;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::BuildId;
use relink_engine::program::Program;
use relink_engine::records::symbol_flags;
use relink_engine::rows::{AtomRow, SymbolRow};
use relink_formats as formats;

use super::dynamic::{dynamic_bytes, empty_gnu_hash};
use crate::place::addresses::own_address;

/// Writes bytes at the start of an atom of the linker's own.
pub(crate) fn write_own(program: &mut Program, row: AtomRow, bytes: &[u8]) {
    let Some(row) = row.some() else { return };
    let Some(offset) = program.file_offset(&program.atoms[row.index()]) else { return };
    let offset = offset as usize;
    if let Some(slot) = program.image.get_mut(offset..offset + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

/// Writes the tables.
pub(crate) fn write_tables(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    let slots: Vec<u8> = program.got.iter().flat_map(|&row| slot_value(program, row).to_le_bytes()).collect();
    write_own(program, program.synthetic.got, &slots);
    match plt_bytes(program) {
        Ok(plt) => write_own(program, program.synthetic.plt, &plt),
        Err(error) => frame.errors.push(Diagnostic::Other { message: format!("indirect PLT: {error}") }),
    }
    let property = program.property.encode();
    write_own(program, program.synthetic.property, &property);
    write_own(program, program.synthetic.gnu_hash, &empty_gnu_hash());
    if program.synthetic.dynamic.some().is_some() {
        let dynamic = dynamic_bytes(program, options);
        write_own(program, program.synthetic.dynamic, &dynamic);
    }
    let (len, given) = match &options.build_id {
        BuildId::None => (0, &[][..]),
        BuildId::Tree { len } => (usize::from(*len), &[][..]),
        BuildId::Uuid(bytes) => (bytes.len(), &bytes[..]),
        BuildId::Hex(bytes) => (bytes.len(), &bytes[..]),
    };
    let mut note = Vec::with_capacity(16 + len);
    for word in [4, len as u32, formats::elf::NT_GNU_BUILD_ID] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"GNU\0");
    note.extend_from_slice(given);
    write_own(program, program.synthetic.build_id, &note);
}

/// What a GOT slot holds: an address, or the offset from the thread pointer.
fn slot_value(program: &Program, row: SymbolRow) -> u64 {
    let address = program.addresses[row.index()];
    if program.symbols[row.index()].flags & symbol_flags::TLS != 0 {
        address.wrapping_sub(program.tp)
    } else {
        address
    }
}

/// `endbr64; jmp *slot(%rip); nopw` for each IFUNC.
fn plt_bytes(program: &Program) -> Result<Vec<u8>, RelocError> {
    let plt = own_address(program, program.synthetic.plt);
    let slots = own_address(program, program.synthetic.got_plt);
    let mut bytes = Vec::with_capacity(program.plt.len() * 16);
    for index in 0..program.plt.len() as u64 {
        let mut entry = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0, 0, 0, 0x66, 0x0f, 0x1f, 0x44, 0, 0];
        let values = formats::reloc::Values {
            s: slots + 8 * index,
            a: -4,
            p: plt + 16 * index + 6,
            ..Default::default()
        };
        formats::reloc::apply(formats::reloc::Op::Pc32, &mut entry[6..10], &values)?;
        bytes.extend_from_slice(&entry);
    }
    Ok(bytes)
}
