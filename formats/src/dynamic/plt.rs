//! Procedure linkage table: stubs that jump through a slot of the GOT, and their unwinding.
//!
//! * A lazy `.plt` is a [`lazy_header`] and a [`lazy_entry`] for each function. Its slots, in `.got.plt`, lead
//!   back [into the entry](LAZY_RESUME) until the loader has bound them.
//! * With IBT it is a [`lazy_header`] and [`ibt_lazy_entry`]s, where the slots lead at first; calls go to the
//!   [`ibt_entry`]s of `.plt.sec`.
//! * What is bound at load has an [`entry`], or an [`ibt_entry`], and its slot in `.got`.
//!
//! Every entry has [`ENTRY_LEN`] bytes, so the address of an entry follows from its number.
//!
//! # Source
//! System V ABI, AMD64 supplement, "Procedure Linkage Table"; "Intel CET" of the Linux extensions for
//! `.plt.sec`.

use crate::reloc::Op;
use crate::reloc::RelocError;
use crate::reloc::Values;
use crate::reloc::apply;

/// Size and alignment of a header and of any entry. Units: bytes.
pub const ENTRY_LEN: u64 = 16;
/// Where in a [`lazy_entry`] the unresolved slot leads: to the push behind the jump. Units: bytes. For an
/// [`ibt_lazy_entry`] it is 0, for the landing pad must be met.
pub const LAZY_RESUME: u64 = 6;
/// Slots at the start of `.got.plt` that belong to the loader: address of `.dynamic`, link map, resolver.
pub const RESERVED_SLOTS: u64 = 3;

/// The start of a lazy `.plt`, where unresolved entries go: pushes the link map, jumps to the resolver.
///
/// * `at`      address of the header.
/// * `got_plt` address of `.got.plt`, whose second and third slot the loader fills.
///
/// # Errors
/// `OutOfRange` if `.got.plt` is 2 GiB away.
pub fn lazy_header(at: u64, got_plt: u64) -> Result<[u8; 16], RelocError> {
    // push link_map(%rip); jmp *resolver(%rip); nopl 0(%rax)
    let mut code = [0xff, 0x35, 0, 0, 0, 0, 0xff, 0x25, 0, 0, 0, 0, 0x0f, 0x1f, 0x40, 0x00];
    set_distance(&mut code, 2, at, got_plt.wrapping_add(8))?;
    set_distance(&mut code, 8, at, got_plt.wrapping_add(16))?;
    Ok(code)
}

/// An entry of a lazy `.plt`: jumps through its slot, which at first leads to the instruction behind the
/// jump.
///
/// * `at`     address of the entry.
/// * `slot`   address of its slot in `.got.plt`; the slot is to hold `at + LAZY_RESUME`.
/// * `index`  number of its relocation in `.rela.plt`.
/// * `header` address of the [`lazy_header`].
///
/// # Errors
/// `OutOfRange` if slot or header are 2 GiB away.
pub fn lazy_entry(at: u64, slot: u64, index: u32, header: u64) -> Result<[u8; 16], RelocError> {
    // jmp *slot(%rip); push $index; jmp header
    let mut code = [0xff, 0x25, 0, 0, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
    set_distance(&mut code, 2, at, slot)?;
    set_index(&mut code, 7, index);
    set_distance(&mut code, 12, at, header)?;
    Ok(code)
}

/// The lazy half of an entry under IBT: only reached through the slot, hence the landing pad.
///
/// * `at`     address of the entry; the slot is to hold it.
/// * `index`  number of its relocation in `.rela.plt`.
/// * `header` address of the [`lazy_header`].
///
/// # Errors
/// `OutOfRange` if the header is 2 GiB away.
pub fn ibt_lazy_entry(at: u64, index: u32, header: u64) -> Result<[u8; 16], RelocError> {
    // endbr64; push $index; jmp header; xchg %ax,%ax
    let mut code = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0, 0x66, 0x90];
    set_index(&mut code, 5, index);
    set_distance(&mut code, 10, at, header)?;
    Ok(code)
}

/// An entry that functions are called at under IBT (`.plt.sec`, and `.plt.got`): its address may be taken, so
/// it begins with a landing pad.
///
/// * `at`   address of the entry.
/// * `slot` address of its slot.
///
/// # Errors
/// `OutOfRange` if the slot is 2 GiB away.
pub fn ibt_entry(at: u64, slot: u64) -> Result<[u8; 16], RelocError> {
    // endbr64; jmp *slot(%rip); nopw 0(%rax,%rax,1)
    let mut code = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0, 0, 0, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];
    set_distance(&mut code, 6, at, slot)?;
    Ok(code)
}

