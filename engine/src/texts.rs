//! Names: bytes in one piece, with checksums in a column beside them.

use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::blocks::{BLOCK_BYTES, BlockSink, Blocks};
use crate::column::{Column, StoreError};
use crate::rows::Span;

/// The names that rows refer to: those of the cold link, and behind them those that frames brought.
///
/// A name may be longer than a block and is read in one piece, so that its blocks have no checksums inside: the column
/// `sums` has one for each. No name stands on both sides of the border.
#[derive(Debug)]
pub struct Texts {
    base: Base,
    /// Names of later frames.
    tail: Vec<u8>,
    /// How many of their bytes the journal has had.
    journaled: usize,
}

#[derive(Debug)]
enum Base {
    Owned(Vec<u8>),
    Mapped { blocks: Arc<Blocks>, first: usize, len: u32, sums: Column<u64> },
}

impl Texts {
    /// Names in memory.
    pub fn owned(bytes: Vec<u8>) -> Texts {
        Texts::over(Base::Owned(bytes))
    }

    /// Names in a mapped state: `len` bytes from block `first`.
    ///
    /// # Errors
    /// If the state does not have as many blocks or checksums.
    pub fn mapped(
        blocks: Arc<Blocks>,
        first: usize,
        len: u32,
        sums: Column<u64>,
    ) -> Result<Texts, StoreError> {
        let count = (len as usize).div_ceil(BLOCK_BYTES);
        if sums.len() as usize != count || first.checked_add(count).is_none_or(|end| end > blocks.len()) {
            return Err(StoreError::Malformed("its names are cut short".to_owned()));
        }
        Ok(Texts::over(Base::Mapped { blocks, first, len, sums }))
    }

    fn over(base: Base) -> Texts {
        Texts { base, tail: Vec::new(), journaled: 0 }
    }

    fn base_len(&self) -> u32 {
        match &self.base {
            Base::Owned(bytes) => bytes.len() as u32,
            Base::Mapped { len, .. } => *len,
        }
    }

    /// Bytes of all names.
    pub fn len(&self) -> u32 {
        self.base_len() + self.tail.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name.
    ///
    /// # Errors
    /// If the span is not there as a whole, or damaged.
    pub fn bytes(&self, span: Span) -> Result<&[u8], StoreError> {
        let beyond = || StoreError::NoSuchRow {
            column: "strings",
            row: u64::from(span.start) + u64::from(span.len),
            len: u64::from(self.len()),
        };
        if let Some(start) = span.start.checked_sub(self.base_len()).filter(|_| !self.tail.is_empty()) {
            return self.tail.get(Span::new(start, span.len).indexes()).ok_or_else(beyond);
        }
        match &self.base {
            Base::Owned(bytes) => bytes.get(span.indexes()).ok_or_else(beyond),
            Base::Mapped { blocks, first, len, sums } => {
                let range = span.indexes();
                if range.end > *len as usize {
                    return Err(beyond());
                }
                let start = range.start / BLOCK_BYTES;
                let bytes = blocks
                    .raw(first + start..first + range.end.div_ceil(BLOCK_BYTES).max(start), |block| {
                        sums.get((block - first) as u32)
                    })?;
                let start = range.start - start * BLOCK_BYTES;
                bytes.get(start..start + span.len as usize).ok_or_else(beyond)
            }
        }
    }

    /// Adds names; their bytes start where [`Texts::len`] was.
    pub fn append(&mut self, names: &[u8]) {
        self.tail.extend_from_slice(names);
    }

    /// Appends to a log record what was added since the last call: a count of bytes, and the bytes.
    pub(crate) fn take_journal(&mut self, out: &mut Vec<u8>) {
        let new = &self.tail[self.journaled..];
        out.extend_from_slice(&(new.len() as u32).to_le_bytes());
        out.extend_from_slice(new);
        self.journaled = self.tail.len();
    }

    /// Forgets what is new, after a new base was written.
    pub(crate) fn clear_journal(&mut self) {
        self.journaled = self.tail.len();
    }

    /// Applies a log record's part; returns what is behind it.
    pub(crate) fn replay<'a>(&mut self, log: &'a [u8]) -> Result<&'a [u8], StoreError> {
        let short = || StoreError::Malformed("log of the names is cut short".to_owned());
        let (len, rest) = log.split_first_chunk().ok_or_else(short)?;
        let len = u32::from_le_bytes(*len);
        let (names, rest) = rest.split_at_checked(len as usize).ok_or_else(short)?;
        if self.len().checked_add(len).is_none() {
            return Err(StoreError::Malformed("its names are too long".to_owned()));
        }
        self.append(names);
        self.journaled = self.tail.len();
        Ok(rest)
    }

    /// All bytes, for writing a state.
    pub(crate) fn all(&self) -> Result<std::borrow::Cow<'_, [u8]>, StoreError> {
        let base: std::borrow::Cow<'_, [u8]> = match &self.base {
            Base::Owned(bytes) => bytes.into(),
            Base::Mapped { len, .. } => self.bytes(Span::new(0, *len))?.into(),
        };
        Ok(if self.tail.is_empty() { base } else { [&base, &self.tail[..]].concat().into() })
    }

    /// The checksums of names, block by block.
    pub(crate) fn sums(bytes: &[u8]) -> Vec<u64> {
        padded(bytes).map(|block| XxHash3_64::oneshot(&block)).collect()
    }

    /// Hands the blocks of names to a sink.
    pub(crate) fn write(bytes: &[u8], sink: &mut dyn BlockSink) {
        padded(bytes).for_each(|block| sink.raw(&block));
    }
}

