//! Programs of any size as relocatable objects, and edited variants of their units.
//!
//! A program is seeded by its size alone: the same size gives the same bytes. It is shaped like gcc's output for
//! `-ffunction-sections`: units of [`UNIT_FUNCTIONS`] functions, each in its own section with [`FUNCTION_RELOCATIONS`]
//! relocations, initialised data with pointers to functions, mergeable strings, `.eh_frame`. It runs: `_start` calls
//! `f0`, which calls its callees once each, and exits with `f0`'s constant.

use std::collections::{HashMap, HashSet};

use object::elf::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, RelocationType};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// Functions of a unit.
pub const UNIT_FUNCTIONS: usize = 100;
/// Relocations of a function: 15 calls, 4 loads of data, 1 address of a string.
pub const FUNCTION_RELOCATIONS: usize = CALLS + LOADS + 1;
const CALLS: usize = 15;
const LOADS: usize = 4;
/// Words of data that a unit defines under a global name each.
const UNIT_WORDS: usize = 16;
/// Pointers to functions in a unit's data.
const UNIT_POINTERS: usize = 8;
/// Strings of a unit; every second one is the same in all units.
const UNIT_STRINGS: usize = 8;
/// One function in so many is local to its unit.
const LOCAL_EVERY: usize = 10;
/// Functions of other units that a unit calls, and words of all units that it loads: as many in a program of any size, so
/// that the work of a frame does not depend on it.
const CALLED: usize = 300;
const LOADED: usize = 64;

/// A program of so many functions.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    functions: usize,
}

/// What differs from the first version of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit {
    /// Added to the constant that it returns.
    pub constant: u32,
    /// Bytes of `nop` before its end.
    pub padding: usize,
}

impl Program {
    /// `functions` is rounded up to whole units, of which there are at least five.
    pub fn new(functions: usize) -> Program {
        Program { functions: functions.next_multiple_of(UNIT_FUNCTIONS).max(5 * UNIT_FUNCTIONS) }
    }

    /// Number of functions.
    pub fn functions(&self) -> usize {
        self.functions
    }

    /// Number of objects.
    pub fn units(&self) -> usize {
        self.functions / UNIT_FUNCTIONS
    }

    /// The object of a unit; `edit` says how each of its functions (0 to [`UNIT_FUNCTIONS`]) differs.
    pub fn unit(&self, unit: usize, edit: impl Fn(usize) -> Edit) -> Vec<u8> {
        let mut writer = UnitWriter::new(self, unit);
        writer.data();
        for function in 0..UNIT_FUNCTIONS {
            writer.function(function, edit(function));
        }
        if unit == 0 {
            writer.start();
        }
        writer.finish()
    }
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

struct UnitWriter {
    unit: usize,
    object: Object<'static>,
    /// Symbols by name, undefined until their definition is written.
    symbols: HashMap<String, SymbolId>,
    /// Labels of the strings; gas never names a piece by its section and an addend either.
    strings: Vec<SymbolId>,
    unwind: SectionId,
    called: Vec<String>,
    loaded: Vec<String>,
}

/// `zR`, pc-relative 4-byte pointers, return address at cfa-8.
const CIE: [u8; 24] =
    [20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];

impl UnitWriter {
    fn new(program: &Program, unit: usize) -> UnitWriter {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        object.add_file_symbol(format!("unit{unit}.c").into_bytes());
        object.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
        let section = object.add_section(Vec::new(), b".rodata.str1.1".to_vec(), SectionKind::ReadOnlyString);
        let string = |n: usize| match n % 2 {
            0 => format!("shared string {n}\0"),
            _ => format!("string {n} of unit {unit}\0"),
        };
        let label = |n| {
            let value = object.append_section_data(section, string(n).as_bytes(), 1);
            let (scope, section) = (SymbolScope::Compilation, SymbolSection::Section(section));
            object.add_symbol(Symbol {
                value,
                scope,
                section,
                kind: SymbolKind::Label,
                ..undefined(&format!(".LC{n}"))
            })
        };
        let strings = (0..UNIT_STRINGS).map(label).collect();
        let unwind = object.add_section(Vec::new(), b".eh_frame".to_vec(), SectionKind::ReadOnlyData);
        object.append_section_data(unwind, &CIE, 8);
        let mut rng = Rng(unit as u64);
        let foreign = |f: usize| f / UNIT_FUNCTIONS != unit && f % LOCAL_EVERY != LOCAL_EVERY - 1;
        let function = || Some(rng.below(program.functions)).filter(|&f| foreign(f)).map(|f| format!("f{f}"));
        let called = distinct(CALLED, function);
        let loaded =
            distinct(LOADED, || Some(format!("d{}_{}", rng.below(program.units()), rng.below(UNIT_WORDS))));
        let symbols = HashMap::new();
        UnitWriter { unit, object, symbols, strings, unwind, called, loaded }
    }

    /// A symbol by name; undefined if it is new.
    fn symbol(&mut self, name: String) -> SymbolId {
        let object = &mut self.object;
        *self.symbols.entry(name).or_insert_with_key(|name| object.add_symbol(undefined(name)))
    }

    fn define(&mut self, name: String, kind: SymbolKind, local: bool, place: (SectionId, u64, u64)) {
        let id = self.symbol(name);
        let symbol = self.object.symbol_mut(id);
        symbol.section = SymbolSection::Section(place.0);
        (symbol.value, symbol.size, symbol.kind) = (place.1, place.2, kind);
        symbol.scope = if local { SymbolScope::Compilation } else { SymbolScope::Dynamic };
    }

