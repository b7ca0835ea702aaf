//! COMDAT groups: the first object in link order owns a signature, the copies of the others are dropped.

use bevy_ecs::prelude::{Res, ResMut};
use hashbrown::HashSet;
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{Object, Program};
use relink_engine::records::atom_flags;
use relink_engine::rows::{SymbolRow, TargetKind};

/// Chooses each group's owner and drops the sections of the others.
pub(crate) fn choose_group_owners(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let wraps = !request.options.wrap.is_empty();
    let Program { objects, names, atoms, .. } = &mut *program;
    let globals: Vec<Vec<Option<SymbolRow>>> = objects
        .par_iter()
        .map(|object| {
            let groups = 0..object.parsed.groups.len();
            groups
                .map(|group| global_of(object, group, wraps).or_else(|| names.find(signature(object, group))))
                .collect()
        })
        .collect();
    let mut owned = vec![false; names.len()];
    let mut others: HashSet<Vec<u8>> = HashSet::new();
    for (object, globals) in objects.iter_mut().zip(&globals) {
        for (group, global) in globals.iter().enumerate() {
            if !object.parsed.groups[group].comdat {
                continue;
            }
            let is_first = match global {
                Some(row) => !std::mem::replace(&mut owned[row.index()], true),
                None => others.insert(signature(object, group).to_vec()),
            };
            if is_first {
                continue;
            }
            for &section in &object.parsed.groups[group].sections {
                if let Some(atom) = object.uses.get(section as usize).and_then(|used| used.atom()) {
                    atoms[atom.index()].flags |= atom_flags::DISCARDED;
                }
            }
            object.owns[group] = false;
        }
    }
}

/// The global symbol whose name is the signature, where the symbol table tells without a search: its row then has that very
/// name, if that says no version and nothing is wrapped.
fn global_of(object: &Object, group: usize, wraps: bool) -> Option<SymbolRow> {
    let index = object.parsed.groups[group].signature;
    if wraps || index < object.parsed.first_global || signature(object, group).contains(&b'@') {
        return None;
    }
    match object.targets.get(index as usize)?.kind() {
        TargetKind::Symbol(row) => Some(row),
        _ => None,
    }
}

fn signature(object: &Object, group: usize) -> &[u8] {
    object.parsed.group_signature(&object.parsed.groups[group])
}
