//! Every relaxation with exact bytes before and after. The "after" bytes were read back with `objdump -d`.

use super::*;
use crate::reloc::Values;
use crate::reloc::apply;

const FIXED: Facts = Facts {
    position_independent: false,
    shared: false,
    preemptible: false,
    relaxable: true,
    code: true,
    alloc: true,
};
const PIE: Facts = Facts { position_independent: true, ..FIXED };
const UNRELAXED: Facts = Facts { relaxable: false, ..FIXED };
const DEBUG: Facts = Facts { code: false, alloc: false, ..FIXED };

/// Bytes from hex; blanks are ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The section is mapped here.
const SECTION: u64 = 0x40_1000;

/// Target far from the section; TP is 0x100 above it.
fn values(plan: &Plan) -> Values {
    Values {
        s: 0x40_3000,
        a: plan.addend,
        p: SECTION + plan.offset,
        got_slot: 0x40_5008,
        tls_pair: 0x40_5008,
        tls_descriptor: 0x40_5008,
        tls_module: 0x40_5008,
        got_base: 0x40_5000,
        tp: 0x40_3100,
        tls_start: 0x40_2f00,
        size: 8,
    }
}

/// Links one relocation of addend -4 in `before`, asserts the bytes, and that nothing outside `touched`
/// changed.
fn check(kind: u32, before: &str, offset: u64, next: Option<(u32, u64)>, facts: Facts, after: &str) -> Plan {
    // Guard bytes on both sides show a write outside of the sequence.
    let mut bytes = hex(before);
    let guard = [0xf4; 3];
    bytes.splice(0..0, guard);
    bytes.extend(guard);
    let next = next.map(|(kind, at)| (kind, at + 3));
    let pristine = bytes.clone();
    let plan = plan(kind, &bytes, offset + 3, -4, next, facts).unwrap();
    rewrite(&plan, &mut bytes).unwrap();
    apply(plan.op, &mut bytes[plan.offset as usize..], &values(&plan)).unwrap();
    let mut wanted = hex(after);
    wanted.splice(0..0, guard);
    wanted.extend(guard);
    assert_eq!(bytes, wanted, "{plan:?}\n got {bytes:02x?}\nwant {wanted:02x?}");
    let range = touched(&plan);
    for (at, (old, new)) in pristine.iter().zip(&bytes).enumerate() {
        assert!(old == new || range.contains(&(at as u64)), "byte {at} changed outside {range:?}");
    }
    plan
}

