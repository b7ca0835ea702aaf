//! A tiny program that the judges link, edit and damage.

use object::elf::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, RelocationType};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};
use relink::{BuildId, GateKind, IncrementalOptions, Input, InputId, LinkOptions, LinkSession, OutputKind};

/// Options of the links: as `gcc -static`, with or without state.
pub fn options(incremental: bool) -> LinkOptions {
    LinkOptions {
        output_kind: OutputKind::StaticExecutable,
        eh_frame_hdr: true,
        build_id: BuildId::Tree { len: 20 },
        incremental: incremental.then(IncrementalOptions::default),
        ..LinkOptions::default()
    }
}

/// A session with the two objects of the program.
pub fn session(incremental: bool, work: Vec<u8>) -> (LinkSession, InputId) {
    session_with(options(incremental), work)
}

fn session_with(options: LinkOptions, work: Vec<u8>) -> (LinkSession, InputId) {
    let mut session = LinkSession::new(options).expect("the options are sound");
    session.add_input(Input::bytes("start.o", start()));
    let id = session.add_input(Input::bytes("work.o", work));
    (session, id)
}

/// The same with state, behind a gate.
pub fn session_behind(gate_kind: GateKind, work: Vec<u8>) -> (LinkSession, InputId) {
    let incremental = IncrementalOptions { gate_kind, ..IncrementalOptions::default() };
    session_with(LinkOptions { incremental: Some(incremental), ..options(true) }, work)
}

/// `start.o`: calls both functions of [`work`] and points to them.
pub fn start() -> Vec<u8> {
    let mut writer = Writer::new();
    // call first; call second; mov edi, eax; mov eax, exit; syscall
    let code = [0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let section = writer.code("_start", &code);
    let callees = ["first", "second"].map(|name| writer.undefined(name));
    writer.reference(section, 1, callees[0], -4, R_X86_64_PLT32);
    writer.reference(section, 6, callees[1], -4, R_X86_64_PLT32);
    let data = writer.object.add_section(Vec::new(), b".data.pointers".to_vec(), SectionKind::Data);
    writer.object.append_section_data(data, &[0; 16], 8);
    writer.reference(data, 0, callees[0], 0, R_X86_64_64);
    writer.reference(data, 8, callees[1], 1, R_X86_64_64);
    writer.finish()
}

/// `work.o`: two functions with unwind entries, a constant, mergeable strings, data and a COMDAT function.
/// `first` returns `constant` behind so many bytes of `nop`.
pub fn work(constant: u8, padding: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut code = vec![0xf3, 0x0f, 0x1e, 0xfa];
    code.resize(4 + padding, 0x90);
    code.extend_from_slice(&[0xb8, constant, 0, 0, 0, 0xc3]);
    writer.code("first", &code);
    // endbr64; lea rax, [rip + string]; mov eax, [rip + word]; call shared; ret
    let code = [
        0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8d, 0x05, 0, 0, 0, 0, 0x8b, 0x05, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xc3,
    ];
    let second = writer.code("second", &code);
    let shared = writer.code("shared", &[0xc3]);
    let strings =
        writer.object.add_section(Vec::new(), b".rodata.str1.1".to_vec(), SectionKind::ReadOnlyString);
    let at = writer.object.append_section_data(strings, b"one\0two\0", 1) + 4;
    let string = writer.define(".LC1", SymbolKind::Label, strings, at, 0);
    let data = writer.object.add_section(Vec::new(), b".data".to_vec(), SectionKind::Data);
    let at = writer.object.append_section_data(data, &7u64.to_le_bytes(), 8);
    let word = writer.define("word", SymbolKind::Data, data, at, 8);
    let callee = writer.object.symbol_id(b"shared").expect("it was just defined");
    for (offset, target, r_type) in
        [(7, string, R_X86_64_PC32), (13, word, R_X86_64_PC32), (18, callee, R_X86_64_PLT32)]
    {
        writer.reference(second, offset, target, -4, r_type);
    }
    writer.object.add_comdat(object::write::Comdat {
        kind: object::ComdatKind::Any,
        symbol: callee,
        sections: vec![shared],
    });
    writer.finish()
}

/// An object with a function that calls each of some names, and data that points to each.
pub fn user(names: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut code = [0xe8, 0, 0, 0, 0].repeat(names.len());
    code.push(0xc3);
    let section = writer.code("use_all", &code);
    let data = writer.object.add_section(Vec::new(), b".data.pointers".to_vec(), SectionKind::Data);
    writer.object.append_section_data(data, &vec![0; 8 * names.len()], 8);
    for (index, name) in names.iter().enumerate() {
        let symbol = writer.undefined(name);
        writer.reference(section, 5 * index as u64 + 1, symbol, -4, R_X86_64_PLT32);
        writer.reference(data, 8 * index as u64, symbol, 0, R_X86_64_64);
    }
    writer.finish()
}

/// An object that may become a shared library: nothing in it refers to anything.
pub fn library() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.code("part", &[0xb8, 5, 0, 0, 0, 0xc3]);
    let data = writer.object.add_section(Vec::new(), b".data".to_vec(), SectionKind::Data);
    let at = writer.object.append_section_data(data, &9u64.to_le_bytes(), 8);
    writer.define("shared_word", SymbolKind::Data, data, at, 8);
    writer.finish()
}

