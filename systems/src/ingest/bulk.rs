//! Ingest of a cold frame: every file is read, and archive members are extracted until no name wants another.

use std::collections::VecDeque;

use bevy_ecs::prelude::{Res, ResMut};
use formats::Bytes;
use formats::archive::{Archive, Member};
use formats::elf;
use formats::error::FormatError;
use formats::object_file::{ObjectFile, StackNote, SymbolPlace};
use formats::property::Property;
use formats::shared_object::{SharedObject, SharedSymbol};
use hashbrown::{HashMap, HashSet};
use rayon::prelude::*;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::input::Input;
use relink_engine::options::{LinkOptions, OutputKind, Strip};
use relink_engine::program::{MergeInput, NameRef, Object, Program, SectionUse, SharedLibrary};
use relink_engine::records::{AtomRecord, SymbolRecord, place, symbol_flags};
use relink_engine::rows::{AtomRow, FileRow, InputRow, Span, SymbolRow, Target};
use relink_engine::store::hash_name;
use relink_formats as formats;

use super::classify::{Class, classify};
use super::libraries::{Libraries, Offer};
use super::read::{GlobalName, ReadObject, member_bytes, read_members};
use super::wrap::wrapped;

/// What a file of the command line is.
enum Opened {
    Object(Box<ReadObject>),
    Archive(Archive),
    Shared(Box<SharedObject>),
}

/// What is known of a global name while members are being extracted.
#[derive(Clone, Copy, Default)]
struct Wanted {
    defined: bool,
    wanted: bool,
    /// 1 + file row of the archive that offers it.
    file: u32,
    member: u64,
    /// An archive offers it by another object than one that defines it.
    contested: bool,
    /// The definition of a shared library, which prevails over archives that have not been asked yet.
    shared: Option<Offer>,
    /// Whether libraries were asked.
    asked: bool,
}

/// Reads all inputs and extracts archive members; leaves objects in link order with their rows allocated.
pub(crate) fn load_program(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    *program = Program::default();
    let opened: Vec<Result<Opened, String>> = request.inputs.par_iter().map(open).collect();
    let mut files = Vec::with_capacity(opened.len());
    for (input, result) in request.inputs.iter().zip(opened) {
        match result {
            Ok(file) => files.push(Some(file)),
            Err(why) => {
                frame.errors.push(Diagnostic::BadInput { input: input.name.clone(), why });
                files.push(None);
            }
        }
    }
    frame.counters.inputs_parsed = files.len() as u64;
    let mut extraction = Extraction {
        request: &request,
        program: &mut program,
        errors: &mut frame.errors,
        wanted: Vec::new(),
        queue: VecDeque::new(),
        archives: files.iter().map(|_| None).collect(),
        ready: HashMap::new(),
        libraries: Libraries::default(),
        versioned: Vec::new(),
    };
    extraction.want_option_names(&request.options);
    for (row, file) in files.into_iter().enumerate() {
        match file {
            Some(Opened::Object(object)) => {
                let name = request.inputs[row].name.clone();
                extraction.add_object(*object, name, row as u32, 0);
            }
            Some(Opened::Archive(archive)) => extraction.add_archive(archive, row as u32),
            Some(Opened::Shared(library)) => extraction.add_library(*library, row as u32),
            None => {}
        }
        extraction.drain();
    }
    extraction.add_aliases();
    let wanted = extraction.wanted;
    let archives =
        extraction.archives.into_iter().map(|archive| archive.map(|(archive, _)| archive)).collect();
    program.archives = archives;
    program.objects.sort_by_key(|object| (object.file, object.member_offset));
    program.property = Property::merge_all(program.objects.iter().map(|object| &object.parsed.property));
    let strip = request.options.strip;
    let oversized: Vec<Diagnostic> =
        program.objects.par_iter().flat_map_iter(|object| oversized_sections(object, strip)).collect();
    frame.errors.extend(oversized);
    if frame.errors.is_empty() {
        allocate_rows(&mut program, &request.options);
        record_offers(&mut program, &wanted);
        note_mentions(&mut program);
    }
}

