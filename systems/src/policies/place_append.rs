//! Append: the range with the highest address that will do.

use relink_engine::policy::{FreeRange, PlacePolicy};

/// Leaves vacated slots alone: what first fit is to be compared with.
pub(crate) struct Append;

impl PlacePolicy for Append {
    fn choose(&self, ranges: &[FreeRange], fits: &dyn Fn(FreeRange) -> Option<u64>) -> Option<(usize, u64)> {
        let fitting = ranges.iter().enumerate().filter_map(|(index, &range)| Some((index, fits(range)?)));
        fitting.max_by_key(|&(_, start)| start)
    }
}
