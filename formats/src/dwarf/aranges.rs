//! Sets of `.debug_aranges` that are longer than their ranges: a hole behind a set becomes part of it.
//!
//! A filler of its own would not do: two of them speak of one unit, and gdb then ignores the whole section.
//!
//! # Source
//! DWARF 5, "Lookup by Address" (6.1.2).

/// Bytes of a range: address and length.
const TUPLE: usize = 16;
/// Bytes in front of the first one, padded to a multiple of its size.
const HEADER: usize = 16;

/// Makes the last set of a contribution as long as its slot: empty ranges (1, 0) stand in front of its end.
///
/// * `slot`: the contribution and the hole behind it.
/// * `len`: bytes of the contribution.
///
/// `false`, and nothing is written, if the hole is no multiple of 16 or the contribution does not end with a set of
/// 64-bit ranges.
pub fn extend_set(slot: &mut [u8], len: usize) -> bool {
    let end = slot.len();
    if len > end || !(end - len).is_multiple_of(TUPLE) {
        return false;
    }
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    let (mut at, mut last) = (0, None);
    while at < len {
        let Some(next) = word(slot, at).and_then(|size| at.checked_add(size as usize)?.checked_add(4)) else {
            return false;
        };
        last = Some(at);
        at = next;
    }
    let Some(start) = last.filter(|_| at == len) else { return false };
    // Version 2, addresses of 8 bytes, no segments.
    let plain =
        slot.get(start + 4..start + 6) == Some(&[2, 0]) && slot.get(start + 10..start + 12) == Some(&[8, 0]);
    let whole = len - start >= HEADER + TUPLE && (len - start).is_multiple_of(TUPLE);
    let closed = whole && slot[len - TUPLE..len].iter().all(|&byte| byte == 0);
    let size = word(slot, start).and_then(|size| size.checked_add(u32::try_from(end - len).ok()?));
    let Some(size) = size.filter(|_| plain && closed) else { return false };
    slot[start..start + 4].copy_from_slice(&size.to_le_bytes());
    for tuple in slot[len - TUPLE..end].chunks_exact_mut(TUPLE) {
        tuple.fill(0);
        tuple[0] = 1;
    }
    slot[end - TUPLE..].fill(0);
    true
}

#[cfg(test)]
mod tests {
    use super::extend_set;

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
        assert!(extend_set(&mut slot, body.len()));
        assert_eq!(slot, [set(&[(0x1000, 8)]), set(&[(0x2000, 4), (1, 0), (1, 0), (1, 0)])].concat());
        let mut exact = body.clone();
        assert!(extend_set(&mut exact, body.len()));
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
            assert!(!extend_set(&mut bytes, len));
            assert_eq!(bytes, slot);
        }
    }
}
