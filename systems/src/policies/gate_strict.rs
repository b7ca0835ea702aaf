//! Strict: every difference that Diff notes is a reason.

use relink_engine::policy::{Differences, GatePolicy};
use relink_engine::report::GateReason;

/// The resolution table, the set of inputs and the layout contract must stay as they are.
pub(crate) struct Strict;

impl GatePolicy for Strict {
    fn refuse(&self, differences: Differences) -> Vec<GateReason> {
        [differences.beyond, differences.planned].concat()
    }
}
