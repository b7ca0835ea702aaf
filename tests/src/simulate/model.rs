//! A generated program: units, functions that call each other, data of each kind.

use crate::rng::Rng;
use relink::{GateKind, OutputKind};

/// How a function is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Seen by all units.
    Global,
    /// Seen by all units, gives way to another definition.
    Weak,
    /// Seen by all units, not exported.
    Hidden,
    /// Seen by its unit.
    Static,
}

/// A use of something that a shared library defines, or, the last one, that only a loader can find; each with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// A call.
    Call(usize),
    /// A call if there is such a function.
    Weak(usize),
    /// Its address in code, compared.
    Pointer(usize),
    /// The same by way of the GOT.
    Slot(usize),
    /// The same in data.
    Table(usize),
    /// A call of an older version.
    Old(usize),
    /// A variable, which may have to be copied.
    Data(usize),
    /// The same by way of the GOT.
    DataSlot(usize),
    /// A variable of a thread.
    Thread(usize),
    /// A call of a function of the program's own that a resolver chooses.
    Resolved(usize),
}

impl Import {
    /// Functions of the libraries.
    pub const FUNCTIONS: usize = 8;
    /// Their variables of each kind.
    pub const VARIABLES: usize = 4;

    fn random(rng: &mut Rng) -> Import {
        let function = rng.below(Import::FUNCTIONS);
        let variable = rng.below(Import::VARIABLES);
        *rng.pick(&[
            Import::Call(function),
            Import::Weak(function),
            Import::Pointer(function),
            Import::Slot(function),
            Import::Table(function),
            Import::Old(function % 2),
            Import::Data(variable),
            Import::DataSlot(variable),
            Import::Thread(variable),
            Import::Resolved(variable % 2),
        ])
    }
}

/// A function: some arithmetic, and what it refers to.
#[derive(Clone, Debug)]
pub struct Function {
    /// Unique for ever. A function calls only those of higher numbers, so that no call is recursive.
    pub id: u32,
    /// Index of its unit.
    pub unit: usize,
    /// How it is defined.
    pub linkage: Linkage,
    /// Unit that holds another, weak definition.
    pub twin: Option<usize>,
    /// Constants of the body, one statement each.
    pub steps: Vec<i32>,
    /// Functions called.
    pub calls: Vec<u32>,
    /// Functions whose address is taken and compared.
    pub pointers: Vec<u32>,
    /// Data used.
    pub data: Vec<u32>,
    /// What it uses of shared libraries.
    pub imports: Vec<Import>,
    /// A string literal.
    pub literal: Option<String>,
    /// Cases of a switch; 0 for none.
    pub cases: u32,
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// `.data`
    Data,
    /// `.bss`
    Bss,
    /// `.rodata`
    Const,
    /// `.tdata`; only its existence matters, since there is no thread pointer.
    Thread,
    /// A common symbol.
    Common,
    /// An array of pointers to functions: `.data.rel.ro` or `.rodata`.
    Table,
    /// Entries of a section between `__start_` and `__stop_`.
    Section,
}

/// A variable.
#[derive(Clone, Debug)]
pub struct Data {
    /// Unique for ever.
    pub id: u32,
    /// Index of its unit.
    pub unit: usize,
    /// Seen by its unit only.
    pub local: bool,
    /// Where it lives.
    pub storage: Storage,
    /// Elements.
    pub length: u32,
    /// The first one.
    pub value: i32,
    /// Alignment asked for; 0 for none.
    pub align: u32,
    /// Functions of a table.
    pub functions: Vec<u32>,
}

/// A function in a COMDAT group, with a copy in several units.
#[derive(Clone, Debug)]
pub struct Comdat {
    /// Unique for ever.
    pub id: u32,
    /// Unit and constant of each copy; the first copy in the order of the link is the one that counts.
    pub copies: Vec<(usize, i32)>,
}

