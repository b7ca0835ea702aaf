//! `--compress-debug-sections`: the last thing done to an image before it is hashed. What is not loaded stands at the end
//! of the file, so only that moves.

use bevy_ecs::prelude::{Res, ResMut};
use formats::compress::{Algorithm, CHUNK_BYTES, deflate_chunk, join};
use formats::elf;
use formats::units::Align;
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::image::ImageBytes;
use relink_engine::program::{OutputSection, Program};
use relink_formats as formats;

use crate::place::addresses::finish_file;
use crate::relocate::headers::put_headers;

/// Exponent of what a compression header is aligned to.
const HEADER_ALIGN: u8 = 3;

/// Compresses each debug section that gets smaller by it, and moves what is not loaded up.
pub(crate) fn compress_debug_sections(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    let options = &request.options;
    let Some(algorithm) = options.compress_debug else { return };
    if !frame.cold() || options.incremental.is_some() {
        return;
    }
    let program = &mut *program;
    let image = std::mem::take(&mut program.image);
    let unloaded =
        |section: &OutputSection| section.index != 0 && section.flags & u64::from(elf::SHF_ALLOC) == 0;
    let mut rows: Vec<usize> =
        (0..program.outputs.len()).filter(|&row| unloaded(&program.outputs[row])).collect();
    rows.sort_by_key(|&row| program.outputs[row].offset);
    let start = rows.first().map_or(image.len(), |&row| program.outputs[row].offset as usize);
    let contents: Vec<(Vec<u8>, bool)> = rows
        .par_iter()
        .map(|&row| {
            let section = &program.outputs[row];
            let bytes = &image[section.offset as usize..(section.offset + section.size) as usize];
            let smaller = compressed(algorithm, section, bytes).filter(|new| new.len() < bytes.len());
            smaller.map_or_else(|| (bytes.to_vec(), false), |new| (new, true))
        })
        .collect();
    let mut image = image.into_owned();
    image.truncate(start);
    for (row, (bytes, is_compressed)) in rows.into_iter().zip(contents) {
        let section = &mut program.outputs[row];
        if is_compressed {
            section.flags |= u64::from(elf::SHF_COMPRESSED);
            section.align = HEADER_ALIGN;
        }
        image.resize(image.len().next_multiple_of(1 << section.align), 0);
        section.offset = image.len() as u64;
        section.size = bytes.len() as u64;
        section.capacity = section.size;
        image.extend_from_slice(&bytes);
    }
    finish_file(program, image.len() as u64);
    image.resize(program.image_len as usize, 0);
    program.image = ImageBytes::Owned(image);
    put_headers(program, options.output_kind.is_position_independent());
}

/// A section in compressed form, if it is one of debug information.
fn compressed(algorithm: Algorithm, section: &OutputSection, bytes: &[u8]) -> Option<Vec<u8>> {
    if section.kind != elf::SHT_PROGBITS || !section.name.starts_with(b".debug_") {
        return None;
    }
    let count = bytes.len().div_ceil(CHUNK_BYTES);
    let chunks: Vec<Vec<u8>> = bytes
        .par_chunks(CHUNK_BYTES)
        .enumerate()
        .map(|(at, chunk)| deflate_chunk(algorithm, chunk, at + 1 == count))
        .collect();
    Some(join(algorithm, bytes, Align::from_exponent(section.align), &chunks))
}
