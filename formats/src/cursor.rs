//! A forward reader that can't panic: every read is checked and says what it was after.

use crate::error::FormatError;

/// Reads little-endian fields from `bytes`, from `pos` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// `what` names the whole in errors; a `pos` past the end makes the first read fail.
    pub(crate) fn new(bytes: &'a [u8], pos: usize, what: &'static str) -> Self {
        Cursor { bytes, pos, what }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let rest = self.rest();
        let taken = rest.get(..count).ok_or(FormatError::Truncated {
            what: self.what,
            offset: self.pos as u64,
            need: count as u64,
            have: rest.len() as u64,
        })?;
        self.pos += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut field = [0; N];
        field.copy_from_slice(self.take(N)?);
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Unsigned LEB128; more than 64 bits of value is an error.
    pub(crate) fn uleb(&mut self) -> Result<u64, FormatError> {
        let start = self.pos;
        let mut value = 0_u64;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(FormatError::BadValue { what: "ULEB128", value: bits, offset: start as u64 });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// Signed LEB128; more than 64 bits of value is an error.
    pub(crate) fn sleb(&mut self) -> Result<i64, FormatError> {
        let start = self.pos;
        let mut value = 0_i64;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            let bits = i64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && !matches!(byte, 0 | 0x7f)) {
                return Err(FormatError::BadValue {
                    what: "SLEB128",
                    value: byte.into(),
                    offset: start as u64,
                });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte & 0x40 != 0 && shift < 57 {
                    value |= -1 << (shift + 7);
                }
                break;
            }
        }
        Ok(value)
    }

    /// The bytes up to the next NUL, which is consumed too.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], FormatError> {
        let rest = self.rest();
        let text = std::ffi::CStr::from_bytes_until_nul(rest)
            .map_err(|_| FormatError::Unterminated { what: self.what, offset: self.pos as u64 })?
            .to_bytes();
        self.pos += text.len() + 1;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_values_and_limits() {
        let sleb = |bytes: &[u8]| Cursor::new(bytes, 0, "test").sleb().ok();
        let uleb = |bytes: &[u8]| Cursor::new(bytes, 0, "test").uleb().ok();
        assert_eq!((sleb(&[0x78]), sleb(&[0x80, 0x7f]), sleb(&[0x3f])), (Some(-8), Some(-128), Some(63)));
        assert_eq!(uleb(&[0xe5, 0x8e, 0x26]), Some(624_485));
        let mut widest = [0xff; 10];
        widest[9] = 1;
        assert_eq!(uleb(&widest), Some(u64::MAX));
        widest[9] = 2;
        assert_eq!(uleb(&widest), None);
        let mut lowest = [0x80; 10];
        lowest[9] = 0x7f;
        assert_eq!(sleb(&lowest), Some(i64::MIN));
        assert_eq!((uleb(&[0x80]), sleb(&[0x80; 12])), (None, None));
    }
}
