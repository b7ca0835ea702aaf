//! `.relr.dyn`: the places of RELATIVE relocations, packed. The addends stand at the places themselves.
//!
//! An even entry is a place. An odd one is a bitmap of the 63 words behind those that the entries so far are
//! about. So a table of pointers takes 1/63 of its own size, where `.rela.dyn` takes three times its size.
//!
//! # Source
//! gABI, "Relative Relocation Table" (`SHT_RELR`, proposed in 2017).

use crate::error::FormatError;

/// Size of an entry (`DT_RELRENT`) and alignment of the section. Units: bytes.
pub const ENTRY_LEN: u64 = 8;

/// Words that one bitmap is about: all bits but the lowest, which marks it as a bitmap.
const BITMAP_WORDS: u64 = 63;

/// The entries of the section; never more than places.
///
/// * `places` addresses of fields of 8 bytes, ascending and each once. Only multiples of 8 pack well, as the
///   words of a bitmap lie at such distances from the place in front of it.
///
/// # Errors
/// `BadValue` for an odd address, which would be read as a bitmap, and for one that isn't above the one
/// before it: a place that is told twice is relocated twice. Its offset is eight times the position in
/// `places`.
///
/// # Examples
/// ```
/// use relink_formats::dynamic::relr::encode;
/// assert_eq!(encode(&[0x1000, 0x1008, 0x1018]).unwrap(), [0x1000, 0b1011]);
/// ```
pub fn encode(places: &[u64]) -> Result<Vec<u64>, FormatError> {
    let mut before = None;
    for (position, place) in places.iter().enumerate() {
        if place % 2 != 0 || before.is_some_and(|before| before >= place) {
            let (what, offset) = ("place of relative relocation", position as u64 * ENTRY_LEN);
            return Err(FormatError::BadValue { what, value: *place, offset });
        }
        before = Some(place);
    }
    let mut entries = Vec::new();
    let mut rest = places;
    while let Some((place, tail)) = rest.split_first() {
        entries.push(*place);
        rest = tail;
        // Nothing is left when this wraps around, for there are no places above.
        let mut start = place.wrapping_add(ENTRY_LEN);
        loop {
            let mut bitmap = 0;
            while let Some((place, tail)) = rest.split_first() {
                // One in front of `start` wraps around to a distance that is too long.
                let distance = place.wrapping_sub(start);
                if distance >= BITMAP_WORDS * ENTRY_LEN || distance % ENTRY_LEN != 0 {
                    break;
                }
                bitmap |= 2 << (distance / ENTRY_LEN);
                rest = tail;
            }
            if bitmap == 0 {
                break;
            }
            entries.push(bitmap | 1);
            start = start.wrapping_add(BITMAP_WORDS * ENTRY_LEN);
        }
    }
    Ok(entries)
}

