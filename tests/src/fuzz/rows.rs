//! Edits of a program by which functions, data, strings, names, groups and whole objects come, go, grow and change owners,
//! under the wide gate.
//!
//! The first byte chooses options. Then there is for each of three units what it defines (a bit each), and for each
//! definition a byte for its contents and one for what it refers to; then the edits, frame after frame. Bytes that are
//! missing are zero. What nobody defines is not referred to, and what two would define is the first one's, so that
//! nearly all programs link. An option makes the second and third unit members of an archive, which are linked once
//! somebody refers to what they define.

use std::sync::OnceLock;

use object::SymbolKind;
use object::elf::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX};
use object::write::{Comdat, SectionId, SymbolId};
use relink::{GateKind, IncrementalOptions, Input, InputId, LinkOptions, LinkSession, Outcome, OutputKind};

use super::tiny::{self, Writer};

const UNITS: [&str; 3] = ["start.o", "one.o", "two.o"];
const FRAMES_MAX: usize = 8;
/// What a unit may define.
const NAMES: [(&str, Kind); 12] = [
    ("f0", Kind::Function),
    ("f1", Kind::Function),
    ("f2", Kind::Function),
    ("f3", Kind::Function),
    ("d0", Kind::Data),
    ("d1", Kind::Data),
    ("c0", Kind::Inline),
    ("c1", Kind::Inline),
    (".l0", Kind::Function),
    (".l1", Kind::Data),
    ("s0", Kind::Strings),
    ("b0", Kind::Bss),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    /// A function of a group that other units may have too.
    Inline,
    Data,
    Strings,
    Bss,
}

/// How a place refers to its target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Call,
    Address,
    Pointer,
}

/// A definition: contents, and what it refers to.
type Definition = Option<(u8, u8)>;
/// A unit.
type Unit = [Definition; NAMES.len()];
/// The files of a command line; none for one that is not there.
type Files = [Option<Vec<u8>>; 3];

/// Bits of the first byte.
mod choice {
    /// A position-independent program.
    pub(super) const PIE: u8 = 1;
    /// `--gc-sections`.
    pub(super) const GC_SECTIONS: u8 = 2;
    /// Each frame is of a process of its own, which starts from columns and log.
    pub(super) const ANEW: u8 = 4;
    /// The second and third unit are members of an archive.
    pub(super) const ARCHIVE: u8 = 8;
    /// A shared library has some of the names as well, and a loader binds them.
    pub(super) const LIBRARY: u8 = 0x10;
    /// It stands in front of everything else.
    pub(super) const LIBRARY_FIRST: u8 = 0x20;
    /// Addresses are loaded from the GOT.
    pub(super) const GOT: u8 = 0x40;
    /// What is linked is a shared library itself.
    pub(super) const SHARED: u8 = 0x80;
}

fn is_local(name: &str) -> bool {
    name.starts_with('.')
}

/// The units of the first frame.
fn first_units(next: &mut impl FnMut() -> u8) -> [Unit; 3] {
    std::array::from_fn(|_| {
        let mask = u16::from_le_bytes([next(), next()]);
        std::array::from_fn(|bit| (mask >> bit & 1 == 1).then(|| (next(), next())))
    })
}

/// Edits of one frame: how many, then for each which definition of which unit, whether it goes, contents, references. The
/// last ones take a unit but the first out of the link, or put it back.
fn edit(units: &mut [Unit; 3], linked: &mut [bool; 3], next: &mut impl FnMut() -> u8) {
    const ALL: usize = UNITS.len() * NAMES.len();
    for _ in 0..1 + next() % 4 {
        let which = usize::from(next()) % (ALL + 4);
        if which >= ALL {
            let unit = &mut linked[1 + which % 2];
            *unit = !*unit;
            continue;
        }
        let definition = &mut units[which / NAMES.len()][which % NAMES.len()];
        *definition = match (next() % 4, *definition) {
            (0, Some(_)) => None,
            (1, Some((contents, _))) => Some((contents, next())),
            (2, Some((_, refers))) => Some((next(), refers)),
            _ => Some((next(), next())),
        };
    }
}

