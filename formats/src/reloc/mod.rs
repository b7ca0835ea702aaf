//! Relocation arithmetic: what is computed, how wide the field is, which values fit.
//!
//! A relocation goes through three steps, all pure:
//! 1. [`plan`] looks at the kind and the instruction bytes, picks the relaxation and answers with a [`Plan`];
//! 2. [`rewrite`] patches the opcode bytes around the field (only if the plan relaxes);
//! 3. [`apply`] computes the value from addresses and stores it, range-checked.
//!
//! Steps 1 and 2 look at pristine input bytes, never at output bytes: a target that stops being relaxable
//! must get its original instruction back.

pub mod x86_64;

pub use x86_64::Rewrite;
pub use x86_64::kind_name;
pub use x86_64::plan;
pub use x86_64::rewrite;
pub use x86_64::touched;

/// The operation as applied, after relaxation.
///
/// `S` target address, `A` addend, `P` address of the field, `GOT` base of the global offset table, `slot`
/// address of the target's GOT entry, `TP` thread pointer, `Z` size of the target. A number at the end is the
/// width of the field in bits.
///
/// # Invariants
/// * OP-1: stored as `u8` in state columns, so a discriminant never changes and is never reused
///   (`tests::op_numbers_are_fixed`).
///
/// # Source
/// System V ABI, AMD64 supplement, "Relocation Types".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Op {
    /// Nothing to store; the instruction bytes may still be rewritten.
    #[default]
    None = 0,
    /// `S + A`.
    Abs64 = 1,
    /// `S + A`, zero-extended by the instruction.
    Abs32 = 2,
    /// `S + A`, sign-extended by the instruction.
    Abs32S = 3,
    /// `S + A`, signed or unsigned.
    Abs16 = 4,
    /// `S + A`, signed or unsigned.
    Abs8 = 5,
    /// `S + A - P`.
    Pc64 = 6,
    /// `S + A - P`; the address of the target matters.
    Pc32 = 7,
    /// `S + A - P`.
    Pc16 = 8,
    /// `S + A - P`.
    Pc8 = 9,
    /// `S + A - P` in a direct call or jump: an island in place of the target serves as well.
    Branch32 = 10,
    /// `slot + A - P`.
    GotSlotPc32 = 11,
    /// `slot + A - P`.
    GotSlotPc64 = 12,
    /// `slot + A - GOT`.
    GotSlotOffset32 = 13,
    /// `slot + A - GOT`.
    GotSlotOffset64 = 14,
    /// `GOT + A - P`.
    GotBasePc32 = 15,
    /// `GOT + A - P`.
    GotBasePc64 = 16,
    /// `S + A - GOT`.
    GotBaseOffset64 = 17,
    /// `Z + A`.
    Size32 = 18,
    /// `Z + A`.
    Size64 = 19,
    /// `S + A - TP`, negative on x86-64.
    TpOff32 = 20,
    /// `S + A - TP`, negative on x86-64.
    TpOff64 = 21,
    /// `S + A - start of the TLS block`.
    DtpOff32 = 22,
    /// `S + A - start of the TLS block`.
    DtpOff64 = 23,
    /// `pair + A - P`: the GOT pair of module and offset of one thread-local symbol.
    TlsPairPc32 = 24,
    /// `descriptor + A - P`: the GOT pair that is a TLS descriptor.
    TlsDescriptorPc32 = 25,
    /// `pair + A - P`: the GOT pair of this module and offset 0.
    TlsModulePc32 = 26,
}

/// All operations; the index is the discriminant.
const OPS: [Op; 27] = [
    Op::None,
    Op::Abs64,
    Op::Abs32,
    Op::Abs32S,
    Op::Abs16,
    Op::Abs8,
    Op::Pc64,
    Op::Pc32,
    Op::Pc16,
    Op::Pc8,
    Op::Branch32,
    Op::GotSlotPc32,
    Op::GotSlotPc64,
    Op::GotSlotOffset32,
    Op::GotSlotOffset64,
    Op::GotBasePc32,
    Op::GotBasePc64,
    Op::GotBaseOffset64,
    Op::Size32,
    Op::Size64,
    Op::TpOff32,
    Op::TpOff64,
    Op::DtpOff32,
    Op::DtpOff64,
    Op::TlsPairPc32,
    Op::TlsDescriptorPc32,
    Op::TlsModulePc32,
];

