//! Pieces of `SHF_MERGE` sections: the strings or constants that a linker may keep only once.

use crate::error::FormatError;

/// The start offset of every piece of a mergeable section, ascending; the first is 0 if there is any.
///
/// * `bytes`   the section.
/// * `entsize` its `sh_entsize`: bytes of a constant, or of one character of a string.
/// * `strings` `SHF_STRINGS`: pieces end with a character of zeroes, which belongs to them.
///
/// # Errors
/// `entsize` is 0, the size is no multiple of it, the last string isn't terminated, or the section is larger
/// than 4 GiB.
///
/// # Source
/// gABI, "Sections", `SHF_MERGE` and `SHF_STRINGS`.
pub fn split(bytes: &[u8], entsize: u64, strings: bool) -> Result<Vec<u32>, FormatError> {
    let Ok(len) = u32::try_from(bytes.len()) else {
        return Err(FormatError::Unsupported { what: "mergeable section above 4 GiB".into(), offset: 0 });
    };
    if entsize == 0 {
        return Err(FormatError::BadValue { what: "entry size of a mergeable section", value: 0, offset: 0 });
    }
    if !u64::from(len).is_multiple_of(entsize) {
        return Err(FormatError::BadValue {
            what: "size of a mergeable section",
            value: len.into(),
            offset: 0,
        });
    }
    // A size above the section's would have failed as no divisor, unless the section is empty.
    let (Ok(width), false) = (usize::try_from(entsize), bytes.is_empty()) else { return Ok(Vec::new()) };
    if !strings {
        return Ok((0..len).step_by(width).collect());
    }
    let mut starts = vec![0];
    match width {
        1 => ends_of_bytes(bytes, &mut starts),
        _ => starts.extend(
            bytes
                .chunks_exact(width)
                .zip(1..)
                .filter(|(character, _)| character.iter().all(|byte| *byte == 0))
                .map(|(_, next): (_, usize)| (next * width) as u32),
        ),
    }
    match starts.pop() {
        Some(end) if end == len => Ok(starts),
        last => {
            let offset = last.unwrap_or_default().into();
            Err(FormatError::Unterminated { what: "string in a mergeable section", offset })
        }
    }
}

/// Appends the offset behind every zero byte. Eight bytes a step: string sections are most of what a link
/// with debug information reads, and a search that restarts per string costs more than the strings do.
fn ends_of_bytes(bytes: &[u8], ends: &mut Vec<u32>) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let (words, tail) = bytes.as_chunks::<8>();
    let mut base = 0_u32;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The top bit of each byte that is zero, and no other: the addition can't carry over a byte.
        let mut zeroes = !(((word & LOW) + LOW) | word | LOW);
        while zeroes != 0 {
            ends.push(base + zeroes.trailing_zeros() / 8 + 1);
            zeroes &= zeroes - 1;
        }
        base += 8;
    }
    ends.extend(tail.iter().zip(1..).filter(|(byte, _)| **byte == 0).map(|(_, next): (_, u32)| base + next));
}

/// The index of the piece that contains `offset`, given the result of [`split`]. An offset behind the last
/// piece counts to it: a symbol may stand at the end. `None` if there are no pieces.
#[inline]
pub fn piece_at(starts: &[u32], offset: u64) -> Option<usize> {
    starts.partition_point(|start| u64::from(*start) <= offset).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::every_damage;

    /// The obvious way, to hold the fast one to.
    fn split_slowly(bytes: &[u8]) -> Option<Vec<u32>> {
        if bytes.last().is_some_and(|last| *last != 0) {
            return None;
        }
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at as u32 + 1);
        let mut starts: Vec<u32> = std::iter::once(0).chain(ends).collect();
        starts.pop();
        Some(starts)
    }

    #[test]
    fn strings_end_with_their_zero() {
        assert_eq!(split(b"ab\0\0c\0", 1, true), Ok(vec![0, 3, 4]));
        assert_eq!(split(b"a\0\0\0b\0c\0\0\0", 2, true), Ok(vec![0, 4]));
        assert_eq!(split(b"", 1, true), Ok(vec![]));
        assert_eq!(
            split(b"ab\0c", 1, true),
            Err(FormatError::Unterminated { what: "string in a mergeable section", offset: 3 })
        );
    }

    #[test]
    fn constants_are_entsize_each() {
        assert_eq!(split(&[0; 24], 8, false), Ok(vec![0, 8, 16]));
        assert!(matches!(split(&[0; 23], 8, false), Err(FormatError::BadValue { value: 23, .. })));
        assert!(split(&[0; 8], 0, false).is_err());
        assert!(split(&[0; 8], u64::MAX, true).is_err());
    }

    #[test]
    fn the_fast_scan_agrees_with_the_slow_one() {
        // 0x01, 0x80 and 0xff are the bytes that a sloppy word trick takes for zeroes.
        let alphabet = [0, 1, 0x80, 0xff, b'a'];
        let mut state = 1_u64;
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .chain([0])
                .collect();
            assert_eq!(split(&bytes, 1, true).ok(), split_slowly(&bytes));
        }
    }

    #[test]
    fn piece_at_finds_the_containing_piece() {
        let starts = split(b"ab\0\0c\0", 1, true).unwrap();
        let found: Vec<_> = (0..8).map(|offset| piece_at(&starts, offset)).collect();
        assert_eq!(found, [0, 0, 0, 1, 2, 2, 2, 2].map(Some));
        assert_eq!(piece_at(&[], 0), None);
    }

    #[test]
    fn damage_never_panics() {
        every_damage(b"first\0second\0\0third string that is longer\0", |bytes| {
            for (entsize, strings) in [(0, true), (1, true), (2, true), (3, true), (4, false), (9, false)] {
                let _ = split(bytes, entsize, strings);
            }
        });
    }
}
