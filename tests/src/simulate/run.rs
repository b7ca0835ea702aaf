//! Replays a list of edits frame by frame and judges each frame.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use object::{Object, ObjectSection, ObjectSymbol};
use relink::{IncrementalOptions, LinkOptions, Outcome};

use crate::cc::{self, Cc};
use crate::elf::Elf;
use crate::program::{self, Inputs, Program};
use crate::readers;
use crate::tools;

use super::edit::{Edit, EditKind};
use super::model::Model;
use super::source;

/// Name of the archive.
const ARCHIVE: &str = "lib.a";

/// What was wrong first.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Frame, from 1; 0 is the first link, and one past the edits are the checks at the end.
    pub frame: usize,
    /// What.
    pub what: String,
}

/// What the frames of a run were.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Patches that wrote something.
    pub patched: usize,
    /// Frames that found nothing to do.
    pub idle: usize,
    /// Fallbacks.
    pub fell_back: usize,
    /// Atoms moved.
    pub moved: u64,
    /// Reasons of fallbacks and how often they came.
    pub reasons: BTreeMap<String, usize>,
}

impl Statistics {
    /// Adds another run's.
    pub fn add(&mut self, other: &Statistics) {
        self.patched += other.patched;
        self.idle += other.idle;
        self.fell_back += other.fell_back;
        self.moved += other.moved;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_insert(0) += count;
        }
    }
}

/// Objects by text and flags: a revert compiles nothing.
#[derive(Debug, Default)]
pub struct Compiler(HashMap<(String, Vec<&'static str>), Vec<u8>>);

impl Compiler {
    fn objects(&mut self, model: &Model) -> Vec<(String, Vec<u8>)> {
        let compile = |number: usize, objects: &mut HashMap<(String, Vec<&'static str>), Vec<u8>>| {
            let unit = &model.units[number];
            let mut flags = model.flags.clone();
            flags.push(if unit.optimised { "-O1" } else { "-O0" });
            if unit.sections {
                flags.extend(["-ffunction-sections", "-fdata-sections"]);
            }
            let object =
                objects.entry((source::unit(model, number), flags)).or_insert_with_key(|(text, flags)| {
                    Cc::new(flags.iter().copied()).text_anew(&format!("u{number}.c"), text)
                });
            (source::object_name(number), object.clone())
        };
        let present = (0..model.units.len()).filter(|&number| !model.units[number].absent);
        present.map(|number| compile(number, &mut self.0)).collect()
    }

    /// Objects of the command line, then the archive; and all objects by themselves.
    pub fn inputs(&mut self, model: &Model) -> (Inputs, Vec<(String, Vec<u8>)>) {
        let objects = self.objects(model);
        let archived = |name: &str| {
            model.units.iter().enumerate().any(|(n, unit)| unit.archived && source::object_name(n) == name)
        };
        let (members, mut inputs): (Vec<_>, Inputs) =
            objects.iter().cloned().partition(|(name, _)| archived(name));
        if !members.is_empty() {
            inputs.push((ARCHIVE.to_owned(), cc::archive(&members)));
        }
        if model.shared {
            inputs.extend(libraries().iter().cloned());
        }
        (inputs, objects)
    }
}

/// The shared libraries, linked once.
fn libraries() -> &'static Inputs {
    static LIBRARIES: OnceLock<Inputs> = OnceLock::new();
    LIBRARIES.get_or_init(|| source::libraries().into_iter().map(library).collect())
}

fn library((name, text, script): (String, String, String)) -> (String, Vec<u8>) {
    let dir = crate::scratch();
    let object = Cc::new(["-O1", "-fPIC", "-ffreestanding"]).text(&format!("{name}.c"), &text);
    crate::write(dir.path().join("library.o"), object);
    crate::write(dir.path().join("versions"), script);
    let mut command = tools::LD_BFD.command();
    command.current_dir(dir.path()).args(["-shared", "-soname", &name, "--version-script=versions"]);
    tools::say(command.args(["-o", &name, "library.o"])).ok();
    let bytes = crate::read(dir.path().join(&name));
    (name, bytes)
}

/// The options of a link of a model.
fn options(model: &Model) -> LinkOptions {
    let incremental = IncrementalOptions { gate_kind: model.gate, ..IncrementalOptions::default() };
    LinkOptions { output_kind: model.kind, incremental: Some(incremental), ..program::incremental() }
}

/// The inputs of a link of a model.
pub fn inputs(model: &Model) -> Inputs {
    Compiler::default().inputs(model).0
}

/// The state between two frames.
struct Run {
    compiler: Compiler,
    program: Program,
    model: Model,
    history: Vec<Model>,
    inputs: Inputs,
    objects: Vec<(String, Vec<u8>)>,
    statistics: Statistics,
}

/// Replays edits; the first failure ends it. The inputs of each frame are put into a folder, if one is given.
pub fn replay(seed: u64, edits: &[Edit], keep: Option<&Path>) -> Result<Statistics, Failure> {
    let frame = std::cell::Cell::new(0);
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::start(seed);
        if let Some(dir) = keep {
            keep_inputs(dir, 0, &run.inputs);
        }
        for (number, edit) in edits.iter().enumerate() {
            frame.set(number + 1);
            run.frame(edit, keep.map(|dir| (dir, number + 1)));
        }
        frame.set(edits.len() + 1);
        run.finish();
        run.statistics
    }));
    judged.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Failure { frame: frame.get(), what: text.unwrap_or_else(|| "a panic without words".to_owned()) }
    })
}

