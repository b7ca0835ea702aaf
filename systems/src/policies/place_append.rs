//! Append: the range of file blocks with the highest address that will do.

use relink_engine::policy::{FreeLevel, FreeLevels, FreeRange, PlacePolicy};

/// Leaves vacated slots alone: what first fit is to be compared with.
pub(crate) struct Append;

impl PlacePolicy for Append {
    fn choose(
        &self,
        free: &FreeLevels,
        fits: &dyn Fn(FreeRange) -> Option<u64>,
    ) -> Option<(FreeLevel, usize, u64)> {
        let last = |ranges: &[FreeRange]| {
            ranges.iter().enumerate().rev().find_map(|(index, &range)| Some((index, fits(range)?)))
        };
        let block = last(&free.blocks).map(|(index, start)| (FreeLevel::Blocks, index, start));
        block.or_else(|| last(&free.slots).map(|(index, start)| (FreeLevel::Slots, index, start)))
    }
}
