//! State of a link as bytes, to be damaged so that no checksum notices: what is behind the checksums must hold, too.
//!
//! The layout is that of ARCHITECTURE.md, "State format".

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::rng::Rng;

const PREFIX_LEN: usize = 32;
const COLUMNS_LEN: usize = 40;
const COLUMNS: usize = 56;
const SEED: usize = 64;
const PREFIX_HASH: usize = 72;
const HEADER: usize = 80;
/// A block holds rows, none of them in two blocks, and ends with its checksum.
const BLOCK: usize = 512;
const PAYLOAD: usize = BLOCK - 8;
/// Magic, length and hash of a record of the log.
const LOG_HEADER: usize = 16;

fn word(state: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(state[at..at + 8].try_into().expect("eight bytes"))
}

fn half(state: &[u8], at: usize) -> usize {
    u32::from_le_bytes(state[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Rows of a column of a state (as `LinkSession::serialize_columns` writes it).
#[derive(Clone, Debug)]
pub struct Rows {
    /// Where its first block starts.
    pub start: usize,
    /// How many rows it has.
    pub len: usize,
    /// Bytes of each.
    pub bytes: usize,
}

impl Rows {
    /// Where a row lies.
    pub fn at(&self, row: usize) -> Range<usize> {
        let each = PAYLOAD / self.bytes;
        let start = self.start + row / each * BLOCK + row % each * self.bytes;
        start..start + self.bytes
    }

    fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let start = self.start;
        (0..self.len.div_ceil(PAYLOAD / self.bytes)).map(move |block| start + block * BLOCK)
    }
}

/// Where everything lies in a state.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes of header and directory.
    pub prefix: usize,
    /// The columns of rows: all but the names, whose blocks have no checksums inside.
    pub columns: Vec<Rows>,
    /// Payloads of the log's records, behind the columns.
    pub log: Vec<Range<usize>>,
}

impl Layout {
    /// The layout of a state that is whole.
    ///
    /// # Panics
    /// If it is not.
    pub fn of(state: &[u8]) -> Layout {
        let prefix = word(state, PREFIX_LEN) as usize;
        let entry = |index: usize| {
            let at = HEADER + 16 * index;
            Rows {
                start: prefix + word(state, at) as usize * BLOCK,
                len: half(state, at + 8),
                bytes: half(state, at + 12),
            }
        };
        let columns = (0..half(state, COLUMNS)).map(entry).filter(|rows| rows.bytes > 1).collect();
        let mut log = Vec::new();
        let mut at = prefix + word(state, COLUMNS_LEN) as usize;
        while at < state.len() {
            let start = at + LOG_HEADER;
            at = start + half(state, at + 4);
            log.push(start..at);
        }
        Layout { prefix, columns, log }
    }

    /// Makes all checksums right again: of blocks, of the prefix, of the log's records.
    pub fn seal(&self, state: &mut [u8]) {
        let seed = word(state, SEED);
        for start in self.columns.iter().flat_map(Rows::blocks) {
            let number = ((start - self.prefix) / BLOCK + 1) as u64;
            let sum = XxHash3_64::oneshot(&state[start..start + PAYLOAD])
                ^ seed
                ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state[start + PAYLOAD..start + BLOCK].copy_from_slice(&sum.to_le_bytes());
        }
        state[PREFIX_HASH..HEADER].fill(0);
        let sum = XxHash3_64::oneshot(&state[..self.prefix]);
        state[PREFIX_HASH..HEADER].copy_from_slice(&sum.to_le_bytes());
        for record in &self.log {
            let sum = XxHash3_64::oneshot(&state[record.clone()]);
            state[record.start - 8..record.start].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// Columns by their place in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Free ranges shorter than a file block.
    FreeSlots = 9,
    /// Longer ones.
    FreeBlocks = 10,
}

/// The rows of a column as the log leaves them.
///
/// # Panics
/// If the state is not whole.
pub fn rows(state: &[u8], column: Column) -> Vec<Vec<u8>> {
    let Layout { mut columns, log, .. } = Layout::of(state);
    columns.pop(); // The checksums of names are written anew with a whole state only.
    let wanted = &columns[column as usize];
    let mut rows: Vec<Vec<u8>> = (0..wanted.len).map(|row| state[wanted.at(row)].to_vec()).collect();
    for record in log {
        let mut rest = &state[record];
        for (index, each) in columns.iter().enumerate() {
            let count = half(rest, 0);
            rest = &rest[4..];
            for _ in 0..count {
                let (row, bytes) = (half(rest, 0), &rest[4..4 + each.bytes]);
                rest = &rest[4 + each.bytes..];
                if index != column as usize {
                    continue;
                }
                match rows.get_mut(row) {
                    Some(known) => known.copy_from_slice(bytes),
                    None => rows.push(bytes.to_vec()),
                }
            }
        }
        // Names come last: how many bytes, and these.
        assert!(rest.len() == 4 + half(rest, 0), "the layout of the log is not the one that is known here");
    }
    rows
}

/// Makes the checksums of a state right again whose layout was left as it was.
pub fn seal(state: &mut [u8]) {
    Layout::of(state).seal(state);
}

/// A state with one to three numbers of its rows changed, under right checksums.
pub fn damaged(state: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = state.to_vec();
    // Each column as often as any other: the small ones say most about the image.
    let layout = Layout::of(state);
    let Layout { mut columns, log, .. } = layout.clone();
    columns.pop(); // The checksums of names.
    columns.retain(|rows| rows.len > 0);
    for _ in 0..=rng.below(3) {
        if !log.is_empty() && rng.one_in(4) {
            let record = rng.pick(&log).clone();
            let at = record.start + rng.below(record.len().max(8) / 4) * 4;
            let width = (*rng.pick(&[1, 4, 8])).min(record.end - at);
            put(&mut out[at..at + width], rng);
            continue;
        }
        let rows = rng.pick(&columns).clone();
        let width = (*rng.pick(&[4, 8])).min(rows.bytes);
        let at = rows.at(rng.below(rows.len)).start + rng.below(rows.bytes / width) * width;
        put(&mut out[at..at + width], rng);
    }
    layout.seal(&mut out);
    out
}

/// Gives a field a value at the edge of something.
fn put(field: &mut [u8], rng: &mut Rng) {
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    let old = u64::from_le_bytes(bytes);
    let bit = 1_u64 << rng.below(8 * field.len());
    let new = match rng.below(6) {
        0 => 0,
        1 => u64::MAX - rng.below(32) as u64,
        2 => bit.wrapping_add(rng.below(3) as u64).wrapping_sub(1),
        3 => old.wrapping_add(bit),
        4 => old.wrapping_sub(1 + rng.below(64) as u64),
        _ => old ^ bit,
    };
    field.copy_from_slice(&new.to_le_bytes()[..field.len()]);
}
