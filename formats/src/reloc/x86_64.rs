//! x86-64: which operation a relocation kind means, and the relaxations of the psABI.
//!
//! The image is always an executable, so every TLS access becomes local-exec, and a GOT load of a target that
//! is defined in the image becomes an address computation. All rewrites keep the length of the code.
//!
//! # Source
//! System V ABI, AMD64 supplement: "Relocation Types", "Optimize GOTPCRELX Relocations", "Large Models";
//! Drepper, "ELF Handling For Thread-Local Storage", section 5.5 (linker relaxations); RFC "TLS descriptors
//! for x86".

use std::ops::Range;

use super::Facts;
use super::Op;
use super::Plan;
use super::RelocError;

/// Numbers of the relocation kinds. Same names as the psABI without the prefix `R_X86_64_`.
///
/// Kept here: the constants of the `object` crate are of a newtype and no `u32` patterns.
mod kind {
    pub(super) const NONE: u32 = 0;
    pub(super) const ABS64: u32 = 1;
    pub(super) const PC32: u32 = 2;
    pub(super) const GOT32: u32 = 3;
    pub(super) const PLT32: u32 = 4;
    pub(super) const COPY: u32 = 5;
    pub(super) const GLOB_DAT: u32 = 6;
    pub(super) const JUMP_SLOT: u32 = 7;
    pub(super) const RELATIVE: u32 = 8;
    pub(super) const GOTPCREL: u32 = 9;
    pub(super) const ABS32: u32 = 10;
    pub(super) const ABS32S: u32 = 11;
    pub(super) const ABS16: u32 = 12;
    pub(super) const PC16: u32 = 13;
    pub(super) const ABS8: u32 = 14;
    pub(super) const PC8: u32 = 15;
    pub(super) const DTPMOD64: u32 = 16;
    pub(super) const DTPOFF64: u32 = 17;
    pub(super) const TPOFF64: u32 = 18;
    pub(super) const TLSGD: u32 = 19;
    pub(super) const TLSLD: u32 = 20;
    pub(super) const DTPOFF32: u32 = 21;
    pub(super) const GOTTPOFF: u32 = 22;
    pub(super) const TPOFF32: u32 = 23;
    pub(super) const PC64: u32 = 24;
    pub(super) const GOTOFF64: u32 = 25;
    pub(super) const GOTPC32: u32 = 26;
    pub(super) const GOT64: u32 = 27;
    pub(super) const GOTPCREL64: u32 = 28;
    pub(super) const GOTPC64: u32 = 29;
    pub(super) const GOTPLT64: u32 = 30;
    pub(super) const PLTOFF64: u32 = 31;
    pub(super) const SIZE32: u32 = 32;
    pub(super) const SIZE64: u32 = 33;
    pub(super) const GOTPC32_TLSDESC: u32 = 34;
    pub(super) const TLSDESC_CALL: u32 = 35;
    pub(super) const TLSDESC: u32 = 36;
    pub(super) const IRELATIVE: u32 = 37;
    pub(super) const RELATIVE64: u32 = 38;
    pub(super) const GOTPCRELX: u32 = 41;
    pub(super) const REX_GOTPCRELX: u32 = 42;
    pub(super) const CODE_4_GOTPCRELX: u32 = 43;
    pub(super) const CODE_4_GOTTPOFF: u32 = 44;
    pub(super) const CODE_4_GOTPC32_TLSDESC: u32 = 45;
    pub(super) const CODE_5_GOTPCRELX: u32 = 46;
    pub(super) const CODE_5_GOTTPOFF: u32 = 47;
    pub(super) const CODE_5_GOTPC32_TLSDESC: u32 = 48;
    pub(super) const CODE_6_GOTPCRELX: u32 = 49;
    pub(super) const CODE_6_GOTTPOFF: u32 = 50;
    pub(super) const CODE_6_GOTPC32_TLSDESC: u32 = 51;
}

