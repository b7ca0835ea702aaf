//! The wide gate: functions, data, names and groups of changed objects come and go in a patch.
//!
//! Each program is edited step by step; each step must be a patch, the oracle looks at each image, each image does what
//! another linker's does, and at the end readers find no more to say than of a link from scratch.

use relink::{Counters, GateKind, LinkOptions, Outcome, OutputKind};
use relink_tests::cc::Opt;
use relink_tests::folder::Folder;
use relink_tests::program::{self, Program, assert_behaves};
use relink_tests::scene::Scene;
use relink_tests::way::{Way, others};
use relink_tests::{ld, readers, scratch, tools};

const WAYS: [Way; 4] = [
    Way::PLAIN,
    Way { sections: false, ..Way::PLAIN },
    Way { opt: Opt::O1, gc: true, ..Way::PLAIN },
    Way { gc: true, ..Way::PLAIN },
];

fn options(way: Way) -> LinkOptions {
    way.options(OutputKind::StaticExecutable, GateKind::Wide)
}

/// Links the first version and edits it into each of the others.
fn edit_through(way: Way, versions: &[&[(&str, &str)]]) {
    let first = way.inputs(versions[0]);
    let mut program = Program::linked(options(way), &first);
    program.verify();
    let len = program.image().len();
    for (step, version) in versions.iter().enumerate().skip(1) {
        let inputs = way.inputs(version);
        let outcome = program.edit(&inputs);
        assert_eq!(outcome, Outcome::Patched, "{way:?}, step {step}: {:#?}", program.reasons());
        program.assert_patched(outcome);
        program.verify();
        assert_eq!(program.image().len(), len, "a patch never changes the length of the file");
        assert_behaves(&program.image(), &inputs);
        // Another process goes on from the state.
        let state = program.state();
        program = Program::resumed(options(way), &inputs, &state);
    }
    let dir = scratch();
    let (ours, fresh) = (dir.path().join("patched"), dir.path().join("fresh"));
    program.resolve();
    program::save(&program.image(), &ours);
    program::save(&program.from_scratch(), &fresh);
    readers::assert_no_worse(&ours, &readers::complaints(&fresh));
}

const MAIN: &str = "int work(int);\nint app_main(void)\n{\n    return work(5) & 63;\n}\n";

#[test]
fn functions_come_and_go() {
    let before = "int work(int x)\n{\n    return x + 1;\n}\n";
    let with_static =
        "static int twice(int x)\n{\n    return x * 2;\n}\nint work(int x)\n{\n    return twice(x) + 1;\n}\n";
    let with_global = "int thrice(int x)\n{\n    return x * 3;\n}\nstatic int twice(int x)\n{\n    return thrice(x) - x;\n}\n\
         int work(int x)\n{\n    return twice(x) + thrice(x);\n}\n";
    let main_calls =
        "int work(int), thrice(int);\nint app_main(void)\n{\n    return (work(5) + thrice(2)) & 63;\n}\n";
    for way in WAYS {
        edit_through(
            way,
            &[
                &[("main.c", MAIN), ("unit.c", before)],
                &[("main.c", MAIN), ("unit.c", with_static)],
                &[("main.c", MAIN), ("unit.c", with_global)],
                &[("main.c", main_calls), ("unit.c", with_global)],
                &[("main.c", MAIN), ("unit.c", with_static)],
                &[("main.c", MAIN), ("unit.c", before)],
                // What came and went comes again, in both units at once.
                &[("main.c", main_calls), ("unit.c", with_global)],
            ],
        );
    }
}

