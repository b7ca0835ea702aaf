//! The policies, one a file, and the one place that selects them by their option.

mod gate_strict;
mod gate_wide;
mod move_island;
mod place_append;
mod place_first_fit;
mod schedule_multi;
mod schedule_single;

use relink_engine::options::{GateKind, MoveKind, PlaceKind, ScheduleKind};
use relink_engine::policy::{GatePolicy, MovePolicy, PlacePolicy, SchedulePolicy};

/// The gate policy of an option.
pub(crate) fn gate(kind: GateKind) -> &'static dyn GatePolicy {
    match kind {
        // A closed gate runs no warm frame at all; what it lets through does not matter.
        GateKind::Strict | GateKind::Closed => &gate_strict::Strict,
        GateKind::Wide => &gate_wide::Wide,
    }
}

/// The place policy of an option.
pub(crate) fn place(kind: PlaceKind) -> &'static dyn PlacePolicy {
    match kind {
        PlaceKind::FirstFit => &place_first_fit::FirstFit,
        PlaceKind::Append => &place_append::Append,
    }
}

/// The move policy of an option.
pub(crate) fn moves(kind: MoveKind) -> &'static dyn MovePolicy {
    match kind {
        MoveKind::Island => &move_island::Island,
        MoveKind::Retarget => &move_island::Retarget,
        MoveKind::Auto => &move_island::Auto,
    }
}

/// The schedule policy of an option.
pub(crate) fn schedule(kind: ScheduleKind) -> &'static dyn SchedulePolicy {
    match kind {
        ScheduleKind::SingleThreaded => &schedule_single::SingleThreaded,
        ScheduleKind::MultiThreaded => &schedule_multi::MultiThreaded,
    }
}