/// An entry whose slot is filled before it can be called (`.plt.got`, IFUNC).
///
/// * `at`   address of the entry.
/// * `slot` address of its slot.
///
/// # Errors
/// `OutOfRange` if the slot is 2 GiB away.
pub fn entry(at: u64, slot: u64) -> Result<[u8; 16], RelocError> {
    // jmp *slot(%rip); cs nopw 0(%rax,%rax,1)
    let mut code = [0xff, 0x25, 0, 0, 0, 0, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00];
    set_distance(&mut code, 2, at, slot)?;
    Ok(code)
}

/// Stores the distance to `target` from the end of the 32-bit field at `offset`, which ends its instruction.
fn set_distance(code: &mut [u8; 16], offset: usize, at: u64, target: u64) -> Result<(), RelocError> {
    let values = Values { s: target, a: -4, p: at.wrapping_add(offset as u64), ..Values::default() };
    apply(Op::Pc32, code.get_mut(offset..).unwrap_or_default(), &values)
}

fn set_index(code: &mut [u8; 16], offset: usize, index: u32) {
    for (byte, new) in code.iter_mut().skip(offset).zip(index.to_le_bytes()) {
        *byte = new;
    }
}

/// Length of [`CIE`]. Units: bytes.
pub const CIE_LEN: usize = 24;
/// Length of a [`lazy_fde`]. Units: bytes.
pub const LAZY_FDE_LEN: usize = 40;
/// Length of an [`entry_fde`]. Units: bytes.
pub const ENTRY_FDE_LEN: usize = 20;

/// The CIE of tables of stubs: the return address is on top of the stack. Positions are PC-relative, 32 bits.
///
/// # Source
/// LSB Core, "Exception Frames"; the bytes are those of GNU ld.
pub const CIE: [u8; CIE_LEN] = [
    20, 0, 0, 0, // length
    0, 0, 0, 0, // this is a CIE
    1, // version
    b'z', b'R', 0,    // augmentation
    1,    // code alignment factor
    0x78, // data alignment factor: -8
    16,   // return address column
    1, 0x1b, // DW_EH_PE_pcrel | DW_EH_PE_sdata4
    0x0c, 7, 8, // DW_CFA_def_cfa rsp, 8
    0x90, 1, // DW_CFA_offset rip, CFA-8
    0, 0,
];

/// Unwinding of a whole lazy `.plt`, header included, in one record.
///
/// The header has one pushed word from its start on, and two behind its push. Entries repeat every 16 bytes,
/// so their frame is a formula of the low bits of the address: behind the push there is one word more.
///
/// * `at`     address of the record.
/// * `cie`    address of [`CIE`], which is in the same section, in front.
/// * `plt`    address of `.plt`, a multiple of 16.
/// * `size`   size of `.plt`. Units: bytes. Reserved entries may be counted too.
/// * `ibt`    the entries are [`ibt_lazy_entry`]s.
///
/// # Errors
/// `OutOfRange` if `.plt` is 2 GiB away or as large.
///
/// # Source
/// DWARF 5, 6.4.2 "Call Frame Instructions"; the bytes are those of GNU ld.
pub fn lazy_fde(at: u64, cie: u64, plt: u64, size: u64, ibt: bool) -> Result<[u8; LAZY_FDE_LEN], RelocError> {
    /// `DW_OP_lit0`.
    const LIT0: u8 = 0x30;
    // The offset of the first instruction behind the push.
    let pushed = LIT0 + if ibt { 9 } else { 11 };
    let program: [u8; LAZY_FDE_LEN - 16] = [
        0, // no augmentation data
        0x0e, 16,   // DW_CFA_def_cfa_offset 16: an entry has pushed its index
        0x46, // DW_CFA_advance_loc 6
        0x0e, 24,   // DW_CFA_def_cfa_offset 24
        0x4a, // DW_CFA_advance_loc 10: the first entry
        0x0f, 11, // DW_CFA_def_cfa_expression, of 11 bytes
        0x77, 8, // DW_OP_breg7 (rsp) 8
        0x80, 0, // DW_OP_breg16 (rip) 0
        0x3f, 0x1a, // DW_OP_lit15, DW_OP_and
        pushed, 0x2a, // DW_OP_litN, DW_OP_ge
        0x33, 0x24, 0x22, // DW_OP_lit3, DW_OP_shl, DW_OP_plus: 8 bytes more if so
        0, 0, 0, 0,
    ];
    fde(at, cie, plt, size, &program)
}

