//! Tests of the parser of shared libraries, with small real ones (`testdata/shared.c`) and edits of them.

use super::*;
use crate::dynamic::hash::sysv_hash;
use crate::elf::{SHN_ABS, STB_GLOBAL, STB_WEAK, STT_NOTYPE, STT_OBJECT};
use crate::hostile::every_damage;

const GNU: &[u8] = include_bytes!("../../testdata/shared_gnu.so");
const SYSV: &[u8] = include_bytes!("../../testdata/shared_sysv.so");
const STB_GNU_UNIQUE: u8 = 10;
const STV_PROTECTED: u8 = 3;

fn parse(file: impl Into<Vec<u8>>) -> Result<SharedObject, FormatError> {
    SharedObject::parse(Bytes::from(file.into()))
}

fn library() -> SharedObject {
    parse(GNU).unwrap()
}

/// As `sstrip` leaves a file: no section headers.
fn without_sections(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[40..48].fill(0);
    file[60..64].fill(0);
    file
}

/// Offset in the file of the header of the first section of a type.
fn section_header(file: &[u8], kind: u32) -> usize {
    let headers = Headers::find(file, file_header(file).unwrap()).unwrap();
    let index = headers.table.iter().position(|header| header.sh_type.get(LE).0 == kind).unwrap();
    headers.offset_of(index) as usize
}

/// Offset in the file of its contents.
fn contents(file: &[u8], kind: u32) -> usize {
    let at = section_header(file, kind) + 24;
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize
}

/// Index in `.dynsym` of a name, the first if it is there twice.
fn dynsym_index(file: &[u8], name: &str) -> usize {
    let (symbols, strings) = (contents(file, elf::SHT_DYNSYM.0), contents(file, elf::SHT_STRTAB.0));
    let position = entries::<Sym>(&file[symbols..])
        .iter()
        .position(|symbol| until_nul(&file[strings + symbol.st_name.get(LE) as usize..]) == name.as_bytes());
    position.unwrap()
}

/// The library with some bytes of the `.dynsym` entry of `name` changed.
fn with_symbol(name: &str, offset: usize, bytes: &[u8]) -> Result<SharedObject, FormatError> {
    let mut file = GNU.to_vec();
    let at = contents(&file, elf::SHT_DYNSYM.0) + 24 * dynsym_index(&file, name) + offset;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    parse(file)
}

/// The library with another entry in `.gnu.version` for `name`.
fn with_version(name: &str, version: u16) -> Result<SharedObject, FormatError> {
    let mut file = GNU.to_vec();
    let at = contents(&file, elf::SHT_GNU_VERSYM.0) + 2 * dynsym_index(&file, name);
    file[at..at + 2].copy_from_slice(&version.to_le_bytes());
    parse(file)
}

fn all<'a>(library: &'a SharedObject, name: &str) -> Vec<&'a SharedSymbol> {
    library.symbols.iter().filter(|symbol| library.name(&symbol.name) == name.as_bytes()).collect()
}

fn symbol<'a>(library: &'a SharedObject, name: &str) -> &'a SharedSymbol {
    all(library, name)[0]
}

fn text<'a>(library: &'a SharedObject, range: &Range<u32>) -> &'a str {
    std::str::from_utf8(library.name(range)).unwrap()
}

#[test]
fn names_of_libraries_and_versions_are_found() {
    let library = library();
    assert_eq!(library.soname(), Some(&b"libshared.so.1"[..]));
    assert_eq!(library.needed.iter().map(|name| text(&library, name)).collect::<Vec<_>>(), ["libdep.so.1"]);
    let seen: Vec<_> =
        library.versions.iter().map(|v| (v.index, text(&library, &v.name), v.is_base)).collect();
    assert_eq!(seen, [(1, "libshared.so.1", true), (2, "V1", false), (3, "V2", false)]);
    for version in library.versions.iter().chain(&library.needed_versions) {
        assert_eq!(version.hash, sysv_hash(library.name(&version.name)));
    }
    let names = |library: &SharedObject| {
        (0..7)
            .map(|index| library.version_name(index).map(|name| String::from_utf8_lossy(name).into_owned()))
            .collect::<Vec<_>>()
    };
    let expected = [None, None, Some("V1"), Some("V2"), Some("DEP_2"), Some("DEP_1"), None];
    assert_eq!(names(&library), expected.map(|name| name.map(str::to_owned)));
    // The indices need not be in order.
    let mut reversed = library.clone();
    reversed.versions.reverse();
    assert_eq!(names(&reversed), names(&library));
}