/// A program of which each name has one definition, but for those of groups and locals.
fn sound(mut units: [Unit; 3], linked: [bool; 3]) -> [Unit; 3] {
    units[0][0].get_or_insert((0, 0));
    for (unit, _) in units.iter_mut().zip(linked).filter(|(_, linked)| !linked) {
        *unit = [None; NAMES.len()];
    }
    for (bit, (name, kind)) in NAMES.iter().enumerate() {
        if *kind != Kind::Inline && !is_local(name) {
            let owner = units.iter().position(|unit| unit[bit].is_some());
            let others = units.iter_mut().enumerate().filter(|(unit, _)| Some(*unit) != owner);
            others.for_each(|(_, unit)| unit[bit] = None);
        }
    }
    units
}

/// Names that the shared library has.
const LIBRARY_NAMES: [&str; 3] = ["f3", "d1", "c0"];

/// The shared library.
fn library() -> &'static [u8] {
    static LIBRARY: OnceLock<Vec<u8>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut writer = Writer::new();
        writer.code("f3", &[0xc3]);
        writer.code("c0", &[0xc3]);
        let data = writer.object.add_section(Vec::new(), b".data".to_vec(), object::SectionKind::Data);
        writer.object.append_section_data(data, &[7; 24], 8);
        writer.define("d1", SymbolKind::Data, data, 0, 24);
        let options = LinkOptions { output_kind: OutputKind::SharedLibrary, ..tiny::options(false) };
        let mut session = LinkSession::new(options).expect("the options are sound");
        session.add_input(Input::bytes("library.o", writer.finish()));
        session.resolve().expect("the library links");
        session.image().into_owned()
    })
}

/// The object of a unit; `defined` says which names the program has. Some references are weak, and may be to what it does
/// not have.
fn write_unit(choices: u8, unit: &Unit, defined: &[bool; NAMES.len()], is_start: bool) -> Vec<u8> {
    let by_got = choices & (choice::GOT | choice::SHARED) != 0;
    let mut writer = Writer::new();
    let mut symbols: [Option<SymbolId>; NAMES.len()] = [None; NAMES.len()];
    let mut sites: Vec<(SectionId, u64, Site, u8)> = Vec::new();
    if is_start {
        let code = writer.code("_start", &[0xe8, 0, 0, 0, 0, 0xc3]);
        sites.push((code, 1, Site::Call, 0));
    }
    for (bit, (&(name, kind), definition)) in NAMES.iter().zip(unit).enumerate() {
        let &Some((contents, refers)) = definition else { continue };
        let length = 8 + 8 * usize::from(contents >> 3);
        let section = match kind {
            Kind::Function | Kind::Inline => {
                // call; lea or mov rax, [rip + x]; a body.
                let load = if by_got { 0x8b } else { 0x8d };
                let mut code =
                    vec![0xe8, 0, 0, 0, 0, 0x48, load, 0x05, 0, 0, 0, 0, 0xb8, contents & 7, 0, 0, 0];
                code.resize(code.len() + length, 0x90);
                code.push(0xc3);
                let section = writer.code(name, &code);
                sites.extend([
                    (section, 1, Site::Call, refers & 15),
                    (section, 8, Site::Address, refers >> 4),
                ]);
                section
            }
            Kind::Data => {
                let section = writer.object.add_section(
                    Vec::new(),
                    format!(".data.{name}").into_bytes(),
                    object::SectionKind::Data,
                );
                writer.object.append_section_data(section, &vec![contents & 7; 8 + length], 8);
                writer.define(name, SymbolKind::Data, section, 0, 8 + length as u64);
                sites.push((section, 0, Site::Pointer, refers & 15));
                section
            }
            Kind::Strings => {
                let section = writer.object.add_section(
                    Vec::new(),
                    b".rodata.str1.1".to_vec(),
                    object::SectionKind::ReadOnlyString,
                );
                let text = format!("{}\0{}\0", "x".repeat(length), contents & 7);
                writer.object.append_section_data(section, text.as_bytes(), 1);
                writer.define(name, SymbolKind::Data, section, length as u64 + 1, 1);
                section
            }
            Kind::Bss => {
                let section = writer.object.add_section(
                    Vec::new(),
                    format!(".bss.{name}").into_bytes(),
                    object::SectionKind::UninitializedData,
                );
                writer.object.append_section_bss(section, length as u64, 8);
                writer.define(name, SymbolKind::Data, section, 0, length as u64);
                section
            }
        };
        symbols[bit] = writer.object.symbol_id(name.as_bytes());
        if let (Kind::Inline, Some(symbol)) = (kind, symbols[bit]) {
            writer.object.symbol_mut(symbol).weak = true;
            writer.object.add_comdat(Comdat {
                kind: object::ComdatKind::Any,
                symbol,
                sections: vec![section],
            });
        }
    }
    for (section, offset, site, target) in sites {
        let absent = usize::from(target) >= NAMES.len() && (by_got || site != Site::Address);
        let target = usize::from(target) % NAMES.len();
        let (name, kind) = NAMES[target];
        let available = (defined[target] || absent) && (symbols[target].is_some() || !is_local(name));
        // What is not there is itself: no reference of a program is without a target.
        let wanted = available && (site != Site::Call || matches!(kind, Kind::Function | Kind::Inline));
        let symbol = match (wanted, symbols[target]) {
            (false, _) => writer.object.section_symbol(section),
            (true, Some(symbol)) => symbol,
            (true, None) => {
                let symbol = writer.undefined(name);
                writer.object.symbol_mut(symbol).weak = absent;
                symbols[target] = Some(symbol);
                symbol
            }
        };
        let symbol_is_named = wanted;
        let (addend, r_type) = match site {
            Site::Call => (-4, R_X86_64_PLT32),
            Site::Address if by_got && symbol_is_named => (-4, R_X86_64_REX_GOTPCRELX),
            Site::Address => (-4, R_X86_64_PC32),
            Site::Pointer => (0, R_X86_64_64),
        };
        writer.reference(section, offset, symbol, addend, r_type);
    }
    writer.finish()
}

