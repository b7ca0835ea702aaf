//! A column: rows of one kind, in memory or in a mapped state, with the edits of later frames on top.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formats::Bytes;
use hashbrown::HashMap;
use relink_formats as formats;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::rows::Span;

/// Why state can't be used. Every such error leads to a full link, never to a wrong image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// A row that the column does not have.
    #[error("state: row {row} of column {column} is beyond its {len} rows")]
    NoSuchRow {
        /// Name of the column.
        column: &'static str,
        /// The row asked for.
        row: u64,
        /// Rows there.
        len: u64,
    },
    /// A block whose checksum does not fit its bytes.
    #[error("state: checksum of the block at {offset:#x} does not match")]
    Checksum {
        /// Bytes from the start of the state.
        offset: u64,
    },
    /// Header, directory or log can't be read.
    #[error("state: {0}")]
    Malformed(String),
}

/// Bytes of a block that has a checksum of its own: small enough that the first touch costs 2 µs, large
/// enough that the checksums are 0.05 % of the state.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// A state's bytes with their block checksums, each checked when its block is first touched.
#[derive(Debug)]
pub struct Blocks {
    bytes: Bytes,
    sums: Vec<u64>,
    seen: Vec<AtomicU64>,
}

impl Blocks {
    /// Takes the bytes that columns live in, and the checksum of each [`BLOCK_BYTES`] of them.
    pub fn new(bytes: Bytes, sums: Vec<u64>) -> Blocks {
        let seen = (0..sums.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Blocks { bytes, sums, seen }
    }

    /// The checksums of `bytes`, block by block.
    pub fn checksums(bytes: &[u8]) -> Vec<u64> {
        bytes.chunks(BLOCK_BYTES).map(xxhash_rust::xxh3::xxh3_64).collect()
    }

    fn get(&self, start: usize, len: usize) -> Result<&[u8], StoreError> {
        let end = start.checked_add(len).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(StoreError::Malformed(format!("{len} bytes at {start:#x} are beyond its end")));
        };
        for block in start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            self.check(block)?;
        }
        Ok(&self.bytes[start..end])
    }

    #[inline]
    fn check(&self, block: usize) -> Result<(), StoreError> {
        let bit = 1 << (block % 64);
        let offset = block * BLOCK_BYTES;
        let error = StoreError::Checksum { offset: offset as u64 };
        let Some(seen) = self.seen.get(block / 64) else { return Err(error) };
        if seen.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let end = (offset + BLOCK_BYTES).min(self.bytes.len());
        if self.sums.get(block) != Some(&xxhash_rust::xxh3::xxh3_64(&self.bytes[offset..end])) {
            return Err(error);
        }
        seen.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
enum Base<T> {
    Owned(Vec<T>),
    Mapped { blocks: Arc<Blocks>, start: usize, len: u32 },
}

type RowMap<T> = HashMap<u32, T, BuildHasherDefault<RowHasher>>;

/// Rows are dense small numbers: a multiplication spreads them well enough.
#[derive(Debug, Default)]
struct RowHasher(u64);

impl std::hash::Hasher for RowHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Rows of one kind. Reading a mapped column copies a row out of it; nothing is parsed when it is opened.
#[derive(Debug)]
pub struct Column<T> {
    name: &'static str,
    base: Base<T>,
    /// Edits of mapped rows.
    edits: RowMap<T>,
    /// Rows behind the mapped ones.
    tail: Vec<T>,
    /// Rows written since the journal was last taken.
    dirty: Vec<u32>,
}

/// What a row must be to stand in a column.
pub trait Record: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static {
    /// Whether the row's numbers can be those of an image: see [`crate::sound`].
    fn is_sound(&self) -> bool;
}

impl<T: Record> Column<T> {
    /// An owned column.
    pub fn owned(name: &'static str, rows: Vec<T>) -> Column<T> {
        Column {
            name,
            base: Base::Owned(rows),
            edits: RowMap::default(),
            tail: Vec::new(),
            dirty: Vec::new(),
        }
    }

    /// A column of `len` rows at `start` of a mapped state.
    pub fn mapped(name: &'static str, blocks: Arc<Blocks>, start: usize, len: u32) -> Column<T> {
        let base = Base::Mapped { blocks, start, len };
        Column { name, base, edits: RowMap::default(), tail: Vec::new(), dirty: Vec::new() }
    }

    fn base_len(&self) -> u32 {
        match &self.base {
            Base::Owned(rows) => rows.len() as u32,
            Base::Mapped { len, .. } => *len,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> u32 {
        self.base_len() + self.tail.len() as u32
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn no_such_row(&self, row: u32) -> StoreError {
        StoreError::NoSuchRow { column: self.name, row: u64::from(row), len: u64::from(self.len()) }
    }

    fn judged(&self, row: u32, value: T) -> Result<T, StoreError> {
        if value.is_sound() {
            return Ok(value);
        }
        Err(StoreError::Malformed(format!("row {row} of column {} has numbers of no image", self.name)))
    }

    /// A row.
    ///
    /// # Errors
    /// If there is no such row, its block is damaged, or it is not sound.
    #[inline]
    pub fn get(&self, row: u32) -> Result<T, StoreError> {
        match &self.base {
            Base::Owned(rows) => rows.get(row as usize).copied().ok_or_else(|| self.no_such_row(row)),
            Base::Mapped { blocks, start, len } => {
                if row >= *len {
                    return self.tail.get((row - len) as usize).copied().ok_or_else(|| self.no_such_row(row));
                }
                if !self.edits.is_empty()
                    && let Some(edited) = self.edits.get(&row)
                {
                    return Ok(*edited);
                }
                let bytes = blocks.get(start + row as usize * size_of::<T>(), size_of::<T>())?;
                self.judged(row, T::read_from_bytes(bytes).map_err(|_| self.no_such_row(row))?)
            }
        }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn set(&mut self, row: u32, value: T) -> Result<(), StoreError> {
        let error = self.no_such_row(row);
        match &mut self.base {
            Base::Owned(rows) => *rows.get_mut(row as usize).ok_or(error)? = value,
            Base::Mapped { len, .. } if row >= *len => {
                *self.tail.get_mut((row - *len) as usize).ok_or(error)? = value;
            }
            Base::Mapped { .. } => {
                self.edits.insert(row, value);
            }
        }
        self.dirty.push(row);
        Ok(())
    }

    /// Changes a row in place.
    ///
    /// # Errors
    /// As [`Column::get`].
    pub fn update(&mut self, row: u32, change: impl FnOnce(&mut T)) -> Result<(), StoreError> {
        let mut value = self.get(row)?;
        change(&mut value);
        self.set(row, value)
    }

    /// Adds a row and returns its number.
    pub fn push(&mut self, value: T) -> u32 {
        let row = self.len();
        match &mut self.base {
            Base::Owned(rows) => rows.push(value),
            Base::Mapped { .. } => self.tail.push(value),
        }
        self.dirty.push(row);
        row
    }

    /// The rows of a span, in order.
    pub fn span(&self, span: Span) -> impl Iterator<Item = Result<(u32, T), StoreError>> + '_ {
        span.range().map(move |row| Ok((row, self.get(row)?)))
    }

    /// All rows of an owned column; empty for a mapped one. Bulk work only.
    pub fn as_slice(&self) -> &[T] {
        match &self.base {
            Base::Owned(rows) => rows,
            Base::Mapped { .. } => &[],
        }
    }

    /// All rows, copied. O(rows): for the verifier and for writing a new base.
    ///
    /// # Errors
    /// As [`Column::get`].
    pub fn to_vec(&self) -> Result<Vec<T>, StoreError> {
        (0..self.len()).map(|row| self.get(row)).collect()
    }

    /// Appends the dirty rows to a log record (`count`, then `row`, bytes) and forgets them.
    pub(crate) fn take_journal(&mut self, out: &mut Vec<u8>) {
        let mut rows = std::mem::take(&mut self.dirty);
        rows.sort_unstable();
        rows.dedup();
        out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        for row in rows {
            if let Ok(value) = self.get(row) {
                out.extend_from_slice(&row.to_le_bytes());
                out.extend_from_slice(value.as_bytes());
            }
        }
    }

    /// Forgets what is dirty, after a new base was written.
    pub(crate) fn clear_journal(&mut self) {
        self.dirty.clear();
    }

    /// Applies a log record's part for this column; returns what is behind it.
    pub(crate) fn replay<'a>(&mut self, log: &'a [u8]) -> Result<&'a [u8], StoreError> {
        let name = self.name;
        let short = || StoreError::Malformed(format!("log of column {name} is cut short"));
        let (count, mut log) = u32::read_from_prefix(log).map_err(|_| short())?;
        for _ in 0..count {
            let (row, rest) = u32::read_from_prefix(log).map_err(|_| short())?;
            let (value, rest) = T::read_from_prefix(rest).map_err(|_| short())?;
            log = rest;
            let value = self.judged(row, value)?;
            if row == self.len() {
                self.push(value);
            } else {
                self.set(row, value)?;
            }
        }
        self.dirty.clear();
        Ok(log)
    }
}

impl Column<u8> {
    /// The bytes of a span that was written in one piece.
    ///
    /// # Errors
    /// If the span is not there as a whole.
    pub fn bytes(&self, span: Span) -> Result<&[u8], StoreError> {
        let error = || self.no_such_row(span.start.saturating_add(span.len));
        match &self.base {
            Base::Owned(rows) => rows.get(span.indexes()).ok_or_else(error),
            Base::Mapped { blocks, start, len } => {
                if span.start >= *len {
                    let first = (span.start - len) as usize;
                    return self.tail.get(first..first + span.len as usize).ok_or_else(error);
                }
                if span.range().end > *len {
                    return Err(error());
                }
                blocks.get(start + span.start as usize, span.len as usize)
            }
        }
    }

    /// Adds bytes in one piece.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.len();
        match &mut self.base {
            Base::Owned(rows) => rows.extend_from_slice(bytes),
            Base::Mapped { .. } => self.tail.extend_from_slice(bytes),
        }
        self.dirty.extend(start..start + bytes.len() as u32);
        Span::new(start, bytes.len() as u32)
    }
}
