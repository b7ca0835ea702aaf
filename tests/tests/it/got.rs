//! References that need a GOT slot for the first time in a patch: they take spare ones.

use relink::{LinkOptions, OutputKind};
use relink_tests::cc::{Cc, Opt};
use relink_tests::elf::Elf;
use relink_tests::program::{self, Inputs, Program, assert_behaves};
use relink_tests::start::START;

const MAIN: &str = r#"
int f(void);
int d = 7, e = 5;
__thread int t[3] = {1}, u = 2;
int (*volatile pointer)(int);
int app_main(void)
{
    return f() & 63;
}
"#;

const UNIT: &str = r#"
extern int d, e;
extern __thread int t[], u;
static int own = 3;
int g(int x)
{
    GROWTH
    return x * 2;
}
int f(void)
{
    void *p;
    int x = g(own) + d + e;
    BODY
    return x;
}
"#;

/// `push` has no relaxed form, so that the address (or offset) must stand in the table.
fn push(symbol: &str, kind: &str) -> String {
    format!("__asm__(\"pushq {symbol}@{kind}(%%rip)\\n\\tpopq %0\" : \"=r\"(p));")
}

fn datum(symbol: &str) -> String {
    format!("{} x = x * 3 + *(int *)p + (p == (void *)&{symbol});\n", push(symbol, "GOTPCREL"))
}

fn function() -> String {
    format!("{} x = x * 3 + ((int (*)(int))p)(x) + (p == (void *)g);\n", push("g", "GOTPCREL"))
}

/// Not read through the thread pointer, which nobody sets: the slot must have what the instruction has. With `slot`
/// off there is no slot: other linkers refuse to make one.
fn variable(symbol: &str, slot: bool) -> String {
    let direct = format!("__asm__(\"movq ${symbol}@tpoff, %0\" : \"=r\"(p));");
    let first = if slot { push(symbol, "GOTTPOFF") } else { direct.clone() };
    format!("{first} {{ void *q = p; {direct} x = x * 3 + (p == q) + (p != 0); }}\n")
}

fn inputs(kind: OutputKind, body: &str, growth: usize) -> Inputs {
    let pie = if kind == OutputKind::StaticPie { "-fPIE" } else { "-fno-pie" };
    let cc = Cc::freestanding(Opt::O0).with(["-mno-red-zone", "-Wno-unused", pie]);
    let unit = UNIT.replace("BODY", body).replace("GROWTH", &"x ^= x << 1;\n".repeat(growth));
    vec![
        ("main.o".to_owned(), cc.text("main.c", &format!("{MAIN}{START}"))),
        ("unit.o".to_owned(), cc.text("unit.c", &unit)),
    ]
}

fn linked(kind: OutputKind, body: &str) -> Program {
    let options = LinkOptions { output_kind: kind, ..program::incremental() };
    let mut program = Program::linked(options, &inputs(kind, body, 0));
    program.verify();
    program
}

#[track_caller]
fn edit(program: &mut Program, kind: OutputKind, body: &str, growth: usize) {
    let inputs = inputs(kind, body, growth);
    let outcome = program.edit(&inputs);
    program.assert_patched(outcome);
    program.verify();
    assert_behaves(&program.image(), &inputs);
}

/// Slots that are not zero.
fn used_slots(program: &Program) -> usize {
    let image = program.image();
    let (words, _) = Elf::parse(&image).section_bytes(".got").as_chunks::<8>();
    words.iter().filter(|word| **word != [0; 8]).count()
}

#[test]
fn new_references_take_spare_slots() {
    for kind in [OutputKind::StaticExecutable, OutputKind::StaticPie] {
        let mut program = linked(kind, "");
        let before = used_slots(&program);
        edit(&mut program, kind, &datum("d"), 0);
        assert_eq!(used_slots(&program), before + 1);
        // Two references, one slot; a local symbol; a function.
        let more = format!("{}{}{}{}", datum("e"), datum("d"), datum("own"), datum("e"));
        edit(&mut program, kind, &more, 0);
        assert_eq!(used_slots(&program), before + 3);
        let all = format!("{more}{}", function());
        edit(&mut program, kind, &all, 0);
        // Slots follow what moves, in this frame and in a later one.
        edit(&mut program, kind, &all, 100);
        assert_eq!(program.counters().atoms_moved, 1);
        assert_eq!(used_slots(&program), before + 4);
        // No reference left: the slots stay, and serve again.
        edit(&mut program, kind, "", 0);
        edit(&mut program, kind, &all, 300);
        assert_eq!(used_slots(&program), before + 4);
    }
}

#[test]
fn slot_is_taken_in_the_frame_in_which_its_function_moves() {
    for kind in [OutputKind::StaticExecutable, OutputKind::StaticPie] {
        let mut program = linked(kind, "");
        edit(&mut program, kind, &function(), 100);
        assert_eq!(program.counters().atoms_moved, 2, "f and g");
    }
}

#[test]
fn offsets_of_thread_local_variables_take_slots() {
    let kind = OutputKind::StaticExecutable;
    let body = |slot| format!("{}{}{}", variable("t", slot), datum("d"), variable("u", slot));
    let less = |slot| format!("{}{}", variable("t", slot), datum("e"));
    let mut program = linked(kind, &variable("u", true));
    for (with, without) in [(body(true), body(false)), (less(true), less(false))] {
        let outcome = program.edit(&inputs(kind, &with, 0));
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), &inputs(kind, &without, 0));
    }
    // In a static PIE a spare slot has a RELATIVE relocation, which would add the base.
    let kind = OutputKind::StaticPie;
    let mut program = linked(kind, "");
    let outcome = program.edit(&inputs(kind, &variable("t", true), 0));
    program.assert_fell_back(outcome, "got-slot-added");
    program.verify();
    assert_behaves(&program.image(), &inputs(kind, &variable("t", false), 0));
}

#[test]
fn another_process_takes_the_next_slot() {
    for kind in [OutputKind::StaticExecutable, OutputKind::StaticPie] {
        let mut first = linked(kind, "");
        edit(&mut first, kind, &datum("d"), 0);
        let options = LinkOptions { output_kind: kind, ..program::incremental() };
        let mut program = Program::resumed(options, &first.inputs(), &first.state());
        edit(&mut program, kind, &format!("{}{}", datum("own"), datum("e")), 0);
        assert_eq!(used_slots(&program), used_slots(&first) + 2);
    }
}