/// What happens to the instruction bytes around the field. `r` is the register operand of the instruction.
///
/// The variant names the sequence that is replaced; [`rewrite`] reads register numbers from the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rewrite {
    /// Nothing.
    #[default]
    None,
    /// `mov x@GOTPCREL(%rip), r` to `lea x(%rip), r`.
    MovToLea,
    /// `call *x@GOTPCREL(%rip)` to `addr32 call x`.
    CallToDirect,
    /// `jmp *x@GOTPCREL(%rip)` to `jmp x; nop`; the field moves one byte down.
    JmpToDirect,
    /// `test r, x@GOTPCREL(%rip)` to `test $x, r`.
    TestToImmediate {
        /// A REX prefix stands before the opcode; its R bit becomes B.
        rex: bool,
    },
    /// `op x@GOTPCREL(%rip), r` to `op $x, r` for add, or, adc, sbb, and, sub, xor, cmp.
    BinopToImmediate {
        /// A REX prefix stands before the opcode; its R bit becomes B.
        rex: bool,
    },
    /// General dynamic, 16 bytes: `lea x@tlsgd(%rip), %rdi` and the call of `__tls_get_addr` to
    /// `mov %fs:0, %rax; lea x@tpoff(%rax), %rax`.
    GdToLe,
    /// General dynamic of the large model, 22 bytes; also ends in a nop.
    GdLargeToLe,
    /// General dynamic, 16 bytes, to initial exec: `mov %fs:0, %rax; add x@gottpoff(%rip), %rax`.
    GdToIe,
    /// General dynamic of the large model, 22 bytes, to initial exec and a nop.
    GdLargeToIe,
    /// Local dynamic with `call __tls_get_addr`, 12 bytes: to a padded `mov %fs:0, %rax`.
    LdToLe,
    /// Local dynamic with `call *__tls_get_addr@GOTPCREL(%rip)`, 13 bytes: to a padded `mov %fs:0, %rax`.
    LdIndirectToLe,
    /// Local dynamic of the large model, 22 bytes: to a nop and `mov %fs:0, %rax`.
    LdLargeToLe,
    /// Initial exec: `mov x@gottpoff(%rip), r` to `mov $x@tpoff, r`.
    IeMovToLe,
    /// Initial exec: `add x@gottpoff(%rip), r` to `lea x@tpoff(r), r`.
    IeAddToLe,
    /// Initial exec: `add x@gottpoff(%rip), r` to `add $x@tpoff, r` for `%rsp` and `%r12`, which need a SIB
    /// byte in `lea`.
    IeAddSpToLe,
    /// TLS descriptor: `lea x@tlsdesc(%rip), r` to `mov $x@tpoff, r`.
    DescLeaToLe,
    /// TLS descriptor: `lea x@tlsdesc(%rip), r` to `mov x@gottpoff(%rip), r`.
    DescLeaToIe,
    /// TLS descriptor: `call *x@tlscall(%rax)` to a 2-byte nop.
    DescCallToNop,
}