fn open(input: &Input) -> Result<Opened, String> {
    let bytes = input.source.bytes().map_err(|error| format!("cannot read it: {error}"))?;
    if Archive::is_archive(&bytes) {
        Archive::parse(bytes).map(Opened::Archive).map_err(|error| error.to_string())
    } else if is_shared_object(&bytes) {
        let library = SharedObject::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Opened::Shared(Box::new(library)))
    } else {
        ReadObject::read(bytes).map(|object| Opened::Object(Box::new(object)))
    }
}

/// Whether a file is an ELF file of type `ET_DYN`.
pub(crate) fn is_shared_object(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && bytes.get(16..18) == Some(&[3, 0])
}

struct Extraction<'a> {
    request: &'a Request,
    program: &'a mut Program,
    errors: &'a mut Vec<Diagnostic>,
    wanted: Vec<Wanted>,
    /// Wanted names that an archive offers.
    queue: VecDeque<SymbolRow>,
    archives: Vec<Option<(Archive, Vec<u64>)>>,
    /// Members that were read ahead, by file row and offset. Some are never loaded: what wanted them found another definition.
    ready: HashMap<(u32, u64), Result<ReadObject, String>>,
    libraries: Libraries,
    /// Names that ask for a version.
    versioned: Vec<SymbolRow>,
}

