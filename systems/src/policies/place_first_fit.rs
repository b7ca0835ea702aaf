//! First fit: the first free slot that will do, then the first range of file blocks; the reserve is the last of those.

use relink_engine::policy::{FreeLevel, FreeLevels, FreeRange, PlacePolicy};

/// Reuses vacated slots before it breaks a block.
pub(crate) struct FirstFit;

impl PlacePolicy for FirstFit {
    fn choose(
        &self,
        free: &FreeLevels,
        fits: &dyn Fn(FreeRange) -> Option<u64>,
    ) -> Option<(FreeLevel, usize, u64)> {
        let first = |ranges: &[FreeRange]| {
            ranges.iter().enumerate().find_map(|(index, &range)| Some((index, fits(range)?)))
        };
        let slot = first(&free.slots).map(|(index, start)| (FreeLevel::Slots, index, start));
        slot.or_else(|| first(&free.blocks).map(|(index, start)| (FreeLevel::Blocks, index, start)))
    }
}