/// `mov %fs:0, %rax`: the thread pointer.
const MOV_FS0_RAX: [u8; 9] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
const GD_IE: [u8; 12] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x03, 0x05];
const GD_LE: [u8; 12] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8d, 0x80];
/// Stands after the field of a large general dynamic sequence.
const NOP_6: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0, 0];
/// Prefixes `66` pad the load, so that the sequence stays one instruction.
const LD_LE: [u8; 12] = [0x66, 0x66, 0x66, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
const LD_INDIRECT_LE: [u8; 13] = [0x66, 0x66, 0x66, 0x66, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
const NOP_13: [u8; 13] = [0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];

/// The addend of a 4-byte PC-relative operand that ends its instruction.
const BIAS: i64 = -4;

/// Decides what a relocation does, relaxation included. Pure and cheap: called twice per relocation.
///
/// * `kind`  `R_X86_64_*` of the relocation.
/// * `bytes` the whole section, pristine.
/// * `offset` of the relocation. Units: bytes from the start of the section.
/// * `next`  kind and offset of the following relocation: the call that belongs to a dynamic TLS access.
///
/// A call or jump counts as [`Op::Branch32`] only if the opcode before the field proves it. Everything else
/// with the same formula is [`Op::Pc32`], whose target address matters: `lea f@PLT(%rip)` or a relative
/// vtable entry must not end at an island. Doubt goes to `Pc32`, which is always right.
///
/// A target that does not relax keeps its instruction and loads from a GOT slot. For `GOTTPOFF` kinds that
/// slot holds the TP offset `S - TP`, for the others the address.
///
/// `DTPOFF` in code becomes an offset from the thread pointer, so the linker must define `_TLS_MODULE_BASE_`,
/// the symbol of local dynamic TLS descriptors, as the thread pointer: its own TP offset is then 0.
///
/// # Errors
/// * [`RelocError::Unknown`] for a number that the psABI does not have, or an APX form that has no fallback.
/// * [`RelocError::Malformed`] for dynamic kinds and for TLS sequences with other instructions than
///   documented.
/// * [`RelocError::NotPositionIndependent`] for a narrow absolute field of a loaded section in a static-pie.
/// * [`RelocError::FieldOutside`] if the field leaves the section.
pub fn plan(
    kind: u32,
    bytes: &[u8],
    offset: u64,
    addend: i64,
    next: Option<(u32, u64)>,
    facts: Facts,
) -> Result<Plan, RelocError> {
    let site = Site { kind, bytes, offset, addend };
    let plan = match kind {
        kind::NONE => return Ok(site.keep(Op::None)),
        kind::ABS64 => site.keep(Op::Abs64),
        kind::PC32 | kind::PLT32 => {
            site.keep(if facts.code && site.is_branch() { Op::Branch32 } else { Op::Pc32 })
        }
        kind::ABS32 => site.narrow(Op::Abs32, facts)?,
        kind::ABS32S => site.narrow(Op::Abs32S, facts)?,
        kind::ABS16 => site.narrow(Op::Abs16, facts)?,
        kind::ABS8 => site.narrow(Op::Abs8, facts)?,
        kind::PC64 => site.keep(Op::Pc64),
        kind::PC16 => site.keep(Op::Pc16),
        kind::PC8 => site.keep(Op::Pc8),
        kind::GOTPCREL => site.keep(Op::GotSlotPc32),
        kind::GOTPCRELX | kind::REX_GOTPCRELX | kind::CODE_4_GOTPCRELX => site.relax_got_load(facts),
        kind::GOT32 => site.keep(Op::GotSlotOffset32),
        kind::GOT64 | kind::GOTPLT64 => site.keep(Op::GotSlotOffset64),
        kind::GOTPCREL64 => site.keep(Op::GotSlotPc64),
        kind::GOTPC32 => site.keep(Op::GotBasePc32),
        kind::GOTPC64 => site.keep(Op::GotBasePc64),
        kind::GOTOFF64 | kind::PLTOFF64 => site.keep(Op::GotBaseOffset64),
        kind::SIZE32 => site.keep(Op::Size32),
        kind::SIZE64 => site.keep(Op::Size64),
        kind::TPOFF32 | kind::TPOFF64 if facts.shared && facts.alloc => {
            return Err(RelocError::NotPositionIndependent { kind });
        }
        kind::TPOFF32 => site.keep(Op::TpOff32),
        kind::TPOFF64 => site.keep(Op::TpOff64),
        // In a program's code the offset is added to what `__tls_get_addr` returned, which LdToLe replaces by the
        // thread pointer. In data and debug sections it stays relative to the module's block, as in bfd.
        kind::DTPOFF32 => site.keep(if facts.code && !facts.shared { Op::TpOff32 } else { Op::DtpOff32 }),
        kind::DTPOFF64 => site.keep(if facts.code && !facts.shared { Op::TpOff64 } else { Op::DtpOff64 }),
        kind::TLSGD if facts.shared => site.keep(Op::TlsPairPc32),
        kind::TLSGD => site.relax_general_dynamic(next, facts.preemptible)?,
        kind::TLSLD if facts.shared => site.keep(Op::TlsModulePc32),
        kind::TLSLD => site.relax_local_dynamic(next)?,
        kind::GOTTPOFF if facts.shared || facts.preemptible => site.keep(Op::GotSlotPc32),
        kind::GOTTPOFF => site.relax_initial_exec(),
        // The APX forms load from the same slot; leaving them alone is always right.
        kind::CODE_4_GOTTPOFF | kind::CODE_5_GOTTPOFF | kind::CODE_6_GOTTPOFF => site.keep(Op::GotSlotPc32),
        kind::CODE_5_GOTPCRELX | kind::CODE_6_GOTPCRELX => site.keep(Op::GotSlotPc32),
        kind::GOTPC32_TLSDESC if facts.shared => site.keep(Op::TlsDescriptorPc32),
        kind::GOTPC32_TLSDESC => site.relax_descriptor_load(facts.preemptible)?,
        kind::TLSDESC_CALL if facts.shared => site.keep(Op::None),
        kind::TLSDESC_CALL => site.relax_descriptor_call()?,
        kind::COPY
        | kind::GLOB_DAT
        | kind::JUMP_SLOT
        | kind::RELATIVE
        | kind::DTPMOD64
        | kind::TLSDESC
        | kind::IRELATIVE
        | kind::RELATIVE64 => {
            return Err(site.malformed("is a dynamic relocation and has no place in an object file"));
        }
        _ => return Err(RelocError::Unknown { kind }),
    };
    let Range { start, end } = touched(&plan);
    if end > bytes.len() as u64 || plan.offset > bytes.len() as u64 {
        let width = end.saturating_sub(start);
        return Err(RelocError::FieldOutside { offset: start, width, len: bytes.len() as u64 });
    }
    Ok(plan)
}

/// One relocation and the code around it.
#[derive(Clone, Copy)]
struct Site<'a> {
    kind: u32,
    bytes: &'a [u8],
    offset: u64,
    addend: i64,
}

impl<'a> Site<'a> {
    /// `N` bytes from `distance` relative to the relocation offset, if the section has them.
    fn at<const N: usize>(self, distance: i64) -> Option<[u8; N]> {
        let start = usize::try_from(self.offset.checked_add_signed(distance)?).ok()?;
        self.bytes.get(start..)?.first_chunk().copied()
    }

    fn malformed(self, why: &'static str) -> RelocError {
        RelocError::Malformed { kind: self.kind, why }
    }

    /// The operation as it stands, with the instruction unchanged.
    fn keep(self, op: Op) -> Plan {
        Plan { op, offset: self.offset, addend: self.addend, rewrite: Rewrite::None, skip_next: false }
    }

    /// The operation `op` with the instruction changed around an unmoved field.
    fn with(self, op: Op, addend: i64, rewrite: Rewrite) -> Plan {
        Plan { addend, rewrite, ..self.keep(op) }
    }

    /// An absolute field of less than 64 bits, which no load-time relocation can adjust.
    fn narrow(self, op: Op, facts: Facts) -> Result<Plan, RelocError> {
        // Debug sections use 32-bit fields for offsets between themselves: not loaded, so nothing to adjust.
        if facts.position_independent && facts.relaxable && facts.alloc {
            return Err(RelocError::NotPositionIndependent { kind: self.kind });
        }
        Ok(self.keep(op))
    }

    /// Whether the opcode before the field is `call rel32`, `jmp rel32` or `jcc rel32`.
    ///
    /// `sub $x - ., %ecx` ends in `81 E9` and is no branch. Assemblers give such an immediate `PC32`, so only
    /// that kind is doubted: `lea (%rcx,%rax,4), %rdi; call f` has an 81 there as well (libstdc++ does).
    fn is_branch(self) -> bool {
        match self.at::<2>(-2) {
            Some([before, 0xe8 | 0xe9]) => self.kind == kind::PLT32 || before != 0x81,
            Some([0x0f, opcode]) => opcode & 0xf0 == 0x80,
            Some(_) => false,
            None => matches!(self.at::<1>(-1), Some([0xe8 | 0xe9])),
        }
    }

    /// `GOTPCRELX` and `REX_GOTPCRELX`; `CODE_4_GOTPCRELX` (REX2 prefix) only for `mov`.
    fn relax_got_load(self, facts: Facts) -> Plan {
        let slot = self.keep(Op::GotSlotPc32);
        // gas emits the kind also for `mov x@GOTPCREL+4(%rip)`, which reads the middle of a slot.
        if !facts.relaxable || self.addend != BIAS {
            return slot;
        }
        let Some([opcode, modrm]) = self.at::<2>(-2) else { return slot };
        match (opcode, modrm) {
            (0x8b, _) if is_rip_relative(modrm) => self.with(Op::Pc32, self.addend, Rewrite::MovToLea),
            // Two prefix bytes whose bits would have to move, or would stand before another prefix.
            _ if self.kind == kind::CODE_4_GOTPCRELX => slot,
            (0xff, 0x15) => self.with(Op::Branch32, self.addend, Rewrite::CallToDirect),
            (0xff, 0x25) => match self.offset.checked_sub(1) {
                Some(offset) => Plan { offset, ..self.with(Op::Branch32, self.addend, Rewrite::JmpToDirect) },
                None => slot,
            },
            // The immediate must hold the address itself, which is not known in a position-independent image.
            _ if facts.position_independent || !is_rip_relative(modrm) => slot,
            _ => {
                let rex = self.kind == kind::REX_GOTPCRELX;
                if rex && !matches!(self.at::<1>(-3), Some([prefix]) if prefix & 0xf0 == 0x40) {
                    return slot;
                }
                let rewrite = match opcode {
                    0x85 => Rewrite::TestToImmediate { rex },
                    _ if opcode & 0xc7 == 0x03 => Rewrite::BinopToImmediate { rex },
                    _ => return slot,
                };
                self.with(Op::Abs32S, 0, rewrite)
            }
        }
    }

    /// `TLSGD` of a program: to local exec, or to initial exec for a symbol of a shared library. The call is 8 bytes
    /// after the field in both small-model forms, 6 in the large model.
    fn relax_general_dynamic(self, next: Option<(u32, u64)>, initial: bool) -> Result<Plan, RelocError> {
        let call = |distance| self.next_call(next, distance);
        let direct = self.at::<4>(4) == Some([0x66, 0x66, 0x48, 0xe8]) && call(8) == Some(Callee::Direct);
        let indirect = self.at::<4>(4) == Some([0x66, 0x48, 0xff, 0x15]) && call(8) == Some(Callee::Indirect);
        let (rewrite, moved_by) = if self.at::<4>(-4) == Some([0x66, 0x48, 0x8d, 0x3d])
            && (direct || indirect)
        {
            (Rewrite::GdToLe, 8)
        } else if self.at::<3>(-3) == Some([0x48, 0x8d, 0x3d])
            && self.is_large_call()
            && call(6) == Some(Callee::Large)
        {
            (Rewrite::GdLargeToLe, 9)
        } else {
            return Err(self.malformed("is not followed by a call of __tls_get_addr in a documented form"));
        };
        let offset = self.offset.wrapping_add(moved_by);
        if initial {
            let rewrite = if rewrite == Rewrite::GdToLe { Rewrite::GdToIe } else { Rewrite::GdLargeToIe };
            return Ok(Plan { op: Op::GotSlotPc32, offset, addend: self.addend, rewrite, skip_next: true });
        }
        Ok(Plan { op: Op::TpOff32, offset, addend: self.unbiased(), rewrite, skip_next: true })
    }

    /// `TLSLD`. Nothing is stored: the sequence only yields the thread pointer.
    fn relax_local_dynamic(self, next: Option<(u32, u64)>) -> Result<Plan, RelocError> {
        let call = |distance| self.next_call(next, distance);
        let lea = self.at::<3>(-3) == Some([0x48, 0x8d, 0x3d]);
        let rewrite = if lea && self.at::<1>(4) == Some([0xe8]) && call(5) == Some(Callee::Direct) {
            Rewrite::LdToLe
        } else if lea && self.at::<2>(4) == Some([0xff, 0x15]) && call(6) == Some(Callee::Indirect) {
            Rewrite::LdIndirectToLe
        } else if lea && self.is_large_call() && call(6) == Some(Callee::Large) {
            Rewrite::LdLargeToLe
        } else {
            return Err(self.malformed("is not followed by a call of __tls_get_addr in a documented form"));
        };
        Ok(Plan { skip_next: true, ..self.with(Op::None, 0, rewrite) })
    }

    /// How the relocation at exactly `distance` after this one calls, if it can be a call at all.
    fn next_call(self, next: Option<(u32, u64)>, distance: u64) -> Option<Callee> {
        let (kind, offset) = next?;
        if Some(offset) != self.offset.checked_add(distance) {
            return None;
        }
        match kind {
            kind::PLT32 | kind::PC32 => Some(Callee::Direct),
            kind::GOTPCREL | kind::GOTPCRELX | kind::REX_GOTPCRELX => Some(Callee::Indirect),
            kind::PLTOFF64 => Some(Callee::Large),
            _ => None,
        }
    }

    /// `movabs $f@PLTOFF, %rax; add %rbx|%r15, %rax; call *%rax` after the field.
    fn is_large_call(self) -> bool {
        let movabs = self.at::<2>(4) == Some([0x48, 0xb8]);
        let tail = self.at::<5>(14);
        movabs && matches!(tail, Some([0x48, 0x01, 0xd8, 0xff, 0xd0] | [0x4c, 0x01, 0xf8, 0xff, 0xd0]))
    }

    /// `GOTTPOFF`: `mov` and `add` into a 64-bit register relax, all else loads the TP offset from a slot.
    fn relax_initial_exec(self) -> Plan {
        let slot = self.keep(Op::GotSlotPc32);
        let Some([0x48 | 0x4c, opcode, modrm]) = self.at::<3>(-3) else { return slot };
        if self.addend != BIAS || !is_rip_relative(modrm) {
            return slot;
        }
        let rewrite = match (opcode, register(modrm)) {
            (0x8b, _) => Rewrite::IeMovToLe,
            // %rsp, and %r12 with REX.R.
            (0x03, 4) => Rewrite::IeAddSpToLe,
            (0x03, _) => Rewrite::IeAddToLe,
            _ => return slot,
        };
        self.with(Op::TpOff32, self.unbiased(), rewrite)
    }

    /// `GOTPC32_TLSDESC`: the documented form is `lea x@tlsdesc(%rip), %rax`; any 64-bit register works.
    fn relax_descriptor_load(self, initial: bool) -> Result<Plan, RelocError> {
        match self.at::<3>(-3) {
            Some([0x48 | 0x4c, 0x8d, modrm]) if is_rip_relative(modrm) && initial => {
                Ok(self.with(Op::GotSlotPc32, self.addend, Rewrite::DescLeaToIe))
            }
            Some([0x48 | 0x4c, 0x8d, modrm]) if is_rip_relative(modrm) => {
                Ok(self.with(Op::TpOff32, self.unbiased(), Rewrite::DescLeaToLe))
            }
            _ => Err(self.malformed("must be used in lea x@tlsdesc(%rip), %reg")),
        }
    }

    /// `TLSDESC_CALL` stands on `call *(%rax)`, a marker without a field.
    fn relax_descriptor_call(self) -> Result<Plan, RelocError> {
        match self.at::<2>(0) {
            Some([0xff, 0x10]) => Ok(self.with(Op::None, 0, Rewrite::DescCallToNop)),
            _ => Err(self.malformed("must be used in call *x@tlscall(%rax)")),
        }
    }

    /// The addend once the value is no longer relative to the end of the instruction.
    fn unbiased(self) -> i64 {
        self.addend.wrapping_sub(BIAS)
    }
}

/// How the instruction after a dynamic TLS `lea` reaches `__tls_get_addr`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Callee {
    Direct,
    Indirect,
    Large,
}