impl Extraction<'_> {
    /// `-e`, `-u` and the right sides of `--defsym` are references that stand before the first input.
    fn want_option_names(&mut self, options: &LinkOptions) {
        let relocatable = options.output_kind == OutputKind::Relocatable;
        let entry = options.entry.as_deref().or((!relocatable).then_some("_start"));
        for name in entry.into_iter().chain(options.undefined.iter().map(String::as_str)) {
            let row = self.program.names.intern_own(name.as_bytes());
            self.at(row).wanted = true;
        }
        for (_, value) in &options.defsyms {
            for name in value.symbols() {
                let meant = wrapped(&options.wrap, name.as_bytes());
                let row = self.program.names.intern_own(meant.as_deref().unwrap_or(name.as_bytes()));
                self.at(row).wanted = true;
            }
        }
        let listed = options.just_symbols.iter().flat_map(|list| list.symbols.iter());
        for name in listed.map(|symbol| &symbol.name).chain(options.defsyms.iter().map(|(name, _)| name)) {
            let row = self.program.names.intern_own(name.as_bytes());
            self.at(row).defined = true;
        }
    }

    fn at(&mut self, row: SymbolRow) -> &mut Wanted {
        if self.wanted.len() <= row.index() {
            self.wanted.resize(row.index() + 1, Wanted::default());
        }
        &mut self.wanted[row.index()]
    }

    fn define(&mut self, row: SymbolRow, file: u32, member_offset: u64) {
        let known = self.at(row);
        known.defined = true;
        known.contested |= known.file != 0 && (known.file, known.member) != (file + 1, member_offset);
    }

    fn want(&mut self, row: SymbolRow) {
        self.ask_libraries(row);
        let name = self.at(row);
        name.wanted = true;
        if !name.defined && name.file != 0 && name.shared.is_none() {
            self.queue.push_back(row);
        }
    }

    /// Looks a name up in the libraries so far, the first time that it is mentioned.
    fn ask_libraries(&mut self, row: SymbolRow) {
        let known = self.at(row);
        if !known.asked {
            known.asked = true;
            let offer = self.libraries.find(&self.program.shared, self.program.names.of(row));
            self.at(row).shared = offer;
        }
    }

    fn add_library(&mut self, parsed: SharedObject, file: u32) {
        let input = &self.request.inputs[file as usize];
        if !self.request.options.output_kind.is_dynamic() {
            let why = "a shared library can't be part of a static link".to_owned();
            self.errors.push(Diagnostic::BadInput { input: input.name.clone(), why });
            return;
        }
        let soname = parsed.soname().map(<[u8]>::to_vec);
        let needed_name = soname
            .or_else(|| input.needed_name.as_ref().map(|name| name.as_bytes().to_vec()))
            .unwrap_or_else(|| input.name.as_bytes().to_vec());
        if self.program.shared.iter().any(|known| known.needed_name == needed_name) {
            return; // The same library twice: the first one stands for both.
        }
        let source = self.program.names.add_source(parsed.bytes.clone());
        let index = self.program.shared.len() as u32;
        self.program.shared.push(SharedLibrary {
            parsed,
            name: input.name.clone(),
            file: FileRow(file),
            source,
            needed_name,
            needed: !input.as_needed,
            name_offset: 0,
        });
        self.libraries.add(index, &self.program.shared[index as usize]);
        self.answer_mentions(index);
        // What a library lacks may be in an archive, or in a library behind it.
        let library = &self.program.shared[index as usize].parsed;
        let lacking: Vec<(NameRef, u64)> = library
            .symbols
            .iter()
            .filter(|symbol| !symbol.defined && symbol.binding != elf::STB_WEAK)
            .map(|symbol| {
                let name = library.name(&symbol.name);
                (name_ref(&library.bytes, name, source), hash_name(name))
            })
            .filter(|(name, _)| name.len > 0)
            .collect();
        for (name, hash) in lacking {
            let row = self.program.names.intern(name, hash);
            self.want(row);
        }
    }

    /// Names that were mentioned before the library came. There may be many more of them than it defines.
    fn answer_mentions(&mut self, index: u32) {
        let library = &self.program.shared[index as usize].parsed;
        let visible = (0..).zip(&library.symbols).filter(|(_, symbol)| symbol.defined && !symbol.hidden);
        let found: Vec<(SymbolRow, u32)> = visible
            .filter_map(|(index, symbol)| Some((self.program.names.find(library.name(&symbol.name))?, index)))
            .collect();
        for (row, symbol) in found {
            let known = self.at(row);
            if known.shared.is_none() {
                known.shared = Some(Offer { library: index, symbol });
            }
        }
        for row in self.versioned.clone() {
            let known = self.at(row);
            if known.shared.is_none() {
                known.asked = false;
                self.ask_libraries(row);
            }
        }
    }

    /// Other names of data that the program may have to copy: the copy takes the place of all of them.
    fn add_aliases(&mut self) {
        let data: Vec<Offer> = self
            .wanted
            .iter()
            .filter_map(|wanted| wanted.shared.filter(|_| !wanted.defined))
            .filter(|offer| self.shared_symbol(*offer).kind == elf::STT_OBJECT)
            .collect();
        for offer in data {
            let library = &self.program.shared[offer.library as usize];
            let copied = &library.parsed.symbols[offer.symbol as usize];
            let aliases: Vec<NameRef> = library
                .parsed
                .symbols
                .iter()
                .filter(|other| {
                    let same = (other.value, other.section) == (copied.value, copied.section);
                    other.defined && same && !other.hidden && other.kind == elf::STT_OBJECT
                })
                .map(|other| {
                    name_ref(&library.parsed.bytes, library.parsed.name(&other.name), library.source)
                })
                .collect();
            for name in aliases {
                let hash = hash_name(self.program.names.bytes(name));
                let row = self.program.names.intern(name, hash);
                self.ask_libraries(row);
            }
        }
    }

    fn shared_symbol(&self, offer: Offer) -> &SharedSymbol {
        &self.program.shared[offer.library as usize].parsed.symbols[offer.symbol as usize]
    }

    fn add_object(&mut self, read: ReadObject, name: String, file: u32, member_offset: u64) {
        let ReadObject { parsed, globals } = read;
        let source = self.program.names.add_source(parsed.bytes.clone());
        let first = parsed.first_global as usize;
        let mut targets = vec![Target::NONE; parsed.symbols().len()];
        for ((index, target), global) in targets.iter_mut().enumerate().skip(first).zip(globals) {
            let bytes = parsed.symbol_name(index);
            let name = name_ref(&parsed.bytes, bytes, source);
            let undefined = parsed.symbol_place(index) == SymbolPlace::Undefined;
            let row = self.intern(name, bytes, global, undefined);
            *target = Target::symbol(row);
            match parsed.symbol_place(index) {
                SymbolPlace::Undefined => {
                    if parsed.symbols()[index].st_bind().0 != elf::STB_WEAK {
                        self.want(row);
                    } else {
                        self.ask_libraries(row);
                    }
                }
                _ => self.define(row, file, member_offset),
            }
        }
        self.program.exec_stack |= matches!(parsed.stack, StackNote::Executable);
        self.program.objects.push(Object {
            parsed,
            name,
            file: FileRow(file),
            member_offset,
            source,
            uses: Vec::new(),
            atoms: Span::default(),
            locals: Span::default(),
            targets,
            merges: Vec::new(),
            fdes: Vec::new(),
            owns: Vec::new(),
            dynamic_relocs: 0,
            symbolic_relocs: 0,
            strtab: 0,
            symtab: 0,
        });
    }

    /// The row of a name. `name@@V` defines `name`, and says which version of it.
    fn intern(&mut self, name: NameRef, bytes: &[u8], global: GlobalName, undefined: bool) -> SymbolRow {
        if undefined && let Some(meant) = wrapped(&self.request.options.wrap, bytes) {
            return self.program.names.intern_own(&meant);
        }
        let default = || bytes.windows(2).position(|pair| pair == b"@@").filter(|&at| at > 0 && !undefined);
        let Some(at) = global.has_version.then(default).flatten() else {
            let row = self.program.names.intern(name, global.hash);
            if global.has_version {
                self.versioned.push(row);
            }
            return row;
        };
        let row = self.program.names.intern(NameRef { len: at as u32, ..name }, hash_name(&bytes[..at]));
        self.program.dynamic.default_versions.push((row, bytes[at + 2..].to_vec()));
        row
    }

    fn add_archive(&mut self, archive: Archive, file: u32) {
        let input = &self.request.inputs[file as usize];
        let result =
            if input.whole_archive { self.load_all(&archive, file) } else { self.offer(&archive, file) };
        if let Err(error) = result {
            self.errors.push(Diagnostic::BadInput { input: input.name.clone(), why: error.to_string() });
        }
        self.archives[file as usize] = Some((archive, Vec::new()));
    }

    fn load_all(&mut self, archive: &Archive, file: u32) -> Result<(), FormatError> {
        let members: Vec<_> = archive.members()?.into_iter().map(|member| (archive, file, member)).collect();
        for (read, (_, _, member)) in read_members(self.request, &members).into_iter().zip(&members) {
            self.load_member(read, member, file);
        }
        Ok(())
    }

    /// Registers the names that an archive offers; the first archive that offers a name has it.
    fn offer(&mut self, archive: &Archive, file: u32) -> Result<(), FormatError> {
        let Some(index) = archive.symbols()? else {
            if archive.members()?.is_empty() {
                return Ok(());
            }
            // Without an index every member's own symbol table is the index.
            for member in archive.members()? {
                let Ok(bytes) = member_bytes(&self.request.inputs[file as usize], archive, &member) else {
                    continue;
                };
                let Ok(object) = ObjectFile::parse(bytes) else { continue };
                let source = self.program.names.add_source(object.bytes.clone());
                for symbol in object.first_global as usize..object.symbols().len() {
                    if matches!(object.symbol_place(symbol), SymbolPlace::Undefined | SymbolPlace::Common) {
                        continue;
                    }
                    let bytes = object.symbol_name(symbol);
                    self.offer_name(name_ref(&object.bytes, bytes, source), bytes, file, member.offset);
                }
            }
            return Ok(());
        };
        let source = self.program.names.add_source(archive.bytes.clone());
        for (range, member) in index {
            let Some(bytes) = archive.bytes.get(range.clone()) else { continue };
            let name = NameRef { source, start: range.start as u32, len: range.len() as u32 };
            self.offer_name(name, bytes, file, member);
        }
        Ok(())
    }

    fn offer_name(&mut self, name: NameRef, bytes: &[u8], file: u32, member: u64) {
        let row = self.program.names.intern(name, hash_name(bytes));
        let known = self.at(row);
        if known.file == 0 && known.shared.is_none() {
            *known = Wanted { file: file + 1, member, contested: known.defined, ..*known };
            if known.wanted && !known.defined {
                self.queue.push_back(row);
            }
        }
    }

    /// Reads what the queue wants by now, unless that was done. Members of thin archives are files, of which only those are
    /// opened that are loaded.
    fn read_ahead(&mut self, next: SymbolRow) {
        let mut seen = HashSet::new();
        let mut members = Vec::new();
        for row in std::iter::once(next).chain(self.queue.iter().copied()) {
            let Wanted { defined, file, member: offset, shared, .. } = self.wanted[row.index()];
            let key = (file.wrapping_sub(1), offset);
            if defined || shared.is_some() || self.ready.contains_key(&key) || !seen.insert(key) {
                continue;
            }
            let Some(Some((archive, loaded))) = self.archives.get(key.0 as usize) else { continue };
            if !loaded.contains(&offset)
                && let Ok(member) = archive.member_at(offset)
                && member.thin_path.is_none()
            {
                members.push((archive, key.0, member));
            }
        }
        let read = read_members(self.request, &members);
        let keys = members.iter().map(|(_, file, member)| (*file, member.offset));
        self.ready.extend(keys.zip(read).collect::<Vec<_>>());
    }

    /// Loads members that are wanted, and those that they want in turn.
    fn drain(&mut self) {
        while let Some(row) = self.queue.pop_front() {
            let Wanted { defined, file, member: offset, shared, .. } = *self.at(row);
            if defined || shared.is_some() {
                continue; // Another member has defined it in the meantime.
            }
            let file = file - 1;
            let Some(Some((_, loaded))) = self.archives.get(file as usize) else { continue };
            if loaded.contains(&offset) {
                continue;
            }
            if !self.ready.contains_key(&(file, offset)) {
                self.read_ahead(row);
            }
            let Some((archive, loaded)) = &mut self.archives[file as usize] else { continue };
            loaded.push(offset);
            match archive.member_at(offset) {
                Ok(member) => {
                    let read = self.ready.remove(&(file, offset));
                    let now = || {
                        member_bytes(&self.request.inputs[file as usize], archive, &member)
                            .and_then(ReadObject::read)
                    };
                    let read = read.unwrap_or_else(now);
                    self.load_member(read, &member, file);
                }
                Err(error) => {
                    let input = self.request.inputs[file as usize].name.clone();
                    self.errors.push(Diagnostic::BadInput { input, why: error.to_string() });
                }
            }
        }
    }

    fn load_member(&mut self, read: Result<ReadObject, String>, member: &Member, file: u32) {
        let input = &self.request.inputs[file as usize].name;
        let short = input.rsplit('/').next().unwrap_or(input);
        let name = format!("{short}({})", member.name);
        match read {
            Ok(read) => self.add_object(read, name, file, member.offset),
            Err(why) => self.errors.push(Diagnostic::BadInput { input: name, why }),
        }
    }
}

