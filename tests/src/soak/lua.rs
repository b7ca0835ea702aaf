//! Lua under edits: its functions gain, change and lose statements that do nothing which its script could see.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use relink::GateKind;
use serde_json::Value;

use super::Subject;
use crate::real::{Link, Real, program_file};
use crate::rng::Rng;
use crate::{ld, sources, tools};

/// No slack for code, and much room for what moves and for debug information: it is debris that ends a run of patches.
const FLAGS: &str = "-Wl,--incremental,--code-slack=0,--text-reserve=60,--debug-slack=400";

/// A statement that is added to a function.
#[derive(Clone, Copy, Debug)]
enum Statement {
    /// Arithmetic with a constant.
    Step(u32),
    /// A string of its own.
    Text(u32),
    /// A call that is never made.
    Call,
}

/// A source file, and what was added to it.
struct Unit {
    name: String,
    lines: Vec<String>,
    /// Lines that open a function.
    functions: Vec<usize>,
    /// What stands first in functions, by line.
    added: BTreeMap<usize, Vec<Statement>>,
    /// Functions of its own, never called.
    extras: u32,
}

impl Unit {
    fn new(name: String, text: &str) -> Unit {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let opens = |line: &String| {
            line.ends_with(") {")
                && line.starts_with(|first: char| first.is_ascii_alphabetic())
                && !line.contains('=')
                && !["struct", "typedef", "union", "enum"].iter().any(|word| line.starts_with(word))
        };
        let functions = (0..lines.len()).filter(|&line| opens(&lines[line])).collect();
        Unit { name, lines, functions, added: BTreeMap::new(), extras: 0 }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (number, line) in self.lines.iter().enumerate() {
            writeln!(out, "{line}").expect("a string grows");
            let Some(statements) = self.added.get(&number).filter(|statements| !statements.is_empty()) else {
                continue;
            };
            out += "  { volatile int soak = 0;\n";
            for statement in statements {
                match statement {
                    Statement::Step(value) => writeln!(out, "    soak = soak * 3 + {value};"),
                    Statement::Text(value) => {
                        writeln!(out, "    {{ const char *volatile text = \"soak {value}\"; (void)text; }}")
                    }
                    Statement::Call => {
                        writeln!(
                            out,
                            "    if (soak == 1 && soak == 2) {{ extern void abort(void); abort(); }}"
                        )
                    }
                }
                .expect("a string grows");
            }
            out += "  }\n";
        }
        for number in 0..self.extras {
            writeln!(out, "__attribute__((used)) static int soak_{number}(int x) {{ return x + {number}; }}")
                .expect("a string grows");
        }
        out
    }
}

pub(super) struct Lua {
    dir: tempfile::TempDir,
    real: Real,
    objects: Vec<PathBuf>,
    units: Vec<Unit>,
    /// What the script prints, whatever is added.
    answer: String,
    gate: GateKind,
}

impl Lua {
    pub(super) fn new(gate: GateKind) -> Lua {
        let (dir, real) = (crate::scratch(), Real::lua());
        for entry in std::fs::read_dir(sources::lua()).expect("the sources").flatten() {
            let path = entry.path();
            crate::write(dir.path().join(path.file_name().expect("a name")), crate::read(&path));
        }
        crate::write(dir.path().join("lua_main.c"), crate::read(program_file("lua_main.c")));
        let names: Vec<String> = real
            .sources()
            .iter()
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        let units = names.iter().filter(|name| *name != "lua_main.c").map(|name| {
            Unit::new(name.clone(), &String::from_utf8_lossy(&crate::read(dir.path().join(name))))
        });
        let mut lua = Lua {
            units: units.filter(|unit| !unit.functions.is_empty()).collect(),
            objects: names.iter().map(|name| dir.path().join(name).with_extension("o")).collect(),
            dir,
            real,
            answer: String::new(),
            gate,
        };
        names.iter().for_each(|name| lua.compile(name));
        let reference = lua.dir.path().join("reference");
        lua.real.link(&lua.objects, Link::Static, None, &[], &reference);
        lua.answer = lua.real.run(&reference).ok().stdout;
        lua
    }

    fn compile(&self, name: &str) {
        let mut command = tools::GCC.command();
        command.current_dir(self.dir.path()).args(["-O0", "-g", "-ffunction-sections", "-fdata-sections"]);
        tools::say(command.args(["-DLUA_USE_POSIX", "-c", name])).ok();
    }

    /// Edits one function of one unit, and compiles it.
    fn edit_one(&mut self, rng: &mut Rng) -> String {
        let at = rng.below(self.units.len());
        let unit = &mut self.units[at];
        let line = *rng.pick(&unit.functions);
        let statements = unit.added.entry(line).or_default();
        let step = |rng: &mut Rng| Statement::Step(rng.below(100_000) as u32);
        let told = match rng.below(1000) {
            0..=99 => match statements.last_mut() {
                Some(last) => {
                    *last = step(rng);
                    "another constant"
                }
                None => {
                    statements.push(step(rng));
                    "a first statement"
                }
            },
            100..=249 => {
                statements.push(step(rng));
                "a statement"
            }
            250..=549 => {
                let more = 10 + rng.below(60);
                statements.extend((0..more).map(|_| step(rng)));
                "many statements"
            }
            550..=699 => {
                let more = 200 + rng.below(700);
                statements.extend((0..more).map(|_| step(rng)));
                "very many statements"
            }
            700..=899 => {
                statements.truncate(rng.below(statements.len() + 1) / 2);
                "fewer statements"
            }
            900..=929 => {
                statements.push(Statement::Text(rng.below(1000) as u32));
                "a string"
            }
            930..=959 => {
                statements.push(Statement::Call);
                "a call"
            }
            960..=969 => {
                unit.added.clear();
                "as it was at first"
            }
            // A full link behind the strict gate.
            970..=979 if self.gate == GateKind::Strict => "the same text",
            970..=981 => {
                unit.extras = (unit.extras + 1) % 3;
                "a function more or less"
            }
            _ => "the same text",
        };
        let (name, text) = (unit.name.clone(), unit.text());
        crate::write(self.dir.path().join(&name), text);
        self.compile(&name);
        format!("{name}:{}: {told}", line + 1)
    }
}

impl Subject for Lua {
    fn edit(&mut self, rng: &mut Rng) -> String {
        let count = if rng.one_in(8) { 2 + rng.below(2) } else { 1 };
        let told: Vec<String> = (0..count).map(|_| self.edit_one(rng)).collect();
        told.join(", ")
    }

    fn link(&mut self) -> Value {
        let report = self.dir.path().join("report.json");
        let more = format!("{FLAGS},{},--report={}", super::gate_flag(self.gate), report.display());
        self.real.link(&self.objects, Link::Static, Some(ld::gcc_prefix()), &[&more], &self.out());
        serde_json::from_slice(&crate::read(report)).expect("the report is JSON")
    }

    fn judge(&self) {
        assert_eq!(self.real.run(&self.out()).ok().stdout, self.answer, "the script sees none of the edits");
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("lua")
    }
}
