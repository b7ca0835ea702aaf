//! Damaged state of an earlier link: bytes that a disk spoilt, and rows that only a forger writes.

use std::sync::OnceLock;

use relink_formats::Bytes;

use super::tiny;
use crate::state::{self, Layout};

/// State to start from, and what is linked with it.
struct Prior {
    columns: Vec<u8>,
    image: Vec<u8>,
    /// Objects to continue with, each with the images that are right for it: patched, from nothing.
    edits: Vec<(Vec<u8>, [Vec<u8>; 2])>,
}

/// After a first link; after a move; the same as a record of the log.
fn priors() -> &'static [Prior; 3] {
    static PRIORS: OnceLock<[Prior; 3]> = OnceLock::new();
    PRIORS.get_or_init(|| {
        let columns = |session: &relink::LinkSession| {
            let mut columns = Vec::new();
            session.serialize_columns(&mut columns).expect("the session is incremental");
            columns
        };
        let (mut session, work) = tiny::session(true, tiny::work(1, 0));
        session.resolve().expect("the program links");
        let _ = session.take_state_log();
        let first = (columns(&session), session.image().into_owned());
        session.replace_input(work, relink::Input::bytes("work.o", tiny::work(3, 200))).expect("it is there");
        session.resolve().expect("the grown program links");
        let image = session.image().into_owned();
        let log = session.take_state_log().expect("a patch has a record");
        let moved = columns(&session);
        let logged = [&first.0[..], &log].concat();
        [first, (moved, image.clone()), (logged, image)].map(|(columns, image)| Prior::new(columns, image))
    })
}

impl Prior {
    fn new(columns: Vec<u8>, image: Vec<u8>) -> Prior {
        let mut sealed = columns.clone();
        state::seal(&mut sealed);
        assert!(sealed == columns, "the layout of the state is not the one that is known here");
        let edits = [tiny::work(2, 0), tiny::work(3, 200), tiny::work(4, 900)].map(|object| {
            let mut fresh = tiny::session(true, object.clone()).0;
            fresh.resolve().expect("the edited program links");
            let mut warm = tiny::session(true, object.clone()).0;
            warm.set_prior_parts(columns.clone().into(), image.clone().into());
            warm.resolve().expect("the edited program links");
            (object, [warm.image().into_owned(), fresh.image().into_owned()])
        });
        Prior { columns, image, edits: edits.into() }
    }
}

/// No panic; damage that checksums notice never shows in the image.
///
/// The input is one byte of choices, then edits of eight bytes: column, row (two), field, value (four). Columns
/// behind the last one stand for the header and for the log.
pub(super) fn judge(data: &[u8]) {
    let Some((&head, edits)) = data.split_first() else { return };
    let prior = &priors()[usize::from(head & 3) % 3];
    let (object, right) = &prior.edits[usize::from(head >> 2 & 3) % 3];
    let (sealed, joined, truncated) = (head & 16 != 0, head & 32 != 0, head & 64 != 0);
    let mut state = prior.columns.clone();
    let layout = Layout::of(&state);
    edits.chunks_exact(8).for_each(|edit| apply(&mut state, &layout, edit));
    if truncated {
        let last = edits.last().copied().unwrap_or_default();
        state.truncate(state.len() * usize::from(last) / 256);
    } else if sealed {
        layout.seal(&mut state);
    }
    let mut session = tiny::session(true, object.clone()).0;
    if joined {
        state.extend_from_slice(&prior.image);
        session.set_prior_state(Bytes::from(state));
    } else {
        session.set_prior_parts(state.into(), prior.image.clone().into());
    }
    let outcome = session.resolve();
    if !sealed {
        outcome.expect("damaged state is no error");
        let image = session.image().into_owned();
        // Another placement may be right as well, if a harmless byte was hit.
        assert!(
            right.contains(&image) || session.verify().expect("the inputs are good").is_empty(),
            "damaged state shows in the image"
        );
    } else if outcome.is_ok() {
        let mut map = Vec::new();
        let _ = (session.write_map(&mut map), session.loaded_inputs(), session.segment_digests());
        let _ = session.verify();
    }
}

/// Changes one number of the state.
fn apply(state: &mut [u8], layout: &Layout, edit: &[u8]) {
    let [column, row_low, row_high, field, value @ ..] = edit else { return };
    let row = usize::from(u16::from_le_bytes([*row_low, *row_high]));
    let value = u32::from_le_bytes(value.try_into().unwrap_or_default());
    // The last one has the checksums of the names, which `seal` makes anew.
    let count = layout.columns.len() - 1;
    let range = match usize::from(*column) % (count + 2) {
        index if index < count && layout.columns[index].len == 0 => return,
        index if index < count => layout.columns[index].at(row % layout.columns[index].len),
        index if index == count => 0..layout.prefix,
        _ => match layout.log.get(row % layout.log.len().max(1)) {
            Some(record) if !record.is_empty() => record.clone(),
            _ => return,
        },
    };
    // Rows are short; in the others the row says where.
    let long = range.len() > 256;
    let at = if long { row * 4 } else { usize::from(field & 63) * 4 } % range.len();
    let width = if field & 64 == 0 { 4 } else { 8 }.min(range.len() - at);
    let place = &mut state[range.start + at..range.start + at + width];
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(place);
    let (old, signed) = (u64::from_le_bytes(bytes), i64::from(value as i32) as u64);
    let new = if field & 128 == 0 { signed } else { old.wrapping_add(signed) };
    place.copy_from_slice(&new.to_le_bytes()[..width]);
}
