//! Damaged copies of valid input, for the tests that demand "no panic on any input".

/// Calls `parse` with `valid` cut at every length, with every bit flipped, and with every byte set to the
/// values that most often break arithmetic. `parse` may return anything; it must return.
pub(crate) fn every_damage(valid: &[u8], mut parse: impl FnMut(&[u8])) {
    for len in 0..valid.len() {
        parse(&valid[..len]);
    }
    let mut bytes = valid.to_vec();
    for at in 0..bytes.len() {
        let before = bytes[at];
        for value in (0..8).map(|bit| before ^ (1 << bit)).chain([0, 1, 0x7f, 0x80, 0xff]) {
            bytes[at] = value;
            parse(&bytes);
        }
        bytes[at] = before;
    }
    // Whole fields of ones and zeroes reach what a single byte can't: offsets near the end of 64 bits.
    for width in [4, 8] {
        for at in (0..bytes.len().saturating_sub(width)).step_by(4) {
            for value in [0, 0x7f, 0x80, 0xff] {
                bytes[at..at + width].fill(value);
                parse(&bytes);
            }
            bytes[at..at + width].copy_from_slice(&valid[at..at + width]);
        }
    }
}