/// The files of a frame: an object for each unit that is linked, or the first object and an archive of the others.
fn files(choices: u8, units: &[Unit; 3], linked: [bool; 3]) -> Files {
    let units = sound(*units, linked);
    let has_library = choices & choice::LIBRARY != 0;
    let defined = std::array::from_fn(|bit| {
        has_library && LIBRARY_NAMES.contains(&NAMES[bit].0) || units.iter().any(|unit| unit[bit].is_some())
    });
    let object = |index: usize| write_unit(choices, &units[index], &defined, index == 0);
    if choices & choice::ARCHIVE == 0 {
        return std::array::from_fn(|index| linked[index].then(|| object(index)));
    }
    let members: Vec<_> = (1..UNITS.len()).filter(|&index| linked[index]).collect();
    let objects: Vec<_> = members.iter().map(|&index| object(index)).collect();
    let global = |bit: &usize| !is_local(NAMES[*bit].0);
    let symbols =
        members.iter().map(|&index| (0..NAMES.len()).filter(move |&bit| units[index][bit].is_some()));
    let symbols: Vec<Vec<_>> =
        symbols.map(|bits| bits.filter(global).map(|bit| NAMES[bit].0).collect()).collect();
    let members = members.iter().zip(&objects).zip(&symbols);
    let members: Vec<_> =
        members.map(|((&index, object), symbols)| (UNITS[index], &object[..], &symbols[..])).collect();
    [Some(object(0)), Some(tiny::archive(&members)), None]
}

fn options(choices: u8) -> LinkOptions {
    let incremental = IncrementalOptions { gate_kind: GateKind::Wide, ..IncrementalOptions::default() };
    let is_dynamic = choices & choice::LIBRARY != 0;
    let output_kind = match (choices & choice::PIE == 0, is_dynamic) {
        _ if choices & choice::SHARED != 0 => OutputKind::SharedLibrary,
        (true, false) => OutputKind::StaticExecutable,
        (false, false) => OutputKind::StaticPie,
        (true, true) => OutputKind::Executable,
        (false, true) => OutputKind::Pie,
    };
    LinkOptions {
        output_kind,
        gc_sections: choices & choice::GC_SECTIONS != 0,
        incremental: Some(incremental),
        ..tiny::options(true)
    }
}