/// Where `part` lies in `whole`, which it is a slice of.
fn name_ref(whole: &Bytes, part: &[u8], source: u32) -> NameRef {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let start = if start.checked_add(part.len()).is_some_and(|end| end <= whole.len()) { start } else { 0 };
    let len = if start == 0 { 0 } else { part.len() };
    NameRef { source, start: start as u32, len: len as u32 }
}

/// Bytes that a section without contents, or a common symbol, may claim: beyond it no address space is left.
pub(crate) const SIZE_MAX: u64 = 1 << 40;
/// The largest alignment that is honoured, as an exponent.
pub(crate) const ALIGN_MAX: u8 = 32;

/// Sections whose claims no image can meet: of damaged or hostile objects. What has bytes is bounded by its file.
///
/// What is no part of the image claims nothing, and a patch does not look at it: nor does a full link
/// (`it::errors::claims_of_sections_without_a_place_are_no_error`).
fn oversized_sections(object: &Object, strip: Strip) -> Vec<Diagnostic> {
    let too_large = |index: usize, section: &formats::object_file::Section| {
        let claims = section.align.exponent() > ALIGN_MAX
            || (section.kind == elf::SHT_NOBITS && section.size > SIZE_MAX);
        claims && classify(&object.parsed, index, section, strip) != Class::Ignore
    };
    let sections =
        object.parsed.sections.iter().enumerate().filter(|&(index, section)| too_large(index, section));
    sections
        .map(|(index, section)| Diagnostic::BadInput {
            input: object.name.clone(),
            why: format!(
                "section {}: its size {:#x} or its alignment 2^{} is beyond what an image can have",
                String::from_utf8_lossy(object.parsed.section_name(index)),
                section.size,
                section.align.exponent()
            ),
        })
        .collect()
}

