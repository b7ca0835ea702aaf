//! Dynamic relocations and `.dynamic` of a static PIE; IRELATIVE relocations of any static program.

use formats::elf;
use relink_engine::options::LinkOptions;
use relink_engine::program::Program;
use relink_engine::records::{place, symbol_flags};
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use crate::place::addresses::own_address;

/// Whether a GOT slot holds an address that moves with the image.
pub(crate) fn slot_is_relative(program: &Program, row: SymbolRow) -> bool {
    let symbol = &program.symbols[row.index()];
    program.position_independent && place::is_atom(symbol.atom) && symbol.flags & symbol_flags::TLS == 0
}

/// Writes the table: RELATIVE by address, then IRELATIVE.
pub(crate) fn write_dynamic_relocs(program: &mut Program, mut relative: Vec<(u64, i64)>) {
    let got = program.got_address;
    for (slot, &row) in program.got.iter().enumerate() {
        if slot_is_relative(program, row) {
            relative.push((got + 8 * slot as u64, program.addresses[row.index()] as i64));
        }
    }
    if program.position_independent
        && let Some(table) = program.synthetic.got.some()
    {
        // Spare slots have theirs already: a patch can fill one in, but not put one between others.
        let slots = program.atoms[table.index()].size / 8;
        relative.extend((program.got.len() as u64..slots).map(|slot| (got + 8 * slot, 0)));
    }
    relative.sort_unstable();
    let got_plt = own_address(program, program.synthetic.got_plt);
    let mut bytes = Vec::with_capacity((relative.len() + program.plt.len()) * 24);
    let mut entry = |address: u64, kind: u32, addend: i64| {
        bytes.extend_from_slice(&address.to_le_bytes());
        bytes.extend_from_slice(&u64::from(kind).to_le_bytes());
        bytes.extend_from_slice(&addend.to_le_bytes());
    };
    for &(address, addend) in &relative {
        entry(address, elf::R_X86_64_RELATIVE, addend);
    }
    for (index, &row) in program.plt.iter().enumerate() {
        entry(got_plt + 8 * index as u64, elf::R_X86_64_IRELATIVE, resolver(program, row) as i64);
    }
    super::tables::write_own(program, program.synthetic.rela, &bytes);
}

/// The address of an IFUNC's resolver: where the symbol really is.
fn resolver(program: &Program, row: SymbolRow) -> u64 {
    let symbol = &program.symbols[row.index()];
    program.atoms.get(symbol.atom.index()).map_or(0, |atom| atom.address.wrapping_add(symbol.value))
}

/// Tags of `.dynamic`; values are filled in by [`dynamic_bytes`].
pub(crate) fn dynamic_entries(options: &LinkOptions) -> Vec<u32> {
    let mut tags = vec![elf::DT_FLAGS_1, elf::DT_RELA, elf::DT_RELASZ, elf::DT_RELAENT, elf::DT_RELACOUNT];
    tags.extend([elf::DT_SYMTAB, elf::DT_SYMENT, elf::DT_STRTAB, elf::DT_STRSZ, elf::DT_GNU_HASH]);
    tags.extend([elf::DT_INIT, elf::DT_FINI, elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ]);
    tags.extend([elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, elf::DT_DEBUG]);
    if options.now {
        tags.push(elf::DT_FLAGS);
    }
    tags.push(elf::DT_NULL);
    tags
}

/// The bytes of `.dynamic`. Tags of things that are not there become padding at the end.
pub(crate) fn dynamic_bytes(program: &Program, options: &LinkOptions) -> Vec<u8> {
    let section = |name: &[u8]| program.output(name).filter(|section| section.index != 0);
    let address = |name: &[u8]| section(name).map(|section| section.address);
    let size = |name: &[u8]| section(name).map(|section| section.size);
    let symbol = |name: &[u8]| {
        let row = program.names.find(name)?;
        let defined = place::is_atom(program.symbols[row.index()].atom);
        defined.then(|| program.addresses[row.index()])
    };
    let relative = u64::from(program.dynamic_relocs) - program.plt.len() as u64;
    let mut entries = Vec::new();
    for tag in dynamic_entries(options) {
        let value = match tag {
            elf::DT_FLAGS_1 => {
                Some(u64::from(elf::DF_1_PIE) | if options.now { u64::from(elf::DF_1_NOW) } else { 0 })
            }
            elf::DT_FLAGS => Some(u64::from(elf::DF_BIND_NOW)),
            elf::DT_RELA => address(b".rela.dyn"),
            elf::DT_RELASZ => size(b".rela.dyn"),
            elf::DT_RELAENT => section(b".rela.dyn").map(|_| 24),
            elf::DT_RELACOUNT => section(b".rela.dyn").map(|_| relative),
            elf::DT_SYMTAB => address(b".dynsym"),
            elf::DT_SYMENT => Some(24),
            elf::DT_STRTAB => address(b".dynstr"),
            elf::DT_STRSZ => size(b".dynstr"),
            elf::DT_GNU_HASH => address(b".gnu.hash"),
            elf::DT_INIT => symbol(b"_init"),
            elf::DT_FINI => symbol(b"_fini"),
            elf::DT_INIT_ARRAY => address(b".init_array"),
            elf::DT_INIT_ARRAYSZ => size(b".init_array"),
            elf::DT_FINI_ARRAY => address(b".fini_array"),
            elf::DT_FINI_ARRAYSZ => size(b".fini_array"),
            elf::DT_DEBUG => Some(0),
            _ => None,
        };
        if let Some(value) = value {
            entries.push((u64::from(tag), value));
        }
    }
    let mut bytes: Vec<u8> = entries
        .into_iter()
        .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()])
        .flatten()
        .collect();
    bytes.resize(dynamic_entries(options).len() * 16, 0);
    bytes
}

/// An empty `.gnu.hash`: one bucket, one empty filter word.
pub(crate) fn empty_gnu_hash() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    for word in [1_u32, 1, 1, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 12]); // The filter word and the bucket.
    bytes
}
