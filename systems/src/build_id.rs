//! BuildId: the digest tree of the image's pages and the note that shows its root.

use bevy_ecs::prelude::{Res, ResMut};
use formats::build_id::{PAGE_BYTES, fold, leaves, node_count, page_count, root, top_index};
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::BuildId;
use relink_engine::program::Program;
use relink_formats as formats;

use crate::relocate::headers::put;

/// Pages a task hashes.
const PAGES_PER_TASK: usize = 64;

/// Hashes the whole image and writes the note.
pub(crate) fn hash_image(request: Res<'_, Request>, mut program: ResMut<'_, Program>, mut frame: ResMut<'_, Frame>) {
    if !frame.cold() {
        return;
    }
    let tree = match request.options.build_id {
        BuildId::Tree { len } => Some(usize::from(len)),
        _ => None,
    };
    if tree.is_none() && request.options.incremental.is_none() {
        return;
    }
    let program = &mut *program;
    let note = note_range(program);
    let pages = page_count(program.image.len() as u64);
    let mut nodes = vec![[0; 32]; node_count(pages) as usize];
    let image = &program.image;
    nodes[..pages as usize].par_chunks_mut(PAGES_PER_TASK).enumerate().for_each(|(task, out)| {
        let first = (task * PAGES_PER_TASK) as u64;
        leaves(image, first..first + out.len() as u64, note.clone(), out);
    });
    fold(&mut nodes, pages);
    frame.counters.pages_hashed = pages;
    if let (Some(len), Some(note)) = (tree, note) {
        let digest = root(&nodes[top_index(pages) as usize], program.image.len() as u64);
        put(&mut program.image, note.start, &digest[..len]);
    }
    program.digests = nodes;
    let _ = PAGE_BYTES;
}

/// The file range of the build-id's descriptor.
pub(crate) fn note_range(program: &Program) -> Option<std::ops::Range<u64>> {
    let row = program.synthetic.build_id.some()?;
    let atom = &program.atoms[row.index()];
    let offset = program.file_offset(atom)?;
    let len = u32::from_le_bytes(program.image.get(offset as usize + 4..offset as usize + 8)?.try_into().ok()?);
    Some(offset + 16..offset + 16 + u64::from(len))
}