/// Unwinding of a table of [`entry`]s or [`ibt_entry`]s, which leave the stack alone.
///
/// * `at`    address of the record.
/// * `cie`   address of [`CIE`], which is in the same section, in front.
/// * `table` address of the table; `size` bytes long.
///
/// # Errors
/// `OutOfRange` if the table is 2 GiB away or as large.
pub fn entry_fde(at: u64, cie: u64, table: u64, size: u64) -> Result<[u8; ENTRY_FDE_LEN], RelocError> {
    fde(at, cie, table, size, &[0; ENTRY_FDE_LEN - 16])
}

/// A record of `N` bytes that ends with `program`, the length of augmentation data in front.
fn fde<const N: usize>(
    at: u64,
    cie: u64,
    start: u64,
    size: u64,
    program: &[u8],
) -> Result<[u8; N], RelocError> {
    let mut record = [0; N];
    let fields = [
        // The length word does not count itself.
        (Op::Abs32, Values { s: N as u64, a: -4, ..Values::default() }),
        // The CIE pointer is the distance back from its own field.
        (Op::Abs32, Values { s: at.wrapping_add(4).wrapping_sub(cie), ..Values::default() }),
        (Op::Pc32, Values { s: start, p: at.wrapping_add(8), ..Values::default() }),
        (Op::Size32, Values { size, ..Values::default() }),
    ];
    for (field, (op, values)) in record.chunks_mut(4).zip(fields) {
        apply(op, field, &values)?;
    }
    record.iter_mut().skip(16).zip(program).for_each(|(to, from)| *to = *from);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use gimli::BaseAddresses;
    use gimli::CfaRule;
    use gimli::EhFrame;
    use gimli::EvaluationResult;
    use gimli::LittleEndian;
    use gimli::UnwindContext;
    use gimli::UnwindSection;
    use gimli::Value;

    use super::*;

    const PLT: u64 = 0x1020;
    const GOT_PLT: u64 = 0x3fe8;

    /// Bytes of a hello world by GNU ld 2.40, `-z lazy`; the second entry is its continuation.
    #[test]
    fn lazy_table_is_that_of_gnu_ld() {
        let header = [0xff, 0x35, 0xca, 0x2f, 0, 0, 0xff, 0x25, 0xcc, 0x2f, 0, 0, 0x0f, 0x1f, 0x40, 0];
        assert_eq!(lazy_header(PLT, GOT_PLT).unwrap(), header);
        let slot = GOT_PLT + 8 * RESERVED_SLOTS;
        let first = [0xff, 0x25, 0xca, 0x2f, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0xe0, 0xff, 0xff, 0xff];
        assert_eq!(lazy_entry(PLT + 16, slot, 0, PLT).unwrap(), first);
        let second = [0xff, 0x25, 0xc2, 0x2f, 0, 0, 0x68, 4, 3, 2, 1, 0xe9, 0xd0, 0xff, 0xff, 0xff];
        assert_eq!(lazy_entry(PLT + 32, slot + 8, 0x0102_0304, PLT).unwrap(), second);
    }

    /// The same program, `-z ibtplt`.
    #[test]
    fn ibt_table_is_that_of_gnu_ld() {
        let lazy = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 5, 0, 0, 0, 0xe9, 0xe2, 0xff, 0xff, 0xff, 0x66, 0x90];
        assert_eq!(ibt_lazy_entry(PLT + 16, 5, PLT).unwrap(), lazy);
        let called = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0xa6, 0x2f, 0, 0, 0x66, 0x0f, 0x1f, 0x44, 0, 0];
        assert_eq!(ibt_entry(0x1050, 0x4000).unwrap(), called);
    }

    /// The same program's CIE at 0x2068, its FDE behind it.
    #[test]
    fn frames_are_those_of_gnu_ld() {
        let cie = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";
        assert_eq!(&CIE, cie);
        let fde = b"\x24\0\0\0\x1c\0\0\0\x98\xef\xff\xff\x20\0\0\0\0\x0e\x10\x46\x0e\x18\x4a\x0f\
            \x0b\x77\x08\x80\0\x3f\x1a\x3b\x2a\x33\x24\x22\0\0\0\0";
        assert_eq!(&lazy_fde(0x2080, 0x2068, PLT, 0x20, false).unwrap(), fde);
    }

    #[test]
    fn plain_entry_jumps_through_its_slot() {
        let code = entry(0x1040, 0x3fe0).unwrap();
        assert_eq!(code[..6], [0xff, 0x25, 0x9a, 0x2f, 0, 0]);
        assert_eq!(code[6..], [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]);
        let back = entry(0x3fe0, 0x1040).unwrap();
        assert_eq!(back[2..6], (-0x2fa6_i32).to_le_bytes());
    }

    #[test]
    fn what_is_out_of_reach_is_refused() {
        let far = 0x1_0000_0000;
        let refused = |result| matches!(result, Err(RelocError::OutOfRange { .. }));
        assert!(refused(lazy_header(0, far)) && refused(lazy_header(far, 0)));
        assert!(refused(lazy_entry(0, far, 0, 16)) && refused(lazy_entry(0, 16, 0, far)));
        assert!(refused(ibt_lazy_entry(0, 0, far)));
        assert!(refused(ibt_entry(far, 0)) && refused(entry(0, far)));
        // The distance counts from the end of the jump.
        assert!(entry(0, 0x7fff_ffff + 6).is_ok() && refused(entry(0, 0x8000_0000 + 6)));
        assert!(lazy_fde(0, 0, far, 16, false).is_err() && entry_fde(24, 0, 0, far).is_err());
    }

    /// The distance from the stack pointer to the CFA at each address, as an unwinder computes it.
    fn cfa_offsets(section: &[u8], at: u64, addresses: std::ops::Range<u64>) -> Vec<u64> {
        const SP: u64 = 0x7fff_0000;
        let frames = EhFrame::new(section, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(at);
        let offset_at = |address| {
            let mut context = UnwindContext::new();
            let fde = frames.fde_for_address(&bases, address, EhFrame::cie_from_offset).unwrap();
            let row = fde.unwind_info_for_address(&frames, &bases, &mut context, address).unwrap();
            let expression = match row.cfa() {
                CfaRule::RegisterAndOffset { register, offset } => {
                    assert_eq!(register.0, 7);
                    return *offset as u64;
                }
                CfaRule::Expression(expression) => expression.get(&frames).unwrap(),
            };
            let mut evaluation = expression.evaluation(fde.cie().encoding());
            let mut result = evaluation.evaluate().unwrap();
            loop {
                result = match result {
                    EvaluationResult::RequiresRegister { register, .. } => {
                        let value = if register.0 == 7 { SP } else { address };
                        evaluation.resume_with_register(Value::Generic(value)).unwrap()
                    }
                    EvaluationResult::Complete => break,
                    other => panic!("{other:?}"),
                };
            }
            match evaluation.result()[0].location {
                gimli::Location::Address { address } => address - SP,
                ref other => panic!("{other:?}"),
            }
        };
        addresses.map(offset_at).collect()
    }

    #[test]
    fn lazy_table_unwinds_at_every_instruction() {
        let at = 0x2000;
        for (ibt, pushed) in [(false, 11), (true, 9)] {
            let mut section = CIE.to_vec();
            section.extend(lazy_fde(at + 24, at, PLT, 48, ibt).unwrap());
            let offsets = cfa_offsets(&section, at, PLT..PLT + 48);
            // Header: the index is pushed, then the link map too.
            assert!(offsets[..6].iter().all(|offset| *offset == 16));
            assert!(offsets[6..16].iter().all(|offset| *offset == 24));
            for entry in offsets[16..].chunks(16) {
                assert!(entry[..pushed].iter().all(|offset| *offset == 8));
                assert!(entry[pushed..].iter().all(|offset| *offset == 16));
            }
        }
    }

    #[test]
    fn other_tables_leave_the_stack_alone() {
        let at = 0x2000;
        let mut section = CIE.to_vec();
        section.extend(lazy_fde(at + 24, at, PLT, 48, false).unwrap());
        section.extend(entry_fde(at + 64, at, 0x1050, 32).unwrap());
        assert!(cfa_offsets(&section, at, 0x1050..0x1070).iter().all(|offset| *offset == 8));
        let records = crate::eh_frame::records(&section).unwrap();
        assert_eq!(records.len(), 3);
    }
}