/// What comes and goes costs what it is, however large the program is.
#[test]
fn work_does_not_grow_with_the_program() {
    let before = "int first[3] = {1, 2, 3};\nint work(int x)\n{\n    return x + first[1]++;\n}\n";
    let after = "int first[3] = {1, 2, 3};\nstatic int calls = 3;\nint more(int x)\n{\n    return x + ++calls;\n}\n\
         int work(int x)\n{\n    return more(x) + first[1]++;\n}\n";
    for way in WAYS {
        let work = [5, 50].map(|count| {
            let others = others(count);
            let mut units = vec![("main.c", MAIN), ("unit.c", before)];
            units.extend(others.iter().map(|(name, text)| (&name[..], &text[..])));
            let old = way.inputs(&units);
            units[1].1 = after;
            let new = way.inputs(&units);
            let mut program = Program::linked(options(way), &old);
            [&new, &old].map(|inputs| {
                let outcome = program.edit(inputs);
                assert_eq!(outcome, Outcome::Patched, "{way:?}: {:#?}", program.reasons());
                let counters = program.counters();
                assert!(counters.bytes_written < 4096, "{way:?}: {counters:?}");
                // How many pages and bytes an edit meets depends on where things stand.
                Counters { bytes_written: 0, pages_hashed: 0, ..counters }
            })
        });
        assert_eq!(work[0], work[1], "{way:?}");
        let [there, back] = &work[0];
        assert!(
            there.atoms_diffed > 0 && there.symbols_written > 0 && there.relocations_applied > 0,
            "{there:?}"
        );
        assert_eq!((there.whole_program_resolutions, back.whole_program_resolutions), (0, 0));
        assert_eq!((there.inputs_parsed, back.inputs_parsed), (1, 1));
    }
}

/// Who goes back and forth between two versions uses nothing up.
#[test]
fn what_comes_again_takes_the_room_that_it_left() {
    let before = "int first[3] = {1, 2, 3};\nint work(int x)\n{\n    return x + first[1]++;\n}\n";
    let after = "int first[3] = {1, 2, 3};\nstatic int calls = 3;\nint more(int x)\n{\n    return x + ++calls;\n}\nint work(int x)\n{\n    return more(x) + first[1]++;\n}\n";
    for way in WAYS {
        let versions = [before, after].map(|unit| way.inputs(&[("main.c", MAIN), ("unit.c", unit)]));
        let mut program = Program::linked(options(way), &versions[0]);
        let mut images: Vec<Vec<u8>> = Vec::new();
        for version in [1, 0].repeat(4) {
            let outcome = program.edit(&versions[version]);
            assert_eq!(outcome, Outcome::Patched, "{way:?}: {:#?}", program.reasons());
            images.push(program.image().to_vec());
        }
        program.verify();
        assert!(
            images[2..4] == images[4..6] && images[4..6] == images[6..8],
            "{way:?}: one time is as the other"
        );
    }
}

/// Each use of the GOT mentions `_GLOBAL_OFFSET_TABLE_`, which a full link defines for those who mention it.
#[test]
fn names_of_the_linker_stay_as_long_as_somebody_mentions_them() {
    let unit = |name: &str, slot: bool| {
        let asm = format!("__asm__ volatile(\"pushq {name}@GOTPCREL(%%rip)\\n\\tpopq %0\" : \"=r\"(p));");
        let taken = if slot { asm } else { format!("p = {name};") };
        format!("int {name}(int x)\n{{\n    int (*p)(int);\n    {taken}\n    return x ? p(0) + x : 1;\n}}\n")
    };
    let main =
        "int work(int), other(int);\nint app_main(void)\n{\n    return (work(5) + other(4)) & 63;\n}\n";
    for way in WAYS {
        let inputs = |slots: [bool; 2]| {
            let (work, other) = (unit("work", slots[0]), unit("other", slots[1]));
            way.inputs(&[("main.c", main), ("work.c", &work), ("other.c", &other)])
        };
        let mut program = Program::linked(options(way), &inputs([true, true]));
        for (slots, reason) in [([true, false], ""), ([false, false], "removed-undefined")] {
            let outcome = program.edit(&inputs(slots));
            if reason.is_empty() {
                program.assert_patched(outcome)
            } else {
                program.assert_fell_back(outcome, reason)
            }
            program.verify();
            assert_behaves(&program.image(), &inputs(slots));
        }
    }
}