#[test]
fn functions_have_versions_and_only_one_is_the_default() {
    let library = library();
    let functions = all(&library, "function");
    let mut seen: Vec<_> =
        functions.iter().map(|f| (library.version_name(f.version).unwrap(), f.hidden)).collect();
    seen.sort();
    assert_eq!(seen, [(&b"V1"[..], true), (b"V2", false)]);
    assert!(functions.iter().all(|f| f.defined && f.kind == STT_FUNC && f.size == 6 && f.read_only));
    assert_eq!(symbol(&library, "indirect").kind, STT_GNU_IFUNC);
    assert_eq!(symbol(&library, "protected_function").visibility, STV_PROTECTED);
}

#[test]
fn undefined_symbols_have_the_versions_that_they_need() {
    let library = library();
    let seen = |name| {
        let symbol = symbol(&library, name);
        let version = library.version_name(symbol.version).unwrap_or_default();
        (symbol.defined, symbol.binding, symbol.kind, std::str::from_utf8(version).unwrap())
    };
    assert_eq!(seen("dep_function"), (false, STB_GLOBAL, STT_FUNC, "DEP_1"));
    assert_eq!(seen("dep_weak"), (false, STB_WEAK, STT_FUNC, "DEP_2"));
    assert_eq!(seen("unversioned"), (false, STB_GLOBAL, STT_NOTYPE, ""));
    assert_eq!(symbol(&library, "unversioned").version, VER_NDX_GLOBAL);
    assert!(!symbol(&library, "dep_data").can_be_copied());
}

#[test]
fn data_says_what_a_copy_needs() {
    let library = library();
    let seen = |name| {
        let symbol = symbol(&library, name);
        (symbol.size, symbol.align.bytes(), symbol.read_only, symbol.can_be_copied())
    };
    assert_eq!(seen("data"), (4, 8, false, true));
    assert_eq!(seen("aligned"), (64, 32, false, true));
    // In a segment that is never writable, and in one that stops being it.
    assert_eq!(seen("constant"), (12, 8, true, true));
    assert_eq!(seen("relocated"), (8, 8, true, true));
    assert_eq!(seen("tls"), (4, 1, false, false));
    assert_eq!(symbol(&library, "unique").binding, STB_GNU_UNIQUE);
    assert!(!symbol(&library, "caller").can_be_copied());
}

#[test]
fn aliases_share_their_place() {
    let library = library();
    let aliases = |name| {
        let mut names: Vec<_> =
            library.aliases(symbol(&library, name)).map(|symbol| text(&library, &symbol.name)).collect();
        names.sort();
        names
    };
    assert_eq!(
        (aliases("data"), aliases("data_alias")),
        (vec!["data", "data_alias"], vec!["data", "data_alias"])
    );
    assert_eq!(aliases("constant"), ["constant"]);
}

/// Everything but what section headers alone tell.
fn summary(library: &SharedObject) -> Vec<SharedSymbol> {
    library.symbols.iter().map(|symbol| SharedSymbol { align: Align::ONE, ..symbol.clone() }).collect()
}

#[test]
fn without_section_headers_the_dynamic_segment_tells_the_same() {
    for file in [GNU, SYSV] {
        let (whole, stripped) = (parse(file).unwrap(), parse(without_sections(file)).unwrap());
        assert_eq!(summary(&whole).len(), 18);
        assert_eq!(summary(&whole), summary(&stripped));
        assert_eq!((whole.soname(), &whole.needed), (stripped.soname(), &stripped.needed));
        assert_eq!(whole.versions, stripped.versions);
        assert_eq!(whole.needed_versions, stripped.needed_versions);
        // The address alone proves at most a page.
        assert_eq!(symbol(&stripped, "aligned").align.bytes(), 32);
        assert_eq!(
            (symbol(&whole, "unique").align.bytes(), symbol(&stripped, "unique").align),
            (8, Align::PAGE)
        );
    }
}

