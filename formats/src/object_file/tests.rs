//! Objects made by hand, whole and damaged.

use super::*;
use crate::hostile::every_damage;

/// One section of a hand-made object; offsets and the string tables are worked out by [`build`].
#[derive(Clone, Default)]
struct Part {
    name: &'static str,
    kind: u32,
    flags: u64,
    data: Vec<u8>,
    link: u32,
    info: u32,
    align: u64,
    entsize: u64,
    /// For `SHT_NOBITS`, whose size isn't that of `data`.
    size: Option<u64>,
}

fn le(words: &[u64], width: usize) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()[..width].to_vec()).collect()
}

fn sym(name: u32, bind: u8, kind: u8, section: u16, value: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[bind << 4 | kind, 0]);
    bytes.extend_from_slice(&section.to_le_bytes());
    bytes.extend_from_slice(&le(&[value, 4], 8));
    bytes
}

fn rela(place: u64, kind: u64, symbol: u64, addend: i64) -> Vec<u8> {
    le(&[place, symbol << 32 | kind, addend as u64], 8)
}

/// Indices of the sections of [`parts`]; tests change single ones.
const TEXT: usize = 1;
const RELA_TEXT: usize = 2;
const BSS: usize = 3;
const GROUP: usize = 4;
const SYMTAB: usize = 5;
const STRTAB: usize = 6;
const SHNDX: usize = 9;

fn parts() -> Vec<Part> {
    let symbols = [
        sym(0, 0, 0, 0, 0),
        sym(0, 0, 3, TEXT as u16, 0),
        sym(1, 1, 2, TEXT as u16, 0),
        sym(6, 1, 0, 0, 0),
        sym(11, 1, 1, 0xfff2, 8),
        sym(18, 1, 1, 0xffff, 0),
    ]
    .concat();
    let relocations = [rela(2, 4, 3, -4), rela(8, 1, 1, 0)].concat();
    let property = Property { present: true, feature_1_and: 3, ..Property::default() }.encode();
    let part = |name, kind, data| Part { name, kind, data, align: 1, ..Part::default() };
    vec![
        Part::default(),
        Part { flags: 0x206, align: 16, ..part(".text.f", 1, vec![0xe8; 16]) },
        Part { link: 5, info: 1, entsize: 24, align: 8, ..part(".rela.text.f", 4, relocations) },
        Part { flags: 3, align: 32, size: Some(1 << 40), ..part(".bss", 8, vec![]) },
        Part { link: 5, info: 1, entsize: 4, align: 4, ..part(".group", 17, le(&[1, 1, 2], 4)) },
        Part { link: 6, info: 2, entsize: 24, align: 8, ..part(".symtab", 2, symbols) },
        part(".strtab", 3, b"\0main\0puts\0common\0far\0".to_vec()),
        part(".note.GNU-stack", 1, vec![]),
        Part { flags: 2, align: 8, ..part(".note.gnu.property", 7, property) },
        Part { link: 5, entsize: 4, align: 4, ..part(".symtab_shndx", 18, le(&[0, 0, 0, 0, 0, 3], 4)) },
        part(".shstrtab", 3, vec![]),
    ]
}

/// The file: ELF header, contents, section header table. The last part becomes the name table.
fn build(mut parts: Vec<Part>) -> Vec<u8> {
    let mut names = vec![0];
    let starts: Vec<u64> = parts
        .iter()
        .map(|part| {
            let start = names.len() as u64;
            names.extend_from_slice(part.name.as_bytes());
            names.push(0);
            start
        })
        .collect();
    let last = parts.len() - 1;
    parts[last].data = names;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    file.resize(64, 0);
    let mut table = Vec::new();
    for (part, name) in parts.iter().zip(&starts) {
        let size = part.size.unwrap_or(part.data.len() as u64);
        table.extend(le(&[*name, part.kind.into()], 4));
        table.extend(le(&[part.flags, 0, file.len() as u64, size], 8));
        table.extend(le(&[part.link.into(), part.info.into()], 4));
        table.extend(le(&[part.align, part.entsize], 8));
        file.extend_from_slice(&part.data);
    }
    let at = (file.len() as u64).to_le_bytes();
    file[40..48].copy_from_slice(&at);
    file[52..64].copy_from_slice(&le(&[64, 0, 0, 64, parts.len() as u64, last as u64], 2));
    file.extend_from_slice(&table);
    file
}