#[test]
fn data_come_go_and_outgrow_their_slots() {
    let unit = |data: &str, used: &str| format!("{data}int work(int x)\n{{\n    return x + {used};\n}}\n");
    let versions = [
        unit("int first[3] = {1, 2, 3};\n", "first[1]"),
        unit("int first[3] = {1, 2, 3};\nstatic int second[5] = {4, 5};\n", "first[1] + second[x & 3]"),
        unit(
            "int first[90] = {1, 2, 3, [80] = 7};\nstatic int second[5] = {4, 5};\n",
            "first[75 + x] + second[1]",
        ),
        unit(
            "int first[90] = {1, 2, 3, [80] = 7};\nconst int third[40] = {[5] = 9};\nint zeros[50];\n",
            "first[75 + x] + third[x] + zeros[x]",
        ),
        unit("int first[2] = {1, 2};\n", "first[1]"),
    ];
    let users = "extern int first[];\nint work(int);\nint *at = first;\nint zero;\nconst int seven = 7;\nconst int *seven_at = &seven;\nint app_main(void)\n{\n    zero += *seven_at;\n    return (work(5) + at[1] + *first + zero) & 63;\n}\n";
    // Without a section for each datum, a unit's data are one atom.
    for way in WAYS.into_iter().filter(|way| way.sections) {
        let versions: Vec<[(&str, &str); 2]> =
            versions.iter().map(|text| [("main.c", users), ("unit.c", &text[..])]).collect();
        edit_through(way, &versions.iter().map(|version| &version[..]).collect::<Vec<_>>());
    }
}

/// Two units in C++ with inline functions, templates and virtual tables, as a program that the loader moves.
const SHAPES: &str = r#"
#include <cstdio>
#include <vector>
#include <stdexcept>
struct Shape { virtual ~Shape() {} virtual int area() const = 0; };
template <int N> struct Square : Shape { int area() const override { return N * N; } };
"#;

fn shapes(main: &str, unit: &str, level: &str) -> Scene {
    let flags = format!("-fPIE -g -ffunction-sections -fdata-sections {level}");
    Scene::new()
        .cxx("main", &flags, &format!("{SHAPES}{main}"))
        .cxx("unit", &flags, &format!("{SHAPES}{unit}"))
        .linkxx("-pie -o main main.o unit.o")
}

#[test]
fn groups_tables_and_pointers_come_and_go() {
    let main = "int work(int);\nint main() { std::printf(\"%d\\n\", work(3)); return 0; }\n";
    let plain = "int work(int x) { Square<2> s; Shape &r = s; return r.area() + x; }\n";
    let another = "int work(int x) { Square<2> s; Square<7> t; Shape *all[] = {&s, &t}; int sum = 0;\n\
        for (Shape *one : all) sum += one->area(); return sum + x; }\n";
    let pointers = "static int one(int x) { return x + 1; }\nstatic int two(int x) { return x * 2; }\n\
        int (*const table[])(int) = {one, two, one};\n\
        int work(int x) { Square<2> s; Shape &r = s; int sum = r.area();\n\
        for (auto f : table) sum = f(sum + x); return sum; }\n";
    let both = "int work(int);\nint main() { Square<7> s; Shape &r = s; std::printf(\"%d\\n\", work(3) + r.area()); return 0; }\n";
    // Without optimisation: of call sites in lexical blocks llvm-dwarfdump --verify never comes back.
    {
        let level = "-O0";
        let (stage, linked) = shapes(main, plain, level).incremental_wide();
        linked.iter().for_each(|linked| linked.assert_outcome("full"));
        for (main, unit, outcome) in [
            (main, another, "patched"),
            (main, plain, "patched"),
            (main, pointers, "patched"),
            (main, another, "patched"),
            // The first object now owns what the second one had.
            (both, another, "patched"),
            (both, plain, "patched"),
            (both, another, "patched"),
        ] {
            let scene = shapes(main, unit, level);
            scene.again(&stage).iter().for_each(|linked| linked.assert_outcome(outcome));
            // Of two copies of a function, debug information of one is of nothing.
            scene.compare_with_scratch(&stage);
        }
    }
}