/// ModRM `00 rrr 101`.
fn is_rip_relative(modrm: u8) -> bool {
    modrm & 0xc7 == 0x05
}

/// The register field of a ModRM byte, without its REX bit.
fn register(modrm: u8) -> u8 {
    (modrm >> 3) & 7
}

/// A REX prefix whose register operand moves from ModRM.reg to ModRM.rm.
fn r_to_b(rex: u8) -> u8 {
    (rex & !0x04) | ((rex & 0x04) >> 2)
}

/// Where the rewritten bytes are, relative to `plan.offset`: first byte and length, field included.
fn extent(rewrite: Rewrite) -> (i64, u64) {
    match rewrite {
        Rewrite::None => (0, 0),
        Rewrite::MovToLea | Rewrite::CallToDirect => (-2, 6),
        // The field moved down by one, a nop follows it.
        Rewrite::JmpToDirect => (-1, 6),
        Rewrite::TestToImmediate { rex } | Rewrite::BinopToImmediate { rex } => match rex {
            true => (-3, 7),
            false => (-2, 6),
        },
        Rewrite::GdToLe | Rewrite::GdToIe => (-12, 16),
        Rewrite::GdLargeToLe | Rewrite::GdLargeToIe => (-12, 22),
        Rewrite::LdToLe => (-3, 12),
        Rewrite::LdIndirectToLe => (-3, 13),
        Rewrite::LdLargeToLe => (-3, 22),
        Rewrite::IeMovToLe | Rewrite::IeAddToLe | Rewrite::IeAddSpToLe | Rewrite::DescLeaToLe => (-3, 7),
        Rewrite::DescLeaToIe => (-2, 6),
        Rewrite::DescCallToNop => (0, 2),
    }
}

