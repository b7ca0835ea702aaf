//! `patch-N` of the state folder: what link N changes of the image, with the bytes that stood there before.
//!
//! It is written before a byte of a kept image is touched. The bytes from before undo what a kill leaves half done;
//! those from now on are what the other image lacks when it takes its turn. Neither is ever written for that alone:
//! they are laid over the file's bytes when it is read, which is right whatever part of them the file has.
//!
//! Little-endian: magic, generation, generation it starts from, length of the image, number of ranges; for each its
//! offset and length; the bytes from before, those from now on; xxh3 of all that.

use relink_engine::image::Image;
use relink_formats::Bytes;
use twox_hash::XxHash3_64;

use crate::PatchBytes;

const MAGIC: &[u8; 8] = b"rlpatch\0";
const HEADER_BYTES: usize = 40;
const RANGE_BYTES: usize = 16;
const SUM_BYTES: usize = 8;

/// The contents of a `patch-N`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The link that made it.
    pub(super) generation: u64,
    /// The link whose image it changes.
    pub(super) base: u64,
    /// Length of both images.
    pub(super) image_bytes: u64,
    /// What stood there.
    pub(super) before: Vec<PatchBytes>,
    /// What stands there from now on; the same ranges.
    pub(super) after: Vec<PatchBytes>,
}

impl Change {
    /// The change that `patch` makes of an image; `None` if a range is not inside.
    pub(super) fn of(image: &Image, base: u64, generation: u64, patch: &[PatchBytes]) -> Option<Change> {
        let old = |range: &PatchBytes| {
            Some(PatchBytes { offset: range.offset, bytes: image.read(range.offset, range.bytes.len())? })
        };
        let before = patch.iter().map(old).collect::<Option<Vec<_>>>()?;
        Some(Change { generation, base, image_bytes: image.len(), before, after: patch.to_vec() })
    }

    /// As it stands in its file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let words = [self.generation, self.base, self.image_bytes, self.after.len() as u64];
        let ranges = self.after.iter().flat_map(|range| [range.offset, range.bytes.len() as u64]);
        let mut file = MAGIC.to_vec();
        file.extend(words.into_iter().chain(ranges).flat_map(u64::to_le_bytes));
        for range in self.before.iter().chain(&self.after) {
            file.extend_from_slice(&range.bytes);
        }
        file.extend(XxHash3_64::oneshot(&file).to_le_bytes());
        file
    }

    /// Reads it back; `None` if it is not whole, or not of an image of this length.
    pub(super) fn decode(file: &[u8], image_bytes: u64) -> Option<Change> {
        let (body, sum) = file.split_at_checked(file.len().checked_sub(SUM_BYTES)?)?;
        if !body.starts_with(MAGIC) || XxHash3_64::oneshot(body) != u64::from_le_bytes(sum.try_into().ok()?) {
            return None;
        }
        let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
        let word = |bytes: &[u8], at: usize| {
            Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
        };
        let count = usize::try_from(word(header, 32)?).ok()?;
        let (table, mut bytes) = rest.split_at_checked(count.checked_mul(RANGE_BYTES)?)?;
        let mut take = || {
            let mut ranges = Vec::with_capacity(count);
            for entry in table.chunks_exact(RANGE_BYTES) {
                let (offset, length) = (word(entry, 0)?, word(entry, 8)?);
                offset.checked_add(length).filter(|&end| end <= image_bytes)?;
                let content;
                (content, bytes) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                ranges.push(PatchBytes { offset, bytes: content.to_vec() });
            }
            Some(ranges)
        };
        let (before, after) = (take()?, take()?);
        let change =
            Change { generation: word(header, 8)?, base: word(header, 16)?, image_bytes, before, after };
        (bytes.is_empty() && word(header, 24)? == image_bytes).then_some(change)
    }
}

/// An image file and what has to be laid over it.
pub(super) fn overlaid(file: &Bytes, overlay: &[PatchBytes]) -> Image {
    let mut image = Image::mapped(file.clone());
    for range in overlay {
        image.write(range.offset, &range.bytes);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, bytes: &[u8]) -> PatchBytes {
        PatchBytes { offset, bytes: bytes.to_vec() }
    }

    #[test]
    fn change_survives_its_file_and_damage_does_not() {
        let image = overlaid(&Bytes::from_static(b"0123456789"), &[range(8, b"x")]);
        let patch = [range(1, b"ab"), range(7, b"cde")];
        let change = Change::of(&image, 4, 5, &patch).unwrap();
        assert_eq!(change.before, [range(1, b"12"), range(7, b"7x9")]);
        let file = change.encode();
        assert_eq!(Change::decode(&file, 10), Some(change));
        assert_eq!(Change::decode(&file, 11), None);
        for length in 0..file.len() {
            assert_eq!(Change::decode(&file[..length], 10), None);
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert_eq!(Change::decode(&damaged, 10), None);
        }
        assert_eq!(Change::of(&image, 4, 5, &[range(9, b"ab")]), None);
    }

    #[test]
    fn crafted_ranges_are_no_change() {
        for (offset, length, count) in [(u64::MAX, 1, 1), (0, u64::MAX, 1), (0, 1, u64::MAX), (10, 1, 1)] {
            let mut file = MAGIC.to_vec();
            let words = [2u64, 1, 10, count, offset, length];
            file.extend(words.into_iter().flat_map(u64::to_le_bytes));
            file.extend([0; 2]);
            file.extend(XxHash3_64::oneshot(&file).to_le_bytes());
            assert_eq!(Change::decode(&file, 10), None);
        }
    }
}