/// Gives each section and each local symbol its row.
fn allocate_rows(program: &mut Program, options: &LinkOptions) {
    let strip = options.strip;
    program.objects.par_iter_mut().for_each(|object| {
        let parsed = &object.parsed;
        let mut atoms = 0;
        let mut merges = Vec::new();
        object.uses = (0..parsed.sections.len())
            .map(|index| {
                let class = classify(parsed, index, &parsed.sections[index], strip);
                let row = AtomRow(atoms);
                atoms += u32::from(class != Class::Ignore);
                match class {
                    Class::Ignore => SectionUse::None,
                    Class::Atom(_) => SectionUse::Atom(row),
                    Class::EhFrame(_) => SectionUse::EhFrame(row),
                    Class::Merge(_) => {
                        merges.push(MergeInput::new(index as u32, parsed.sections[index].size));
                        SectionUse::Merge(row, merges.len() as u32 - 1)
                    }
                }
            })
            .collect();
        object.merges = merges;
        object.atoms.len = atoms;
        object.locals.len = local_symbols(parsed).count() as u32;
        object.owns = vec![true; parsed.groups.len()];
    });
    let (mut atoms, mut locals) = (0, program.names.len() as u32);
    program.globals = locals;
    for object in &mut program.objects {
        object.atoms.start = atoms;
        object.locals.start = locals;
        atoms += object.atoms.len;
        locals += object.locals.len;
    }
    let per_object: Vec<(Vec<AtomRecord>, Vec<SymbolRecord>)> = program
        .objects
        .par_iter_mut()
        .enumerate()
        .map(|(row, object)| fill_rows(object, InputRow(row as u32), strip))
        .collect();
    program.atoms = Vec::with_capacity(atoms as usize + 64);
    program.symbols = vec![
        SymbolRecord {
            flags: symbol_flags::GLOBAL,
            atom: place::UNDEFINED,
            first_incoming: Default::default(),
            ..Default::default()
        };
        program.globals as usize
    ];
    program.symbols.reserve(locals as usize - program.symbols.len());
    for (atoms, symbols) in per_object {
        program.atoms.extend(atoms);
        program.symbols.extend(symbols);
    }
}

