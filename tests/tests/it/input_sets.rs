//! The wide gate: inputs come and go in a patch, at any place of the command line.
//!
//! Each step is another process that starts from the state of the one before. The oracle looks at each image, and each does
//! what another linker's does. What can't be proven right stays a reason, and the strict gate refuses all of it.

use relink::{Counters, GateKind, Input, LinkOptions, LinkSession, Outcome, OutputKind};
use relink_tests::cc::{Opt, archive};
use relink_tests::program::{self, Program, assert_behaves};
use relink_tests::scene::{Scene, Stage};
use relink_tests::way::{Way, others};
use relink_tests::{readers, scratch, tools};

const WAYS: [Way; 4] = [
    Way::PLAIN,
    Way { debug: false, ..Way::PLAIN },
    Way { sections: false, ..Way::PLAIN },
    Way { gc: true, ..Way::PLAIN },
];

fn options(gate: GateKind, way: Way) -> LinkOptions {
    way.options(OutputKind::StaticExecutable, gate)
}

const PATCHED: &str = "patched";
/// Patched, and by the strict gate as well.
const EDITED: &str = "edited";

/// Links the first version, then each of the others in a process of its own; beside each stands what it must be.
#[track_caller]
fn walk(way: Way, versions: &[(&[(&str, &str)], &str)]) {
    let first = way.inputs(versions[0].0);
    let mut program = Program::linked(options(GateKind::Wide, way), &first);
    program.verify();
    for (step, (units, expected)) in versions.iter().enumerate().skip(1) {
        let inputs = way.inputs(units);
        let state = program.state();
        program = Program::resumed(options(GateKind::Wide, way), &inputs, &state);
        let outcome = program.resolve();
        if [PATCHED, EDITED].contains(expected) {
            assert_eq!(outcome, Outcome::Patched, "{way:?}, step {step}: {:#?}", program.session.report());
            program.assert_patched(outcome);
        } else {
            program.assert_fell_back(outcome, expected);
        }
        program.verify();
        assert_behaves(&program.image(), &inputs);
        let names: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(program.session.loaded_inputs(), names, "the order of the command line");
        if *expected == EDITED {
            continue;
        }
        // The strict gate refuses all of it.
        let mut strict = Program::linked(options(GateKind::Strict, way), &way.inputs(versions[step - 1].0));
        let state = strict.state();
        strict = Program::resumed(options(GateKind::Strict, way), &inputs, &state);
        assert_eq!(strict.resolve(), Outcome::FellBackFull, "{way:?}, step {step}");
    }
    let dir = scratch();
    let (ours, fresh) = (dir.path().join("patched"), dir.path().join("fresh"));
    program::save(&program.image(), &ours);
    program::save(&program.from_scratch(), &fresh);
    readers::assert_no_worse(&ours, &readers::complaints(&fresh));
}

const WORK: &str = "static int counter = 3;\nint table[4] = {3, 4, 5, 6};\nstatic int zero[4];\nint work(int x)\n{\n    \
     const char *text = \"words\";\n    return x + table[x & 3] + counter + zero[1] + text[2];\n}\n";
const MAIN: &str = "int work(int);\nint app_main(void)\n{\n    return work(5) & 63;\n}\n";
const MAIN_EXTRA: &str =
    "int work(int), extra(int);\nint app_main(void)\n{\n    return (work(5) + extra(2)) & 63;\n}\n";
const EXTRA: &str = "static int seed = 9;\nstatic int zeros[7];\nconst char *text(void)\n{\n    return \"a text\";\n}\n\
     int extra(int x)\n{\n    return x * seed + zeros[x] + text()[0];\n}\n";
const LAST: &str = "int last(void)\n{\n    return 1;\n}\n";

