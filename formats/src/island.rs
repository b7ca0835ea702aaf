//! Islands: what is left in the slot of a function that moved.
//!
//! A direct call keeps its bytes and lands on the island, which jumps on. The target address of an island
//! matters to no one: address-significant references go to the new body.
//!
//! # Source
//! Intel SDM, `JMP rel32` (`E9`) and `ENDBR64` (`F3 0F 1E FA`).

use crate::reloc::Op;
use crate::reloc::RelocError;
use crate::reloc::Values;
use crate::reloc::apply;

/// The smallest slot of a code atom. Units: bytes. The longest island has 9, and code is aligned to 16
/// anyway.
pub const MIN_SLOT: u64 = 16;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `E9 rel32`.
const JMP_LEN: usize = 5;
const _: () = assert!(MIN_SLOT as usize >= ENDBR64.len() + JMP_LEN);

/// Length of the island that replaces a body starting with `old_entry`. Units: bytes; 5, or 9 behind a
/// landing pad.
pub fn len(old_entry: &[u8]) -> usize {
    if old_entry.starts_with(&ENDBR64) { ENDBR64.len() + JMP_LEN } else { JMP_LEN }
}

/// The island at `island_addr` that continues at `target`.
///
/// A landing pad is kept, because indirect calls that were already prepared (a pointer in a register of a
/// running process) may still arrive. The direct jump needs none at the target.
///
/// * `old_entry`   first bytes of the old body, at least 4 if it has them.
/// * `island_addr` address of the first island byte, the address of the old body.
/// * `target`      address of the new body.
///
/// Result: shape `[u8; len(old_entry)]`.
///
/// # Errors
/// [`RelocError::OutOfRange`] if `target` is 2 GiB or more away.
pub fn island(old_entry: &[u8], island_addr: u64, target: u64) -> Result<Vec<u8>, RelocError> {
    let mut code = Vec::with_capacity(MIN_SLOT as usize);
    if old_entry.starts_with(&ENDBR64) {
        code.extend(ENDBR64);
    }
    code.push(0xe9);
    let field_address = island_addr.wrapping_add(code.len() as u64);
    let mut field = [0; 4];
    apply(Op::Branch32, &mut field, &Values { s: target, a: -4, p: field_address, ..Values::default() })?;
    code.extend(field);
    Ok(code)
}

/// Fills a code hole with `int3`: falling into it traps instead of running what was there.
pub fn fill(hole: &mut [u8]) {
    hole.fill(0xcc);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn island_jumps_to_the_target() {
        let code = island(&[0x55, 0x48, 0x89, 0xe5], 0x40_1000, 0x40_2000).unwrap();
        assert_eq!(code, [0xe9, 0xfb, 0x0f, 0, 0]);
        assert_eq!(code.len(), len(&[0x55, 0x48, 0x89, 0xe5]));
        let back = island(&[], 0x40_2000, 0x40_1000).unwrap();
        assert_eq!(back, [0xe9, 0xfb, 0xef, 0xff, 0xff]);
    }

    #[test]
    fn landing_pad_is_kept() {
        let entry = [0xf3, 0x0f, 0x1e, 0xfa, 0xc3];
        let code = island(&entry, 0x40_1000, 0x40_2000).unwrap();
        assert_eq!(code, [0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0xf7, 0x0f, 0, 0]);
        assert_eq!(code.len(), len(&entry));
        // A cut landing pad is none.
        assert_eq!(len(&entry[..3]), 5);
    }

    #[test]
    fn island_out_of_reach_is_refused() {
        assert!(island(&[], 0, 0x7fff_ffff + 5).is_ok());
        assert!(matches!(island(&[], 0, 0x8000_0000 + 5), Err(RelocError::OutOfRange { .. })));
        assert!(island(&[], 0x8000_0000, 5).is_ok());
        assert!(matches!(island(&[], 0x8000_0000, 4), Err(RelocError::OutOfRange { .. })));
        assert!(island(&[], u64::MAX, 0).is_ok());
    }

    #[test]
    fn holes_trap() {
        let mut hole = [0; 3];
        fill(&mut hole);
        assert_eq!(hole, [0xcc; 3]);
    }
}
