//! Units without a section for each function: an edit of the first function shifts all that stand behind it.
//!
//! Addresses inside the section are what must follow: symbols, pointers and calls from other units, frame descriptions and
//! their sorted table, tables of exception handling, lines. Each edit is a patch, and the oracle looks at each image.

use std::path::PathBuf;

use relink::{LinkOptions, Outcome, OutputKind};
use relink_tests::cc::{Cc, Opt};
use relink_tests::elf::Elf;
use relink_tests::program::{self, Inputs, Program, assert_behaves};
use relink_tests::real::Link;
use relink_tests::scene::Scene;
use relink_tests::start::START;
use relink_tests::tools::{self, Said};
use relink_tests::{ld, lines, readers, scratch};

/// What refers to the unit from outside: calls, pointers, a table; and what is called by it. (No call is in a lexical
/// block of its own: llvm-dwarfdump --verify hangs on those.)
const MAIN: &str = r#"
int first(int), second(int), last(int);
int (*chosen(void))(int);
extern int (*const table[])(int);
int (*variable)(int) = last;
int seen;
__attribute__((noinline)) int step(int x)
{
    seen++;
    return x ^ 21;
}
__attribute__((noinline)) int app_main(void)
{
    int i, x = first(3) + second(4) * 3 + chosen()(5);
    x = x * 31 + last(x);
    for (i = 0; i < 3; i++)
        x = x * 17 + table[i](x);
    x += (table[1] == second) + 2 * (variable == last) + 4 * (table[0] == first) + variable(x);
    return (x + seen) & 63;
}
"#;

/// Functions of `unit.c` in its order.
const FUNCTIONS: [&str; 5] = ["first", "second", "hidden", "chosen", "last"];

/// `unit.c`: so many statements in `first`; `last` is the first one instead if told so.
fn unit(statements: u32, last_first: bool) -> String {
    let body: String = (0..statements)
        .map(|n| format!("    x ^= {} << (x & 3);\n    x = x * 31 + {};\n", n % 90, n % 70))
        .collect();
    let own = format!("__attribute__((noinline)) int first(int x)\n{{\n{body}    return x + 1;\n}}\n");
    let middle = "__attribute__((noinline)) int second(int x)\n{\n    return step(x + first(x)) + 1;\n}\n\
        __attribute__((noinline, used)) static int hidden(int x)\n{\n    return step(x * 5) + 1;\n}\n\
        int (*chosen(void))(int)\n{\n    return hidden;\n}\n";
    let last = "__attribute__((noinline)) int last(int x)\n{\n    int y = second(x + 1);\n    return y - hidden(x);\n}\n";
    let table = "int (*const table[])(int) = {first, second, last};\n";
    let declared = "int step(int), first(int), second(int), last(int);\nstatic int hidden(int);\n";
    if last_first {
        format!("{declared}{last}{middle}{own}{table}")
    } else {
        format!("{declared}{own}{middle}{last}{table}")
    }
}

/// Levels and outputs.
const KINDS: [(Opt, OutputKind); 4] = [
    (Opt::O0, OutputKind::StaticExecutable),
    (Opt::O0, OutputKind::StaticPie),
    (Opt::O2, OutputKind::StaticExecutable),
    (Opt::O2, OutputKind::StaticPie),
];

fn cc(opt: Opt, kind: OutputKind) -> Cc {
    let pie = if kind == OutputKind::StaticPie { "-fPIE" } else { "-fno-pie" };
    // In the order of the source, so that the first function is the first one.
    Cc::new([opt.flag(), "-g", "-ffreestanding", "-fno-stack-protector", "-Wall", pie])
        .with(["-fno-toplevel-reorder", "-fno-optimize-sibling-calls"])
}

fn inputs(opt: Opt, kind: OutputKind, text: &str) -> Inputs {
    let cc = cc(opt, kind);
    vec![
        ("main.o".to_owned(), cc.text("main.c", &format!("{MAIN}{START}"))),
        ("unit.o".to_owned(), cc.text("unit.c", text)),
    ]
}

/// A program that is linked once and edited.
struct Edited {
    program: Program,
    opt: Opt,
    kind: OutputKind,
}

impl Edited {
    #[track_caller]
    fn new(opt: Opt, kind: OutputKind, text: &str) -> Edited {
        let options = LinkOptions { output_kind: kind, ..program::incremental() };
        let mut edited = Edited { program: Program::linked(options, &inputs(opt, kind, text)), opt, kind };
        edited.judge(text);
        edited
    }