#[test]
fn objects_come_and_go_at_any_place() {
    for way in WAYS {
        walk(
            way,
            &[
                (&[("main.c", MAIN), ("work.c", WORK), ("last.c", LAST)], "full"),
                // At the end, in the middle, in front; and gone again.
                (&[("main.c", MAIN_EXTRA), ("work.c", WORK), ("last.c", LAST), ("extra.c", EXTRA)], PATCHED),
                (&[("main.c", MAIN), ("work.c", WORK), ("last.c", LAST)], PATCHED),
                (&[("main.c", MAIN_EXTRA), ("extra.c", EXTRA), ("work.c", WORK), ("last.c", LAST)], PATCHED),
                (&[("main.c", MAIN), ("work.c", WORK), ("last.c", LAST)], PATCHED),
                (&[("extra.c", EXTRA), ("main.c", MAIN_EXTRA), ("work.c", WORK), ("last.c", LAST)], PATCHED),
                // One goes as another comes.
                (
                    &[
                        ("extra.c", EXTRA),
                        ("main.c", MAIN_EXTRA),
                        ("work.c", WORK),
                        ("other.c", "int other;\n"),
                    ],
                    PATCHED,
                ),
                // An edit beside it, and no change of the set after one.
                (
                    &[
                        ("extra.c", EXTRA),
                        ("main.c", MAIN_EXTRA),
                        ("work.c", &WORK.replace("= 3;", "= 7;")),
                        ("other.c", "int other;\n"),
                    ],
                    EDITED,
                ),
                (&[("main.c", MAIN), ("work.c", WORK)], PATCHED),
            ],
        );
    }
}

/// Which object a function is in is no part of what it is called.
#[test]
fn definitions_move_from_one_object_to_another() {
    let caller = "int extra(int);\nint twice(int x)\n{\n    return extra(x) * 2;\n}\n";
    let main = "int work(int), twice(int), extra(int);\nint (*at)(int) = extra;\nint app_main(void)\n{\n    return (work(5) + twice(2) + at(1)) & 63;\n}\n";
    let with_extra = format!("{WORK}{EXTRA}");
    let caller_with_extra = format!("{EXTRA}{caller}");
    for way in WAYS {
        walk(
            way,
            &[
                (&[("main.c", main), ("work.c", &with_extra), ("caller.c", caller)], "full"),
                // To a new object, to one that referred to it, back to where it was.
                (&[("main.c", main), ("work.c", WORK), ("extra.c", EXTRA), ("caller.c", caller)], PATCHED),
                (&[("main.c", main), ("work.c", WORK), ("caller.c", &caller_with_extra)], PATCHED),
                (&[("main.c", main), ("work.c", &with_extra), ("caller.c", caller)], PATCHED),
                // The object has another name, and what is in it is the same.
                (&[("main.c", main), ("renamed.c", &with_extra), ("caller.c", caller)], PATCHED),
            ],
        );
    }
}

#[test]
fn what_depends_on_order_is_linked_anew() {
    let way = WAYS[0];
    let ordered = "int seen = 4;\nstatic void first(void)\n{\n    seen = 5;\n}\n\
        __attribute__((section(\".init_array\"))) void (*const start)(void) = first;\n";
    let weak = "__attribute__((weak)) int choice(void)\n{\n    return 1;\n}\n";
    let weak_too = "__attribute__((weak)) int choice(void)\n{\n    return 2;\n}\n";
    let strong = "int choice(void)\n{\n    return 3;\n}\n";
    let main =
        "int work(int), choice(void);\nint app_main(void)\n{\n    return (work(5) + choice()) & 63;\n}\n";
    let tls = "__thread int own = 7;\n";
    let plain: &[(&str, &str)] = &[("main.c", MAIN), ("work.c", WORK), ("last.c", LAST)];
    let chosen: &[(&str, &str)] = &[("main.c", main), ("work.c", WORK), ("weak.c", weak)];
    walk(way, &[(plain, "full"), (&[plain[0], plain[2], plain[1]], "input-order-changed")]);
    let many: &[&[(&str, &str)]] = &[
        &[plain[0], ("ordered.c", ordered), plain[1], plain[2]],
        &[plain[0], ("tls.c", tls), plain[1], plain[2]],
    ];
    for version in many {
        walk(way, &[(plain, "full"), (version, "atom-added"), (plain, "atom-removed")]);
    }
    // A stronger definition, and an earlier one of the same strength, are other definitions.
    // Of two weak ones the second is what remains.
    for (other, gone) in [(strong, "removed-global"), (weak_too, PATCHED)] {
        let both = [chosen[0], ("other.c", other), chosen[1], chosen[2]];
        walk(way, &[(chosen, "full"), (&both, "new-global"), (chosen, gone)]);
    }
    // Behind the other one it is of no account, whether it is there or not.
    let both = [chosen[0], chosen[1], chosen[2], ("other.c", weak_too)];
    walk(way, &[(chosen, "full"), (&both, PATCHED), (chosen, PATCHED)]);
}