/// An object in the making.
pub(super) struct Writer {
    pub(super) object: Object<'static>,
    unwind: SectionId,
}

/// `zR`, pc-relative 4-byte pointers, return address at cfa-8.
const CIE: [u8; 24] =
    [20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];

impl Writer {
    pub(super) fn new() -> Writer {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        object.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
        let unwind = object.add_section(Vec::new(), b".eh_frame".to_vec(), SectionKind::ReadOnlyData);
        object.append_section_data(unwind, &CIE, 8);
        Writer { object, unwind }
    }

    /// A function in a section of its own, with an unwind entry.
    pub(super) fn code(&mut self, name: &str, code: &[u8]) -> SectionId {
        let section =
            self.object.add_section(Vec::new(), format!(".text.{name}").into_bytes(), SectionKind::Text);
        self.object.append_section_data(section, code, 16);
        self.define(name, SymbolKind::Text, section, 0, code.len() as u64);
        let at = self.object.section(self.unwind).data().len() as u32;
        let mut entry = [0; 24];
        entry[0] = 20;
        entry[4..8].copy_from_slice(&(at + 4).to_le_bytes());
        entry[12..16].copy_from_slice(&(code.len() as u32).to_le_bytes());
        self.object.append_section_data(self.unwind, &entry, 1);
        let symbol = self.object.section_symbol(section);
        self.reference(self.unwind, u64::from(at) + 8, symbol, 0, R_X86_64_PC32);
        section
    }

    pub(super) fn define(
        &mut self,
        name: &str,
        kind: SymbolKind,
        section: SectionId,
        value: u64,
        size: u64,
    ) -> SymbolId {
        let scope = if name.starts_with('.') { SymbolScope::Compilation } else { SymbolScope::Dynamic };
        let section = SymbolSection::Section(section);
        self.object.add_symbol(Symbol { value, size, kind, scope, section, ..undefined(name) })
    }

    pub(super) fn undefined(&mut self, name: &str) -> SymbolId {
        self.object.add_symbol(undefined(name))
    }

    pub(super) fn reference(
        &mut self,
        section: SectionId,
        offset: u64,
        symbol: SymbolId,
        addend: i64,
        r_type: RelocationType,
    ) {
        let relocation = Relocation { offset, symbol, addend, flags: RelocationFlags::Elf { r_type } };
        self.object.add_relocation(section, relocation).expect("the kind of relocation is known");
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.object.write().expect("the object has no contradictions")
    }
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

/// A GNU archive with an index of symbols: `(name, bytes, symbols)` each.
pub fn archive(members: &[(&str, &[u8], &[&str])]) -> Vec<u8> {
    let symbols = || members.iter().flat_map(|(_, _, symbols)| symbols.iter());
    let count = symbols().count();
    let names: Vec<u8> = symbols().flat_map(|symbol| [symbol.as_bytes(), &[0]].concat()).collect();
    let index_len = (4 + 4 * count + names.len()).next_multiple_of(2);
    let mut index = (count as u32).to_be_bytes().to_vec();
    let mut at = 8 + 60 + index_len;
    for (_, bytes, symbols) in members {
        for _ in *symbols {
            index.extend_from_slice(&(at as u32).to_be_bytes());
        }
        at += 60 + bytes.len().next_multiple_of(2);
    }
    index.extend_from_slice(&names);
    index.resize(index_len, 0);
    let mut out = b"!<arch>\n".to_vec();
    let mut member = |name: &str, bytes: &[u8]| {
        out.extend_from_slice(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, bytes.len()).as_bytes(),
        );
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(2), b'\n');
    };
    member("/", &index);
    for (name, bytes, _) in members {
        member(&format!("{name}/"), bytes);
    }
    out
}
