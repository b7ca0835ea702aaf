//! Writing into the pool of relocation entities: what is there is overwritten, more are spawned.

use bevy_ecs::prelude::{Commands, Query};
use relink_engine::components::{Relocation, RelocationPool};

/// Adds a relocation to the frame, in the next entity of the pool.
pub(crate) fn push(
    pool: &mut RelocationPool,
    relocations: &mut Query<'_, '_, &mut Relocation>,
    commands: &mut Commands<'_, '_>,
    relocation: Relocation,
) {
    match pool.entities.get(pool.used).map(|&entity| relocations.get_mut(entity)) {
        Some(Ok(mut slot)) => *slot = relocation,
        _ => {
            let entity = commands.spawn(relocation).id();
            pool.entities.truncate(pool.used);
            pool.entities.push(entity);
        }
    }
    pool.used += 1;
}