    /// Compiles the unit anew: the link is a patch.
    #[track_caller]
    fn edit(&mut self, text: &str) {
        let before = self.program.image();
        let outcome = self.program.edit(&inputs(self.opt, self.kind, text));
        self.program.assert_patched(outcome);
        self.judge(text);
        let after = self.program.image();
        let (before, after) = (Elf::parse(&before), Elf::parse(&after));
        for name in ["_start", "app_main", "step", "variable", "seen", "table"] {
            assert_eq!(before.symbol(name).address, after.symbol(name).address, "{name} keeps its address");
        }
    }

    #[track_caller]
    fn judge(&mut self, text: &str) {
        self.program.verify();
        assert_behaves(&self.program.image(), &inputs(self.opt, self.kind, text));
    }

    /// What readers and gdb say, measured by a link from scratch and by the system's linker.
    #[track_caller]
    fn assert_readable(&self) {
        let dir = scratch();
        let [ours, fresh] = ["ours", "fresh"].map(|name| dir.path().join(name));
        program::save(&self.program.image(), &ours);
        program::save(&self.program.from_scratch(), &fresh);
        readers::assert_no_worse(&ours, &readers::complaints(&fresh));
        if self.kind != OutputKind::StaticExecutable {
            return;
        }
        let measure = program::reference_image(&self.program.inputs(), dir.path());
        lines::assert_same_lines(&ours, &measure, &FUNCTIONS.map(str::to_owned));
        let commands =
            ["break last", "run", "break step", "continue", "backtrace", "finish", "info symbol $pc"];
        let commands: Vec<_> = commands.into_iter().flat_map(|command| ["-ex", command]).collect();
        let text = lines::gdb(&ours, &commands);
        let frames: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        for (number, function) in ["step (", "second (", "last (", "app_main ("].into_iter().enumerate() {
            let shown = frames.get(number).is_some_and(|frame| frame.contains(function));
            assert!(shown, "frame {number} is {function}…):\n{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("second + ")), "finish returns:\n{text}");
    }
}

#[test]
fn edit_in_slack_shifts_what_stands_behind() {
    for (opt, kind) in KINDS {
        let mut edited = Edited::new(opt, kind, &unit(8, false));
        for statements in [9, 7, 10, 8] {
            let before = Elf::parse(&edited.program.image()).symbol("last").address;
            edited.edit(&unit(statements, false));
            let counters = edited.program.counters();
            assert_eq!((counters.atoms_moved, counters.islands_written), (0, 0), "{statements}");
            assert_ne!(Elf::parse(&edited.program.image()).symbol("last").address, before, "last shifts");
            assert_eq!(counters.inputs_parsed, 1);
        }
        edited.edit(&unit(10, false));
        edited.assert_readable();
    }
}

#[test]
fn growth_moves_the_whole_section() {
    for (opt, kind) in KINDS {
        let mut edited = Edited::new(opt, kind, &unit(4, false));
        let old = Elf::parse(&edited.program.image()).symbol("first").address;
        for (statements, moves) in [(80, 1), (82, 0), (300, 1), (4, 0), (5, 0)] {
            edited.edit(&unit(statements, false));
            let counters = edited.program.counters();
            assert_eq!(counters.atoms_moved, moves, "{statements} statements");
            let image = edited.program.image();
            let elf = Elf::parse(&image);
            assert_eq!(elf.island_target(old), Some(elf.symbol("first").address), "one island, straight");
            edited.assert_readable();
        }
    }
}

#[test]
fn functions_change_their_order() {
    for (opt, kind) in KINDS {
        let mut edited = Edited::new(opt, kind, &unit(8, false));
        // In place; then with a move, so that the island is that of another function; and back.
        for (statements, last_first) in
            [(8, true), (8, false), (60, true), (60, false), (62, true), (8, false)]
        {
            edited.edit(&unit(statements, last_first));
        }
        edited.assert_readable();
    }
}

#[test]
fn another_process_goes_on_with_shifted_functions() {
    let text = |n| unit(n, false);
    let edited = {
        let mut edited = Edited::new(Opt::O2, OutputKind::StaticExecutable, &text(4));
        edited.edit(&text(60));
        edited.edit(&text(58));
        edited
    };
    let state = edited.program.state();
    let now = inputs(edited.opt, edited.kind, &text(62));
    let mut program = Program::resumed(program::incremental(), &now, &state);
    let outcome = program.resolve();
    program.assert_patched(outcome);
    program.verify();
    assert_behaves(&program.image(), &now);
}

#[test]
fn entry_that_goes_or_comes_falls_back() {
    let with = |body: &str| {
        format!(
            "__attribute__((noinline)) int first(int x)\n{{\n{body}    return x;\n}}\n{}",
            unit(0, false).replace("int first(int x)", "int unused(int x)")
        )
    };
    // Two descriptions for one function, which no symbol tells apart.
    let split = "    __asm__ volatile(\".cfi_endproc\\n\\t.cfi_startproc\\n\\t.cfi_def_cfa_offset 16\");\n";
    let (one, two) = (
        inputs(Opt::O0, OutputKind::StaticExecutable, &with("")),
        inputs(Opt::O0, OutputKind::StaticExecutable, &with(split)),
    );
    for (base, edited) in [(&one, &two), (&two, &one)] {
        let mut program = Program::linked(program::incremental(), base);
        let outcome = program.edit(edited);
        program.assert_fell_back(outcome, "unwind-changed");
        program.verify();
        assert_behaves(&program.image(), edited);
    }
    // As many as before, of which one has no symbol: by order.
    let more = with(&format!("    x += 3;\n{split}    x += 5;\n"));
    let more = inputs(Opt::O0, OutputKind::StaticExecutable, &more);
    let mut program = Program::linked(program::incremental(), &two);
    let outcome = program.edit(&more);
    program.assert_patched(outcome);
    program.verify();
    assert_behaves(&program.image(), &more);
}

/// A C++ program whose functions throw through each other; each has tables of its own in the unit's `.gcc_except_table`.
const THROWS: &str = r#"
#include <cstdio>
#include <stdexcept>
#include <string>
#define NOINLINE __attribute__((noinline))
int outside(int x);
struct Guard {
    const char *name;
    ~Guard() { std::printf("leave %s\n", name); }
};
NOINLINE int first(int x)
{
    Guard guard{"first"};
    GROWTH
    try {
        if (x == 1)
            throw std::runtime_error("one");
        x += outside(x);
    } catch (const std::runtime_error &error) {
        std::printf("first caught %s\n", error.what());
        return 1;
    }
    return x;
}
NOINLINE int second(int x)
{
    Guard guard{"second"};
    if (x > 3)
        throw x;
    if (x < 0)
        throw std::string("below");
    return first(x);
}
NOINLINE int third(int x)
{
    Guard guard{"third"};
    try {
        return second(x);
    } catch (int number) {
        std::printf("third caught %d\n", number);
        return second(number & 1);
    }
}
NOINLINE int last(int x)
{
    Guard guard{"last"};
    try {
        return third(x) + third(x - 5);
    } catch (const std::string &text) {
        std::printf("last caught %s\n", text.c_str());
        throw std::logic_error("from last");
    }
}
"#;

const THROWS_MAIN: &str = r#"
#include <cstdio>
#include <stdexcept>
#include <string>
int first(int), second(int), third(int), last(int);
int outside(int x)
{
    if (x == 2)
        throw std::runtime_error("outside");
    return x * 3;
}
int main()
{
    int sum = 0;
    int (*functions[])(int) = {first, second, third, last};
    for (int x = -2; x < 9; x++)
        for (int (*function)(int) : functions)
            try {
                sum = sum * 7 + function(x);
            } catch (const std::logic_error &error) {
                std::printf("main caught %s\n", error.what());
            } catch (const std::string &text) {
                std::printf("main caught the text %s\n", text.c_str());
            } catch (int number) {
                std::printf("main caught %d\n", number);
            }
    std::printf("%d\n", sum);
    return 0;
}
"#;

/// The C++ program in a folder, linked by g++.
struct Throws {
    dir: tempfile::TempDir,
    cc: Cc,
    link: Link,
}

impl Throws {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn compile(&self, name: &str, text: &str) {
        relink_tests::write(self.path(name).with_extension("o"), self.cc.text(name, text));
    }

    #[track_caller]
    fn link_with(&self, more: &[&str], out: &str) -> Said {
        let mut command = tools::GXX.command();
        command.arg(self.link.flag()).args(more).args(["main.o", "unit.o"].map(|name| self.path(name)));
        tools::say(command.arg("-o").arg(self.path(out))).ok()
    }

    /// Links with `ld.relink`; the outcome is this one, and the program does what the system's linker makes of it.
    #[track_caller]
    fn judge(&self, growth: &str, wanted: Outcome) {
        self.compile("unit.cpp", &THROWS.replace("GROWTH", growth));
        let report = self.path("report.json");
        let prefix = format!("-B{}/", ld::gcc_prefix().display());
        self.link_with(&[&prefix, &format!("-Wl,--incremental,--report={}", report.display())], "ours");
        self.link_with(&[], "reference");
        let report: serde_json::Value = serde_json::from_slice(&relink_tests::read(report)).unwrap();
        assert_eq!(report["outcome"], wanted.to_string(), "{report:#}");
        let [found, measure] = ["ours", "reference"].map(|name| tools::run_image(&self.path(name), &[]));
        assert_eq!((found.status, &found.stdout), (measure.status, &measure.stdout), "{found}");
        assert!(found.stdout.contains("main caught from last"), "{found}");
        tools::say(ld::relink().arg("verify").arg(self.path("ours"))).ok();
    }
}

#[test]
fn exceptions_pass_through_shifted_functions() {
    let small = "x = (x ^ 5) * 31 + 1; x = (x ^ 7) - 9;";
    // Another region of call sites: the tables behind it shift as well.
    let another = "try { x += outside(x + 9); } catch (const std::runtime_error &) { x = 5; }";
    let large = (0..200).map(|n| format!("x = (x ^ {n}) * 31 + {n}; ")).collect::<String>();
    for (flags, link) in
        [(&["-O0", "-g"][..], Link::Static), (&["-O2"], Link::Static), (&["-O2", "-fPIE"], Link::StaticPie)]
    {
        let throws = Throws { dir: scratch(), cc: Cc::cxx(flags.iter().copied()), link };
        throws.compile("main.cpp", THROWS_MAIN);
        throws.judge("", Outcome::Full);
        throws.judge(small, Outcome::Patched);
        throws.judge(another, Outcome::Patched);
        throws.judge(&large, Outcome::Patched);
        throws.judge(&format!("{another} {large}"), Outcome::Patched);
        throws.judge(&format!("{large} {large} {small}"), Outcome::Patched);
        throws.judge("", Outcome::Patched);
        // Not with -O2: llvm-dwarfdump --verify hangs on a call site in a lexical block.
        if flags.contains(&"-O0") {
            let complaints = readers::complaints(&throws.path("reference"));
            readers::assert_no_worse(&throws.path("ours"), &complaints);
        }
    }
}

/// A personality routine of one's own, named by its address, as code without -fPIC does.
fn with_routine(routine: &str) -> Scene {
    let main = "#include <cstdio>\nextern \"C\" { void guarded(); int hits; void throws() { throw 1; } }\n\
        int main() { try { guarded(); } catch (int) {} std::printf(\"%d\\n\", hits); return 0; }\n";
    let guarded = "__asm__(\".text\\n.globl guarded\\n.type guarded,@function\\nguarded: .cfi_startproc\\n\
        .cfi_personality 0x3,routine\\npush %rbp\\n.cfi_def_cfa_offset 16\\ncall throws\\npop %rbp\\n\
        .cfi_def_cfa_offset 8\\nret\\n.cfi_endproc\\n.size guarded,.-guarded\");\n";
    let routine = format!("extern int hits;\n{routine}");
    let flags = "-O0 -fno-pie -fno-stack-protector -ffunction-sections";
    Scene::new()
        .cxx("main", flags, main)
        .c("guarded", flags, guarded)
        .c("routine", flags, &routine)
        .linkxx("-no-pie -o main main.o guarded.o routine.o")
}

/// No relocation that the store has refers to a personality routine: CIEs do. One that moves is followed, and one that goes is
/// missed.
#[test]
fn personality_routines_are_followed() {
    let routine = |statements: &str| format!("int routine(void) {{ hits++; {statements} return 8; }}\n");
    let (small, large) = (routine(""), routine(&"hits = hits * 3 - hits - hits; ".repeat(40)));
    let scene = with_routine(&small);
    for (stage, _) in [scene.incremental(), scene.incremental_wide()] {
        for text in [&large, &small] {
            let edited = with_routine(text);
            edited.again(&stage)[0].assert_outcome("patched");
            edited.compare_with_scratch(&stage);
        }
        let said = with_routine("int other(void) { return 8; }\n").refused_again(&stage);
        assert!(said.contains("undefined symbol: routine"), "{said}");
    }
}
