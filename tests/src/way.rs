//! Small programs of a few units in C, compiled in one of several ways and linked through the library.

use relink::{GateKind, IncrementalOptions, LinkOptions, OutputKind};

use crate::cc::{Cc, Opt};
use crate::program::{self, Inputs};
use crate::start::START;

/// How units are compiled, and whether what nothing refers to is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// How much is optimised.
    pub opt: Opt,
    /// With debug information.
    pub debug: bool,
    /// With a section for each function and datum, or one for all.
    pub sections: bool,
    /// `--gc-sections`.
    pub gc: bool,
}

impl Way {
    /// Without optimisation, with debug information and sections.
    pub const PLAIN: Way = Way { opt: Opt::O0, debug: true, sections: true, gc: false };

    /// The compiler. Calls stay calls.
    pub fn cc(self) -> Cc {
        let cc = Cc::new([self.opt.flag(), "-ffreestanding", "-fno-stack-protector", "-w", "-fno-pie"])
            .with(["-fno-optimize-sibling-calls", "-fno-inline"]);
        let cc = if self.debug { cc.with(["-g"]) } else { cc };
        if self.sections { cc.with(["-ffunction-sections", "-fdata-sections"]) } else { cc }
    }

    /// `NAME.o` of each `NAME.c`; `main.c` gets a start of its own.
    pub fn inputs(self, units: &[(&str, &str)]) -> Inputs {
        let compile = |&(name, text): &(&str, &str)| {
            let text = if name == "main.c" { format!("{text}{START}") } else { text.to_owned() };
            (name.replace(".c", ".o"), self.cc().text(name, &text))
        };
        units.iter().map(compile).collect()
    }

    /// Incremental links of a kind behind a gate.
    pub fn options(self, output_kind: OutputKind, gate_kind: GateKind) -> LinkOptions {
        let incremental = IncrementalOptions { gate_kind, ..IncrementalOptions::default() };
        LinkOptions {
            output_kind,
            incremental: Some(incremental),
            gc_sections: self.gc,
            ..program::incremental()
        }
    }
}

/// Units that a program has beside those that a test is about: so many functions, and one that calls them all.
pub fn others(count: usize) -> Vec<(String, String)> {
    let text = |n| format!("int other{n}(int x)\n{{\n    return x * {n} + 1;\n}}\n");
    let mut units: Vec<(String, String)> = (0..count).map(|n| (format!("other{n}.c"), text(n))).collect();
    let calls: String = (0..count).map(|n| format!(" + other{n}(x)")).collect();
    units.push(("calls.c".to_owned(), format!("int use_others(int x)\n{{\n    return x{calls};\n}}\n")));
    units
}
