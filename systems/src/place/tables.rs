//! The sections that no object brings: notes, dynamic tables, GOT and PLT, unwind tables.

use formats::dynamic::{plt, relr};
use formats::elf;
use relink_engine::options::{BuildId, LinkOptions};
use relink_engine::program::{Program, Synthetic};
use relink_engine::records::atom_flags;
use relink_engine::rows::AtomRow;
use relink_formats as formats;

use super::arrange::{Outputs, own_atom};
use super::reserve;
use crate::relocate::dynamic::count_dynamic_relocs;
use crate::resolve::bind::needs_dynamic_section;

/// glibc's.
const INTERPRETER: &str = "/lib64/ld-linux-x86-64.so.2";
const ALLOC: u64 = elf::SHF_ALLOC as u64;
const WRITE: u64 = ALLOC | elf::SHF_WRITE as u64;
const CODE: u64 = ALLOC | elf::SHF_EXECINSTR as u64;

/// The contents of `.interp`, without the zero at its end.
pub(crate) fn interpreter(options: &LinkOptions) -> Option<&str> {
    let kind = options.output_kind;
    let default = (kind.is_dynamic() && !kind.is_shared()).then_some(INTERPRETER);
    options.dynamic.interpreter.as_deref().filter(|_| kind.is_dynamic()).or(default)
}

/// Whether calls through the PLT land on `endbr64`.
pub(crate) fn has_ibt_plt(program: &Program, options: &LinkOptions) -> bool {
    program.kind.is_dynamic() && (options.dynamic.force_ibt || program.property.has_ibt())
}

struct Tables<'a> {
    program: &'a mut Program,
    outputs: &'a mut Outputs,
}

