//! Policies: small decisions that can be exchanged. Each is a trait that sees batches; the implementations are in
//! `relink-systems`, one a file, with a do-nothing twin where that makes sense.

use bevy_ecs::prelude::Schedule;

use crate::report::GateReason;

/// Which differences force a full link. Called once a frame with all differences that Diff found.
pub trait GatePolicy: Send + Sync {
    /// Keeps the differences that can't be patched.
    fn refuse(&self, differences: Vec<GateReason>) -> Vec<GateReason>;
}

/// A free range as a place policy sees it. Units: bytes, in the addresses of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeRange {
    /// First free byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Where an atom goes that does not fit its slot. Called once for each such atom, with its section's free ranges in
/// the order of the list.
pub trait PlacePolicy: Send + Sync {
    /// Index of the range to take, and the start in it; `fits` tells whether a start in a range will do.
    fn choose(&self, ranges: &[FreeRange], fits: &dyn Fn(FreeRange) -> Option<u64>) -> Option<(usize, u64)>;
}

/// Whether branches to a moved atom keep their bytes. Called once for each moved atom.
pub trait MovePolicy: Send + Sync {
    /// `branches`: sites in other objects that call or jump to the atom's entry.
    fn keeps_branches(&self, branches: usize) -> bool;
}

/// Which executor runs the sets. Called once for each schedule, before anything is added to it.
pub trait SchedulePolicy: Send + Sync {
    /// Gives the schedule its executor.
    fn prepare(&self, schedule: &mut Schedule);
}
