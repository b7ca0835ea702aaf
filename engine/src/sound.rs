//! Which numbers a row may have. A checksum says that a row is as it was written, not that somebody sane wrote it.
//!
//! A row of a mapped state is judged once, when it is read ([`Column::get`](crate::column::Column::get)): whoever has a
//! row may add its start to its length, or shift by its alignment, without a check. What lies in which section, and
//! how much memory a length may claim, is asked where it matters: [`SectionRecord::file_offset`], [`Image::room`].

use crate::column::{Record, StoreError};
use crate::image::Image;
use crate::records::{
    AtomRecord, CieRecord, FdeRecord, FileRecord, FreeRecord, GlobalRecord, GroupRecord, ImageRecord,
    InputRecord, IslandRecord, PoolRecord, RelocRecord, SectionRecord, SymbolRecord,
};

/// Bytes that no file and no part of an image has. Sums of a few such numbers are far from an overflow.
const LEN_MAX: u64 = 1 << 48;
/// An exponent of two that a shift allows.
const ALIGN_MAX: u32 = 63;
/// The same for a pool, whose offsets have 32 bits.
const POOL_ALIGN_MAX: u32 = 31;
/// Bytes in front of a frame description's first field: its length and its pointer to the CIE.
const ENTRY_HEAD: u32 = 8;

/// Whether a run of bytes ends within the address space.
fn ends(start: u64, len: u64) -> bool {
    len <= LEN_MAX && start.checked_add(len).is_some()
}

fn are_small<const N: usize>(numbers: [u64; N]) -> bool {
    numbers.into_iter().all(|number| number <= LEN_MAX)
}

macro_rules! sound {
    ($($record:ty: $row:ident => $sound:expr;)*) => {$(
        impl Record for $record {
            #[inline]
            fn is_sound(&self) -> bool {
                let $row = self;
                $sound
            }
        }
    )*};
}

sound! {
    u8: _row => true;
    u32: _row => true;
    u64: _row => true;
    [u8; 32]: _row => true;
    FileRecord: _row => true;
    InputRecord: _row => true;
    GlobalRecord: _row => true;
    GroupRecord: _row => true;
    // Values, sizes and addends of symbols and relocations are the inputs' own: who adds them lets them wrap.
    SymbolRecord: _row => true;
    RelocRecord: _row => true;
    AtomRecord: atom => ends(atom.address, atom.size.max(atom.capacity)) && atom.align <= ALIGN_MAX;
    SectionRecord: section => {
        ends(section.address, section.size.max(section.capacity))
            && are_small([section.offset, section.dead_bytes])
            && section.align <= ALIGN_MAX
    };
    FreeRecord: free => ends(free.start, free.len);
    FdeRecord: fde => fde.offset.checked_add(fde.capacity.max(ENTRY_HEAD)).is_some();
    CieRecord: cie => cie.offset.checked_add(cie.len.max(ENTRY_HEAD)).is_some();
    IslandRecord: island => ends(island.address, island.capacity.max(island.size.into()));
    PoolRecord: pool => {
        pool.used <= u32::MAX.into()
            && pool.align <= POOL_ALIGN_MAX
            && pool.slots.start.checked_add(pool.slots.len).is_some()
            && (pool.slots.len == 0 || pool.slots.len.is_power_of_two())
    };
    ImageRecord: image => are_small([
        image.len,
        image.build_id_offset,
        image.build_id_len,
        image.section_headers,
        image.generation,
        image.patches,
    ]);
}

impl SectionRecord {
    /// The file offset of an address in this section, its end and its tail included.
    ///
    /// # Errors
    /// If the address is elsewhere.
    pub fn file_offset(&self, address: u64) -> Result<u64, StoreError> {
        let within = address.checked_sub(self.address).filter(|&at| at <= self.size.max(self.capacity));
        within.and_then(|within| self.offset.checked_add(within)).ok_or_else(|| {
            let section = self.address;
            StoreError::Malformed(format!("{address:#x} is outside of its section at {section:#x}"))
        })
    }
}

impl Image {
    /// `len` bytes of this image as a size in memory.
    ///
    /// # Errors
    /// If the image does not have as many: a state that says so must not decide what is allocated.
    pub fn room(&self, len: u64) -> Result<usize, StoreError> {
        let room = usize::try_from(len).ok().filter(|_| len <= self.len());
        room.ok_or_else(|| StoreError::Malformed(format!("{len:#x} bytes are more than the image has")))
    }

    /// The bytes of a place in the image: `content`, and `filler` up to `len`.
    ///
    /// # Errors
    /// As [`Image::room`].
    pub fn padded(&self, content: &[u8], len: u64, filler: u8) -> Result<Vec<u8>, StoreError> {
        let len = self.room(len.max(content.len() as u64))?;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(content);
        bytes.resize(len, filler);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_of_a_section_have_no_file_offset() {
        let section =
            SectionRecord { address: 0x1000, offset: 0x200, size: 8, capacity: 16, ..Default::default() };
        assert_eq!(section.file_offset(0x1008), Ok(0x208));
        assert_eq!(section.file_offset(0x1010), Ok(0x210));
        for address in [0, 0xfff, 0x1011, u64::MAX] {
            assert!(section.file_offset(address).is_err(), "{address:#x}");
        }
    }

    #[test]
    fn lengths_of_a_state_do_not_decide_what_is_allocated() {
        let image = Image::owned(vec![0; 16]);
        assert_eq!(image.padded(b"ab", 4, 0xcc), Ok(b"ab\xcc\xcc".to_vec()));
        assert_eq!(image.padded(b"ab", 0, 0), Ok(b"ab".to_vec()));
        assert!(image.padded(b"", 17, 0).is_err());
        assert!(image.padded(b"", u64::MAX, 0).is_err());
    }

    #[test]
    fn rows_whose_sums_overflow_are_not_sound() {
        let atom = AtomRecord { address: u64::MAX - 8, capacity: 8, ..Default::default() };
        assert!(atom.is_sound());
        assert!(!AtomRecord { capacity: 16, ..atom }.is_sound());
        assert!(!AtomRecord { size: u64::MAX, ..atom }.is_sound());
        assert!(!AtomRecord { align: 64, ..atom }.is_sound());
        assert!(!FreeRecord { start: u64::MAX, len: 1, ..Default::default() }.is_sound());
        assert!(!PoolRecord { slots: crate::rows::Span::new(0, 3), ..Default::default() }.is_sound());
        assert!(!FdeRecord { offset: u32::MAX, ..Default::default() }.is_sound());
    }
}