impl Tables<'_> {
    fn add(&mut self, name: &[u8], kind: u32, flags: u64, size: u64, align: u8, entsize: u64) -> AtomRow {
        let mut bits = atom_flags::ALLOC;
        if flags & u64::from(elf::SHF_WRITE) != 0 {
            bits |= atom_flags::WRITE;
        }
        if flags & u64::from(elf::SHF_EXECINSTR) != 0 {
            bits |= atom_flags::CODE;
        }
        let row = own_atom(self.program, size, align, bits, kind);
        let output = self.outputs.push(self.program, name, kind, flags, row);
        self.outputs.sections[output].entsize = entsize;
        row
    }

    /// The same with room behind it that `sh_size` leaves out: tables of dynamic symbols, which later frames lengthen.
    fn add_with_tail(
        &mut self,
        name: &[u8],
        kind: u32,
        size: u64,
        tail: u64,
        align: u8,
        entsize: u64,
    ) -> AtomRow {
        let row = self.add(name, kind, ALLOC, size + tail, align, entsize);
        if let Some(section) = self.outputs.sections.iter_mut().find(|section| section.name == name) {
            section.tail = tail;
        }
        row
    }

    fn add_notes(&mut self, options: &LinkOptions) {
        let property = self.program.property.encode().len() as u64;
        if property > 0 {
            self.program.synthetic.property =
                self.add(b".note.gnu.property", elf::SHT_NOTE, ALLOC, property, 3, 0);
        }
        let id_len = match &options.build_id {
            BuildId::None => 0,
            BuildId::Tree { len } => u64::from(*len),
            BuildId::Uuid(bytes) => bytes.len() as u64,
            BuildId::Hex(bytes) => bytes.len() as u64,
        };
        if id_len > 0 {
            let size = 16 + id_len.next_multiple_of(4);
            self.program.synthetic.build_id =
                self.add(b".note.gnu.build-id", elf::SHT_NOTE, ALLOC, size, 2, 0);
        }
    }

    fn add_dynamic(&mut self, options: &LinkOptions, incremental: bool) {
        if let Some(interpreter) = interpreter(options) {
            let size = interpreter.len() as u64 + 1;
            self.program.synthetic.interp = self.add(b".interp", elf::SHT_PROGBITS, ALLOC, size, 0, 0);
        }
        if !needs_dynamic_section(options.output_kind) {
            return;
        }
        let tables = &self.program.dynamic;
        let symbols = tables.symbols.len() as u64 + 1;
        let (tail, spare) = (u64::from(tables.tail), tables.locals.saturating_sub(1) + tables.tail);
        let [versions, definitions, needs, gnu_hash, hash, strings] = [
            tables.versions.len() * 2,
            tables.definitions.0.len(),
            tables.needs.0.len(),
            tables.gnu_hash.len(),
            tables.hash.len(),
            tables.strings.len(),
        ]
        .map(|len| len as u64);
        // One entry ends the table; the spare ones are what a loader or tool may fill in.
        let entries = tables.entries.len() as u64 + if incremental { 8 } else { 1 };
        let synthetic = &mut Synthetic::default();
        let grows = incremental && options.output_kind.is_dynamic();
        synthetic.dynsym = self.add_with_tail(b".dynsym", elf::SHT_DYNSYM, symbols * 24, tail * 24, 3, 24);
        if versions > 0 {
            synthetic.versym =
                self.add_with_tail(b".gnu.version", elf::SHT_GNU_VERSYM, versions, tail * 2, 1, 2);
        }
        if definitions > 0 {
            synthetic.verdef = self.add(b".gnu.version_d", elf::SHT_GNU_VERDEF, ALLOC, definitions, 2, 0);
        }
        if needs > 0 {
            let tail = if grows { reserve::VERSION_SPARE } else { 0 };
            synthetic.verneed =
                self.add_with_tail(b".gnu.version_r", elf::SHT_GNU_VERNEED, needs, tail, 2, 0);
        }
        if gnu_hash > 0 {
            synthetic.gnu_hash =
                self.add_with_tail(b".gnu.hash", elf::SHT_GNU_HASH, gnu_hash, tail * 4, 3, 0);
        }
        if hash > 0 {
            synthetic.hash = self.add_with_tail(b".hash", elf::SHT_HASH, hash, tail * 4, 2, 4);
        }
        let names = if grows { reserve::name_spare(strings as usize, spare) } else { 0 };
        synthetic.dynstr = self.add(b".dynstr", elf::SHT_STRTAB, ALLOC, strings + names, 0, 0);
        let known = &mut self.program.synthetic;
        known.dynsym = synthetic.dynsym;
        (known.versym, known.verdef, known.verneed) = (synthetic.versym, synthetic.verdef, synthetic.verneed);
        (known.gnu_hash, known.hash, known.dynstr) = (synthetic.gnu_hash, synthetic.hash, synthetic.dynstr);
        self.program.synthetic.dynamic = self.add(b".dynamic", elf::SHT_DYNAMIC, WRITE, entries * 16, 3, 16);
    }

    fn add_plt(&mut self, options: &LinkOptions) {
        let dynamic = self.program.kind.is_dynamic();
        let used = self.program.plt.len() as u64;
        let spare = u64::from(self.program.plt_spare);
        let slots = used + spare;
        // Late entries that a patch adds have the numbers behind the IFUNCs'.
        let lazy = if spare > 0 { slots } else { u64::from(self.program.jump_slots) };
        if slots > 0 {
            if !dynamic {
                self.program.synthetic.plt =
                    self.add(b".iplt", elf::SHT_PROGBITS, CODE, slots * plt::ENTRY_LEN, 4, plt::ENTRY_LEN);
            } else if has_ibt_plt(self.program, options) {
                let size = (lazy + 1) * plt::ENTRY_LEN;
                self.program.synthetic.lazy_plt =
                    self.add(b".plt", elf::SHT_PROGBITS, CODE, size, 4, plt::ENTRY_LEN);
                let size = slots * plt::ENTRY_LEN;
                self.program.synthetic.plt =
                    self.add(b".plt.sec", elf::SHT_PROGBITS, CODE, size, 4, plt::ENTRY_LEN);
            } else {
                let size = (slots + 1) * plt::ENTRY_LEN;
                self.program.synthetic.plt =
                    self.add(b".plt", elf::SHT_PROGBITS, CODE, size, 4, plt::ENTRY_LEN);
            }
            if dynamic {
                self.program.synthetic.rela_plt =
                    self.add_with_tail(b".rela.plt", elf::SHT_RELA, used * 24, spare * 24, 3, 24);
            }
        }
        let got_base = self.program.names.find(b"_GLOBAL_OFFSET_TABLE_").is_some();
        if slots > 0 || got_base {
            let reserved = if dynamic { plt::RESERVED_SLOTS } else { 0 };
            let size = ((slots + reserved) * 8).max(8);
            self.program.synthetic.got_plt = self.add(b".got.plt", elf::SHT_PROGBITS, WRITE, size, 3, 8);
        }
    }

    /// Spare slots stand in front of the pairs: a patch numbers them on from the others.
    fn add_got(&mut self) {
        let program = &*self.program;
        let pairs =
            program.tls_pairs.len() + program.tls_descriptors.len() + usize::from(program.has_tls_module);
        let slots = program.got.len() + 2 * pairs + program.got_spare as usize;
        if slots > 0 {
            self.program.synthetic.got = self.add(b".got", elf::SHT_PROGBITS, WRITE, slots as u64 * 8, 3, 8);
        }
    }

    fn add_unwind(&mut self, options: &LinkOptions, incremental: bool) {
        let len = self.program.eh_frame_len;
        if len == 0 {
            return;
        }
        let spare = if incremental { reserve::unwind_reserve(len) } else { 0 };
        let size = u64::from(len) + u64::from(spare) + 4;
        self.program.synthetic.eh_frame = self.add(b".eh_frame", elf::SHT_PROGBITS, ALLOC, size, 3, 0);
        if options.eh_frame_hdr {
            let fdes: usize = self.program.objects.iter().map(|object| object.fdes.len()).sum();
            let entries = if incremental { reserve::header_entries(fdes) } else { fdes };
            let size = 12 + 8 * entries as u64;
            self.program.synthetic.eh_frame_hdr =
                self.add(b".eh_frame_hdr", elf::SHT_PROGBITS, ALLOC, size, 2, 0);
        }
    }
}

