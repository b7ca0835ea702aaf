//! Damaged state of an earlier link. What its checksums notice never shows in the image; what they don't (they are
//! made anew for half of the inputs) is an error or a link, never a panic.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use relink_formats::Bytes;
use xxhash_rust::xxh3::xxh3_64;

struct Prior {
    columns: Vec<u8>,
    image: Vec<u8>,
    /// The edited and the grown object, each with the images that are right for it: patched, from nothing.
    edits: [(Vec<u8>, [Vec<u8>; 2]); 2],
}

fn prior() -> &'static Prior {
    static PRIOR: OnceLock<Prior> = OnceLock::new();
    PRIOR.get_or_init(|| {
        let mut session = relink_fuzz::session(true, relink_fuzz::work(1, 0)).0;
        session.resolve().expect("the program links");
        let mut columns = Vec::new();
        session.serialize_columns(&mut columns).expect("the session is incremental");
        let image = session.image().into_owned();
        let edits = [relink_fuzz::work(2, 0), relink_fuzz::work(3, 200)].map(|object| {
            let mut fresh = relink_fuzz::session(true, object.clone()).0;
            fresh.resolve().expect("the edited program links");
            let mut warm = relink_fuzz::session(true, object.clone()).0;
            warm.set_prior_parts(columns.clone().into(), image.clone().into());
            warm.resolve().expect("the edited program links");
            (object, [warm.image().into_owned(), fresh.image().into_owned()])
        });
        Prior { columns, image, edits }
    })
}

/// Makes the checksums of a state right again: header, directory, sums of 16 KiB blocks, columns (`engine::store`).
fn seal(state: &mut [u8]) -> Option<()> {
    const HEADER: usize = 72;
    let word =
        |state: &[u8], at: usize| Some(u64::from_le_bytes(state.get(at..at + 8)?.try_into().ok()?) as usize);
    let (prefix, columns) = (word(state, 32)?, word(state, 40)?);
    let sums = (word(state, 56)? & 0xffff_ffff).checked_mul(16)?.checked_add(HEADER)?;
    let end = prefix.checked_add(columns).filter(|&end| end <= state.len())?;
    for block in 0..columns.div_ceil(16 << 10) {
        let start = prefix + block * (16 << 10);
        let sum = xxh3_64(&state[start..end.min(start + (16 << 10))]);
        let place = sums + block * 8..sums + block * 8 + 8;
        state.get_mut(place).filter(|_| sums + block * 8 + 8 <= prefix)?.copy_from_slice(&sum.to_le_bytes());
    }
    state.get_mut(64..HEADER)?.fill(0);
    let hash = xxh3_64(state.get(..prefix)?);
    state[64..HEADER].copy_from_slice(&hash.to_le_bytes());
    Some(())
}

// One byte of options, then edits of seven bytes: offset, width, value.
fuzz_target!(|data: &[u8]| {
    let Some((&head, edits)) = data.split_first() else { return };
    let (sealed, truncated, grown, joined) = (head & 1 != 0, head & 2 != 0, head & 4 != 0, head & 8 != 0);
    let prior = prior();
    let mut state = prior.columns.clone();
    for edit in edits.chunks_exact(7) {
        let offset = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % state.len();
        let value = u32::from_le_bytes([edit[3], edit[4], edit[5], edit[6]]).to_le_bytes();
        let width = [1, 2, 4, 4][usize::from(edit[2] >> 6)].min(state.len() - offset);
        state[offset..offset + width].copy_from_slice(&value[..width]);
    }
    if truncated {
        state.truncate(state.len() * usize::from(head >> 4) / 16);
    }
    if sealed {
        seal(&mut state);
    }
    let (object, right) = &prior.edits[usize::from(grown)];
    let mut session = relink_fuzz::session(true, object.clone()).0;
    if joined {
        state.extend_from_slice(&prior.image);
        session.set_prior_state(Bytes::from(state));
    } else {
        session.set_prior_parts(state.into(), prior.image.clone().into());
    }
    let outcome = session.resolve();
    if !sealed {
        outcome.expect("damaged state is no error");
        assert!(right.contains(&session.image().into_owned()), "damaged state shows in the image");
    }
});