impl Op {
    /// The operation stored as `number`, or `None` if there is none (a damaged state column).
    pub fn from_u8(number: u8) -> Option<Op> {
        OPS.get(usize::from(number)).copied()
    }

    /// Width of the field. Units: bytes; 0 for [`Op::None`].
    pub fn width(self) -> usize {
        match self {
            Op::None => 0,
            Op::Abs8 | Op::Pc8 => 1,
            Op::Abs16 | Op::Pc16 => 2,
            Op::Abs32
            | Op::Abs32S
            | Op::Pc32
            | Op::Branch32
            | Op::GotSlotPc32
            | Op::GotSlotOffset32
            | Op::GotBasePc32
            | Op::Size32
            | Op::TpOff32
            | Op::DtpOff32
            | Op::TlsPairPc32
            | Op::TlsDescriptorPc32
            | Op::TlsModulePc32 => 4,
            Op::Abs64
            | Op::Pc64
            | Op::GotSlotPc64
            | Op::GotSlotOffset64
            | Op::GotBasePc64
            | Op::GotBaseOffset64
            | Op::Size64
            | Op::TpOff64
            | Op::DtpOff64 => 8,
        }
    }

    /// Whether the field is the displacement of a direct call or jump, which an island may serve.
    pub fn is_branch(self) -> bool {
        self == Op::Branch32
    }

    /// Whether the value depends on the target's GOT entry instead of its address.
    pub fn needs_got_slot(self) -> bool {
        matches!(self, Op::GotSlotPc32 | Op::GotSlotPc64 | Op::GotSlotOffset32 | Op::GotSlotOffset64)
    }

    /// Whether the value depends on where the field is.
    pub fn is_pc_relative(self) -> bool {
        matches!(
            self,
            Op::Pc64
                | Op::Pc32
                | Op::Pc16
                | Op::Pc8
                | Op::Branch32
                | Op::GotSlotPc32
                | Op::GotSlotPc64
                | Op::GotBasePc32
                | Op::GotBasePc64
                | Op::TlsPairPc32
                | Op::TlsDescriptorPc32
                | Op::TlsModulePc32
        )
    }

    /// The name of the variant, for messages and dumps.
    pub fn name(self) -> &'static str {
        match self {
            Op::None => "None",
            Op::Abs64 => "Abs64",
            Op::Abs32 => "Abs32",
            Op::Abs32S => "Abs32S",
            Op::Abs16 => "Abs16",
            Op::Abs8 => "Abs8",
            Op::Pc64 => "Pc64",
            Op::Pc32 => "Pc32",
            Op::Pc16 => "Pc16",
            Op::Pc8 => "Pc8",
            Op::Branch32 => "Branch32",
            Op::GotSlotPc32 => "GotSlotPc32",
            Op::GotSlotPc64 => "GotSlotPc64",
            Op::GotSlotOffset32 => "GotSlotOffset32",
            Op::GotSlotOffset64 => "GotSlotOffset64",
            Op::GotBasePc32 => "GotBasePc32",
            Op::GotBasePc64 => "GotBasePc64",
            Op::GotBaseOffset64 => "GotBaseOffset64",
            Op::Size32 => "Size32",
            Op::Size64 => "Size64",
            Op::TpOff32 => "TpOff32",
            Op::TpOff64 => "TpOff64",
            Op::DtpOff32 => "DtpOff32",
            Op::DtpOff64 => "DtpOff64",
            Op::TlsPairPc32 => "TlsPairPc32",
            Op::TlsDescriptorPc32 => "TlsDescriptorPc32",
            Op::TlsModulePc32 => "TlsModulePc32",
        }
    }

    /// Smallest and largest value that the field can hold, both inclusive.
    ///
    /// psABI: the linker must verify that `R_X86_64_32` zero-extends and `32S` sign-extends to the 64-bit
    /// value. 8 and 16 bit absolute fields accept either reading, as bfd and lld do. 64-bit fields wrap.
    pub fn range(self) -> (i64, i64) {
        match self {
            Op::Abs32 | Op::Size32 => (0, u32::MAX as i64),
            Op::Abs16 => (i16::MIN as i64, u16::MAX as i64),
            Op::Abs8 => (i8::MIN as i64, u8::MAX as i64),
            Op::Pc16 => (i16::MIN as i64, i16::MAX as i64),
            Op::Pc8 => (i8::MIN as i64, i8::MAX as i64),
            _ if self.width() == 4 => (i32::MIN as i64, i32::MAX as i64),
            _ => (i64::MIN, i64::MAX),
        }
    }
}