/// What a unit's debug information says of another unit's function follows that function also after the unit itself was
/// patched.
#[test]
fn debug_information_of_a_patched_unit_follows_others() {
    let main =
        "int work(int), more(int);\nint main() { std::printf(\"%d\\n\", work(3) + more(4)); return 0; }\n";
    // Which of the two definitions counts, the order of the link decides: that of the first unit.
    let unit = |body: &str, shape: &str| {
        let tail = "struct Tail { __attribute__((noinline)) int step(int x) const";
        format!("{tail} {{ {shape} return x; }} }};\n{body}")
    };
    let long: String = (0..400).map(|n| format!("x = x * 3 + {n};")).collect();
    let flags = "-fPIE -g -O0 -ffunction-sections";
    let scene = |shape: &str, second: &str| {
        Scene::new()
            .cxx("main", flags, &format!("#include <cstdio>\n{main}"))
            .cxx("first", flags, &unit("int work(int x) { Tail t; return t.step(x); }\n", shape))
            .cxx("second", flags, &unit(second, ""))
            .linkxx("-pie -o main main.o first.o second.o")
    };
    let second = "int more(int x) { Tail t; return t.step(x) + 1; }\n";
    let shifted = "int more(int x) { int y = x; Tail t; y++; x += y; return t.step(x) + 1; }\n";
    let (stage, _) = scene("", second).incremental_wide();
    // The second unit first: its debug information is shifted. Then what it speaks of moves.
    for (shape, second) in [("", shifted), (&long[..], shifted), ("x++;", shifted)] {
        let scene = scene(shape, second);
        scene.again(&stage).iter().for_each(|linked| linked.assert_outcome("patched"));
        scene.compare(&stage);
    }
}

/// What garbage collection had dropped of unchanged objects comes to life when an edit refers to it, and what it refers to.
#[test]
fn dropped_functions_come_to_life() {
    let other = "int table[4] = {3, 4, 5, 6};\nint deep(int);\nint dropped(int x)\n{\n    return deep(x) + table[x & 3];\n}\n\
                 int kept(int x)\n{\n    return x;\n}\n";
    let another = "static int deeper(int x)\n{\n    return x * 5;\n}\nint deep(int x)\n{\n    return deeper(x) - 2;\n}\n\
                   int seed = 9;\nint stays(void)\n{\n    return seed;\n}\n";
    let main = "int work(int), kept(int), stays(void);\nint app_main(void)\n{\n    return (work(5) + kept(2) + stays()) & 63;\n}\n";
    let before = "int work(int x)\n{\n    return x + 1;\n}\n";
    let after = "int dropped(int);\nint work(int x)\n{\n    return dropped(x) + 1;\n}\n";
    for way in WAYS.into_iter().filter(|way| way.gc) {
        let version = |unit| [("main.c", main), ("unit.c", unit), ("other.c", other), ("another.c", another)];
        edit_through(way, &[&version(before), &version(after), &version(before), &version(after)]);
    }
}

/// A function that is weak from now on, or not any more, in its place.
#[test]
fn bindings_change_in_place() {
    let strong =
        "int other(int x)\n{\n    return x + 2;\n}\nint work(int x)\n{\n    return other(x) * 3;\n}\n";
    let weak = strong.replace("int other", "__attribute__((weak)) int other");
    for way in WAYS {
        let version = |unit| [("main.c", MAIN), ("unit.c", unit)];
        edit_through(way, &[&version(strong), &version(&weak), &version(strong)]);
    }
}

/// Who verifies an image need not say again behind which gate it was linked.
#[test]
fn gate_that_the_environment_asks_for_is_kept_with_the_state() {
    let folder = Folder::new();
    let link = |unit: &str, status: i32| {
        folder.unit("main", &["-O0", "-ffunction-sections"], unit);
        let mut gcc = folder.gcc();
        gcc.arg("-B").arg(ld::gcc_prefix()).args(["-o", "main", "main.o", "-Wl,--report=report.json"]);
        tools::say(gcc.env("RELINK_INCREMENTAL", "wide")).ok();
        let report: serde_json::Value = serde_json::from_slice(&folder.bytes("report.json")).unwrap();
        let said = tools::say(ld::relink().arg("verify").arg(folder.path("main"))).ok();
        assert!(!said.stdout.contains("older than its inputs"), "{said}");
        assert_eq!(tools::run_image(&folder.path("main"), &[]).status, status);
        report["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(link("int main(void) { return 7; }\n", 7), "full");
    let more = "static int more(int x) { return x * 2; }\nint main(void) { return more(4); }\n";
    assert_eq!(link(more, 8), "patched");
}
