//! First fit: the first free range of the list that will do; the reserve is the last of the list.

use relink_engine::policy::{FreeRange, PlacePolicy};

/// Reuses vacated slots before the reserve.
pub(crate) struct FirstFit;

impl PlacePolicy for FirstFit {
    fn choose(&self, ranges: &[FreeRange], fits: &dyn Fn(FreeRange) -> Option<u64>) -> Option<(usize, u64)> {
        ranges.iter().enumerate().find_map(|(index, &range)| Some((index, fits(range)?)))
    }
}
