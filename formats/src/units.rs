//! Units: an address, an offset and an alignment are three different types.

use std::fmt;

/// A virtual address in the image. Units: bytes from address zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

/// A position in a file. Units: bytes from the start of that file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FileOffset(pub u64);

/// An alignment, kept as its exponent so that a value that is no power of two can't exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Align(u8);

impl Align {
    /// One byte: no constraint.
    pub const ONE: Align = Align(0);
    /// One 4 KiB page.
    pub const PAGE: Align = Align(12);

    /// The alignment of `bytes`; ELF's 0 means 1. `None` if it is no power of two.
    pub fn from_bytes(bytes: u64) -> Option<Align> {
        match bytes {
            0 => Some(Align::ONE),
            b if b.is_power_of_two() => Some(Align(b.trailing_zeros() as u8)),
            _ => None,
        }
    }

    /// From an exponent; larger ones than 2^63 are clamped to it.
    pub const fn from_exponent(exponent: u8) -> Align {
        Align(if exponent > 63 { 63 } else { exponent })
    }

    /// The alignment in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The exponent of two.
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// `value` rounded up to this alignment; saturates at the top of the address space.
    pub const fn up(self, value: u64) -> u64 {
        let mask = self.bytes() - 1;
        match value.checked_add(mask) {
            Some(sum) => sum & !mask,
            None => !mask,
        }
    }

    /// Whether `value` is a multiple of this alignment.
    pub const fn holds(self, value: u64) -> bool {
        value & (self.bytes() - 1) == 0
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn align_rejects_what_is_no_power_of_two() {
        assert_eq!(Align::from_bytes(0), Some(Align::ONE));
        assert_eq!(Align::from_bytes(3), None);
        assert_eq!(Align::from_bytes(16).unwrap().up(17), 32);
        assert_eq!(Align::PAGE.up(u64::MAX), !0xfff);
    }
}