/// The places that a section's entries tell, in their order, as a loader reads them.
///
/// # Errors
/// `BadValue` if the first entry is a bitmap: there is no place that it could follow.
pub fn decode(entries: &[u64]) -> Result<Vec<u64>, FormatError> {
    let mut places = Vec::new();
    let mut next = None;
    for (position, entry) in entries.iter().copied().enumerate() {
        if entry & 1 == 0 {
            places.push(entry);
            next = Some(entry.wrapping_add(ENTRY_LEN));
            continue;
        }
        let Some(start) = next else {
            let (what, offset) = ("bitmap without a place", position as u64 * ENTRY_LEN);
            return Err(FormatError::BadValue { what, value: entry, offset });
        };
        let told = (0..BITMAP_WORDS).filter(|bit| entry >> (bit + 1) & 1 != 0);
        places.extend(told.map(|bit| start.wrapping_add(bit * ENTRY_LEN)));
        next = Some(start.wrapping_add(BITMAP_WORDS * ENTRY_LEN));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_follows_its_place() {
        let places = [0x10d60, 0x10d68, 0x10d70, 0x10d78, 0x10da0, 0x10da8, 0x10db0];
        let entries = encode(&places).unwrap();
        assert_eq!(entries, [0x10d60, 0b111_0000_1111]);
        assert_eq!(decode(&entries).unwrap(), places);
    }

    /// `.relr.dyn` of a program with two tables of pointers, GNU ld 2.40, `-z pack-relative-relocs`.
    #[test]
    fn entries_are_those_of_gnu_ld() {
        let entries = [0x3dd0, 3, 0x101, 0x5040, 0xbbbb_bbbb_bbbb_bbbb, 0xb_7777_7777];
        let places = decode(&entries).unwrap();
        // As llvm-readelf lists them.
        assert_eq!(places.len(), 77);
        assert_eq!(places[..4], [0x3dd0, 0x3dd8, 0x4008, 0x5040]);
        assert_eq!(encode(&places).unwrap(), entries);
    }

    #[test]
    fn runs_take_one_entry_for_63_words() {
        for count in [1_u64, 2, 63, 64, 65, 127, 128, 6300] {
            let places: Vec<u64> = (0..count).map(|word| 0x1000 + 8 * word).collect();
            let entries = encode(&places).unwrap();
            assert_eq!(entries.len() as u64, 1 + (count - 1).div_ceil(63));
            assert_eq!(decode(&entries).unwrap(), places);
        }
        let whole: Vec<u64> = (0..64).map(|word| 8 * word).collect();
        assert_eq!(encode(&whole).unwrap(), [0, u64::MAX]);
    }

    #[test]
    fn gaps_begin_anew_where_a_bitmap_would_be_empty() {
        let at = |places: &[u64]| encode(places).unwrap();
        // The last word of the first bitmap, the first and the last of the second, and one beyond.
        assert_eq!(at(&[0x1000, 0x1000 + 63 * 8]), [0x1000, 1 << 63 | 1]);
        assert_eq!(at(&[0x1000, 0x1000 + 64 * 8]), [0x1000, 0x1000 + 64 * 8]);
        assert_eq!(at(&[0x1000, 0x1008, 0x1000 + 126 * 8]), [0x1000, 3, 1 << 63 | 1]);
        assert_eq!(at(&[0x1000, 0x1008, 0x1000 + 127 * 8]), [0x1000, 3, 0x1000 + 127 * 8]);
        assert_eq!(at(&[]), []);
    }

    #[test]
    fn places_at_odd_distances_are_told_one_by_one() {
        let places = [0x1000, 0x1008, 0x100c, 0x1014, 0x1018, u64::MAX - 1];
        let entries = encode(&places).unwrap();
        assert_eq!(entries, [0x1000, 3, 0x100c, 3, 0x1018, u64::MAX - 1]);
        assert_eq!(decode(&entries).unwrap(), places);
    }

    #[test]
    fn many_patterns_survive_both_ways() {
        let mut state = 1_u64;
        for density in [1, 2, 8, 60, 70, 1000] {
            let mut place = 0_u64;
            let places: Vec<u64> = (0..5000)
                .map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    place += 8 * (1 + (state >> 40) % density);
                    place
                })
                .collect();
            let entries = encode(&places).unwrap();
            assert!(entries.len() <= places.len());
            assert_eq!(decode(&entries).unwrap(), places);
        }
    }

    #[test]
    fn places_that_can_not_be_told_are_refused() {
        for places in [&[0x1001][..], &[0x1000, 0x1000], &[0x1008, 0x1000]] {
            assert!(matches!(encode(places), Err(FormatError::BadValue { .. })), "{places:?}");
        }
        assert_eq!(
            encode(&[8, 8]),
            Err(FormatError::BadValue { what: "place of relative relocation", value: 8, offset: 8 })
        );
        assert!(matches!(decode(&[3]), Err(FormatError::BadValue { .. })));
        assert_eq!(decode(&[u64::MAX - 1, u64::MAX]).unwrap().len(), 64);
    }
}
