//! Policies: small decisions that can be exchanged. Each is a trait that sees batches; the implementations are in
//! `relink-systems`, one a file, with a do-nothing twin where that makes sense.

use bevy_ecs::prelude::Schedule;

use crate::report::GateReason;

/// What Diff found: everything that is not as the earlier link had it, beyond bytes of atoms and values of symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Those that the frame has a plan for: rows that come and go, data that moves.
    pub planned: Vec<GateReason>,
    /// Those that only a full link can follow.
    pub beyond: Vec<GateReason>,
}

/// Which differences force a full link. Called once a frame with all differences that Diff found.
pub trait GatePolicy: Send + Sync {
    /// The reasons for a full link. What is [`Differences::beyond`] a patch must be among them.
    fn refuse(&self, differences: Differences) -> Vec<GateReason>;
}

/// A free range as a place policy sees it. Units: bytes, in the addresses of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeRange {
    /// First free byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Bytes from which a free range is one of file blocks: a page, what a write to the image dirties.
pub const FILE_BLOCK: u64 = 4096;

/// The two levels of free space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeLevel {
    /// Ranges shorter than a [`FILE_BLOCK`]: vacated slots and what is left of them.
    Slots,
    /// Longer ones: the reserve, and neighbours that were joined.
    Blocks,
}

impl FreeLevel {
    /// The level of a range of `len` bytes.
    pub fn of(len: u64) -> FreeLevel {
        if len < FILE_BLOCK { FreeLevel::Slots } else { FreeLevel::Blocks }
    }
}

/// The free ranges of one section, each level in order of address: a reserve is the end of its section.
#[derive(Clone, Debug, Default)]
pub struct FreeLevels {
    /// [`FreeLevel::Slots`].
    pub slots: Vec<FreeRange>,
    /// [`FreeLevel::Blocks`].
    pub blocks: Vec<FreeRange>,
}

/// Where an atom goes that does not fit its slot. Called once for each such atom.
pub trait PlacePolicy: Send + Sync {
    /// The range to take, and the start in it; `fits` tells whether a start in a range will do.
    fn choose(
        &self,
        free: &FreeLevels,
        fits: &dyn Fn(FreeRange) -> Option<u64>,
    ) -> Option<(FreeLevel, usize, u64)>;
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
