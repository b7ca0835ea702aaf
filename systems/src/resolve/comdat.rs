//! COMDAT groups: the first object in link order owns a signature, the copies of the others are dropped.

use bevy_ecs::prelude::ResMut;
use hashbrown::HashTable;
use relink_engine::frame::Frame;
use relink_engine::program::{Object, Program};
use relink_engine::records::atom_flags;
use relink_engine::store::hash_name;

/// Chooses each group's owner and drops the sections of the others.
pub(crate) fn choose_group_owners(mut program: ResMut<'_, Program>, frame: ResMut<'_, Frame>) {
    if !frame.cold() {
        return;
    }
    let program = &mut *program;
    let mut owners: HashTable<(u32, u32)> = HashTable::new();
    for row in 0..program.objects.len() {
        for group in 0..program.objects[row].parsed.groups.len() {
            if !program.objects[row].parsed.groups[group].comdat {
                continue;
            }
            let signature = signature(&program.objects[row], group);
            let hash = hash_name(signature);
            let same = |&(object, group): &(u32, u32)| {
                self::signature(&program.objects[object as usize], group as usize) == signature
            };
            if owners.find(hash, same).is_none() {
                let objects = &program.objects;
                owners.insert_unique(hash, (row as u32, group as u32), |&(object, group)| {
                    hash_name(self::signature(&objects[object as usize], group as usize))
                });
                continue;
            }
            for &section in &program.objects[row].parsed.groups[group].sections {
                let used = program.objects[row].uses.get(section as usize).and_then(|used| used.atom());
                if let Some(atom) = used {
                    program.atoms[atom.index()].flags |= atom_flags::DISCARDED;
                }
            }
            program.objects[row].owns[group] = false;
        }
    }
}

fn signature(object: &Object, group: usize) -> &[u8] {
    object.parsed.group_signature(&object.parsed.groups[group])
}