/// The last unit that has location lists takes their section along.
#[test]
fn debug_sections_go_with_their_last_contribution() {
    let way = Way::PLAIN;
    let optimised = Way { opt: Opt::O1, ..way };
    let lists = "int extra(int x)\n{\n    int y = x * 3;\n    for (int n = 0; n < x; n++)\n        y ^= n * x;\n    return y;\n}\n";
    let before = [
        way.inputs(&[("main.c", MAIN_EXTRA), ("work.c", WORK)]),
        optimised.inputs(&[("extra.c", lists), ("more.c", &lists.replace("extra", "more"))]),
    ]
    .concat();
    let without = |main: &str, count: usize| {
        let mut inputs = before.clone();
        inputs[0] = way.inputs(&[("main.c", main)]).remove(0);
        inputs.truncate(count);
        inputs
    };
    let mut program = Program::linked(options(GateKind::Wide, way), &before);
    let lists = |program: &Program| {
        let dir = scratch();
        program::save(&program.image(), &dir.path().join("image"));
        let image = dir.path().join("image");
        tools::READELF.run(["-SW", &*image.to_string_lossy()]).ok().stdout.contains(".debug_loclists")
    };
    assert!(lists(&program));
    let outcome = program.edit(&without(MAIN_EXTRA, 3));
    program.assert_patched(outcome);
    let outcome = program.edit(&without(MAIN, 2));
    program.assert_fell_back(outcome, "atom-removed");
    assert!(!lists(&program));
}

/// A live session: inputs are added behind the others and taken away.
#[test]
fn sessions_gain_and_lose_inputs() {
    let way = WAYS[0];
    let base = way.inputs(&[("main.c", MAIN), ("work.c", WORK)]);
    let more = way.inputs(&[("main.c", MAIN_EXTRA), ("work.c", WORK), ("extra.c", EXTRA)]);
    let mut program = Program::linked(options(GateKind::Wide, Way::PLAIN), &base);
    for inputs in [&more, &base, &more, &base] {
        let outcome = program.edit(inputs);
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), inputs);
    }
    // What fails leaves everything as it was, and is tried again.
    let mut wrong = more.clone();
    wrong[2].1 =
        way.cc().text("extra.c", "int extra(int x)\n{\n    return missing(x);\n}\nint missing(int);\n");
    program.offer(&wrong);
    let image = program.image();
    assert!(program.session.resolve().is_err());
    assert_eq!(program.image(), image);
    let outcome = program.edit(&more);
    program.assert_patched(outcome);
    program.verify();
    assert_behaves(&program.image(), &more);
}

/// An object that comes or goes costs what it is, however large the program is.
#[test]
fn work_of_an_object_does_not_grow_with_the_program() {
    for way in WAYS {
        let work = [5, 50].map(|count| {
            let others = others(count);
            let mut units = vec![("main.c", MAIN), ("work.c", WORK)];
            units.extend(others.iter().map(|(name, text)| (&name[..], &text[..])));
            let before = way.inputs(&units);
            units[0].1 = MAIN_EXTRA;
            units.insert(2, ("extra.c", EXTRA));
            let after = way.inputs(&units);
            let mut program = Program::linked(options(GateKind::Wide, way), &before);
            [&after, &before].map(|inputs| {
                let state = program.state();
                program = Program::resumed(options(GateKind::Wide, way), inputs, &state);
                let outcome = program.resolve();
                program.assert_patched(outcome);
                let counters = program.counters();
                assert!(counters.bytes_written < 8192, "{way:?}: {counters:?}");
                // Whether somebody still mentions what main.c called, the names of all objects tell.
                assert!(counters.mentions_examined <= 2 * count as u64 + 50, "{way:?}: {counters:?}");
                Counters { bytes_written: 0, pages_hashed: 0, mentions_examined: 0, ..counters }
            })
        });
        assert_eq!(work[0], work[1], "{way:?}");
        let [there, back] = &work[0];
        assert!(
            there.atoms_diffed > 0 && there.atoms_placed > 0 && back.symbols_written > 0,
            "{there:?} {back:?}"
        );
        assert_eq!((there.inputs_parsed, back.inputs_parsed), (2, 1), "{way:?}");
    }
}