fn parse(file: Vec<u8>) -> Result<ObjectFile, FormatError> {
    ObjectFile::parse(Bytes::from(file))
}

fn object() -> ObjectFile {
    parse(build(parts())).unwrap()
}

/// The error for the valid object with one section changed.
fn error_with(section: usize, change: impl FnOnce(&mut Part)) -> FormatError {
    let mut parts = parts();
    change(&mut parts[section]);
    parse(build(parts)).unwrap_err()
}

#[test]
fn sections_are_as_written() {
    let object = object();
    let text = &object.sections[TEXT];
    assert_eq!((object.section_name(TEXT), text.align.bytes()), (&b".text.f"[..], 16));
    assert_eq!(object.section_bytes(TEXT), [0xe8; 16]);
    assert_eq!((object.section_bytes(BSS).len(), object.sections[BSS].size), (0, 1 << 40));
    assert_eq!((object.section_name(0), object.section_bytes(0)), (&b""[..], &b""[..]));
    assert_eq!(object.stack, StackNote::NonExecutable);
    assert_eq!((object.property.present, object.property.feature_1_and), (true, 3));
}

#[test]
fn symbols_have_names_and_places() {
    let object = object();
    let seen: Vec<_> =
        (0..object.symbols().len()).map(|i| (object.symbol_name(i), object.symbol_place(i))).collect();
    let expected: [(&[u8], _); 6] = [
        (b"", SymbolPlace::Undefined),
        (b"", SymbolPlace::Section(1)),
        (b"main", SymbolPlace::Section(1)),
        (b"puts", SymbolPlace::Undefined),
        (b"common", SymbolPlace::Common),
        (b"far", SymbolPlace::Section(3)),
    ];
    assert_eq!((seen, object.first_global), (expected.to_vec(), 2));
}

#[test]
fn relocations_belong_to_the_section_they_patch() {
    let object = object();
    let seen: Vec<_> = object
        .relocations(TEXT)
        .iter()
        .map(|r| (r.r_offset.get(LE), r.r_sym(LE, false), r.r_type(LE, false).0, r.r_addend.get(LE)))
        .collect();
    assert_eq!(seen, [(2, 3, 4, -4), (8, 1, 1, 0)]);
    assert!(object.relocations(RELA_TEXT).is_empty());
}

#[test]
fn a_section_symbol_gives_its_group_the_name_of_the_section() {
    let object = object();
    let group = Group { signature: 1, comdat: true, sections: vec![1, 2], section: GROUP as u32 };
    assert_eq!(object.groups, std::slice::from_ref(&group));
    assert_eq!(object.group_signature(&group), b".text.f");
    assert_eq!(object.group_signature(&Group { signature: 2, ..group }), b"main");
    assert_eq!((object.sections[TEXT].group, object.sections[BSS].group), (1, 0));
}

#[test]
fn out_of_range_accessors_are_empty() {
    let object = object();
    let none = usize::MAX;
    assert_eq!(object.symbol_name(none), b"");
    assert_eq!(object.symbol_place(none), SymbolPlace::Undefined);
    assert_eq!((object.section_name(none), object.section_bytes(none)), (&b""[..], &b""[..]));
    assert!(object.relocations(none).is_empty());
}

#[test]
fn an_object_may_have_no_symbols_and_no_sections() {
    let mut header = build(parts());
    header.truncate(64);
    header[40..48].fill(0);
    let object = parse(header).unwrap();
    assert_eq!((object.sections.len(), object.symbols().len()), (0, 0));
    let names = Part { name: ".shstrtab", kind: 3, ..Part::default() };
    let object = parse(build(vec![Part::default(), names])).unwrap();
    assert_eq!((object.sections.len(), object.stack), (2, StackNote::Absent));
}