fn padded(bytes: &[u8]) -> impl Iterator<Item = [u8; BLOCK_BYTES]> + '_ {
    bytes.chunks(BLOCK_BYTES).map(|chunk| {
        let mut block = [0; BLOCK_BYTES];
        block[..chunk.len()].copy_from_slice(chunk);
        block
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Rows, Store};

    fn state(rows: Rows) -> Vec<u8> {
        let mut bytes = Vec::new();
        Store::freeze(rows).write(1, 2, &[], &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn names_of_any_length_are_read_in_one_piece_and_whole_or_not_at_all() {
        let names: Vec<u8> = (0..5 * BLOCK_BYTES + 7).map(|at| (at % 251) as u8).collect();
        let good = state(Rows { strings: names.clone(), digests: vec![[3; 32]; 40], ..Rows::default() });
        let open = |bytes: Vec<u8>| Store::open(bytes.into(), 1, 2).unwrap().0;
        let store = open(good.clone());
        for (start, len) in [(0, 0), (0, 5), (500, 30), (3, 1500), (1024, 512), (names.len() - 7, 7)] {
            let span = Span::new(start as u32, len as u32);
            assert_eq!(store.strings.bytes(span).unwrap(), &names[start..start + len]);
        }
        assert!(store.strings.bytes(Span::new(names.len() as u32 - 3, 4)).is_err());
        let mut again = Vec::new();
        store.write(1, 2, &[], &mut again).unwrap();
        assert!(again == good, "a mapped state is written as it was");
        let at = good.windows(64).position(|window| window == &names[..64]).unwrap();
        let mut damaged = good;
        damaged[at + 600] ^= 1;
        let store = open(damaged);
        assert!(store.strings.bytes(Span::new(0, 512)).is_ok());
        assert!(store.strings.bytes(Span::new(510, 3)).is_err());
        assert!(store.digests.get(39).is_ok() && store.digests.get(40).is_err());
    }

    #[test]
    fn names_of_later_frames_come_with_the_log() {
        let base = state(Rows { strings: b"first".to_vec(), ..Rows::default() });
        let mut store = Store::open(base.clone().into(), 1, 2).unwrap().0;
        assert_eq!(store.take_journal(), Vec::<u8>::new());
        let mut log = base;
        for (name, start) in [(&b"second"[..], 5), (b"third", 11)] {
            assert_eq!(store.strings.len(), start);
            store.strings.append(name);
            log.extend(store.take_journal());
        }
        let store = Store::open(log.clone().into(), 1, 2).unwrap().0;
        for (start, name) in [(0, &b"first"[..]), (5, b"second"), (11, b"third")] {
            assert_eq!(store.strings.bytes(Span::new(start, name.len() as u32)).unwrap(), name);
        }
        assert!(store.strings.bytes(Span::new(11, 6)).is_err(), "beyond its end");
        let at = log.len() - 2;
        log[at] ^= 1;
        assert!(Store::open(log.into(), 1, 2).is_err(), "the record has a checksum");
    }
}