/// Objects that come and go pull members and let them go; one that defines what a member is in the link for is another
/// resolution, which a full link finds out.
#[test]
fn objects_come_and_go_beside_archives() {
    let way = WAYS[0];
    let library =
        archive(&[("extra.o", way.cc().text("extra.c", EXTRA)), ("last.o", way.cc().text("last.c", LAST))]);
    let with_archive = |units: &[(&str, &str)]| {
        let mut inputs = way.inputs(units);
        inputs.push(("lib.a".to_owned(), library.clone()));
        inputs
    };
    let user = "int extra(int);\nint user(int x)\n{\n    return extra(x);\n}\n";
    let plain = with_archive(&[("main.c", MAIN), ("work.c", WORK)]);
    let steps = [
        // Pulls a member; defines what a member is in the link for; the only reference goes.
        (with_archive(&[("main.c", MAIN), ("work.c", WORK), ("user.c", user)]), PATCHED),
        (
            with_archive(&[("main.c", MAIN), ("work.c", WORK), ("user.c", user), ("own.c", EXTRA)]),
            "new-global",
        ),
        (with_archive(&[("main.c", MAIN), ("work.c", WORK), ("user.c", user)]), "removed-global"),
        (plain.clone(), PATCHED),
    ];
    let mut program = Program::linked(options(GateKind::Wide, Way::PLAIN), &plain);
    for (inputs, expected) in steps {
        let state = program.state();
        program = Program::resumed(options(GateKind::Wide, Way::PLAIN), &inputs, &state);
        let outcome = program.resolve();
        match expected {
            PATCHED => program.assert_patched(outcome),
            reason => program.assert_fell_back(outcome, reason),
        }
        program.verify();
        assert_behaves(&program.image(), &inputs);
    }
    // An archive more is another set of names.
    let mut more = plain.clone();
    more.insert(1, ("more.a".to_owned(), archive(&[("last.o", way.cc().text("last.c", LAST))])));
    let mut program = Program::resumed(options(GateKind::Wide, Way::PLAIN), &more, &program.state());
    let outcome = program.resolve();
    program.assert_fell_back(outcome, "input-set-changed");
}

#[test]
fn wide_patches_survive_many_changes_of_the_set() {
    let way = WAYS[0];
    let names: Vec<String> = (0..6).map(|n| format!("u{n}.c")).collect();
    let texts: Vec<String> = (0..6)
        .map(|n| format!("static int own{n} = {n};\nint u{n}(int x)\n{{\n    return x + own{n};\n}}\n"))
        .collect();
    let base = [("main.c", MAIN), ("work.c", WORK)];
    let mut program = Program::linked(options(GateKind::Wide, Way::PLAIN), &way.inputs(&base));
    for step in 1..24_u32 {
        // Each unit is there for its own bit of a Gray code: one comes or goes at each step, anywhere.
        let code = step ^ (step >> 1);
        let mut units = vec![base[0]];
        units.extend((0..6).filter(|n| code & (1 << n) != 0).map(|n| (&names[n][..], &texts[n][..])));
        units.push(base[1]);
        let inputs = way.inputs(&units);
        program = Program::resumed(options(GateKind::Wide, Way::PLAIN), &inputs, &program.state());
        let outcome = program.resolve();
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), &inputs);
    }
}

fn scene(kind: &str, units: &[(&str, &str)]) -> Scene {
    let flags = match kind {
        "-static" => "-O0 -g -ffunction-sections -fdata-sections -fno-pie",
        _ => "-O0 -g -ffunction-sections -fdata-sections -fPIC",
    };
    let mut scene = Scene::new();
    for (name, text) in units {
        scene = scene.c(name, flags, text);
    }
    let objects: Vec<String> = units.iter().map(|(name, _)| format!("{name}.o")).collect();
    match kind {
        "-shared" => {
            let library = objects[1..].join(" ");
            scene.link(&format!("-shared -o libown.so {library}")).link("-o main main.o -L. -lown")
        }
        _ => scene.link(&format!("{kind} -o main {}", objects.join(" "))),
    }
}

#[track_caller]
fn assert_first(scene: &Scene, stage: &Stage, outcome: &str) {
    scene.again(stage)[0].assert_outcome(outcome);
    scene.compare(stage);
}

