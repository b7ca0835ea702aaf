//! Wide: what the frame has a plan for is patched.

use relink_engine::policy::{Differences, GatePolicy};
use relink_engine::report::GateReason;

/// Rows of changed objects come and go; only what no plan exists for is a reason.
pub(crate) struct Wide;

impl GatePolicy for Wide {
    fn refuse(&self, differences: Differences) -> Vec<GateReason> {
        differences.beyond
    }
}
