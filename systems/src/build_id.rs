//! BuildId: the digest tree of the image's pages and the note that shows its root.

use bevy_ecs::prelude::{Res, ResMut};
use formats::build_id::{
    PAGE_BYTES, fold, leaves, leaves_of, node_count, page_count, root, top_index, update,
};
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::image::{Draft, Image};
use relink_engine::options::BuildId;
use relink_engine::plan::Plan;
use relink_engine::program::Program;
use relink_engine::report::GateReason;
use relink_engine::store::Store;
use relink_formats as formats;

use crate::relocate::headers::put;

/// Pages a task hashes.
const PAGES_PER_TASK: usize = 64;

/// Dirty pages whose bytes from before and from now on are hashed side by side.
const PAGES_AT_ONCE: usize = 16;

/// Hashes the whole image and writes the note.
pub(crate) fn hash_image(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
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
}

/// The file range of the build-id's descriptor.
pub(crate) fn note_range(program: &Program) -> Option<std::ops::Range<u64>> {
    let row = program.synthetic.build_id.some()?;
    let atom = &program.atoms[row.index()];
    let offset = program.file_offset(atom)?;
    let len =
        u32::from_le_bytes(program.image.get(offset as usize + 4..offset as usize + 8)?.try_into().ok()?);
    Some(offset + 16..offset + 16 + u64::from(len))
}

/// Rehashes the pages that a frame changed and the path from them to the root.
///
/// The old page must be what the tree says, or somebody else has changed the image.
pub(crate) fn rehash_dirty_pages(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    image: Option<Res<'_, Image>>,
    mut draft: ResMut<'_, Draft>,
    mut plan: ResMut<'_, Plan>,
    mut frame: ResMut<'_, Frame>,
) {
    let (Some(store), Some(image)) = (store, image) else { return };
    if !frame.warm() {
        return;
    }
    let note = plan.image.build_id_offset..plan.image.build_id_offset + plan.image.build_id_len;
    let pages = page_count(image.len());
    let mut dirty = Vec::new();
    let mut nodes = hashbrown::HashMap::new();
    for batch in draft.pages().chunks(PAGES_AT_ONCE) {
        // Old and new by turns.
        let mut contents: Vec<Vec<u8>> = Vec::with_capacity(2 * batch.len());
        let first = dirty.len();
        for &page in batch {
            let (Some(old), Some(new)) = (image.page(page), draft.page(&image, page)) else { continue };
            if old != new {
                dirty.push(page);
                contents.extend([old, new].map(|content| without_note(content, page, &note)));
            }
        }
        let mut digests = vec![[0; 32]; contents.len()];
        leaves_of(contents.iter().map(Vec::as_slice), &mut digests);
        for (&page, digests) in dirty[first..].iter().zip(digests.chunks_exact(2)) {
            let Some(known) = frame.check(store.digests.get(page as u32)) else { return };
            if digests[0] != known {
                let why = format!("page {page} is not as the last link wrote it");
                frame.refuse(GateReason::ImageTampered { why });
                return;
            }
            nodes.insert(page, digests[1]);
        }
    }
    if dirty.is_empty() {
        return;
    }
    let known = nodes.clone();
    let get = |node: u64| known.get(&node).copied().or_else(|| store.digests.get(node as u32).ok());
    let hashed = update(pages, &dirty, &get, &mut |node, digest| {
        nodes.insert(node, digest);
    });
    if hashed.is_none() {
        let why = "its digest tree is not that of the image".to_owned();
        frame.refuse(GateReason::StateUnusable { why });
        return;
    }
    frame.counters.pages_hashed += dirty.len() as u64;
    let id = match (&request.options.build_id, nodes.get(&top_index(pages))) {
        (BuildId::Tree { len }, Some(top)) => root(top, image.len())[..usize::from(*len)].to_vec(),
        (BuildId::Uuid(bytes), _) => bytes.to_vec(),
        _ => Vec::new(),
    };
    if !id.is_empty() && (plan.image.build_id_offset == 0 || !draft.write(&image, note.start, &id)) {
        let why = "the build-id is outside the image".to_owned();
        frame.refuse(GateReason::StateUnusable { why });
    }
    plan.digests = nodes.into_iter().collect();
}

/// A page whose part of the note is zero.
fn without_note(mut page: Vec<u8>, index: u64, note: &std::ops::Range<u64>) -> Vec<u8> {
    let start = index * PAGE_BYTES as u64;
    let from = note.start.max(start).saturating_sub(start) as usize;
    let to = note.end.min(start + page.len() as u64).saturating_sub(start) as usize;
    if let Some(bytes) = page.get_mut(from..to) {
        bytes.fill(0);
    }
    page
}

/// The digest of each `PT_LOAD` segment's pages, out of the tree's leaves.
pub(crate) fn segment_digests(store: &Store, image: &Image) -> Vec<[u8; 32]> {
    let word = |offset: u64| {
        let bytes = image.read(offset, 8).unwrap_or_default();
        u64::from_le_bytes(bytes.try_into().unwrap_or_default())
    };
    let half = |offset: u64| image.read(offset, 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])));
    // Headers that somebody has damaged describe nothing.
    let (table, count) = (word(32).min(image.len()), half(56));
    let mut digests = Vec::new();
    for header in (0..count).map(|index| table + 56 * index) {
        if word(header) as u32 != formats::elf::PT_LOAD || word(header + 32) == 0 {
            continue;
        }
        let (start, len) = (word(header + 8), word(header + 32));
        let Some(end) = start.checked_add(len).filter(|&end| end <= image.len()) else { continue };
        let pages = start / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64);
        let leaves: Vec<[u8; 32]> = pages.filter_map(|page| store.digests.get(page as u32).ok()).collect();
        digests.push(formats::build_id::segment_digest(&leaves));
    }
    digests
}