fn keep_inputs(dir: &Path, frame: usize, inputs: &Inputs) {
    let dir = dir.join(format!("frame-{frame}"));
    std::fs::create_dir_all(&dir).expect("the cache can be written");
    inputs.iter().for_each(|(name, bytes)| crate::write(dir.join(name), bytes));
}

impl Run {
    fn start(seed: u64) -> Run {
        let model = Model::new(seed);
        let mut compiler = Compiler::default();
        let (inputs, objects) = compiler.inputs(&model);
        let program = Program::linked(options(&model), &inputs);
        let history = vec![model.clone()];
        let mut run =
            Run { compiler, program, model, history, inputs, objects, statistics: Statistics::default() };
        run.judge_image();
        run
    }

    fn frame(&mut self, edit: &Edit, keep: Option<(&Path, usize)>) {
        match edit.kind {
            EditKind::Revert => {
                let at = edit.choice as usize % self.history.len();
                self.model = self.history[at].clone();
            }
            EditKind::Reopen => {
                let state = self.program.state();
                self.program = Program::resumed(options(&self.model), &self.inputs, &state);
            }
            _ => {
                edit.apply(&mut self.model);
            }
        }
        self.history.push(self.model.clone());
        let (inputs, objects) = self.compiler.inputs(&self.model);
        if let Some((dir, number)) = keep {
            keep_inputs(dir, number, &inputs);
        }
        let before = self.program.image();
        let known: BTreeSet<&String> = self.inputs.iter().map(|(name, _)| name).collect();
        if inputs.iter().any(|(name, _)| !known.contains(name)) {
            // An input that comes has its place, which only a new command line can say.
            let state = self.program.state();
            self.program = Program::resumed(options(&self.model), &inputs, &state);
        }
        if edit.kind == EditKind::Touch {
            let (name, bytes) = inputs[edit.choice as usize % inputs.len()].clone();
            self.program.replace(&name, bytes);
        }
        let outcome = self.program.edit(&inputs);
        let changed = inputs != self.inputs;
        self.judge_outcome(outcome, changed, &before, &objects);
        self.inputs = inputs;
        self.objects = objects;
        self.judge_image();
    }

    fn judge_outcome(
        &mut self,
        outcome: Outcome,
        changed: bool,
        before: &[u8],
        objects: &[(String, Vec<u8>)],
    ) {
        // A session that had nothing to do keeps the report of the frame before.
        let counters = self.program.counters();
        let image = self.program.image();
        if !changed {
            assert!(image == before, "nothing changed, but the image did ({outcome:?})");
            self.statistics.idle += 1;
            return;
        }
        match outcome {
            Outcome::Full => panic!("a first link in a session that has linked before"),
            Outcome::Patched => {
                self.program.assert_patched(outcome);
                self.judge_addresses(before, &image, objects);
                self.statistics.patched += 1;
                self.statistics.moved += counters.atoms_moved;
            }
            Outcome::FellBackFull => {
                let reasons = self.program.reasons();
                self.program.assert_fell_back(outcome, reasons.first().expect("a fallback has a reason"));
                self.statistics.fell_back += 1;
                for reason in reasons {
                    *self.statistics.reasons.entry(reason).or_insert(0) += 1;
                }
            }
        }
    }