    fn reference(
        &mut self,
        section: SectionId,
        offset: u64,
        symbol: SymbolId,
        addend: i64,
        r_type: RelocationType,
    ) {
        let flags = RelocationFlags::Elf { r_type };
        let relocation = Relocation { offset, symbol, addend, flags };
        self.object.add_relocation(section, relocation).expect("the kind of relocation is known");
    }

    fn data(&mut self) {
        let mut rng = Rng(self.unit as u64 | 1 << 32);
        let section = self.object.add_section(Vec::new(), b".data".to_vec(), SectionKind::Data);
        for word in 0..UNIT_WORDS {
            let offset = self.object.append_section_data(section, &(word as u64).to_le_bytes(), 8);
            self.define(format!("d{}_{word}", self.unit), SymbolKind::Data, false, (section, offset, 8));
        }
        for _ in 0..UNIT_POINTERS {
            let offset = self.object.append_section_data(section, &[0; 8], 8);
            let symbol = self.symbol(self.called[rng.below(CALLED)].clone());
            self.reference(section, offset, symbol, 0, R_X86_64_64);
        }
    }

    fn function(&mut self, index: usize, edit: Edit) {
        let number = self.unit * UNIT_FUNCTIONS + index;
        let mut rng = Rng(!(number as u64));
        let name = format!("f{number}");
        let section =
            self.object.add_section(Vec::new(), format!(".text.{name}").into_bytes(), SectionKind::Text);
        // endbr64; test edi, edi; je end; push rbx; lea ebx, [rdi - 1]
        let mut code =
            vec![0xf3, 0x0f, 0x1e, 0xfa, 0x85, 0xff, 0x0f, 0x84, 0, 0, 0, 0, 0x53, 0x8d, 0x5f, 0xff];
        let mut sites = Vec::with_capacity(FUNCTION_RELOCATIONS);
        for site in 0..FUNCTION_RELOCATIONS {
            let (opcode, symbol, r_type): (&[u8], _, _) = match site {
                0..CALLS => {
                    let callee = if site % LOCAL_EVERY == 0 {
                        let within = rng.below(UNIT_FUNCTIONS / LOCAL_EVERY) * LOCAL_EVERY + LOCAL_EVERY - 1;
                        format!("f{}", self.unit * UNIT_FUNCTIONS + within)
                    } else {
                        self.called[rng.below(CALLED)].clone()
                    };
                    (&[0x89, 0xdf, 0xe8], self.symbol(callee), R_X86_64_PLT32)
                }
                site if site < CALLS + LOADS => {
                    (&[0x8b, 0x05], self.symbol(self.loaded[rng.below(LOADED)].clone()), R_X86_64_PC32)
                }
                _ => (&[0x48, 0x8d, 0x05], self.strings[rng.below(UNIT_STRINGS)], R_X86_64_PC32),
            };
            code.extend_from_slice(opcode);
            sites.push((code.len() as u64, symbol, r_type));
            code.extend_from_slice(&[0; 4]);
        }
        code.push(0x5b); // pop rbx
        let end = code.len() as u32 - 12;
        code[8..12].copy_from_slice(&end.to_le_bytes());
        code.push(0xb8); // end: mov eax, constant
        code.extend_from_slice(&(number as u32 % 100 + edit.constant).to_le_bytes());
        code.resize(code.len() + edit.padding, 0x90);
        code.push(0xc3);
        self.object.append_section_data(section, &code, 16);
        for (offset, symbol, r_type) in sites {
            self.reference(section, offset, symbol, -4, r_type);
        }
        let local = number % LOCAL_EVERY == LOCAL_EVERY - 1;
        self.define(name, SymbolKind::Text, local, (section, 0, code.len() as u64));
        self.unwind_entry(section, code.len() as u32);
    }

    fn unwind_entry(&mut self, section: SectionId, size: u32) {
        let at = self.object.section(self.unwind).data().len() as u32;
        let mut entry = [0; 24];
        entry[0] = 20;
        entry[4..8].copy_from_slice(&(at + 4).to_le_bytes());
        entry[12..16].copy_from_slice(&size.to_le_bytes());
        self.object.append_section_data(self.unwind, &entry, 1);
        let symbol = self.object.section_symbol(section);
        self.reference(self.unwind, u64::from(at) + 8, symbol, 0, R_X86_64_PC32);
    }

    fn start(&mut self) {
        let section = self.object.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
        // mov edi, 1; call f0; mov edi, eax; mov eax, exit; syscall
        let code = [0xbf, 1, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
        self.object.append_section_data(section, &code, 16);
        let callee = self.symbol("f0".to_owned());
        self.reference(section, 6, callee, -4, R_X86_64_PLT32);
        self.define("_start".to_owned(), SymbolKind::Text, false, (section, 0, code.len() as u64));
    }

    fn finish(self) -> Vec<u8> {
        self.object.write().expect("the object has no contradictions")
    }
}

/// So many different names.
fn distinct(count: usize, mut name: impl FnMut() -> Option<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(count);
    while names.len() < count {
        if let Some(name) = name().filter(|name| seen.insert(name.clone())) {
            names.push(name);
        }
    }
    names
}

fn undefined(name: &str) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Unknown,
        scope: SymbolScope::Unknown,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    }
}
