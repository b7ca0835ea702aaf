//! A column: rows of one kind, in memory or in a mapped state, with the edits of later frames on top.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hashbrown::HashMap;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::blocks::{BlockSink, Blocks, PAYLOAD_BYTES, rows_per_block};
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

#[derive(Debug)]
enum Base<T> {
    Owned(Vec<T>),
    Mapped { blocks: Arc<Blocks>, first: usize, len: u32 },
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

    /// A column of `len` rows from block `first` of a mapped state.
    ///
    /// # Errors
    /// If the state does not have as many blocks.
    pub fn mapped(
        name: &'static str,
        blocks: Arc<Blocks>,
        first: usize,
        len: u32,
    ) -> Result<Column<T>, StoreError> {
        let count = (len as usize).div_ceil(rows_per_block::<T>());
        if first.checked_add(count).is_none_or(|end| end > blocks.len()) {
            return Err(StoreError::Malformed(format!("column {name} is beyond its end")));
        }
        let base = Base::Mapped { blocks, first, len };
        Ok(Column { name, base, edits: RowMap::default(), tail: Vec::new(), dirty: Vec::new() })
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
            Base::Mapped { blocks, first, len } => {
                if row >= *len {
                    return self.tail.get((row - len) as usize).copied().ok_or_else(|| self.no_such_row(row));
                }
                if !self.edits.is_empty()
                    && let Some(edited) = self.edits.get(&row)
                {
                    return Ok(*edited);
                }
                let (block, at) =
                    (row as usize / rows_per_block::<T>(), row as usize % rows_per_block::<T>());
                let payload = blocks.payload(first + block)?;
                let bytes = payload.get(at * size_of::<T>()..(at + 1) * size_of::<T>());
                let value = bytes.and_then(|bytes| T::read_from_bytes(bytes).ok());
                self.judged(row, value.ok_or_else(|| self.no_such_row(row))?)
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

    /// Hands all rows to a sink, block by block.
    pub(crate) fn write(&self, sink: &mut dyn BlockSink) -> Result<(), StoreError> {
        let mut payload = [0; PAYLOAD_BYTES];
        let mut put = |rows: &[T]| {
            let bytes = rows.as_bytes();
            payload[..bytes.len()].copy_from_slice(bytes);
            payload[bytes.len()..].fill(0);
            sink.payload(&payload);
        };
        match &self.base {
            Base::Owned(rows) => rows.chunks(rows_per_block::<T>()).for_each(put),
            Base::Mapped { .. } => self.to_vec()?.chunks(rows_per_block::<T>()).for_each(&mut put),
        }
        Ok(())
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