#[test]
fn extended_numbering_takes_counts_from_the_null_section() {
    let mut file = build(parts());
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    file[60..64].copy_from_slice(&[0, 0, 0xff, 0xff]);
    file[table + 32..table + 44].copy_from_slice(&[le(&[11], 8), le(&[10], 4)].concat());
    let object = parse(file).unwrap();
    assert_eq!((object.sections.len(), object.sections[0].size), (11, 0));
    assert_eq!(object.section_name(BSS), b".bss");
}

#[test]
fn more_sections_than_a_symbol_can_number() {
    let count = 70_000;
    let mut parts = parts();
    let names = parts.pop().unwrap();
    parts.resize_with(count - 1, || Part { kind: 1, ..Part::default() });
    parts.push(names);
    let last = count as u64 - 2;
    parts[SHNDX].data = le(&[0, 0, 0, 0, 0, last], 4);
    let mut file = build(parts);
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    file[60..64].copy_from_slice(&[0, 0, 0xff, 0xff]);
    file[table + 32..table + 44]
        .copy_from_slice(&[le(&[count as u64], 8), le(&[count as u64 - 1], 4)].concat());
    assert_eq!(parse(file).unwrap().symbol_place(5), SymbolPlace::Section(last as u32));
}

#[test]
fn files_of_other_kinds_are_named() {
    let with = |at: usize, value: u8| {
        let mut file = build(parts());
        file[at] = value;
        parse(file).unwrap_err().to_string()
    };
    for (at, value, word) in [
        (4, 1, "ELF32"),
        (5, 2, "big-endian"),
        (16, 2, "executable"),
        (16, 3, "shared library"),
        (18, 183, "aarch64"),
        (0, 0, "ELF object expected"),
    ] {
        let message = with(at, value);
        assert!(message.contains(word), "{message}");
    }
    let bitcode = parse(b"BC\xc0\xde1234".to_vec()).unwrap_err().to_string();
    assert!(bitcode.contains("LTO object"), "{bitcode}");
    assert!(matches!(parse(b"\x7fELF\x02\x01".to_vec()), Err(FormatError::Truncated { .. })));
}

#[test]
fn slim_lto_is_refused_and_fat_lto_is_not() {
    let lto = |name, data| {
        let mut parts = parts();
        parts[BSS] = Part { name, kind: 1, data, ..Part::default() };
        parse(build(parts))
    };
    assert!(lto(".gnu.lto_main.0", vec![1]).is_ok());
    assert!(lto(".gnu.lto_.lto.1f", vec![12, 0, 0, 0, 0, 0]).is_ok());
    let slim = lto(".gnu.lto_.lto.1f", vec![12, 0, 0, 0, 1, 0]).unwrap_err().to_string();
    assert!(slim.contains("LTO object"), "{slim}");
    let mut marked = parts();
    marked[BSS] = Part { name: ".gnu.lto_main.0", kind: 1, ..Part::default() };
    marked[STRTAB].data = b"\0main\0puts\0__gnu_lto_slim\0".to_vec();
    marked[SYMTAB].data.drain(120..);
    marked[SHNDX].data.clear();
    marked[SHNDX].kind = 1;
    assert!(matches!(parse(build(marked)), Err(FormatError::Unsupported { .. })));
}

#[test]
fn thread_local_sections_can_be_written_and_call_frames_are_in_order() {
    let (write, alloc, tls) = (1, 2, 0x400);
    for flags in [tls, alloc | tls, write | tls, write | alloc | tls | 4] {
        let error = error_with(BSS, |part| part.flags = flags).to_string();
        assert!(error.contains("flags of TLS section"), "{flags:#x}: {error}");
    }
    let mut parts = parts();
    parts[BSS].flags = write | alloc | tls;
    assert!(parse(build(parts.clone())).is_ok());
    parts[TEXT].name = ".eh_frame";
    assert!(parse(build(parts.clone())).is_ok());
    parts[RELA_TEXT].data.rotate_left(24);
    let error = parse(build(parts.clone())).unwrap_err().to_string();
    assert!(error.contains("not in the order of their places"), "{error}");
    parts[TEXT].name = ".text.f";
    assert!(parse(build(parts)).is_ok());
}

