//! Blocks: how rows and names lie in state bytes, so that reading a row costs the checksum of 512 bytes.
//!
//! A frame of another process reads few rows, and they lie far apart: 364 names of other units led to 541 blocks of 16
//! KiB, whose checksums took three quarters of a millisecond. A small block needs no table of checksums if it holds its
//! own; and none of it is read when state is opened.

use std::sync::atomic::{AtomicU64, Ordering};

use formats::Bytes;
use relink_formats as formats;
use twox_hash::XxHash3_64;

use crate::column::StoreError;

/// Bytes of a block: small, as a frame wants one row of most blocks that it touches; and with the checksum taken off, the
/// sizes of the large columns' rows divide it.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of a block that hold rows: seven atoms or nine symbols with no byte left. Its checksum follows.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - size_of::<u64>();

/// The rows of one block, the unused end zero.
pub type Payload = [u8; PAYLOAD_BYTES];

/// Rows of a kind that a block holds: none lies in two of them.
pub const fn rows_per_block<T>() -> usize {
    PAYLOAD_BYTES / size_of::<T>()
}

/// The checksum that a block ends with. Its number and the state's seed are part of it: bytes of another block, or those
/// that an older state had at the same place, do not pass.
const fn seal(hash: u64, seed: u64, block: usize) -> u64 {
    hash ^ seed ^ (block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A state's blocks, each checked when it is first touched.
#[derive(Debug)]
pub struct Blocks {
    bytes: Bytes,
    seed: u64,
    seen: Vec<AtomicU64>,
}

impl Blocks {
    /// Takes the bytes that columns live in, and the seed of their checksums.
    pub fn new(bytes: Bytes, seed: u64) -> Blocks {
        let count = bytes.len() / BLOCK_BYTES;
        let seen = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Blocks { bytes, seed, seen }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.bytes.len() / BLOCK_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a block that ends with its checksum.
    #[inline]
    pub(crate) fn payload(&self, block: usize) -> Result<&[u8], StoreError> {
        let start = block * BLOCK_BYTES;
        let damaged = StoreError::Checksum { offset: start as u64 };
        let Some((payload, sum)) =
            self.bytes.get(start..start + BLOCK_BYTES).map(|b| b.split_at(PAYLOAD_BYTES))
        else {
            return Err(damaged);
        };
        if !self.is_seen(block) {
            let sum = u64::from_le_bytes(sum.try_into().unwrap_or_default());
            if sum != seal(XxHash3_64::oneshot(payload), self.seed, block) {
                return Err(damaged);
            }
            self.see(block);
        }
        Ok(payload)
    }

    /// The bytes of a run of blocks without checksums of their own; `sum` has that of each.
    pub(crate) fn raw(
        &self,
        blocks: std::ops::Range<usize>,
        sum: impl Fn(usize) -> Result<u64, StoreError>,
    ) -> Result<&[u8], StoreError> {
        let range = blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES;
        let damaged = |block: usize| StoreError::Checksum { offset: (block * BLOCK_BYTES) as u64 };
        let Some(bytes) = self.bytes.get(range) else { return Err(damaged(blocks.start)) };
        for (block, bytes) in blocks.zip(bytes.chunks(BLOCK_BYTES)) {
            if !self.is_seen(block) {
                if sum(block)? != XxHash3_64::oneshot(bytes) {
                    return Err(damaged(block));
                }
                self.see(block);
            }
        }
        Ok(bytes)
    }

    #[inline]
    fn is_seen(&self, block: usize) -> bool {
        self.seen.get(block / 64).is_some_and(|seen| seen.load(Ordering::Relaxed) & 1 << (block % 64) != 0)
    }

    #[inline]
    fn see(&self, block: usize) {
        if let Some(seen) = self.seen.get(block / 64) {
            seen.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
    }
}

/// What takes a state's blocks, in order.
pub(crate) trait BlockSink {
    /// A block of rows.
    fn payload(&mut self, payload: &Payload);
    /// A block of names.
    fn raw(&mut self, bytes: &[u8; BLOCK_BYTES]);
}

/// The first pass over a state: hashes of all blocks of rows, which give the seed.
#[derive(Debug, Default)]
pub(crate) struct Hasher {
    /// Hashes of the blocks, 0 for one of names: its checksum stands in a block of rows.
    hashes: Vec<u64>,
}

impl Hasher {
    /// Differs between any two states that differ in a row.
    pub(crate) fn seed(&self) -> u64 {
        use zerocopy::IntoBytes;
        XxHash3_64::oneshot(self.hashes.as_slice().as_bytes())
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }
}

impl BlockSink for Hasher {
    fn payload(&mut self, payload: &Payload) {
        self.hashes.push(XxHash3_64::oneshot(payload));
    }
    fn raw(&mut self, _: &[u8; BLOCK_BYTES]) {
        self.hashes.push(0);
    }
}

/// Blocks that are handed to the writer at once.
const BLOCKS_PER_WRITE: usize = 128;

/// The second pass: writes the blocks with their checksums.
pub(crate) struct Writer<'a> {
    hashes: Hasher,
    seed: u64,
    next: usize,
    buffer: Vec<u8>,
    out: &'a mut dyn std::io::Write,
    result: std::io::Result<()>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(hashes: Hasher, out: &'a mut dyn std::io::Write) -> Writer<'a> {
        let seed = hashes.seed();
        let buffer = Vec::with_capacity(BLOCKS_PER_WRITE * BLOCK_BYTES);
        Writer { hashes, seed, next: 0, buffer, out, result: Ok(()) }
    }

    fn flush(&mut self) {
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.buffer);
        }
        self.buffer.clear();
    }

    fn count(&mut self) {
        self.next += 1;
        if self.buffer.len() >= BLOCKS_PER_WRITE * BLOCK_BYTES {
            self.flush();
        }
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.flush();
        self.result
    }
}

impl BlockSink for Writer<'_> {
    fn payload(&mut self, payload: &Payload) {
        let hash = self.hashes.hashes.get(self.next).copied().unwrap_or_default();
        self.buffer.extend_from_slice(payload);
        self.buffer.extend_from_slice(&seal(hash, self.seed, self.next).to_le_bytes());
        self.count();
    }
    fn raw(&mut self, bytes: &[u8; BLOCK_BYTES]) {
        self.buffer.extend_from_slice(bytes);
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u8) -> (Vec<u8>, u64) {
        let mut hasher = Hasher::default();
        let mut bytes = Vec::new();
        let payloads = [first, 2, 3].map(|byte| [byte; PAYLOAD_BYTES]);
        payloads.iter().for_each(|payload| hasher.payload(payload));
        let seed = hasher.seed();
        let mut writer = Writer::new(hasher, &mut bytes);
        payloads.iter().for_each(|payload| writer.payload(payload));
        writer.finish().unwrap();
        (bytes, seed)
    }

    #[test]
    fn a_block_passes_only_whole_in_its_place_and_in_its_state() {
        let (good, seed) = state(1);
        let passes = |bytes: &[u8], block| Blocks::new(bytes.to_vec().into(), seed).payload(block).is_ok();
        assert!((0..3).all(|block| passes(&good, block)));
        assert!(!passes(&good, 3) && !passes(&good[..3 * BLOCK_BYTES - 1], 2));
        for at in [0, 300, PAYLOAD_BYTES - 1, PAYLOAD_BYTES, BLOCK_BYTES - 1] {
            let mut damaged = good.clone();
            damaged[BLOCK_BYTES + at] ^= 0x10;
            assert!(passes(&damaged, 0) && !passes(&damaged, 1));
        }
        let mut swapped = good.clone();
        swapped.copy_within(..BLOCK_BYTES, 2 * BLOCK_BYTES);
        assert!(!passes(&swapped, 2));
        let mut older = good.clone();
        older[BLOCK_BYTES..].copy_from_slice(&state(9).0[BLOCK_BYTES..]);
        assert!(!passes(&older, 1), "its rows are equal, but it is of another state");
    }
}
