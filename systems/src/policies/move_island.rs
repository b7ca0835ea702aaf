//! Island, retarget, auto: what happens to branches whose target has moved.

use relink_engine::policy::MovePolicy;

/// Branches keep their bytes and go through the island.
pub(crate) struct Island;
/// Every branch is rewritten.
pub(crate) struct Retarget;
/// Rewrites a moderate number of branches, leaves an island for more.
pub(crate) struct Auto;

/// 99 % of atoms that move in real edits have fewer incoming references than this.
const RETARGET_MAX: usize = 256;

impl MovePolicy for Island {
    fn keeps_branches(&self, branches: usize) -> bool {
        branches > 0
    }
}

impl MovePolicy for Retarget {
    fn keeps_branches(&self, _: usize) -> bool {
        false
    }
}

impl MovePolicy for Auto {
    fn keeps_branches(&self, branches: usize) -> bool {
        branches > RETARGET_MAX
    }
}