/// Indexes of the local symbols that have rows: not the null symbol, not section symbols, and no `.L` labels,
/// whose names are made up anew by each compile. Both of the latter are offsets in their sections.
pub(crate) fn local_symbols(parsed: &ObjectFile) -> impl Iterator<Item = usize> + '_ {
    let end = (parsed.first_global as usize).min(parsed.symbols().len());
    (1..end).filter(|&index| has_row(parsed, index))
}

fn has_row(parsed: &ObjectFile, index: usize) -> bool {
    parsed.symbols()[index].st_type().0 != elf::STT_SECTION && !parsed.symbol_name(index).starts_with(b".L")
}

fn fill_rows(
    object: &mut Object,
    row: InputRow,
    strip: relink_engine::options::Strip,
) -> (Vec<AtomRecord>, Vec<SymbolRecord>) {
    let mut atoms = Vec::with_capacity(object.atoms.len as usize);
    for index in 0..object.uses.len() {
        let section = &object.parsed.sections[index];
        let shift = |row: AtomRow| AtomRow(row.0 + object.atoms.start);
        object.uses[index] = match object.uses[index] {
            SectionUse::None => SectionUse::None,
            SectionUse::Atom(row) => SectionUse::Atom(shift(row)),
            SectionUse::Merge(row, merge) => SectionUse::Merge(shift(row), merge),
            SectionUse::EhFrame(row) => SectionUse::EhFrame(shift(row)),
        };
        let flags = match classify(&object.parsed, index, section, strip) {
            Class::Ignore => continue,
            Class::Atom(flags) | Class::Merge(flags) | Class::EhFrame(flags) => flags,
        };
        atoms.push(AtomRecord {
            input: row,
            section: index as u32,
            flags,
            size: section.size,
            kind: section.kind,
            align: u32::from(section.align.exponent()),
            ..Default::default()
        });
    }
    let symbols = object.parsed.symbols();
    let end = (object.parsed.first_global as usize).min(symbols.len());
    let mut locals = Vec::with_capacity(object.locals.len as usize);
    for index in 1..end {
        let section = match object.parsed.symbol_place(index) {
            SymbolPlace::Section(section) => {
                object.uses.get(section as usize).copied().unwrap_or_default().atom()
            }
            _ => None,
        };
        if !has_row(&object.parsed, index) {
            object.targets[index] = section.map_or(Target::NONE, Target::atom);
            continue;
        }
        object.targets[index] = Target::symbol(SymbolRow(object.locals.start + locals.len() as u32));
        locals.push(local_record(object, index, row, section));
    }
    (atoms, locals)
}