    /// Symbols of units that did not change stay where they are; the starts of sections of the others too, unless something
    /// moved. (What stands behind the start of a changed section may shift with it.)
    fn judge_addresses(&self, before: &[u8], after: &[u8], objects: &[(String, Vec<u8>)]) {
        let table = |image: &[u8]| -> BTreeMap<String, u64> {
            let elf = Elf::parse(image);
            let symbols = elf.file.symbols().filter(|symbol| !symbol.is_undefined());
            symbols.filter_map(|s| Some((s.name().ok()?.to_owned(), s.address()))).collect()
        };
        let (old, new) = (table(before), table(after));
        let moved = self.program.counters().atoms_moved > 0;
        // A weak definition of an unchanged unit may have lost to one that moved or shifted.
        let mut may_move = BTreeSet::new();
        let earlier: BTreeMap<&String, &Vec<u8>> =
            self.objects.iter().map(|(name, object)| (name, object)).collect();
        let now: BTreeMap<&String, &Vec<u8>> = objects.iter().map(|(name, object)| (name, object)).collect();
        let differ = |a: &BTreeMap<&String, &Vec<u8>>, b: &BTreeMap<&String, &Vec<u8>>| -> Vec<Vec<u8>> {
            a.iter()
                .filter(|(name, object)| b.get(*name) != Some(object))
                .map(|(_, object)| (*object).clone())
                .collect()
        };
        // Also what has become the start of its section: something in front of it is gone.
        for object in [differ(&now, &earlier), differ(&earlier, &now)].concat() {
            let elf = Elf::parse(&object);
            let symbols = elf.file.symbols().filter(|symbol| moved || symbol.address() != 0);
            may_move.extend(symbols.filter_map(|symbol| Some(symbol.name().ok()?.to_owned())));
        }
        for (name, object) in objects {
            let Some(&earlier) = earlier.get(name) else { continue };
            let changed = object != earlier;
            if moved && changed {
                continue;
            }
            let elf = Elf::parse(object);
            // The compiler may put the functions of a section in another order, and a table into another section.
            let section_of = |elf: &Elf<'_>, symbol: &object::Symbol<'_, '_>| -> Option<String> {
                let section = elf.file.section_by_index(symbol.section_index()?).ok()?;
                Some(section.name().ok()?.to_owned())
            };
            let earlier = Elf::parse(earlier);
            let starts: BTreeSet<(String, Option<String>)> = earlier
                .file
                .symbols()
                .filter(|symbol| symbol.is_definition() && symbol.address() == 0)
                .filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), section_of(&earlier, &symbol))))
                .collect();
            let symbols = elf.file.symbols().filter(|symbol| symbol.is_definition());
            for symbol in symbols.filter(|symbol| !changed || symbol.address() == 0) {
                let section = section_of(&elf, &symbol);
                let symbol = symbol.name().expect("a symbol of the compiler has a name");
                if may_move.contains(symbol) || changed && !starts.contains(&(symbol.to_owned(), section)) {
                    continue;
                }
                if let (Some(old), Some(new)) = (old.get(symbol), new.get(symbol)) {
                    assert_eq!(old, new, "{symbol} of {name} moved in a patch");
                }
            }
        }
    }

    fn judge_image(&mut self) {
        self.program.verify();
        program::assert_behaves(&self.program.image(), &self.inputs);
    }

    /// What costs too much for each frame: the readers.
    fn finish(&self) {
        let dir = crate::scratch();
        let (ours, fresh) = (dir.path().join("patched"), dir.path().join("fresh"));
        program::save(&self.program.image(), &ours);
        program::save(&self.program.from_scratch(), &fresh);
        readers::assert_no_worse(&ours, &readers::complaints(&fresh));
    }
}
