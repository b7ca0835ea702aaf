//! Makes a failing list of edits shorter: delta debugging.

use std::time::{Duration, Instant};

use super::edit::Edit;
use super::run::replay;

/// Time to spend; what is found by then is good enough.
const BUDGET: Duration = Duration::from_secs(180);

/// A shorter list that fails too (perhaps otherwise: any failure is worth a look).
pub fn shrink(seed: u64, edits: &[Edit]) -> Vec<Edit> {
    let start = Instant::now();
    let fails = |list: &[Edit]| replay(seed, list, None).is_err();
    let mut list = edits.to_vec();
    let mut pieces = 2;
    while list.len() > 1 && start.elapsed() < BUDGET {
        let size = list.len().div_ceil(pieces);
        let mut shorter = None;
        for from in (0..list.len()).step_by(size) {
            let to = (from + size).min(list.len());
            let rest = [&list[..from], &list[to..]].concat();
            if fails(&rest) {
                shorter = Some(rest);
                break;
            }
            if start.elapsed() > BUDGET {
                return list;
            }
        }
        match shorter {
            Some(rest) => {
                list = rest;
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(list.len()),
        }
    }
    list
}
