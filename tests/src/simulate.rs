//! The seeded edit simulator: generated programs, random edits, and after each frame every oracle there is.
//!
//! A seed names a program, flags, and a list of edits for ever. Edits are numbers that are read modulo what the program
//! has at that time, so that any subset of a list is a list too: that is what makes a failure shrink.

mod edit;
mod model;
mod run;
mod shrink;
mod source;

pub use edit::{Edit, EditKind};
pub use model::Model;
pub use run::{Compiler, Failure, Statistics, inputs, replay};
pub use shrink::shrink;

use crate::rng::Rng;

/// The edits of a seed.
pub fn edits(seed: u64, frames: usize) -> Vec<Edit> {
    let mut rng = Rng::new(seed ^ 0xed17);
    (0..frames).map(|_| Edit::random(&mut rng)).collect()
}

/// Runs a seed; a failure comes back shrunk, as text to be printed.
pub fn simulate(seed: u64, frames: usize) -> Result<Statistics, String> {
    let edits = edits(seed, frames);
    match replay(seed, &edits, None) {
        Ok(statistics) => Ok(statistics),
        Err(failure) => Err(report(seed, frames, &edits, &failure)),
    }
}

fn report(seed: u64, frames: usize, edits: &[Edit], failure: &Failure) -> String {
    let shorter = shrink(seed, &edits[..failure.frame.min(edits.len())]);
    let dir = crate::cache_dir("simulate").join(format!("seed-{seed}"));
    let _ = std::fs::remove_dir_all(&dir);
    let last = replay(seed, &shorter, Some(&dir)).err();
    let mut model = Model::new(seed);
    let told: Vec<String> = shorter.iter().map(|edit| format!("  {}", edit.apply(&mut model))).collect();
    format!(
        "seed {seed} of {frames} frames fails in frame {}: {}\n{} edits are enough:\n{}\nthen: {}\n\
         inputs of its frames: {}",
        failure.frame,
        failure.what,
        shorter.len(),
        told.join("\n"),
        last.map_or_else(
            || "(the shrunk list passes: the failure is not deterministic)".to_owned(),
            |f| f.what
        ),
        dir.display()
    )
}