/// Adds all of them.
pub(super) fn add_tables(program: &mut Program, options: &LinkOptions, outputs: &mut Outputs) {
    let incremental = options.incremental.is_some();
    let mut tables = Tables { program, outputs };
    tables.add_notes(options);
    tables.add_dynamic(options, incremental);
    let slots = tables.program.got.len();
    tables.program.got_spare = if incremental { reserve::got_spare(slots) as u32 } else { 0 };
    (tables.program.relative_spare, tables.program.symbolic_spare) = (0, 0);
    let (relative, all) = count_dynamic_relocs(tables.program);
    // Elsewhere no pointer waits for the loader. Of packed ones only those at odd places stand here.
    let dynamic = tables.program.kind.is_dynamic();
    let moves = tables.program.position_independent && (dynamic || !tables.program.pack_relative);
    if incremental && dynamic {
        tables.program.symbolic_spare = reserve::symbolic_spare(all - relative);
    }
    if incremental && moves {
        tables.program.relative_spare = reserve::relative_spare(relative);
    }
    (tables.program.relative_relocs, tables.program.dynamic_relocs) = count_dynamic_relocs(tables.program);
    if tables.program.dynamic_relocs > 0 {
        let size = u64::from(tables.program.dynamic_relocs) * 24;
        tables.program.synthetic.rela = tables.add(b".rela.dyn", elf::SHT_RELA, ALLOC, size, 3, 24);
    }
    if tables.program.pack_relative {
        // How many entries it takes depends on addresses: the layout lets it grow.
        tables.program.synthetic.relr = tables.add(b".relr.dyn", elf::SHT_RELR, ALLOC, 0, 3, relr::ENTRY_LEN);
    }
    let plt = tables.program.plt.len();
    let grows = incremental && tables.program.kind.is_dynamic();
    tables.program.plt_spare = if grows { reserve::plt_spare(plt) } else { 0 };
    tables.add_plt(options);
    tables.add_got();
    tables.add_unwind(options, incremental);
    if options.relro {
        tables.add(b".pad.relro", elf::SHT_NOBITS, WRITE, 0, 0, 0);
    }
}