/// Offsets in the expected bytes: `S - P - 4` with P at section offset 3 + `field`.
fn pc(field: u64) -> String {
    let value = (0x40_3000 - (SECTION + 3 + field) as i64 - 4) as i32;
    value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn slot(field: u64) -> String {
    let value = (0x40_5008 - (SECTION + 3 + field) as i64 - 4) as i32;
    value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `S - TP` = -0x100.
const TPOFF: &str = "00 ff ff ff";
/// `S`.
const ADDRESS: &str = "00 30 40 00";

#[test]
fn got_mov_becomes_lea() {
    for facts in [FIXED, PIE] {
        check(kind::REX_GOTPCRELX, "48 8b 05 00000000", 3, None, facts, &format!("48 8d 05 {}", pc(3)));
        check(kind::REX_GOTPCRELX, "4c 8b 3d 00000000", 3, None, facts, &format!("4c 8d 3d {}", pc(3)));
        check(kind::GOTPCRELX, "8b 0d 00000000", 2, None, facts, &format!("8d 0d {}", pc(2)));
        check(
            kind::CODE_4_GOTPCRELX,
            "d5 48 8b 05 00000000",
            4,
            None,
            facts,
            &format!("d5 48 8d 05 {}", pc(4)),
        );
    }
}

#[test]
fn got_call_becomes_direct_call_with_prefix() {
    let plan = check(kind::GOTPCRELX, "ff 15 00000000", 2, None, PIE, &format!("67 e8 {}", pc(2)));
    assert!(plan.op.is_branch());
}

#[test]
fn got_jmp_becomes_direct_jmp_and_nop() {
    let plan = check(kind::GOTPCRELX, "ff 25 00000000", 2, None, PIE, &format!("e9 {} 90", pc(1)));
    assert!(plan.op.is_branch());
    assert_eq!((plan.offset, touched(&plan)), (4, 3..9));
}

#[test]
fn got_test_becomes_immediate_if_not_pie() {
    check(kind::REX_GOTPCRELX, "48 85 0d 00000000", 3, None, FIXED, &format!("48 f7 c1 {ADDRESS}"));
    check(kind::REX_GOTPCRELX, "4c 85 0d 00000000", 3, None, FIXED, &format!("49 f7 c1 {ADDRESS}"));
    check(kind::GOTPCRELX, "85 35 00000000", 2, None, FIXED, &format!("f7 c6 {ADDRESS}"));
    check(kind::REX_GOTPCRELX, "48 85 0d 00000000", 3, None, PIE, &format!("48 85 0d {}", slot(3)));
}

#[test]
fn got_binops_become_immediates_if_not_pie() {
    // Opcode of `op r, r/m`, then ModRM of `81 /n` with %rbx (3).
    let ops = [
        (0x03, 0xc3),
        (0x0b, 0xcb),
        (0x13, 0xd3),
        (0x1b, 0xdb),
        (0x23, 0xe3),
        (0x2b, 0xeb),
        (0x33, 0xf3),
        (0x3b, 0xfb),
    ];
    for (opcode, modrm) in ops {
        let rex = format!("48 {opcode:02x} 1d 00000000");
        check(kind::REX_GOTPCRELX, &rex, 3, None, FIXED, &format!("48 81 {modrm:02x} {ADDRESS}"));
        let high = format!("4c {opcode:02x} 1d 00000000");
        check(kind::REX_GOTPCRELX, &high, 3, None, FIXED, &format!("49 81 {modrm:02x} {ADDRESS}"));
        let short = format!("{opcode:02x} 1d 00000000");
        check(kind::GOTPCRELX, &short, 2, None, FIXED, &format!("81 {modrm:02x} {ADDRESS}"));
        check(kind::REX_GOTPCRELX, &rex, 3, None, PIE, &format!("48 {opcode:02x} 1d {}", slot(3)));
    }
}

#[test]
fn got_load_stays_without_proof() {
    let stays = |kind, code: &str, addend, facts| {
        let bytes = hex(code);
        let offset = bytes.len() as u64 - 4;
        let plan = plan(kind, &bytes, offset, addend, None, facts).unwrap();
        assert_eq!((plan.op, plan.rewrite, plan.offset), (Op::GotSlotPc32, Rewrite::None, offset), "{code}");
        assert_eq!(plan.addend, addend);
    };
    stays(kind::GOTPCREL, "48 8b 05 00000000", -4, FIXED);
    stays(kind::REX_GOTPCRELX, "48 8b 05 00000000", -4, UNRELAXED);
    stays(kind::REX_GOTPCRELX, "48 8b 05 00000000", 0, FIXED);
    stays(kind::GOTPCRELX, "ff 15 00000000", -4, UNRELAXED);
    // push x@GOTPCREL(%rip), and a mov whose operand is not RIP-relative.
    stays(kind::GOTPCRELX, "ff 35 00000000", -4, FIXED);
    stays(kind::REX_GOTPCRELX, "48 8b 80 00000000", -4, FIXED);
    // The kind promises a REX prefix that is not there.
    stays(kind::REX_GOTPCRELX, "90 03 05 00000000", -4, FIXED);
    stays(kind::CODE_4_GOTPCRELX, "d5 48 03 05 00000000", -4, FIXED);
    stays(kind::CODE_4_GOTPCRELX, "d5 18 ff 15 00000000", -4, FIXED);
    stays(kind::CODE_6_GOTPCRELX, "00000000", -4, FIXED);
}

#[test]
fn general_dynamic_becomes_local_exec() {
    let after = format!("64 48 8b 04 25 00000000 48 8d 80 {TPOFF}");
    let direct = "66 48 8d 3d 00000000 66 66 48 e8 00000000";
    for call in [kind::PLT32, kind::PC32] {
        let plan = check(kind::TLSGD, direct, 4, Some((call, 12)), FIXED, &after);
        assert!(plan.skip_next);
        assert_eq!(touched(&plan), 3..19);
    }
    let indirect = "66 48 8d 3d 00000000 66 48 ff 15 00000000";
    for call in [kind::GOTPCREL, kind::GOTPCRELX, kind::REX_GOTPCRELX] {
        assert!(check(kind::TLSGD, indirect, 4, Some((call, 12)), UNRELAXED, &after).skip_next);
    }
    let large = "48 8d 3d 00000000 48 b8 0000000000000000 4c 01 f8 ff d0";
    let after = format!("64 48 8b 04 25 00000000 48 8d 80 {TPOFF} 66 0f 1f 44 00 00");
    assert!(check(kind::TLSGD, large, 3, Some((kind::PLTOFF64, 9)), PIE, &after).skip_next);
    let large = "48 8d 3d 00000000 48 b8 0000000000000000 48 01 d8 ff d0";
    assert!(check(kind::TLSGD, large, 3, Some((kind::PLTOFF64, 9)), PIE, &after).skip_next);
}

#[test]
fn local_dynamic_becomes_local_exec() {
    let direct = "48 8d 3d 00000000 e8 00000000";
    let plan = check(kind::TLSLD, direct, 3, Some((kind::PLT32, 8)), PIE, "666666 64 48 8b 04 25 00000000");
    assert_eq!((plan.op, plan.skip_next, touched(&plan)), (Op::None, true, 3..15));
    let indirect = "48 8d 3d 00000000 ff 15 00000000";
    let after = "66666666 64 48 8b 04 25 00000000";
    assert!(check(kind::TLSLD, indirect, 3, Some((kind::GOTPCRELX, 9)), PIE, after).skip_next);
    let large = "48 8d 3d 00000000 48 b8 0000000000000000 48 01 d8 ff d0";
    let after = "66666666 2e 0f 1f 84 0000000000 64 48 8b 04 25 00000000";
    assert!(check(kind::TLSLD, large, 3, Some((kind::PLTOFF64, 9)), PIE, after).skip_next);
}

#[test]
fn dynamic_tls_without_its_call_is_malformed() {
    let malformed = |kind, code: &str, offset, next| {
        let result = plan(kind, &hex(code), offset, -4, next, FIXED);
        assert!(matches!(result, Err(RelocError::Malformed { .. })), "{code}: {result:?}");
    };
    let gd = "66 48 8d 3d 00000000 66 66 48 e8 00000000";
    malformed(kind::TLSGD, gd, 4, None);
    malformed(kind::TLSGD, gd, 4, Some((kind::PLT32, 13)));
    malformed(kind::TLSGD, gd, 4, Some((kind::GOTPCRELX, 12)));
    malformed(kind::TLSGD, "90 48 8d 3d 00000000 66 66 48 e8 00000000", 4, Some((kind::PLT32, 12)));
    malformed(kind::TLSGD, "48 8d 3d 00000000 90", 3, Some((kind::PLT32, 8)));
    malformed(kind::TLSLD, "48 8d 3d 00000000 e9 00000000", 3, Some((kind::PLT32, 8)));
    malformed(kind::TLSLD, "48 8d 35 00000000 e8 00000000", 3, Some((kind::PLT32, 8)));
    malformed(kind::GOTPC32_TLSDESC, "48 8b 05 00000000", 3, None);
    malformed(kind::TLSDESC_CALL, "ff d0", 0, None);
    // The call's field is cut off.
    let cut = plan(kind::TLSLD, &hex("48 8d 3d 00000000 e8 0000"), 3, -4, Some((kind::PLT32, 8)), FIXED);
    assert!(matches!(cut, Err(RelocError::FieldOutside { .. })), "{cut:?}");
}

#[test]
fn initial_exec_becomes_local_exec() {
    let ie = |before: &str, after: &str| {
        let before = format!("{before} 00000000");
        let plan = check(kind::GOTTPOFF, &before, 3, None, UNRELAXED, &format!("{after} {TPOFF}"));
        assert_eq!((plan.op, plan.addend), (Op::TpOff32, 0));
    };
    ie("48 8b 05", "48 c7 c0"); // mov, %rax
    ie("48 8b 25", "48 c7 c4"); // mov, %rsp
    ie("4c 8b 25", "49 c7 c4"); // mov, %r12
    ie("4c 8b 3d", "49 c7 c7"); // mov, %r15
    ie("48 03 05", "48 8d 80"); // add, %rax
    ie("48 03 2d", "48 8d ad"); // add, %rbp
    ie("4c 03 05", "4d 8d 80"); // add, %r8
    ie("4c 03 2d", "4d 8d ad"); // add, %r13
    ie("48 03 25", "48 81 c4"); // add, %rsp
    ie("4c 03 25", "49 81 c4"); // add, %r12
}

#[test]
fn initial_exec_in_other_instructions_keeps_its_slot() {
    for code in ["48 2b 05 00000000", "8b 05 00000000", "48 8b 80 00000000", "00000000"] {
        let bytes = hex(code);
        let offset = bytes.len() as u64 - 4;
        let plan = plan(kind::GOTTPOFF, &bytes, offset, -4, None, FIXED).unwrap();
        assert_eq!((plan.op, plan.rewrite, plan.addend), (Op::GotSlotPc32, Rewrite::None, -4), "{code}");
    }
    let apx = plan(kind::CODE_4_GOTTPOFF, &hex("d5 48 8b 05 00000000"), 4, -4, None, FIXED).unwrap();
    assert_eq!((apx.op, apx.rewrite), (Op::GotSlotPc32, Rewrite::None));
}

#[test]
fn tls_descriptor_becomes_local_exec() {
    check(kind::GOTPC32_TLSDESC, "48 8d 05 00000000", 3, None, PIE, &format!("48 c7 c0 {TPOFF}"));
    check(kind::GOTPC32_TLSDESC, "4c 8d 35 00000000", 3, None, PIE, &format!("49 c7 c6 {TPOFF}"));
    let plan = check(kind::TLSDESC_CALL, "ff 10", 0, None, PIE, "66 90");
    assert_eq!((plan.op, touched(&plan)), (Op::None, 3..5));
}

/// A program whose target is in a shared library.
const IMPORTED: Facts = Facts { preemptible: true, relaxable: false, ..PIE };
const LIBRARY: Facts = Facts { shared: true, relaxable: false, ..PIE };

#[test]
fn dynamic_tls_of_a_shared_librarys_symbol_becomes_initial_exec() {
    let direct = "66 48 8d 3d 00000000 66 66 48 e8 00000000";
    let after = format!("64 48 8b 04 25 00000000 48 03 05 {}", slot(12));
    let plan = check(kind::TLSGD, direct, 4, Some((kind::PLT32, 12)), IMPORTED, &after);
    assert_eq!((plan.op, plan.addend, plan.skip_next), (Op::GotSlotPc32, -4, true));
    let large = "48 8d 3d 00000000 48 b8 0000000000000000 48 01 d8 ff d0";
    let after = format!("64 48 8b 04 25 00000000 48 03 05 {} 66 0f 1f 44 00 00", slot(12));
    assert!(check(kind::TLSGD, large, 3, Some((kind::PLTOFF64, 9)), IMPORTED, &after).skip_next);
    let after = format!("4c 8b 35 {}", slot(3));
    check(kind::GOTPC32_TLSDESC, "4c 8d 35 00000000", 3, None, IMPORTED, &after);
    check(kind::TLSDESC_CALL, "ff 10", 0, None, IMPORTED, "66 90");
    let after = format!("48 03 05 {}", slot(3));
    check(kind::GOTTPOFF, "48 03 05 00000000", 3, None, IMPORTED, &after);
}

#[test]
fn a_shared_library_keeps_its_dynamic_tls() {
    let gd = "66 48 8d 3d 00000000 66 66 48 e8 00000000";
    let after = format!("66 48 8d 3d {} 66 66 48 e8 00000000", slot(4));
    let plan = check(kind::TLSGD, gd, 4, Some((kind::PLT32, 12)), LIBRARY, &after);
    assert_eq!((plan.op, plan.skip_next), (Op::TlsPairPc32, false));
    let after = format!("48 8d 3d {} e8 00000000", slot(3));
    let ld = check(kind::TLSLD, "48 8d 3d 00000000 e8 00000000", 3, Some((kind::PLT32, 8)), LIBRARY, &after);
    assert_eq!((ld.op, ld.skip_next), (Op::TlsModulePc32, false));
    let after = format!("48 8d 05 {}", slot(3));
    let desc = check(kind::GOTPC32_TLSDESC, "48 8d 05 00000000", 3, None, LIBRARY, &after);
    assert_eq!(desc.op, Op::TlsDescriptorPc32);
    check(kind::TLSDESC_CALL, "ff 10", 0, None, LIBRARY, "ff 10");
    let code = plan_of(kind::DTPOFF32, "00000000", LIBRARY).unwrap();
    assert_eq!(code.op, Op::DtpOff32);
    let local_exec = plan_of(kind::TPOFF32, "00000000", LIBRARY);
    assert!(matches!(local_exec, Err(RelocError::NotPositionIndependent { .. })), "{local_exec:?}");
}

fn plan_of(kind: u32, code: &str, facts: Facts) -> Result<Plan, RelocError> {
    plan(kind, &hex(code), 0, -4, None, facts)
}

#[test]
fn only_proven_branches_are_branches() {
    let op = |kind, code: &str, facts| {
        let bytes = hex(code);
        plan(kind, &bytes, bytes.len() as u64 - 4, -4, None, facts).unwrap().op
    };
    for kind in [kind::PLT32, kind::PC32] {
        for branch in ["e8 00000000", "90 e8 00000000", "90 e9 00000000", "0f 84 00000000", "0f 8f 00000000"]
        {
            assert_eq!(op(kind, branch, FIXED), Op::Branch32, "{branch}");
            assert_eq!(op(kind, branch, Facts { code: false, ..FIXED }), Op::Pc32, "{branch} in data");
        }
        // lea f(%rip), xbegin, bare data.
        for address in ["48 8d 05 00000000", "c7 f8 00000000", "00000000"] {
            assert_eq!(op(kind, address, FIXED), Op::Pc32, "{address}");
        }
    }
    assert_eq!(op(kind::PC32, "81 e9 00000000", FIXED), Op::Pc32);
    assert_eq!(op(kind::PLT32, "48 8d 3c 81 e8 00000000", FIXED), Op::Branch32);
}

#[test]
fn dtpoff_is_relative_to_the_thread_pointer_in_code_only() {
    let op = |kind, facts| plan(kind, &[0; 8], 0, 0, None, facts).unwrap().op;
    assert_eq!((op(kind::DTPOFF32, FIXED), op(kind::DTPOFF64, FIXED)), (Op::TpOff32, Op::TpOff64));
    assert_eq!((op(kind::DTPOFF32, DEBUG), op(kind::DTPOFF64, DEBUG)), (Op::DtpOff32, Op::DtpOff64));
}

#[test]
fn narrow_absolute_fields_are_refused_in_a_static_pie() {
    for kind in [kind::ABS32, kind::ABS32S, kind::ABS16, kind::ABS8] {
        let narrow = |facts| plan(kind, &[0; 8], 0, 0, None, facts);
        assert_eq!(narrow(PIE), Err(RelocError::NotPositionIndependent { kind }));
        assert!(narrow(FIXED).is_ok());
        // An absolute symbol is the same wherever the image is, and debug sections are not loaded.
        assert!(narrow(Facts { relaxable: false, ..PIE }).is_ok());
        assert!(narrow(Facts { alloc: false, ..PIE }).is_ok());
    }
    assert!(plan(kind::ABS64, &[0; 8], 0, 0, None, PIE).is_ok());
}

#[test]
fn every_plain_kind_has_its_operation() {
    let plain = [
        (kind::ABS64, Op::Abs64),
        (kind::ABS32, Op::Abs32),
        (kind::ABS32S, Op::Abs32S),
        (kind::ABS16, Op::Abs16),
        (kind::ABS8, Op::Abs8),
        (kind::PC64, Op::Pc64),
        (kind::PC32, Op::Pc32),
        (kind::PC16, Op::Pc16),
        (kind::PC8, Op::Pc8),
        (kind::GOT32, Op::GotSlotOffset32),
        (kind::GOT64, Op::GotSlotOffset64),
        (kind::GOTPLT64, Op::GotSlotOffset64),
        (kind::GOTPCREL, Op::GotSlotPc32),
        (kind::GOTPCREL64, Op::GotSlotPc64),
        (kind::GOTPC32, Op::GotBasePc32),
        (kind::GOTPC64, Op::GotBasePc64),
        (kind::GOTOFF64, Op::GotBaseOffset64),
        (kind::PLTOFF64, Op::GotBaseOffset64),
        (kind::SIZE32, Op::Size32),
        (kind::SIZE64, Op::Size64),
        (kind::TPOFF32, Op::TpOff32),
        (kind::TPOFF64, Op::TpOff64),
    ];
    for (kind, op) in plain {
        let plan = plan(kind, &[0; 16], 4, 7, None, FIXED).unwrap();
        let same = Plan { op, offset: 4, addend: 7, rewrite: Rewrite::None, skip_next: false };
        assert_eq!(plan, same, "{}", kind_name(kind));
        assert_eq!(touched(&plan), 4..4 + op.width() as u64);
    }
    assert_eq!(plan(kind::NONE, &[], 99, 0, None, FIXED).unwrap().op, Op::None);
}

#[test]
fn dynamic_and_unknown_kinds_are_errors() {
    for kind in [kind::COPY, kind::GLOB_DAT, kind::JUMP_SLOT, kind::RELATIVE, kind::DTPMOD64, kind::IRELATIVE]
    {
        assert!(matches!(plan(kind, &[0; 8], 0, 0, None, FIXED), Err(RelocError::Malformed { .. })));
    }
    for kind in [39, 40, kind::CODE_4_GOTPC32_TLSDESC, 52, 250, u32::MAX] {
        assert_eq!(plan(kind, &[0; 8], 0, 0, None, FIXED), Err(RelocError::Unknown { kind }));
    }
}

/// Every kind at every offset of hostile sections: an answer, and one that `rewrite` and `apply` can carry
/// out.
#[test]
fn no_input_panics_and_every_plan_fits_its_section() {
    let sections = [
        "",
        "e8",
        "00",
        "ff 25",
        "48 8b 05 0000",
        "ff 25 00000000",
        "48 85 05 00000000",
        "48 03 25 00000000",
        "66 48 8d 3d 00000000 66 66 48 e8 00000000",
        "48 8d 3d 00000000 ff 15 00000000",
        "48 8d 3d 00000000 48 b8 0000000000000000 48 01 d8 ff d0",
        "ff 10",
        "ff 10 ff 10 48 8d 05 00000000",
    ];
    let mut done = 0;
    for section in sections {
        let bytes = hex(section);
        let offsets = (0..bytes.len() as u64 + 2).chain([u64::MAX, u64::MAX - 4, 1 << 63]);
        for offset in offsets {
            for kind in (0..60).chain([u32::MAX]) {
                for facts in [FIXED, PIE, UNRELAXED, DEBUG] {
                    for addend in [-4, i64::MIN, i64::MAX] {
                        for next in [
                            None,
                            Some((kind::PLT32, offset.wrapping_add(8))),
                            Some((kind::PLTOFF64, offset.wrapping_add(6))),
                        ] {
                            let Ok(plan) = plan(kind, &bytes, offset, addend, next, facts) else { continue };
                            if kind == kind::NONE {
                                continue;
                            }
                            assert!(touched(&plan).end <= bytes.len() as u64, "{plan:?}");
                            let mut copy = bytes.clone();
                            rewrite(&plan, &mut copy).unwrap();
                            let _ = apply(plan.op, &mut copy[plan.offset as usize..], &values(&plan));
                            done += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(done > 1000);
}

#[test]
fn rewrite_refuses_a_plan_of_other_bytes() {
    let plan = plan(kind::REX_GOTPCRELX, &hex("48 8b 05 00000000"), 3, -4, None, FIXED).unwrap();
    let mut short = hex("48 8b 05");
    assert!(matches!(rewrite(&plan, &mut short), Err(RelocError::FieldOutside { .. })));
    assert_eq!(short, hex("48 8b 05"));
}

#[test]
fn errors_name_the_kind() {
    let error = RelocError::NotPositionIndependent { kind: kind::ABS32S };
    assert!(error.to_string().starts_with("relocation R_X86_64_32S "));
    assert_eq!(kind_name(kind::PLT32), "R_X86_64_PLT32");
    assert_eq!(kind_name(250), "R_X86_64_unknown");
}