/// What [`plan`] must know of the link, the target and the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The image may be loaded anywhere.
    pub position_independent: bool,
    /// The image is a shared library: its thread-local block has no fixed distance from the thread pointer.
    pub shared: bool,
    /// The target may be defined by another module at load time, so nothing about it is known now.
    pub preemptible: bool,
    /// The target's address is a link-time constant relative to the image: defined here, not preemptible, not
    /// absolute, not undefined-weak in position-independent code. TLS kinds look at `shared` and `preemptible`.
    pub relaxable: bool,
    /// The site's section is `SHF_EXECINSTR`.
    pub code: bool,
    /// The site's section is `SHF_ALLOC`.
    pub alloc: bool,
}

/// How one relocation is to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is stored.
    pub op: Op,
    /// Where the field is. Units: bytes from the start of the section. A relaxation may move it away from the
    /// relocation's own offset.
    pub offset: u64,
    /// `A` of `op`; a relaxation from PC-relative to absolute takes the bias of -4 out.
    pub addend: i64,
    /// What happens to the bytes around the field.
    pub rewrite: Rewrite,
    /// The next relocation belongs to this sequence (`call __tls_get_addr`) and must not be applied.
    pub skip_next: bool,
}

/// The addresses that an operation is computed from. Units: virtual addresses in bytes, but for `a` and
/// `size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `S`: address of the target.
    pub s: u64,
    /// `A`: the addend of the plan.
    pub a: i64,
    /// `P`: address of the first byte of the field.
    pub p: u64,
    /// Address of the target's GOT entry.
    pub got_slot: u64,
    /// Address of the target's GOT pair of module and offset.
    pub tls_pair: u64,
    /// Address of the target's TLS descriptor.
    pub tls_descriptor: u64,
    /// Address of the GOT pair of this module.
    pub tls_module: u64,
    /// Address of the global offset table.
    pub got_base: u64,
    /// Thread pointer: the aligned end of the TLS block.
    pub tp: u64,
    /// Start of the TLS block.
    pub tls_start: u64,
    /// `Z`: `st_size` of the target.
    pub size: u64,
}

/// Why a relocation can't be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocError {
    /// The value does not fit the field, which is unchanged.
    #[error("value out of range: {value} is not in [{min}, {max}]")]
    OutOfRange {
        /// The operation.
        op: Op,
        /// What was computed.
        value: i64,
        /// Smallest value that fits.
        min: i64,
        /// Largest value that fits.
        max: i64,
    },
    /// A kind that this linker does not know.
    #[error("unknown relocation ({kind})")]
    Unknown {
        /// The number from the object file.
        kind: u32,
    },
    /// The kind does not belong in a relocatable object, or the code around it is not the sequence it
    /// promises.
    #[error("{} {why}", kind_name(*kind))]
    Malformed {
        /// The number from the object file.
        kind: u32,
        /// What is wrong, to be read after the name of the kind.
        why: &'static str,
    },
    /// The target is a place that a mergeable section does not have, so that no piece is meant.
    #[error("offset {offset} is outside of the {len} bytes of that mergeable section")]
    TargetOutside {
        /// What was asked for, from the start of the section; negative in front of it.
        offset: i64,
        /// Bytes that the section has.
        len: u64,
    },
    /// The field is too narrow for an address that is known only at load time.
    #[error("relocation {} cannot be used in position-independent output; recompile with -fPIC", kind_name(*kind))]
    NotPositionIndependent {
        /// The number from the object file.
        kind: u32,
    },
    /// The field, or an instruction byte that must change, is outside of the section.
    #[error("relocation of {width} bytes at offset {offset:#x} is outside of the {len} bytes of its section")]
    FieldOutside {
        /// First byte needed, from the start of the section.
        offset: u64,
        /// Bytes needed.
        width: u64,
        /// Bytes there are.
        len: u64,
    },
}