fn local_record(object: &Object, index: usize, row: InputRow, section: Option<AtomRow>) -> SymbolRecord {
    let symbol = &object.parsed.symbols()[index];
    let endian = object::LittleEndian;
    let absolute = object.parsed.symbol_place(index) == SymbolPlace::Absolute;
    SymbolRecord {
        input: row,
        atom: section.unwrap_or(if absolute { place::ABSOLUTE } else { place::UNDEFINED }),
        value: symbol.st_value.get(endian),
        size: symbol.st_size.get(endian),
        info: symbol.st_info.0,
        other: symbol.st_other.0,
        flags: type_flags(symbol.st_type().0),
        ..Default::default()
    }
}

/// The flags that a symbol's type brings.
pub(crate) fn type_flags(kind: u8) -> u16 {
    match kind {
        elf::STT_TLS => symbol_flags::TLS,
        elf::STT_GNU_IFUNC => symbol_flags::IFUNC,
        _ => 0,
    }
}

/// Names that only an unloaded member would define stay known: a patch must not pull that member unnoticed. Names of
/// shared libraries refer to them.
fn record_offers(program: &mut Program, wanted: &[Wanted]) {
    let Program { symbols, shared, .. } = program;
    for (symbol, wanted) in symbols.iter_mut().zip(wanted) {
        if wanted.shared.is_some() || wanted.file != 0 {
            symbol.flags |= symbol_flags::OFFERED;
        }
        let contested =
            if wanted.defined { wanted.contested } else { wanted.shared.is_some() && wanted.file != 0 };
        if contested {
            symbol.flags |= symbol_flags::CONTESTED;
        }
        if wanted.defined {
            continue;
        }
        if let Some(offer) = wanted.shared {
            let library = &shared[offer.library as usize];
            let definition = &library.parsed.symbols[offer.symbol as usize];
            symbol.atom = place::SHARED;
            symbol.input = InputRow(library.file.0);
            symbol.value = u64::from(offer.symbol);
            symbol.size = definition.size;
            // Which of its versions an IFUNC chooses is the library's own affair.
            let function = definition.kind == elf::STT_GNU_IFUNC;
            let kind = if function { elf::STT_FUNC } else { definition.kind };
            symbol.info = (elf::STB_GLOBAL << 4) | kind;
            symbol.flags |= type_flags(kind);
            if wanted.file != 0 {
                symbol.flags |= symbol_flags::MEMBER;
            }
        } else if wanted.file != 0 {
            symbol.atom = place::LAZY;
            symbol.input = InputRow(wanted.file - 1);
        }
    }
}

/// Names that a library mentions: if the program defines them, the library must find them there.
fn note_mentions(program: &mut Program) {
    let Program { symbols, shared, names, .. } = program;
    for library in shared.iter() {
        for symbol in &library.parsed.symbols {
            if let Some(row) = names.find(library.parsed.name(&symbol.name)) {
                symbols[row.index()].flags |= symbol_flags::EXPORTED;
            }
        }
    }
}