#[test]
fn objects_come_and_go_in_programs_and_libraries() {
    let main = |call: &str| {
        format!(
            "#include <stdio.h>\nint work(int);\nint extra(int);\nint main(void)\n{{\n    printf(\"%d\\n\", {call});\n    return 0;\n}}\n"
        )
    };
    let hidden = "__attribute__((visibility(\"hidden\"))) ";
    let work = "int counter = 3;\nint *const at = &counter;\nint work(int x)\n{\n    return x + *at;\n}\n";
    let calls = "int extra(int) __attribute__((visibility(\"hidden\")));\nint counter = 3;\nint *const at = &counter;\nint work(int x)\n{\n    return extra(x) + *at;\n}\n";
    let extra = format!(
        "static int one(int x) {{ return x + 1; }}\nstatic int two(int x) {{ return x * 2; }}\n\
         static int (*const all[])(int) = {{one, two}};\n{hidden}int extra(int x)\n{{\n    return all[x & 1](x);\n}}\n"
    );
    for kind in ["-static", "-pie", "-shared"] {
        let plain = scene(kind, &[("main", &main("work(3)")), ("work", work)]);
        let with = scene(kind, &[("main", &main("work(3)")), ("extra", &extra), ("work", calls)]);
        let (stage, _) = plain.incremental_wide();
        for scene in [&with, &plain, &with, &plain] {
            assert_first(scene, &stage, "patched");
        }
    }
}

const SHAPES: &str = r#"
#include <cstdio>
#include <vector>
struct Shape { virtual ~Shape() {} virtual int area() const = 0; };
template <int N> struct Square : Shape { int area() const override { return N * N; } };
"#;

/// COMDAT groups of objects that come and go: copies behind their owner, owners that are the only ones; and owners whose
/// group another object has as well.
#[test]
fn groups_come_and_go_with_their_objects() {
    let main = "int work(int);\nint main() { Square<2> s; Shape &r = s; std::printf(\"%d %d\\n\", work(3), r.area()); return 0; }\n";
    let work = "int work(int x) { Square<2> s; Shape &r = s; return r.area() + x; }\n";
    let calls = "int more(int);\nint work(int x) { Square<2> s; Shape &r = s; return r.area() + more(x); }\n";
    let more = "int more(int x) { Square<2> s; Square<5> t; Shape &r = s, &q = t; return r.area() + q.area() + x; }\n";
    let flags = "-fPIE -g -O0 -ffunction-sections -fdata-sections";
    let scene = |units: &[(&str, &str)]| {
        let mut scene = Scene::new();
        for (name, text) in units {
            scene = scene.cxx(name, flags, &format!("{SHAPES}{text}"));
        }
        let objects: Vec<String> = units.iter().map(|(name, _)| format!("{name}.o")).collect();
        scene.linkxx(&format!("-pie -o main {}", objects.join(" ")))
    };
    let (stage, _) = scene(&[("main", main), ("work", work)]).incremental_wide();
    for (units, outcome) in [
        (&[("main", main), ("work", calls), ("more", more)][..], "patched"),
        (&[("main", main), ("work", work)], "patched"),
        (&[("main", main), ("more", more), ("work", calls)], "patched"),
        (&[("main", main), ("work", work)], "patched"),
        // It owns what others owned, and gives it back.
        (&[("more", more), ("main", main), ("work", calls)], "patched"),
        (&[("main", main), ("work", work)], "patched"),
    ] {
        let scene = scene(units);
        scene.again(&stage)[0].assert_outcome(outcome);
        scene.compare_with_scratch(&stage);
    }
}

/// A claim about what changed is of the words of one command line; another one is looked at as a whole.
#[test]
fn an_input_that_nobody_looked_at_is_no_news() {
    let way = WAYS[0];
    let base = way.inputs(&[("main.c", MAIN), ("work.c", WORK)]);
    let state = Program::linked(options(GateKind::Wide, Way::PLAIN), &base).state();
    let more = way.inputs(&[("main.c", MAIN), ("work.c", WORK), ("last.c", LAST)]);
    let mut session = LinkSession::new(options(GateKind::Wide, Way::PLAIN)).unwrap();
    for (name, bytes) in &more {
        session.add_input(Input { unchanged: true, ..Input::bytes(name, bytes.clone()) });
    }
    session.set_prior_state(state.into());
    let reasons = session.try_patch().unwrap_err();
    assert_eq!(reasons.iter().map(relink::GateReason::kind).collect::<Vec<_>>(), ["input-set-changed"]);
    assert_eq!(session.resolve().unwrap(), Outcome::FellBackFull);
}