/// The value of `op`, not yet checked against the width of its field. Addresses wrap as they do in hardware.
pub fn compute(op: Op, v: &Values) -> i64 {
    let (plus, minus) = match op {
        Op::None => return 0,
        Op::Abs64 | Op::Abs32 | Op::Abs32S | Op::Abs16 | Op::Abs8 => (v.s, 0),
        Op::Pc64 | Op::Pc32 | Op::Pc16 | Op::Pc8 | Op::Branch32 => (v.s, v.p),
        Op::GotSlotPc32 | Op::GotSlotPc64 => (v.got_slot, v.p),
        Op::GotSlotOffset32 | Op::GotSlotOffset64 => (v.got_slot, v.got_base),
        Op::GotBasePc32 | Op::GotBasePc64 => (v.got_base, v.p),
        Op::GotBaseOffset64 => (v.s, v.got_base),
        Op::Size32 | Op::Size64 => (v.size, 0),
        Op::TpOff32 | Op::TpOff64 => (v.s, v.tp),
        Op::DtpOff32 | Op::DtpOff64 => (v.s, v.tls_start),
        Op::TlsPairPc32 => (v.tls_pair, v.p),
        Op::TlsDescriptorPc32 => (v.tls_descriptor, v.p),
        Op::TlsModulePc32 => (v.tls_module, v.p),
    };
    plus.wrapping_add_signed(v.a).wrapping_sub(minus) as i64
}

/// Computes `op` and stores it little-endian at the start of `field`.
///
/// * `field`  shape `[u8; op.width()]` or longer; bytes beyond the width keep their value.
///
/// # Errors
/// [`RelocError::OutOfRange`] if the value does not fit, [`RelocError::FieldOutside`] if `field` is too
/// short. `field` is then unchanged.
///
/// # Examples
/// ```
/// use relink_formats::reloc::{Op, Values, apply};
/// let mut field = [0; 4];
/// apply(Op::Pc32, &mut field, &Values { s: 0x2000, a: -4, p: 0x1001, ..Values::default() }).unwrap();
/// assert_eq!(field, 0x0ffb_i32.to_le_bytes());
/// ```
pub fn apply(op: Op, field: &mut [u8], v: &Values) -> Result<(), RelocError> {
    let value = compute(op, v);
    let (min, max) = op.range();
    if value < min || value > max {
        return Err(RelocError::OutOfRange { op, value, min, max });
    }
    let width = op.width();
    let len = field.len() as u64;
    let outside = RelocError::FieldOutside { offset: 0, width: width as u64, len };
    let field = field.get_mut(..width).ok_or(outside)?;
    for (byte, new) in field.iter_mut().zip(value.to_le_bytes()) {
        *byte = new;
    }
    Ok(())
}

