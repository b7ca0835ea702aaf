//! A bounded sample of the soak, and what longer ones found. `cargo run --release -p relink-tests --bin soak` runs more.

use relink::GateKind;
use relink_tests::cc::{Cc, Opt};
use relink_tests::program::{self, Inputs, Program, assert_behaves};
use relink_tests::soak::{self, soak};
use relink_tests::start::START;

#[track_caller]
fn judge(which: soak::Program, gate: GateKind, frames: usize) {
    let summary = soak(which, gate, 1, frames).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(summary.patched > frames / 2, "patches are the rule: {summary}");
    assert!(summary.moved > 0, "functions outgrow their slots: {summary}");
    assert!(
        summary.most.image > 0 && summary.most.state > 0 && summary.most.log > 0,
        "all is measured: {summary}"
    );
}

#[test]
fn generated_program_stays_within_its_bounds() {
    judge(soak::Program::Generated, GateKind::Strict, 40);
}

#[test]
fn generated_program_stays_within_its_bounds_behind_the_wide_gate() {
    judge(soak::Program::Generated, GateKind::Wide, 40);
}

#[test]
fn lua_stays_within_its_bounds() {
    judge(soak::Program::Lua, GateKind::Strict, 25);
}

/// Seed 1 of the soak of Lua, frame 860: the filler of what the first one left was written over the second one.
#[test]
fn two_contributions_of_one_frame_share_a_free_range() {
    let unit = |name: &str, lines: usize| {
        let body: String = (0..lines).map(|n| format!("    x = x * 31 + {};\n", n % 90)).collect();
        format!("int {name}(int x)\n{{\n{body}    return x;\n}}\n")
    };
    let cc = Cc::freestanding(Opt::O0);
    let main =
        "int a(int), b(int), c(int);\nint app_main(void)\n{\n    return (a(1) + b(2) + c(3)) & 63;\n}\n";
    let inputs = |lines: [usize; 3]| -> Inputs {
        let units = ["a", "b", "c"].into_iter().zip(lines);
        let objects = units
            .map(|(name, lines)| (format!("{name}.o"), cc.text(&format!("{name}.c"), &unit(name, lines))));
        [("main.o".to_owned(), cc.text("main.c", &format!("{START}{main}")))]
            .into_iter()
            .chain(objects)
            .collect()
    };
    let mut program = Program::linked(program::incremental(), &inputs([600, 3, 3]));
    // The first leaves a large range in front of the tail, which has room for both others.
    for lines in [[1000, 3, 3], [1000, 100, 100]] {
        let inputs = inputs(lines);
        let outcome = program.edit(&inputs);
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), &inputs);
    }
}