/// One unit's own properties.
#[derive(Clone, Debug)]
pub struct Unit {
    /// A member of the archive, not an object of the command line.
    pub archived: bool,
    /// It is not part of the link; then it has nothing.
    pub absent: bool,
    /// Blank lines at the top: shifts all lines.
    pub blank: u32,
    /// Priorities of its constructors; 0 is none.
    pub constructors: Vec<u32>,
    /// Compiled at -O1.
    pub optimised: bool,
    /// A section for each function and variable; without, whatever stands behind an edit shifts.
    pub sections: bool,
    /// Local labels in its code.
    pub labels: u32,
}

/// The program.
#[derive(Clone, Debug)]
pub struct Model {
    /// Flags of all units.
    pub flags: Vec<&'static str>,
    /// What is made of them: static, or loaded by an interpreter.
    pub kind: OutputKind,
    /// How strict the gate is.
    pub gate: GateKind,
    /// Whether it is linked with shared libraries.
    pub shared: bool,
    /// Unit 0 holds `_start` and calls the roots.
    pub units: Vec<Unit>,
    /// Functions by id.
    pub functions: Vec<Function>,
    /// Variables by id.
    pub data: Vec<Data>,
    /// COMDAT functions.
    pub comdats: Vec<Comdat>,
    /// Functions that the main unit calls.
    pub roots: Vec<u32>,
    /// The next id.
    pub next: u32,
}