#[test]
fn library_without_exports_has_no_symbols() {
    // The number of dynamic symbols is then where the hashed ones would begin.
    let mut file = without_sections(GNU);
    let hash = contents(GNU, elf::SHT_GNU_HASH.0);
    let words: Vec<u8> = [1_u32, 5, 1, 26, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    file[hash..hash + words.len()].copy_from_slice(&words);
    let library = parse(file).unwrap();
    assert_eq!(library.symbols.len(), 4);
    assert!(library.symbols.iter().all(|symbol| !symbol.defined));
}

#[test]
fn local_version_hides_a_definition() {
    assert_eq!(with_version("data", VER_NDX_LOCAL).unwrap().symbols.len(), library().symbols.len() - 1);
    // Undefined symbols have it in files of GNU ld; it means "no version".
    let library = with_version("dep_function", VER_NDX_LOCAL).unwrap();
    assert_eq!(symbol(&library, "dep_function").version, VER_NDX_GLOBAL);
}

#[test]
fn unknown_version_is_refused_for_definitions_only() {
    let error = with_version("data", 9).unwrap_err();
    assert!(matches!(error, FormatError::BadIndex { what: "version of dynamic symbol", index: 9, .. }));
    // The version of another library is none of its own.
    assert!(with_version("data", 4).is_err());
    let library = with_version("dep_function", 9).unwrap();
    assert_eq!(library.version_name(symbol(&library, "dep_function").version), None);
}

#[test]
fn absolute_symbols_have_no_memory() {
    let library = library();
    let version = symbol(&library, "V1");
    assert_eq!((version.section, version.kind, version.read_only), (SHN_ABS, STT_OBJECT, false));
    assert!(!version.can_be_copied());
}

#[test]
fn bindings_and_names_are_checked() {
    // `st_info` is at 4, `st_name` at 0.
    assert_eq!(with_symbol("data", 4, &[0x01]).unwrap().symbols.len(), library().symbols.len() - 1);
    assert!(matches!(with_symbol("data", 4, &[0x51]), Err(FormatError::BadValue { value: 5, .. })));
    assert!(matches!(with_symbol("data", 0, &[0xff; 4]), Err(FormatError::BadIndex { .. })));
}

/// What a message about the file says, with one field of it changed.
fn message(offset: usize, bytes: &[u8]) -> String {
    let mut file = GNU.to_vec();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    parse(file).unwrap_err().to_string()
}

#[test]
fn other_files_are_named() {
    assert!(message(0, b"!<ar").contains("ELF"));
    assert!(message(4, &[1]).contains("ELF32"));
    assert!(message(5, &[2]).contains("big-endian"));
    assert!(message(18, &[183, 0]).contains("aarch64"));
    assert!(message(16, &[1, 0]).contains("relocatable object"));
    assert!(message(16, &[2, 0]).contains("executable"));
    assert!(message(16, &[4, 0]).contains("core dump"));
    assert!(message(16, &[9, 0]).contains("ELF file type"));
    assert!(parse(&GNU[..40]).unwrap_err().to_string().contains("ELF header"));
    assert!(SharedObject::is_shared(GNU) && !SharedObject::is_shared(b"\x7fELF"));
    assert!(!SharedObject::is_shared(&with_type(1)) && !SharedObject::is_shared(&[3; 64]));
}

fn with_type(kind: u8) -> Vec<u8> {
    let mut file = GNU.to_vec();
    file[16] = kind;
    file
}

#[test]
fn position_independent_executable_is_named() {
    let mut file = GNU.to_vec();
    let dynamic = contents(&file, elf::SHT_DYNAMIC.0);
    let flags = entries::<Dyn64<LE>>(&file[dynamic..])
        .iter()
        .position(|entry| entry.d_tag.get(LE) == elf::DT_FLAGS_1)
        .unwrap();
    file[dynamic + 16 * flags + 11] |= 8;
    assert!(parse(file).unwrap_err().to_string().contains("position-independent executable"));
}

#[test]
fn file_without_dynamic_symbols_is_named() {
    // As in a detached debug file: the sections are there, without contents.
    let mut file = GNU.to_vec();
    let header = section_header(&file, elf::SHT_DYNSYM.0);
    file[header + 4..header + 8].copy_from_slice(&elf::SHT_NOBITS.0.to_le_bytes());
    let program_headers = 64;
    for at in (program_headers..program_headers + 6 * 56).step_by(56) {
        file[at + 32..at + 40].fill(0);
    }
    assert!(parse(file).unwrap_err().to_string().contains("no dynamic symbol table"));
}

#[test]
fn missing_pieces_of_the_dynamic_segment_are_named() {
    let dynamic = contents(GNU, elf::SHT_DYNAMIC.0);
    for (tag, name) in [
        (elf::DT_STRTAB, "DT_STRTAB"),
        (elf::DT_STRSZ, "DT_STRSZ"),
        (elf::DT_SYMTAB, "DT_SYMTAB"),
        (elf::DT_GNU_HASH, "DT_GNU_HASH"),
    ] {
        let mut file = without_sections(GNU);
        let index = entries::<Dyn64<LE>>(&file[dynamic..])
            .iter()
            .position(|entry| entry.d_tag.get(LE) == tag)
            .unwrap();
        let at = dynamic + 16 * index;
        file[at..at + 8].copy_from_slice(&elf::DT_DEBUG.0.to_le_bytes());
        let message = parse(file).unwrap_err().to_string();
        assert!(
            message.contains(&format!("without {name}")) || message.contains("and DT_GNU_HASH"),
            "{message}"
        );
    }
}

#[test]
fn names_that_overlap_too_much_are_refused() {
    let strings = [vec![b'a'; 10_000], vec![0]].concat();
    let mut names = Names::new(&strings, &(0..strings.len())).unwrap();
    let reads = (0..1000).take_while(|_| names.get(0, "name", 0).is_ok()).count();
    assert_eq!(reads, NAMES_READ_MAX);
}

fn interface(change: impl FnOnce(&mut SharedObject)) -> u128 {
    let mut library = library();
    change(&mut library);
    library.interface_hash()
}

/// The same, with one symbol changed.
fn interface_with(name: &str, change: impl FnOnce(&mut SharedSymbol)) -> u128 {
    interface(|library| {
        let index = library.symbols.iter().position(|symbol| library.name(&symbol.name) == name.as_bytes());
        change(&mut library.symbols[index.unwrap()]);
    })
}

#[test]
fn interface_is_free_of_places_and_order() {
    let plain = library().interface_hash();
    assert_eq!(plain, parse(SYSV).unwrap().interface_hash());
    assert_eq!(plain, interface(|library| library.symbols.reverse()));
    assert_eq!(plain, interface(|library| library.versions.reverse()));
    assert_eq!(plain, interface_with("caller", |symbol| (symbol.value, symbol.size) = (0x123, 99)));
    assert_eq!(plain, interface_with("tls", |symbol| symbol.value = 64));
    // Data that moves together with its aliases.
    let moved = interface(|library| {
        for symbol in library.symbols.iter_mut().filter(|symbol| symbol.can_be_copied()) {
            symbol.value += 0x1000;
            symbol.section += 1;
        }
    });
    assert_eq!(plain, moved);
    let renumbered = interface(|library| {
        library
            .versions
            .iter_mut()
            .chain(&mut library.needed_versions)
            .for_each(|version| version.index += 7);
        library.symbols.iter_mut().for_each(|symbol| symbol.version += 7 * u16::from(symbol.version > 1));
    });
    assert_eq!(plain, renumbered);
}

#[test]
fn interface_changes_with_all_that_a_link_sees() {
    let changes = [
        library().interface_hash(),
        interface(|library| library.soname = None),
        interface(|library| library.soname = Some(library.needed[0].clone())),
        interface(|library| library.needed.clear()),
        interface(|library| library.needed.push(library.needed[0].clone())),
        interface(|library| library.versions.truncate(2)),
        interface(|library| library.versions[1].is_base = true),
        interface(|library| library.symbols.truncate(3)),
        interface(|library| library.symbols.push(library.symbols[5].clone())),
        interface_with("caller", |symbol| symbol.name.end -= 1),
        interface_with("caller", |symbol| symbol.version = 3),
        interface_with("caller", |symbol| symbol.version = 1),
        interface_with("caller", |symbol| symbol.hidden = true),
        interface_with("caller", |symbol| symbol.binding = STB_WEAK),
        interface_with("caller", |symbol| symbol.kind = STT_GNU_IFUNC),
        interface_with("caller", |symbol| symbol.visibility = STV_PROTECTED),
        interface_with("caller", |symbol| symbol.defined = false),
        interface_with("dep_weak", |symbol| symbol.binding = STB_GLOBAL),
        interface_with("constant", |symbol| symbol.size += 1),
        interface_with("constant", |symbol| symbol.align = Align::PAGE),
        interface_with("constant", |symbol| symbol.read_only = false),
        interface_with("tls", |symbol| symbol.size += 1),
        // An alias gone astray, and one found.
        interface_with("data_alias", |symbol| symbol.value += 0x1000),
        interface(|library| {
            let place = symbol(library, "data").clone();
            for other in library.symbols.iter_mut().filter(|symbol| symbol.size == 64) {
                (other.value, other.section) = (place.value, place.section);
            }
        }),
    ];
    for (position, hash) in changes.iter().enumerate() {
        assert!(!changes[..position].contains(hash), "change {position} is not seen");
    }
}

#[test]
fn damage_never_panics() {
    for file in [GNU.to_vec(), SYSV.to_vec(), without_sections(GNU), without_sections(SYSV)] {
        every_damage(&file, |bytes| {
            if let Ok(library) = parse(bytes) {
                library.interface_hash();
            }
        });
    }
}