/// The name of a file of the command line.
fn file_name(choices: u8, file: usize) -> &'static str {
    if choices & choice::ARCHIVE != 0 && file == 1 { "units.a" } else { UNITS[file] }
}

/// A session with inputs, and their ids.
fn session(choices: u8, files: &Files) -> (LinkSession, [Option<InputId>; 3]) {
    let mut session = LinkSession::new(options(choices)).expect("the options are sound");
    let add_library = |session: &mut LinkSession, first: u8| {
        if choices & (choice::LIBRARY | choice::LIBRARY_FIRST) == choice::LIBRARY | first {
            session.add_input(Input::bytes("library.so", library().to_vec()));
        }
    };
    add_library(&mut session, choice::LIBRARY_FIRST);
    let ids = std::array::from_fn(|unit| {
        let bytes = files[unit].clone()?;
        Some(session.add_input(Input::bytes(file_name(choices, unit), bytes)))
    });
    add_library(&mut session, 0);
    (session, ids)
}

/// See [`outcomes`].
pub(super) fn judge(data: &[u8]) {
    outcomes(data);
}

/// No panic; each patch passes the oracle and looks at no whole program; what fails leaves the image.
///
/// What became of each frame after the first; `None` if it was an error.
pub fn outcomes(data: &[u8]) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::new();
    let mut bytes = data.iter().copied();
    let choices = bytes.next().unwrap_or(0);
    let anew = choices & choice::ANEW != 0;
    let mut units = first_units(&mut || bytes.next().unwrap_or(0));
    let mut linked = [true; 3];
    let mut before = files(choices, &units, linked);
    let (mut warm, mut ids) = session(choices, &before);
    if warm.resolve().is_err() {
        return outcomes;
    }
    let mut state = Vec::new();
    warm.serialize_columns(&mut state).expect("the session is incremental");
    for _ in 0..FRAMES_MAX {
        if bytes.len() == 0 {
            return outcomes;
        }
        edit(&mut units, &mut linked, &mut || bytes.next().unwrap_or(0));
        let now = files(choices, &units, linked);
        let image = warm.image().into_owned();
        if anew {
            (warm, ids) = session(choices, &now);
            warm.set_prior_parts(state.clone().into(), image.clone().into());
        } else {
            for (file, (id, (old, new))) in ids.iter_mut().zip(before.iter().zip(&now)).enumerate() {
                let input = |bytes: &Vec<u8>| Input::bytes(file_name(choices, file), bytes.clone());
                match (*id, new) {
                    _ if old == new => {}
                    (Some(known), Some(new)) => {
                        warm.replace_input(known, input(new)).expect("the session has it");
                    }
                    (Some(known), None) => {
                        warm.remove_input(known).expect("the session has it");
                        *id = None;
                    }
                    (None, new) => *id = new.as_ref().map(|new| warm.add_input(input(new))),
                }
            }
        }
        let result = warm.resolve();
        outcomes.push(result.as_ref().ok().copied());
        match result {
            Ok(outcome) => {
                assert_eq!(warm.verify().expect("a full link of it works"), []);
                if outcome == Outcome::Patched {
                    let report = warm.report().expect("it was linked");
                    assert_eq!(report.counters.whole_program_resolutions, 0);
                }
                match (outcome, warm.take_state_log()) {
                    (Outcome::Patched, Some(log)) => state.extend_from_slice(&log),
                    _ => {
                        state.clear();
                        warm.serialize_columns(&mut state).expect("the session is incremental");
                    }
                }
                super::assert_readable(&warm.image());
            }
            // A session of its own has no image then.
            Err(_) if anew => return outcomes,
            Err(_) => assert!(warm.image() == image, "a frame that fails changes nothing"),
        }
        before = now;
    }
    outcomes
}