impl Model {
    /// The program of a seed.
    pub fn new(seed: u64) -> Model {
        let mut rng = Rng::new(seed);
        let mut flags = vec![
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-tree-loop-distribute-patterns",
            "-w",
            "-mno-red-zone",
        ];
        flags.push(*rng.pick(&["-gdwarf-5", "-gdwarf-5", "-gdwarf-4", "-g0"]));
        // A program that relocates itself at start would need more of a `_start`; the loader does it for the dynamic ones.
        let (code, kind) = *rng.pick(&[
            ("-fPIE", OutputKind::StaticExecutable),
            ("-fno-pie", OutputKind::StaticExecutable),
            ("-fPIE", OutputKind::Pie),
            ("-fno-pie", OutputKind::Executable),
        ]);
        flags.push(code);
        flags.push(*rng.pick(&["-fcf-protection=none", "-fcf-protection=full"]));
        let without_sections = rng.one_in(5);
        let count = 5 + rng.below(8);
        let units = (0..count)
            .map(|number| {
                let archived = number > 2 && rng.one_in(3);
                let constructors = if !archived && rng.one_in(5) { vec![0] } else { Vec::new() };
                let optimised = rng.one_in(3);
                let sections = !without_sections && !rng.one_in(3);
                Unit { archived, absent: false, blank: 0, constructors, optimised, sections, labels: 0 }
            })
            .collect();
        let mut model = Model {
            flags,
            kind,
            // Odd seeds take what comes and goes as well.
            gate: if seed % 2 == 1 { GateKind::Wide } else { GateKind::Strict },
            shared: kind.is_dynamic() && seed % 4 != 2,
            units,
            functions: vec![],
            data: vec![],
            comdats: vec![],
            roots: vec![],
            next: 1,
        };
        for _ in 0..count * 2 {
            model.add_data(&mut rng);
        }
        for _ in 0..count * 3 {
            model.add_function(&mut rng);
        }
        for _ in 0..2 {
            model.add_comdat(&mut rng);
        }
        // Calls, now that there is something to call.
        for at in 0..model.functions.len() {
            for _ in 0..rng.below(3) {
                model.add_call(at, &mut rng);
            }
        }
        for _ in 0..count {
            model.add_root(&mut rng);
        }
        model
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// A unit other than the main one.
    fn some_unit(&self, rng: &mut Rng) -> usize {
        let present: Vec<_> = (1..self.units.len()).filter(|&unit| !self.units[unit].absent).collect();
        *rng.pick(&present)
    }

    /// Units that may be taken out of the link; two stay.
    pub fn removable(&self) -> Vec<usize> {
        let linked = |unit: &usize| !self.units[*unit].archived && !self.units[*unit].absent;
        let units: Vec<_> = (1..self.units.len()).filter(linked).collect();
        let functions = |unit: usize| self.functions.iter().filter(|f| f.unit != unit).count();
        if units.len() < 3 {
            return Vec::new();
        }
        units.into_iter().filter(|&unit| functions(unit) > 4).collect()
    }

    /// Puts a unit back into the link, with functions of its own.
    pub fn add_object(&mut self, unit: usize, rng: &mut Rng) {
        self.units[unit].absent = false;
        for _ in 0..1 + rng.below(3) {
            let at = self.add_function(rng);
            self.functions[at].unit = unit;
            self.functions[at].twin = None;
            self.functions[at].data.clear();
            self.add_call(at, rng);
        }
    }

    /// Lets a function use something of a shared library.
    pub fn add_import(&mut self, at: usize, rng: &mut Rng) {
        let import = Import::random(rng);
        let imports = &mut self.functions[at].imports;
        if self.shared && !imports.contains(&import) {
            imports.push(import);
        }
    }

    /// One whose place in the link does not depend on when a linker opens an archive: what is ordered goes there.
    pub fn some_ordered_unit(&self, rng: &mut Rng) -> usize {
        let ordered: Vec<_> = (1..self.units.len())
            .filter(|&unit| !self.units[unit].archived && !self.units[unit].absent)
            .collect();
        *rng.pick(&ordered)
    }

    /// Adds a function that nobody calls yet; returns its place.
    pub fn add_function(&mut self, rng: &mut Rng) -> usize {
        let unit = self.some_unit(rng);
        let linkage = *rng.pick(&[
            Linkage::Global,
            Linkage::Global,
            Linkage::Weak,
            Linkage::Hidden,
            Linkage::Static,
            Linkage::Static,
        ]);
        let twin = (linkage == Linkage::Weak && rng.one_in(2))
            .then(|| self.some_ordered_unit(rng))
            .filter(|&other| other != unit);
        let steps = (0..1 + rng.below(8)).map(|_| rng.below(1000) as i32).collect();
        let literal = rng.one_in(3).then(|| word(rng));
        let cases = if rng.one_in(5) { 5 + rng.below(10) as u32 } else { 0 };
        let id = self.fresh();
        let mut function = Function {
            id,
            unit,
            linkage,
            twin,
            steps,
            calls: vec![],
            pointers: vec![],
            data: vec![],
            imports: vec![],
            literal,
            cases,
        };
        for _ in 0..rng.below(3) {
            function.data.extend(self.some_data(unit, rng));
        }
        self.functions.push(function);
        self.functions.len() - 1
    }

    /// A variable that a unit may use.
    pub fn some_data(&self, unit: usize, rng: &mut Rng) -> Option<u32> {
        let seen: Vec<_> =
            self.data.iter().filter(|data| data.unit == unit || !data.local).map(|data| data.id).collect();
        (!seen.is_empty()).then(|| *rng.pick(&seen))
    }

    /// Adds a variable.
    pub fn add_data(&mut self, rng: &mut Rng) {
        let storage = *rng.pick(&[
            Storage::Data,
            Storage::Data,
            Storage::Bss,
            Storage::Const,
            Storage::Const,
            Storage::Thread,
            Storage::Common,
            Storage::Table,
            Storage::Section,
        ]);
        let unit =
            if storage == Storage::Section { self.some_ordered_unit(rng) } else { self.some_unit(rng) };
        let functions = if storage == Storage::Table { self.pointees(unit, rng) } else { Vec::new() };
        let local = storage == Storage::Section || storage != Storage::Common && rng.one_in(2);
        let (length, value) = (1 + rng.below(12) as u32, rng.below(500) as i32);
        let align = *rng.pick(&[0, 0, 0, 32]);
        let id = self.fresh();
        self.data.push(Data { id, unit, local, storage, length, value, align, functions });
    }

    fn pointees(&self, unit: usize, rng: &mut Rng) -> Vec<u32> {
        let seen: Vec<_> = self
            .functions
            .iter()
            .filter(|f| f.linkage != Linkage::Static || f.unit == unit)
            .map(|f| f.id)
            .collect();
        if seen.is_empty() { Vec::new() } else { (0..1 + rng.below(4)).map(|_| *rng.pick(&seen)).collect() }
    }

    /// Adds a COMDAT function with two copies.
    pub fn add_comdat(&mut self, rng: &mut Rng) {
        let value = rng.below(100) as i32;
        let mut copies = vec![(self.some_ordered_unit(rng), value), (self.some_ordered_unit(rng), value)];
        copies.sort_unstable();
        copies.dedup();
        let id = self.fresh();
        self.comdats.push(Comdat { id, copies });
    }

    /// Lets a function call, or point to, one that it may.
    pub fn add_call(&mut self, at: usize, rng: &mut Rng) {
        let caller = &self.functions[at];
        let callable: Vec<_> = self
            .functions
            .iter()
            .filter(|f| f.id > caller.id && (f.linkage != Linkage::Static || f.unit == caller.unit))
            .map(|f| f.id)
            .collect();
        if !callable.is_empty() {
            let callee = *rng.pick(&callable);
            let pointer = rng.one_in(4);
            let caller = &mut self.functions[at];
            if pointer { caller.pointers.push(callee) } else { caller.calls.push(callee) }
        }
    }

    /// Lets the main unit call another function.
    pub fn add_root(&mut self, rng: &mut Rng) {
        let seen: Vec<_> = self
            .functions
            .iter()
            .filter(|f| f.linkage != Linkage::Static && !self.roots.contains(&f.id))
            .map(|f| f.id)
            .collect();
        if !seen.is_empty() {
            self.roots.push(*rng.pick(&seen));
        }
    }

    /// Takes away every reference to functions and data that are gone or can't be seen any more.
    pub fn tidy(&mut self) {
        let absent: Vec<bool> = self.units.iter().map(|unit| unit.absent).collect();
        self.functions.retain(|function| !absent[function.unit]);
        self.data.retain(|data| !absent[data.unit]);
        for function in &mut self.functions {
            function.twin = function.twin.filter(|&unit| !absent[unit]);
        }
        for comdat in &mut self.comdats {
            comdat.copies.retain(|&(unit, _)| !absent[unit]);
        }
        let functions: Vec<_> = self.functions.iter().map(|f| (f.id, f.unit, f.linkage)).collect();
        let data: Vec<_> = self.data.iter().map(|d| (d.id, d.unit, d.local)).collect();
        let callable = |id: u32, unit: usize| {
            functions.iter().any(|&(f, u, linkage)| f == id && (u == unit || linkage != Linkage::Static))
        };
        for function in &mut self.functions {
            let unit = function.unit;
            function.calls.retain(|&id| callable(id, unit));
            function.pointers.retain(|&id| callable(id, unit));
            function.data.retain(|&id| data.iter().any(|&(d, u, local)| d == id && (u == unit || !local)));
            if function.linkage != Linkage::Weak {
                // A twin of a strong definition stays: it is weak and loses.
                function.twin = function.twin.filter(|_| function.linkage == Linkage::Global);
            }
        }
        for data in &mut self.data {
            let unit = data.unit;
            data.functions.retain(|&id| callable(id, unit));
        }
        self.roots.retain(|&id| callable(id, 0));
        self.comdats.retain(|comdat| !comdat.copies.is_empty());
    }
}

/// A few letters.
pub(super) fn word(rng: &mut Rng) -> String {
    (0..1 + rng.below(20)).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}