/// The bytes that [`rewrite`] and [`apply`](super::apply) may change for `plan`. Units: bytes from the start
/// of the section. One range covers all, for masking.
pub fn touched(plan: &Plan) -> Range<u64> {
    let (distance, len) = extent(plan.rewrite);
    let start = plan.offset.saturating_add_signed(distance);
    let field_end = plan.offset.saturating_add(plan.op.width() as u64);
    start..field_end.max(start.saturating_add(len))
}

/// Patches the instruction bytes around the field. Call once, on a copy of the pristine section, before
/// [`apply`](super::apply); the field itself may be overwritten with zeros.
///
/// # Errors
/// [`RelocError::FieldOutside`] if the sequence leaves the section: impossible for a plan made from these
/// bytes. `bytes` is then unchanged.
pub fn rewrite(plan: &Plan, bytes: &mut [u8]) -> Result<(), RelocError> {
    if plan.rewrite == Rewrite::None {
        return Ok(());
    }
    let (distance, width) = extent(plan.rewrite);
    let len = bytes.len() as u64;
    let outside = RelocError::FieldOutside { offset: plan.offset, width, len };
    let start = plan
        .offset
        .checked_add_signed(distance)
        .and_then(|start| usize::try_from(start).ok())
        .ok_or(outside)?;
    let end = start.checked_add(width as usize).ok_or(outside)?;
    let code = bytes.get_mut(start..end).ok_or(outside)?;
    replace(plan.rewrite, code).ok_or(outside)
}