/// Decodes the value that [`apply`] stored: `read(op, field) == compute(op, v)` after a successful `apply`,
/// but for 8 and 16 bit absolute fields, which are read unsigned.
///
/// `None` if `field` is too short or `op` stores nothing.
pub fn read(op: Op, field: &[u8]) -> Option<i64> {
    let signed = op.range().0 < 0 && !matches!(op, Op::Abs16 | Op::Abs8);
    match (op.width(), signed) {
        (1, true) => field.first().map(|byte| *byte as i8 as i64),
        (1, false) => field.first().map(|byte| *byte as i64),
        (2, true) => field.first_chunk().map(|bytes| i16::from_le_bytes(*bytes) as i64),
        (2, false) => field.first_chunk().map(|bytes| u16::from_le_bytes(*bytes) as i64),
        (4, true) => field.first_chunk().map(|bytes| i32::from_le_bytes(*bytes) as i64),
        (4, false) => field.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as i64),
        (8, _) => field.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_numbers_are_fixed() {
        for (number, op) in OPS.iter().enumerate() {
            assert_eq!(*op as usize, number);
            assert_eq!(Op::from_u8(number as u8), Some(*op));
        }
        assert_eq!(Op::from_u8(OPS.len() as u8), None);
        assert_eq!((Op::Branch32 as u8, Op::GotSlotPc32 as u8, Op::TpOff32 as u8), (10, 11, 20));
        assert_eq!((Op::Abs16 as u8, Op::GotBasePc32 as u8, Op::DtpOff64 as u8), (4, 15, 23));
    }

    /// Values for which `compute(op)` is `wanted`.
    fn values_for(op: Op, wanted: i64) -> Values {
        let base = Values {
            s: 0x40_1000,
            p: 0x40_2003,
            got_slot: 0x40_3008,
            got_base: 0x40_3000,
            tp: 0x40_5040,
            tls_start: 0x40_5000,
            tls_pair: 0x40_3010,
            tls_descriptor: 0x40_3020,
            tls_module: 0x40_3030,
            size: 24,
            a: 0,
        };
        Values { a: wanted.wrapping_sub(compute(op, &base)), ..base }
    }

    #[test]
    fn every_op_stores_its_limits_and_refuses_one_beyond() {
        for op in OPS.iter().copied().filter(|op| op.width() > 0) {
            let (min, max) = op.range();
            for value in [min, min + 1, 0, 1, max - 1, max] {
                let mut field = [0xaa; 9];
                apply(op, &mut field, &values_for(op, value)).unwrap();
                let bytes = &field[..op.width()];
                assert_eq!(bytes, &value.to_le_bytes()[..op.width()], "{}", op.name());
                assert_eq!(field[op.width()], 0xaa, "{} wrote past its field", op.name());
                let narrow_negative = matches!(op, Op::Abs8 | Op::Abs16) && value < 0;
                if !narrow_negative {
                    assert_eq!(read(op, bytes), Some(value), "{}", op.name());
                }
            }
            if op.width() < 8 {
                for value in [min - 1, max + 1] {
                    let mut field = [0xaa; 8];
                    let error = apply(op, &mut field, &values_for(op, value)).unwrap_err();
                    assert_eq!(error, RelocError::OutOfRange { op, value, min, max });
                    assert_eq!(field, [0xaa; 8], "{} wrote a value out of range", op.name());
                }
            }
            let mut short = vec![0; op.width() - 1];
            assert!(matches!(
                apply(op, &mut short, &values_for(op, 0)),
                Err(RelocError::FieldOutside { .. })
            ));
            assert_eq!(read(op, &short), None);
        }
        assert_eq!(apply(Op::None, &mut [], &Values::default()), Ok(()));
        assert_eq!(read(Op::None, &[0; 8]), None);
    }

    #[test]
    fn limits_are_those_of_the_psabi() {
        assert_eq!(Op::Abs32.range(), (0, 0xffff_ffff));
        assert_eq!(Op::Abs32S.range(), (-0x8000_0000, 0x7fff_ffff));
        assert_eq!(Op::Pc32.range(), (-0x8000_0000, 0x7fff_ffff));
        assert_eq!(Op::Abs16.range(), (-0x8000, 0xffff));
        assert_eq!(Op::Abs8.range(), (-0x80, 0xff));
        assert_eq!(Op::Pc8.range(), (-0x80, 0x7f));
        assert_eq!(Op::TpOff32.range(), (-0x8000_0000, 0x7fff_ffff));
    }

    #[test]
    fn formulas_use_the_addresses_they_name() {
        let v = Values {
            s: 0x1000_0000,
            a: 3,
            p: 0x200_0000,
            got_slot: 0x30_0008,
            got_base: 0x30_0000,
            tp: 0x1000_0040,
            tls_start: 0xfff_fff0,
            size: 0x50,
            ..Values::default()
        };
        assert_eq!(compute(Op::Abs64, &v), 0x1000_0003);
        assert_eq!(compute(Op::Pc32, &v), 0xe00_0003);
        assert_eq!(compute(Op::GotSlotPc32, &v), 0x30_000b - 0x200_0000);
        assert_eq!(compute(Op::GotSlotOffset32, &v), 0xb);
        assert_eq!(compute(Op::GotBasePc64, &v), 0x30_0003 - 0x200_0000);
        assert_eq!(compute(Op::GotBaseOffset64, &v), 0x1000_0003 - 0x30_0000);
        assert_eq!(compute(Op::Size32, &v), 0x53);
        assert_eq!(compute(Op::TpOff32, &v), -0x3d);
        assert_eq!(compute(Op::DtpOff32, &v), 0x13);
        assert_eq!(compute(Op::None, &v), 0);
    }

    #[test]
    fn arithmetic_wraps_instead_of_panicking() {
        let ends = [0, 1, u64::MAX, i64::MAX as u64, 1 << 63];
        for op in OPS {
            for s in ends {
                for p in ends {
                    for a in [i64::MIN, -1, 0, i64::MAX] {
                        let v = Values {
                            s,
                            a,
                            p,
                            got_slot: s,
                            got_base: p,
                            tp: p,
                            tls_start: p,
                            size: s,
                            ..Values::default()
                        };
                        let mut field = [0; 8];
                        let _ = apply(op, &mut field, &v);
                    }
                }
            }
        }
    }
}