#[test]
fn unsupported_sections_are_named() {
    let compressed = error_with(TEXT, |part| part.flags |= 1 << 11).to_string();
    assert!(compressed.contains("`.text.f`") && compressed.contains("-gz"), "{compressed}");
    let rel = error_with(RELA_TEXT, |part| part.kind = 9).to_string();
    assert!(rel.contains("SHT_REL") && rel.contains("`.rela.text.f`"), "{rel}");
    let second = error_with(BSS, |part| {
        *part = Part { name: ".rela2", size: None, ..parts()[RELA_TEXT].clone() };
    });
    assert!(second.to_string().contains("second relocation section"), "{second}");
}

#[test]
fn violations_are_found() {
    let bad_index = |error: FormatError| match error {
        FormatError::BadIndex { what, .. } => what,
        other => panic!("{other}"),
    };
    let bad_value = |error: FormatError| match error {
        FormatError::BadValue { what, .. } => what,
        other => panic!("{other}"),
    };
    assert!(matches!(error_with(TEXT, |part| part.size = Some(1 << 20)), FormatError::Truncated { .. }));
    assert_eq!(bad_value(error_with(TEXT, |part| part.align = 3)), "section alignment");
    assert_eq!(
        bad_value(error_with(RELA_TEXT, |part| part.entsize = 16)),
        "entry size of relocation section"
    );
    assert_eq!(bad_index(error_with(RELA_TEXT, |part| part.info = 99)), "target of relocation section");
    assert_eq!(
        bad_value(error_with(RELA_TEXT, |part| part.info = BSS as u32)),
        "target, without contents, of relocation section"
    );
    assert_eq!(bad_index(error_with(RELA_TEXT, |part| part.data[12] = 6)), "symbol of relocation");
    assert_eq!(bad_index(error_with(RELA_TEXT, |part| part.data[0] = 17)), "place of relocation");
    assert_eq!(bad_index(error_with(GROUP, |part| part.data[4] = 99)), "member of section group");
    assert_eq!(bad_index(error_with(GROUP, |part| part.info = 6)), "signature symbol of section group");
    assert_eq!(bad_index(error_with(SYMTAB, |part| part.data[48] = 99)), "symbol name");
    assert_eq!(bad_index(error_with(SYMTAB, |part| part.data[54] = 99)), "section index of symbol");
    assert_eq!(bad_index(error_with(SHNDX, |part| part.data[20] = 99)), "section index of symbol");
    assert_eq!(bad_value(error_with(SYMTAB, |part| part.info = 3)), "binding of symbol by its index");
    assert_eq!(bad_value(error_with(SHNDX, |part| part.data.truncate(20))), "size of extended indices");
    let unterminated = error_with(STRTAB, |part| *part.data.last_mut().unwrap() = b'x');
    assert!(matches!(unterminated, FormatError::Unterminated { .. }));
}

#[test]
fn damage_never_panics() {
    every_damage(&build(parts()), |bytes| {
        let Ok(object) = parse(bytes.to_vec()) else { return };
        for index in 0..=object.symbols().len() {
            object.symbol_name(index);
            if let SymbolPlace::Section(section) = object.symbol_place(index) {
                assert!((section as usize) < object.sections.len());
            }
        }
        for index in 0..=object.sections.len() {
            object.section_name(index);
            let len = object.section_bytes(index).len() as u64;
            for relocation in object.relocations(index) {
                assert!(relocation.r_offset.get(LE) <= len);
                assert!((relocation.r_sym(LE, false) as usize) < object.symbols().len());
            }
        }
        for group in &object.groups {
            object.group_signature(group);
            assert!(group.sections.iter().all(|member| (*member as usize) < object.sections.len()));
        }
    });
}
