//! Tables that the linker makes: GOT, PLT, notes, the dynamic ones.

use bevy_ecs::prelude::{Res, ResMut};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::BuildId;
use relink_engine::program::Program;
use relink_engine::rows::AtomRow;
use relink_formats as formats;

use super::dynamic::{dynamic_bytes, dynsym_table, got_words, plt_bytes};
use crate::place::tables::interpreter;

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
    let words = |words: Vec<u64>| -> Vec<u8> { words.into_iter().flat_map(u64::to_le_bytes).collect() };
    write_own(program, program.synthetic.got, &words(got_words(program)));
    match plt_bytes(program, options) {
        Ok((called, lazy, slots)) => {
            write_own(program, program.synthetic.plt, &called);
            write_own(program, program.synthetic.lazy_plt, &lazy);
            write_own(program, program.synthetic.got_plt, &words(slots));
        }
        Err(error) => frame.errors.push(Diagnostic::Other { message: format!("PLT: {error}") }),
    }
    let property = program.property.encode();
    write_own(program, program.synthetic.property, &property);
    if let Some(interpreter) = interpreter(options) {
        write_own(program, program.synthetic.interp, interpreter.as_bytes());
    }
    if program.synthetic.dynamic.some().is_some() {
        let bytes = dynamic_bytes(program, |name| {
            let section = program.output(name).filter(|section| section.index != 0)?;
            Some((section.address, section.size))
        });
        write_own(program, program.synthetic.dynamic, &bytes);
        write_own(program, program.synthetic.dynsym, &dynsym_table(program));
        let tables = std::mem::take(&mut program.dynamic);
        let versions: Vec<u8> = tables.versions.iter().flat_map(|version| version.to_le_bytes()).collect();
        let synthetic = program.synthetic;
        for (row, bytes) in [
            (synthetic.dynstr, &tables.strings),
            (synthetic.gnu_hash, &tables.gnu_hash),
            (synthetic.hash, &tables.hash),
            (synthetic.versym, &versions),
            (synthetic.verdef, &tables.definitions.0),
            (synthetic.verneed, &tables.needs.0),
        ] {
            write_own(program, row, bytes);
        }
        program.dynamic = tables;
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
