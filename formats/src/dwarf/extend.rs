//! Contributions that are longer than what they hold: the hole behind a table becomes part of it.
//!
//! A filler of its own would not do. Two of `.debug_aranges` speak of one unit, and gdb then ignores the whole section. A
//! table of `.debug_addr` or `.debug_str_offsets` that no unit refers to makes readelf and eu-readelf lose their place,
//! since they look for the tables' headers in front of where units say that the entries begin.
//!
//! # Source
//! DWARF 5, "Lookup by Address" (6.1.2), "String Offsets Table" (7.26), "Address Table" (7.27).

use super::DebugSection;

/// Bytes of a range: address and length.
const RANGE: usize = 16;
/// Bytes of a set in front of the first range, padded to a multiple of its size.
const SET_HEADER: usize = 16;
/// Bytes of a table in front of its first entry.
const TABLE_HEADER: usize = 8;

/// Bytes of an entry of the sections that this is for; none for all others.
pub fn entry_bytes(section: DebugSection) -> Option<u64> {
    match section {
        DebugSection::Aranges => Some(RANGE as u64),
        DebugSection::Addr => Some(8),
        DebugSection::StrOffsets => Some(4),
        _ => None,
    }
}

/// Makes the last table of a contribution as long as its slot, by entries that nothing refers to: empty ranges (1, 0) in
/// front of the end of a set, zeros behind addresses and offsets.
///
/// * `slot`: the contribution and the hole behind it.
/// * `len`: bytes of the contribution.
///
/// `false`, and nothing is written, if the section has no such tables, the hole is no multiple of an entry, or the
/// contribution does not end with a table of 32-bit DWARF for addresses of 8 bytes.
pub fn extend(section: DebugSection, slot: &mut [u8], len: usize) -> bool {
    let Some(entry) = entry_bytes(section) else { return false };
    let end = slot.len();
    if len > end || !((end - len) as u64).is_multiple_of(entry) {
        return false;
    }
    let Some(start) = last_table(slot, len) else { return false };
    let Some(size) = word(slot, start).and_then(|size| size.checked_add(u32::try_from(end - len).ok()?))
    else {
        return false;
    };
    let header = &slot[start..len];
    let sound = match section {
        // Version 2, addresses of 8 bytes, no segments, closed by an empty pair.
        DebugSection::Aranges => {
            header.get(4..6) == Some(&[2, 0])
                && header.get(10..12) == Some(&[8, 0])
                && header.len() >= SET_HEADER + RANGE
                && header.len().is_multiple_of(RANGE)
                && header[header.len() - RANGE..].iter().all(|&byte| byte == 0)
        }
        DebugSection::Addr => header.get(4..TABLE_HEADER) == Some(&[5, 0, 8, 0]),
        _ => header.get(4..TABLE_HEADER) == Some(&[5, 0, 0, 0]),
    };
    if !sound {
        return false;
    }
    slot[start..start + 4].copy_from_slice(&size.to_le_bytes());
    slot[len..].fill(0);
    if section == DebugSection::Aranges {
        for range in slot[len - RANGE..end - RANGE].chunks_exact_mut(RANGE) {
            range[0] = 1;
        }
    }
    true
}

/// Where the last table of a contribution starts; `None` if it can't be walked to its end.
fn last_table(bytes: &[u8], len: usize) -> Option<usize> {
    let (mut at, mut last) = (0, None);
    while at < len {
        last = Some(at);
        at = at.checked_add(word(bytes, at)? as usize)?.checked_add(4)?;
    }
    last.filter(|_| at == len)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{DebugSection, extend};

    fn set(ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        for &(start, len) in ranges.iter().chain(&[(0, 0)]) {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        let mut set = (bytes.len() as u32).to_le_bytes().to_vec();
        set.extend(bytes);
        set
    }

    #[test]
    fn the_last_set_takes_the_hole_in() {
        let body = [set(&[(0x1000, 8)]), set(&[(0x2000, 4)])].concat();
        let mut slot = [&body[..], &[0xaa; 48]].concat();
        assert!(extend(DebugSection::Aranges, &mut slot, body.len()));
        assert_eq!(slot, [set(&[(0x1000, 8)]), set(&[(0x2000, 4), (1, 0), (1, 0), (1, 0)])].concat());
        let mut exact = body.clone();
        assert!(extend(DebugSection::Aranges, &mut exact, body.len()));
        assert_eq!(exact, body);
    }

    #[test]
    fn what_is_no_set_stays_as_it_is() {
        let body = set(&[(0x1000, 8)]);
        for (slot, len) in [
            ([&body[..], &[0xaa; 8]].concat(), body.len()),
            ([&body[..], &[0xaa; 16]].concat(), body.len() - 16),
            (vec![0xff; 64], 48),
            (vec![0; 3], 3),
            (body.clone(), 200),
        ] {
            let mut bytes = slot.clone();
            assert!(!extend(DebugSection::Aranges, &mut bytes, len));
            assert_eq!(bytes, slot);
        }
    }

    #[test]
    fn tables_of_entries_take_the_hole_in() {
        let table = |version: u8, size: u8, entries: &[u8]| {
            let mut bytes = vec![4 + entries.len() as u8, 0, 0, 0, version, 0, size, 0];
            bytes.extend_from_slice(entries);
            bytes
        };
        for (section, size) in [(DebugSection::Addr, 8), (DebugSection::StrOffsets, 0)] {
            let body = [table(5, size, &[1; 16]), table(5, size, &[2; 8])].concat();
            let mut slot = [&body[..], &[0xaa; 16]].concat();
            assert!(extend(section, &mut slot, body.len()));
            let longer = [[2; 8], [0; 8], [0; 8]].concat();
            assert_eq!(slot, [table(5, size, &[1; 16]), table(5, size, &longer)].concat());
            for (slot, len) in [
                // No multiple of an entry; what older compilers made; what is not walked to its end.
                ([&body[..], &[0xaa; 6]].concat(), body.len()),
                (table(4, size, &[0; 16]), 16),
                ([&body[..], &[0xaa; 16]].concat(), body.len() - 8),
                (vec![0xff; 32], 16),
            ] {
                let mut bytes = slot.clone();
                assert!(!extend(section, &mut bytes, len));
                assert_eq!(bytes, slot);
            }
        }
        assert!(!extend(DebugSection::Info, &mut [0; 32], 16));
    }
}