/// Replaces `code`, which is exactly the extent of `rewrite`. `None` never happens: each pattern is as long
/// as its extent (`tests::no_input_panics_and_every_plan_fits_its_section`).
fn replace(rewrite: Rewrite, code: &mut [u8]) -> Option<()> {
    match rewrite {
        Rewrite::None => {}
        Rewrite::MovToLea => *code.first_mut()? = 0x8d,
        Rewrite::DescLeaToIe => *code.first_mut()? = 0x8b,
        Rewrite::CallToDirect => put(code, 0, &[0x67, 0xe8])?,
        Rewrite::JmpToDirect => {
            put(code, 0, &[0xe9])?;
            put(code, 5, &[0x90])?;
        }
        Rewrite::TestToImmediate { rex } => immediate(code, rex, 0xf7, 0)?,
        Rewrite::BinopToImmediate { rex } => {
            // The operation is in bits 3 to 5 of the old opcode and of the new ModRM byte, behind opcode 81.
            let operation = *code.get(usize::from(rex))? & 0x38;
            immediate(code, rex, 0x81, operation)?;
        }
        Rewrite::GdToLe => put(code, 0, &GD_LE)?,
        Rewrite::GdLargeToLe => {
            put(code, 0, &GD_LE)?;
            put(code, 16, &NOP_6)?;
        }
        Rewrite::GdToIe => put(code, 0, &GD_IE)?,
        Rewrite::GdLargeToIe => {
            put(code, 0, &GD_IE)?;
            put(code, 16, &NOP_6)?;
        }
        Rewrite::LdToLe => put(code, 0, &LD_LE)?,
        Rewrite::LdIndirectToLe => put(code, 0, &LD_INDIRECT_LE)?,
        Rewrite::LdLargeToLe => {
            put(code, 0, &NOP_13)?;
            put(code, 13, &MOV_FS0_RAX)?;
        }
        Rewrite::IeMovToLe | Rewrite::DescLeaToLe => immediate(code, true, 0xc7, 0)?,
        Rewrite::IeAddSpToLe => immediate(code, true, 0x81, 0)?,
        Rewrite::IeAddToLe => {
            let [rex, _, modrm] = *code.first_chunk()?;
            let register = register(modrm);
            // The register is both operand and base, so REX.R is kept and copied to REX.B.
            put(code, 0, &[rex | ((rex & 0x04) >> 2), 0x8d, 0x80 | (register << 3) | register])?;
        }
        Rewrite::DescCallToNop => put(code, 0, &[0x66, 0x90])?,
    }
    Some(())
}

