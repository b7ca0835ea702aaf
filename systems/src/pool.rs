//! Writing into the pool of relocation entities: what is there is overwritten, more are spawned.

use bevy_ecs::prelude::{Commands, Query, World};
use relink_engine::components::{Relocation, RelocationPool};

/// Adds relocations to the frame, in the next entities of the pool.
///
/// What the pool lacks is spawned at once: commands of one entity each cost a process's first frame, which has 2,000 of
/// them, 56 µs more.
pub(crate) fn extend(
    pool: &mut RelocationPool,
    relocations: &mut Query<'_, '_, &mut Relocation>,
    commands: &mut Commands<'_, '_>,
    mut added: Vec<Relocation>,
) {
    let mut written = 0;
    for (&entity, relocation) in pool.entities[pool.used.min(pool.entities.len())..].iter().zip(&added) {
        let Ok(mut slot) = relocations.get_mut(entity) else { break };
        *slot = *relocation;
        written += 1;
    }
    pool.entities.truncate(if written < added.len() { pool.used + written } else { pool.entities.len() });
    pool.used += added.len();
    if written < added.len() {
        added.drain(..written);
        commands.queue(move |world: &mut World| {
            let spawned: Vec<_> = world.spawn_batch(added).collect();
            world.resource_mut::<RelocationPool>().entities.extend(spawned);
        });
    }
}