/// Turns `[rex] opcode modrm` into `[rex'] new_opcode 11.extension.rrr`: a register operand and an immediate.
/// `extension` is in place, bits 3 to 5.
fn immediate(code: &mut [u8], rex: bool, new_opcode: u8, extension: u8) -> Option<()> {
    let opcode = usize::from(rex);
    if rex {
        let prefix = code.first_mut()?;
        *prefix = r_to_b(*prefix);
    }
    let modrm = code.get(opcode + 1)?;
    let modrm = 0xc0 | extension | register(*modrm);
    put(code, opcode, &[new_opcode, modrm])
}

/// Copies `new` to `code[at..]`.
fn put(code: &mut [u8], at: usize, new: &[u8]) -> Option<()> {
    code.get_mut(at..)?.get_mut(..new.len())?.copy_from_slice(new);
    Some(())
}

/// The psABI name of a relocation kind, `"R_X86_64_unknown"` if it has none.
pub fn kind_name(kind: u32) -> &'static str {
    match kind {
        kind::NONE => "R_X86_64_NONE",
        kind::ABS64 => "R_X86_64_64",
        kind::PC32 => "R_X86_64_PC32",
        kind::GOT32 => "R_X86_64_GOT32",
        kind::PLT32 => "R_X86_64_PLT32",
        kind::COPY => "R_X86_64_COPY",
        kind::GLOB_DAT => "R_X86_64_GLOB_DAT",
        kind::JUMP_SLOT => "R_X86_64_JUMP_SLOT",
        kind::RELATIVE => "R_X86_64_RELATIVE",
        kind::GOTPCREL => "R_X86_64_GOTPCREL",
        kind::ABS32 => "R_X86_64_32",
        kind::ABS32S => "R_X86_64_32S",
        kind::ABS16 => "R_X86_64_16",
        kind::PC16 => "R_X86_64_PC16",
        kind::ABS8 => "R_X86_64_8",
        kind::PC8 => "R_X86_64_PC8",
        kind::DTPMOD64 => "R_X86_64_DTPMOD64",
        kind::DTPOFF64 => "R_X86_64_DTPOFF64",
        kind::TPOFF64 => "R_X86_64_TPOFF64",
        kind::TLSGD => "R_X86_64_TLSGD",
        kind::TLSLD => "R_X86_64_TLSLD",
        kind::DTPOFF32 => "R_X86_64_DTPOFF32",
        kind::GOTTPOFF => "R_X86_64_GOTTPOFF",
        kind::TPOFF32 => "R_X86_64_TPOFF32",
        kind::PC64 => "R_X86_64_PC64",
        kind::GOTOFF64 => "R_X86_64_GOTOFF64",
        kind::GOTPC32 => "R_X86_64_GOTPC32",
        kind::GOT64 => "R_X86_64_GOT64",
        kind::GOTPCREL64 => "R_X86_64_GOTPCREL64",
        kind::GOTPC64 => "R_X86_64_GOTPC64",
        kind::GOTPLT64 => "R_X86_64_GOTPLT64",
        kind::PLTOFF64 => "R_X86_64_PLTOFF64",
        kind::SIZE32 => "R_X86_64_SIZE32",
        kind::SIZE64 => "R_X86_64_SIZE64",
        kind::GOTPC32_TLSDESC => "R_X86_64_GOTPC32_TLSDESC",
        kind::TLSDESC_CALL => "R_X86_64_TLSDESC_CALL",
        kind::TLSDESC => "R_X86_64_TLSDESC",
        kind::IRELATIVE => "R_X86_64_IRELATIVE",
        kind::RELATIVE64 => "R_X86_64_RELATIVE64",
        kind::GOTPCRELX => "R_X86_64_GOTPCRELX",
        kind::REX_GOTPCRELX => "R_X86_64_REX_GOTPCRELX",
        kind::CODE_4_GOTPCRELX => "R_X86_64_CODE_4_GOTPCRELX",
        kind::CODE_4_GOTTPOFF => "R_X86_64_CODE_4_GOTTPOFF",
        kind::CODE_4_GOTPC32_TLSDESC => "R_X86_64_CODE_4_GOTPC32_TLSDESC",
        kind::CODE_5_GOTPCRELX => "R_X86_64_CODE_5_GOTPCRELX",
        kind::CODE_5_GOTTPOFF => "R_X86_64_CODE_5_GOTTPOFF",
        kind::CODE_5_GOTPC32_TLSDESC => "R_X86_64_CODE_5_GOTPC32_TLSDESC",
        kind::CODE_6_GOTPCRELX => "R_X86_64_CODE_6_GOTPCRELX",
        kind::CODE_6_GOTTPOFF => "R_X86_64_CODE_6_GOTTPOFF",
        kind::CODE_6_GOTPC32_TLSDESC => "R_X86_64_CODE_6_GOTPC32_TLSDESC",
        _ => "R_X86_64_unknown",
    }
}

#[cfg(test)]
mod tests;
