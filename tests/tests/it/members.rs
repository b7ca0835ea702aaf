//! The wide gate: members of archives come and go in a patch, as a full link would pull them, and archives are made anew.
//!
//! Each step is another process that starts from the state of the one before, and a step of a live session. The oracle looks
//! at each image, and each does what another linker's does. What can't be proven right stays a reason, and the strict gate
//! refuses all of it.

use relink::{Counters, GateKind, IncrementalOptions, LinkOptions, Outcome, OutputKind};
use relink_tests::cc::{Cc, archive, archive_with};
use relink_tests::program::{self, Inputs, Program, assert_behaves};
use relink_tests::readers;
use relink_tests::scene::Scene;
use relink_tests::scratch;
use relink_tests::start::START;

fn options(gate_kind: GateKind) -> LinkOptions {
    let incremental = IncrementalOptions { gate_kind, ..IncrementalOptions::default() };
    LinkOptions {
        output_kind: OutputKind::StaticExecutable,
        incremental: Some(incremental),
        ..program::incremental()
    }
}

fn object(name: &str, text: &str) -> Vec<u8> {
    let text = if name == "main.c" { format!("{text}{START}") } else { text.to_owned() };
    Cc::new(["-O0", "-g", "-ffreestanding", "-fno-stack-protector", "-w", "-fno-pie", "-ffunction-sections"])
        .with(["-fdata-sections"])
        .text(name, &text)
}

/// What stands on a command line: sources of objects, and archives of such.
type Files<'a> = &'a [(&'a str, What<'a>)];

#[derive(Clone, Copy)]
enum What<'a> {
    Unit(&'a str),
    Archive(&'a [(&'a str, &'a str)]),
    /// Without an index.
    Plain(&'a [(&'a str, &'a str)]),
}

use What::{Archive, Plain, Unit};

fn inputs(files: Files<'_>) -> Inputs {
    let members = |members: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        members.iter().map(|(name, text)| (name.replace(".c", ".o"), object(name, text))).collect()
    };
    files
        .iter()
        .map(|(name, what)| match what {
            Unit(text) => (name.replace(".c", ".o"), object(name, text)),
            Archive(of) => ((*name).to_owned(), archive(&members(of))),
            Plain(of) => ((*name).to_owned(), archive_with("rcSD", &members(of))),
        })
        .collect()
}

const PATCHED: &str = "patched";
/// Patched, and by the strict gate as well.
const EDITED: &str = "edited";

/// Links the first version, then each of the others; beside each stands what it must be.
#[track_caller]
fn walk(versions: &[(Files<'_>, &str)]) {
    let first = inputs(versions[0].0);
    let mut program = Program::linked(options(GateKind::Wide), &first);
    program.verify();
    let mut live = Some(Program::linked(options(GateKind::Wide), &first));
    for (step, (files, expected)) in versions.iter().enumerate().skip(1) {
        let inputs = inputs(files);
        let state = program.state();
        program = Program::resumed(options(GateKind::Wide), &inputs, &state);
        let outcome = program.resolve();
        if [PATCHED, EDITED].contains(expected) {
            assert_eq!(outcome, Outcome::Patched, "step {step}: {}", program.reasons_text());
            program.assert_patched(outcome);
        } else {
            assert_eq!(outcome, Outcome::FellBackFull, "step {step}: {}", program.reasons_text());
            program.assert_fell_back(outcome, expected);
        }
        program.verify();
        assert_behaves(&program.image(), &inputs);
        // A session adds what comes behind everything else: it goes on as long as there are the same files.
        let names = |inputs: &Inputs| inputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        live = live.filter(|live| names(&live.inputs()) == names(&inputs));
        if let Some(live) = &mut live {
            assert_eq!(live.edit(&inputs), outcome, "step {step}: {}", live.reasons_text());
            live.verify();
            assert_behaves(&live.image(), &inputs);
        }
        let mut strict = Program::linked(options(GateKind::Strict), &self::inputs(versions[step - 1].0));
        let outcome = if *expected == EDITED { Outcome::Patched } else { Outcome::FellBackFull };
        strict = Program::resumed(options(GateKind::Strict), &inputs, &strict.state());
        assert_eq!(strict.resolve(), outcome, "step {step}: {:#?}", strict.reasons());
    }
    let dir = scratch();
    let (ours, fresh) = (dir.path().join("patched"), dir.path().join("fresh"));
    program::save(&program.image(), &ours);
    program::save(&program.from_scratch(), &fresh);
    readers::assert_no_worse(&ours, &readers::complaints(&fresh));
}

const MAIN: &str = "int one(int);\nint app_main(void)\n{\n    return one(5) & 63;\n}\n";
const MAIN_TWO: &str =
    "int one(int), two(int);\nint app_main(void)\n{\n    return (one(5) + two(3)) & 63;\n}\n";
const ONE: &str = "static int seed = 4;\nstatic int none[2];\nint one(int x)\n{\n    const char *words = \"words\";\n    return x + seed + none[1] + words[1];\n}\n";
const TWO: &str = "static int zeros[3];\nconst char *text(void)\n{\n    return \"a text\";\n}\nint two(int x)\n{\n    return x * 2 + zeros[1] + text()[0];\n}\n";
const THREE: &str = "int three(int x)\n{\n    return x * 3;\n}\n";
const TWO_OF_THREE: &str = "int three(int);\nint two(int x)\n{\n    return three(x) + 1;\n}\n";

/// The archive is made anew: members that are loaded, and ones that are not, change, are renamed, come and go.
#[test]
fn archives_are_made_anew() {
    let one_more = format!("{ONE}int more(int x)\n{{\n    return one(x) + 1;\n}}\n");
    let one_calls = "int more(int);\nint one(int x)\n{\n    return more(x) + 4;\n}\n";
    let more = "int more(int x)\n{\n    return x + 1;\n}\n";
    let main: (&str, What<'_>) = ("main.c", Unit(MAIN));
    walk(&[
        (&[main, ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO)]))], "full"),
        // Behind, in front, and away again: none of them is loaded.
        (&[main, ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO), ("three.c", THREE)]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("three.c", THREE), ("one.c", ONE), ("two.c", TWO)]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("one.c", ONE)]))], PATCHED),
        // The member has another name; its body changes; it has a function more, and less.
        (&[main, ("lib.a", Archive(&[("first.c", ONE)]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("first.c", &ONE.replace("= 4", "= 7"))]))], EDITED),
        (&[main, ("lib.a", Archive(&[("first.c", &one_more)]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("first.c", ONE)]))], PATCHED),
        // A function of it comes, and goes, to a member of its own, which is pulled.
        (&[main, ("lib.a", Archive(&[("first.c", one_calls), ("more.c", more)]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("more.c", more), ("first.c", one_calls)]))], "archive-changed"),
        (&[main, ("lib.a", Archive(&[("both.c", &format!("{more}{one_calls}"))]))], PATCHED),
        (&[main, ("lib.a", Archive(&[("first.c", one_calls), ("more.c", more)]))], PATCHED),
    ]);
}

/// The edit refers to what a member defines, and then no more; members pull others.
#[test]
fn members_are_pulled_and_dropped() {
    let lib: (&str, What<'_>) = ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO), ("three.c", THREE)]));
    let chain: (&str, What<'_>) =
        ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO_OF_THREE), ("three.c", THREE)]));
    let one_of_three = "int three(int);\nint one(int x)\n{\n    return three(x);\n}\n";
    let shared: (&str, What<'_>) =
        ("lib.a", Archive(&[("one.c", one_of_three), ("two.c", TWO_OF_THREE), ("three.c", THREE)]));
    walk(&[
        (&[("main.c", Unit(MAIN)), lib], "full"),
        (&[("main.c", Unit(MAIN_TWO)), lib], PATCHED),
        (&[("main.c", Unit(MAIN)), lib], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), lib], PATCHED),
        (&[("main.c", Unit(&MAIN_TWO.replace("& 63", "& 31"))), lib], EDITED),
        // By a member, which is there for its own part.
        (&[("main.c", Unit(MAIN_TWO)), chain], PATCHED),
        (&[("main.c", Unit(MAIN)), chain], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), chain], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), shared], PATCHED),
        (&[("main.c", Unit(MAIN)), shared], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), shared], PATCHED),
        // An object that comes and goes.
        (&[("main.c", Unit(MAIN)), lib], PATCHED),
        (
            &[
                (
                    "main.c",
                    Unit(
                        "int one(int), user(int);\nint app_main(void)\n{\n    return (one(5) + user(2)) & 63;\n}\n",
                    ),
                ),
                ("user.c", Unit("int two(int);\nint user(int x)\n{\n    return two(x);\n}\n")),
                lib,
            ],
            PATCHED,
        ),
        (&[("main.c", Unit(MAIN)), lib], PATCHED),
    ]);
}

/// Members that only refer to each other are in no full link.
#[test]
fn circles_of_members_go() {
    let ping = "int pong(int);\nint ping(int x)\n{\n    return x ? pong(x - 1) : 3;\n}\n";
    let pong = "int ping(int);\nint pong(int x)\n{\n    return x ? ping(x - 1) : 5;\n}\n";
    let lib: (&str, What<'_>) = ("lib.a", Archive(&[("one.c", ONE), ("ping.c", ping), ("pong.c", pong)]));
    let main = "int one(int), ping(int);\nint app_main(void)\n{\n    return (one(5) + ping(3)) & 63;\n}\n";
    walk(&[
        (&[("main.c", Unit(MAIN)), lib], "full"),
        (&[("main.c", Unit(main)), lib], PATCHED),
        (&[("main.c", Unit(MAIN)), lib], PATCHED),
        (&[("main.c", Unit(main)), lib], PATCHED),
    ]);
}

/// The first archive of the command line that offers a name has it, and in it the first entry of the index.
#[test]
fn the_first_that_offers_a_name_is_pulled() {
    let other_two = "int two(int x)\n{\n    return x * 7;\n}\n";
    let front: (&str, What<'_>) = ("front.a", Archive(&[("one.c", ONE)]));
    let back: (&str, What<'_>) = ("back.a", Archive(&[("two.c", TWO), ("also.c", other_two)]));
    let last: (&str, What<'_>) = ("last.a", Archive(&[("other.c", other_two)]));
    walk(&[
        (&[("main.c", Unit(MAIN)), front, back, last], "full"),
        (&[("main.c", Unit(MAIN_TWO)), front, back, last], PATCHED),
        (&[("main.c", Unit(MAIN)), front, back, last], PATCHED),
        // The archive behind loses the name: the last one has it.
        (&[("main.c", Unit(MAIN)), front, ("back.a", Archive(&[("three.c", THREE)])), last], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), front, ("back.a", Archive(&[("three.c", THREE)])), last], PATCHED),
        // An archive in front offers it, too.
        (&[("main.c", Unit(MAIN_TWO)), front, back, last], "archive-changed"),
        (&[("main.c", Unit(MAIN)), front, back, last], PATCHED),
    ]);
}

/// Two members of one name: which one is which, what they define tells.
#[test]
fn members_of_one_name_are_told_apart() {
    // `ar` takes no two of one name.
    let ar = |members: &[(&str, &str)]| -> Vec<u8> {
        let names = ["same0.o", "same1.o", "same2.o"];
        let members: Vec<_> =
            members.iter().zip(names).map(|((name, text), other)| (other, object(name, text))).collect();
        let mut archive = archive(&members);
        for name in names.map(|name| format!("{name}/")) {
            if let Some(at) = archive.windows(8).position(|bytes| bytes == name.as_bytes()) {
                archive[at..at + 8].copy_from_slice(b"same0.o/");
            }
        }
        archive
    };
    let main = |text: &str| ("main.o".to_owned(), object("main.c", text));
    let with = |text: &str, members: &[(&str, &str)]| vec![main(text), ("lib.a".to_owned(), ar(members))];
    let edited = TWO.replace("x * 2", "x * 5");
    let steps = [
        with(MAIN_TWO, &[("same.c", ONE), ("same.c", TWO)]),
        with(MAIN_TWO, &[("same.c", ONE), ("same.c", &edited)]),
        with(MAIN_TWO, &[("same.c", THREE), ("same.c", ONE), ("same.c", &edited)]),
        with(MAIN, &[("same.c", THREE), ("same.c", ONE), ("same.c", &edited)]),
        with(MAIN_TWO, &[("same.c", THREE), ("same.c", ONE), ("same.c", TWO)]),
        with(MAIN, &[("same.c", ONE), ("same.c", TWO)]),
    ];
    let mut program =
        Program::linked(options(GateKind::Wide), &with(MAIN, &[("same.c", ONE), ("same.c", TWO)]));
    for (step, inputs) in steps.iter().enumerate() {
        program = Program::resumed(options(GateKind::Wide), inputs, &program.state());
        let outcome = program.resolve();
        assert_eq!(outcome, Outcome::Patched, "step {step}: {}", program.reasons_text());
        program.verify();
        assert_behaves(&program.image(), inputs);
    }
}

/// What only a full link knows.
#[test]
fn doubt_is_a_full_link() {
    let lib: (&str, What<'_>) = ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO)]));
    let own_two = "int two(int x)\n{\n    return x;\n}\n";
    // An object behind the archive defines what a reference in front of it would pull.
    let weak = "int one(int);\n__attribute__((weak)) int two(int);\nint app_main(void)\n{\n    return (one(5) + (two ? 3 : 4)) & 63;\n}\n";
    walk(&[
        (&[("main.c", Unit(MAIN)), lib, ("own.c", Unit(own_two))], "full"),
        (&[("main.c", Unit(MAIN)), lib], "removed-global"),
        (&[("main.c", Unit(MAIN)), lib, ("own.c", Unit(own_two))], "new-global"),
    ]);
    // Behind an object, an archive's offer is of no account, until the object goes.
    walk(&[
        (&[("main.c", Unit(MAIN)), lib], "full"),
        (&[("main.c", Unit(MAIN)), ("own.c", Unit(own_two)), lib], PATCHED),
        (&[("main.c", Unit(MAIN_TWO)), ("own.c", Unit(own_two)), lib], EDITED),
        (&[("main.c", Unit(MAIN_TWO)), lib], "removed-global"),
        (&[("main.c", Unit(MAIN_TWO)), ("own.c", Unit(own_two)), lib], "new-global"),
    ]);
    // A weak reference pulls nothing; one that had been there before is linked as nothing.
    walk(&[
        (&[("main.c", Unit(MAIN)), lib], "full"),
        (&[("main.c", Unit(weak)), lib], "new-undefined"),
        (&[("main.c", Unit(MAIN_TWO)), lib], "binding-changed"),
    ]);
    // Thread-local data, and what is ordered.
    let tls = "__thread int own = 3;\nint two(int x)\n{\n    return x;\n}\n";
    let with_tls: (&str, What<'_>) = ("lib.a", Archive(&[("one.c", ONE), ("two.c", tls)]));
    walk(&[
        (&[("main.c", Unit(MAIN)), with_tls], "full"),
        (&[("main.c", Unit(MAIN_TWO)), with_tls], "atom-added"),
    ]);
    // An archive without an index has to be read whole.
    let plain: (&str, What<'_>) = ("lib.a", Plain(&[("one.c", ONE), ("two.c", TWO)]));
    let mut program = Program::linked(options(GateKind::Wide), &inputs(&[("main.c", Unit(MAIN)), plain]));
    let outcome = program.edit(&inputs(&[("main.c", Unit(MAIN_TWO)), plain]));
    program.assert_fell_back(outcome, "archive-member-pulled");
    program.verify();
}

/// How an archive is made.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Fat,
    /// Members are files of their own, beside it.
    Thin,
}

/// A program, or a library and its user, with `lib.a` behind their objects.
fn scene(args: &str, cc: &Cc, kind: Kind, units: &[(&str, &str)], members: &[(&str, &str)]) -> Scene {
    let compile = |(name, text): &(&str, &str)| (format!("{name}.o"), cc.text(&format!("{name}.c"), text));
    let members: Vec<(String, Vec<u8>)> = members.iter().map(compile).collect();
    let letters = if let Kind::Fat = kind { "rcsD" } else { "rcsDT" };
    let mut scene = Scene::new().file("lib.a", archive_with(letters, &members));
    for (name, bytes) in members.iter().cloned().chain(units.iter().map(compile)) {
        scene = scene.file(&name, bytes);
    }
    let objects: Vec<String> = units.iter().map(|(name, _)| format!("{name}.o")).collect();
    match args {
        "-shared" => {
            let library = objects[1..].join(" ");
            scene
                .link(&format!("-shared -o libown.so {library} lib.a -Wl,--exclude-libs,lib.a"))
                .link("-o main main.o -L. -lown")
        }
        "c++" => scene.linkxx(&format!("-pie -o main {} lib.a", objects.join(" "))),
        _ => scene.link(&format!("{args} -o main {} lib.a", objects.join(" "))),
    }
}

#[test]
fn members_come_and_go_in_programs_and_libraries() {
    let main = "#include <stdio.h>\nint work(int);\nint main(void)\n{\n    printf(\"%d\\n\", work(3));\n    return 0;\n}\n";
    let work = "static int more = 4;\nint *const at = &more;\nint work(int x)\n{\n    return x + *at;\n}\n";
    let calls = "int two(int);\nstatic int more = 4;\nint *const at = &more;\nint work(int x)\n{\n    return two(x) + *at;\n}\n";
    let two = "int three(int);\nint (*const by)(int) = three;\nint two(int x)\n{\n    return by(x) + 1;\n}\n";
    let three = "static int seed = 9;\nint three(int x)\n{\n    return x * seed;\n}\n";
    let edited = three.replace("= 9", "= 8");
    for (args, kind) in [("-static", Kind::Fat), ("-pie", Kind::Thin), ("-shared", Kind::Fat)] {
        let flags = ["-O0", "-g", "-ffunction-sections", "-fdata-sections"];
        let cc = Cc::new(flags).with([if args == "-static" { "-fno-pie" } else { "-fPIC" }]);
        let scene = |work: &str, members: &[(&str, &str)]| {
            scene(args, &cc, kind, &[("main", main), ("work", work)], members)
        };
        let lib = [("two", two), ("three", three)];
        let (stage, _) = scene(work, &lib).incremental_wide();
        for (step, scene) in [
            scene(calls, &lib),
            scene(calls, &[("three", &edited), ("two", two)]),
            scene(work, &[("three", &edited), ("two", two)]),
            scene(work, &[("three", &edited)]),
            scene(calls, &lib),
        ]
        .iter()
        .enumerate()
        {
            let linked = scene.again(&stage);
            // Members that are loaded change places.
            let expected = if step == 1 { "fell_back_full" } else { "patched" };
            linked[0].assert_outcome(expected);
            scene.compare(&stage);
        }
    }
}

/// A section that was dropped has no relocations, but its object mentions what it would refer to: that pulls members, and
/// their constructors run.
#[test]
fn what_dropped_sections_mention_is_pulled() {
    let main = "#include <stdio.h>\nint f(int);\nint dead(int x)\n{\n    return f(x);\n}\nint main(void)\n{\n    puts(\"main\");\n    return 0;\n}\n";
    let says = |what: &str, more: &str| {
        format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void say(void)\n{{\n    puts(\"{what}\");\n}}\n{more}"
        )
    };
    let f = "int f(int x)\n{\n    return x + 1;\n}\n";
    let cc = Cc::new(["-O0", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections"]);
    for (constructors, expected) in [(false, "patched"), (true, "fell_back_full")] {
        let scene = |one: &str, two: &str| {
            let member = |what, more: &str| if constructors { says(what, more) } else { more.to_owned() };
            let members = [("one", &*member("one", one)), ("two", &*member("two", two))];
            scene("-pie -Wl,--gc-sections", &cc, Kind::Fat, &[("main", main)], &members)
        };
        let (stage, _) = scene("int other;\n", f).incremental_wide();
        let taken_over = scene(f, "int other;\n");
        taken_over.again(&stage)[0].assert_outcome(expected);
        taken_over.compare(&stage);
    }
}

/// A weak reference pulls nothing: what it was bound to by chance is nothing once another member has it.
#[test]
fn weak_references_pull_nothing() {
    let main = "#include <stdio.h>\nint f(int);\n__attribute__((weak)) int g(int);\nint main(void)\n{\n    \
                printf(\"%d\\n\", f(1) + (g ? g(2) : 50));\n    return 0;\n}\n";
    let f = "int f(int x)\n{\n    return x + 1;\n}\n";
    let g = "int g(int x)\n{\n    return x * 7;\n}\n";
    let cc = Cc::new(["-O0", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections"]);
    for args in ["-pie", "-pie -Wl,--gc-sections", "-static -Wl,--gc-sections"] {
        let scene = |one: &str, two: &str| {
            scene(args, &cc, Kind::Fat, &[("main", main)], &[("one", one), ("two", two)])
        };
        let both = scene("int other;\n", &format!("{f}{g}"));
        let (stage, _) = both.incremental_wide();
        // Only that the member which nothing referred to loses the name is known to change nothing.
        let gone = scene("int other;\n", f);
        for (step, expected) in [(scene(g, f), "fell_back_full"), (gone, "patched"), (both, "fell_back_full")]
        {
            let linked = step.again(&stage);
            linked[0].assert_outcome(expected);
            let resolved = u64::from(expected != "patched");
            assert_eq!(linked[0].counter("whole_program_resolutions"), resolved, "{args}");
            step.compare(&stage);
        }
    }
}

/// An inline function that a member was in the link for: another object has a copy of it from now on.
#[test]
fn members_go_whose_functions_others_copy() {
    let main = "int f(int);\n#include <cstdio>\nint main()\n{\n    std::printf(\"%d\\n\", f(1));\n    return 0;\n}\n";
    let inline = "__attribute__((noinline)) inline int g(int x)\n{\n    return x * 7;\n}\n";
    let says = "#include <cstdio>\nstatic int said = std::puts(\"one\");\n";
    let one = format!("{inline}int (*const by)(int) = g;\nint own(int x)\n{{\n    return by(x);\n}}\n");
    let calls = "int g(int);\nint f(int x)\n{\n    return g(x) + 1;\n}\n";
    let has = format!("{inline}int f(int x)\n{{\n    return g(x) + 1;\n}}\n");
    let cc = Cc::cxx(["-O0", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections"]);
    for one in [one.clone(), format!("{says}{one}")] {
        let scene =
            |two: &str| scene("c++", &cc, Kind::Fat, &[("main", main)], &[("one", &*one), ("two", two)]);
        let (stage, _) = scene(calls).incremental_wide();
        for two in [&*has, calls, &has] {
            scene(two).again(&stage)[0].assert_outcome("fell_back_full");
            scene(two).compare(&stage);
        }
    }
}

const SHAPES: &str = r#"
#include <cstdio>
struct Shape { virtual ~Shape() {} virtual int area() const = 0; };
template <int N> struct Square : Shape { int area() const override { if (N > 8) throw N; return N * N; } };
"#;

/// COMDAT groups of members that come behind their owners, and of ones that are the only owners; unwinding through them.
#[test]
fn groups_come_and_go_with_members() {
    let cc = Cc::cxx(["-fPIC", "-g", "-O0", "-ffunction-sections", "-fdata-sections"]);
    let main = |call: &str| {
        format!(
            "{SHAPES}int work(int), more(int);\nint main() {{ Square<2> s; Shape &r = s; try {{ std::printf(\"%d %d\\n\", {call}, r.area()); }} catch (int n) {{ std::puts(n == 9 ? \"nine\" : \"other\"); }} return 0; }}\n"
        )
    };
    let work = format!(
        "{SHAPES}int work(int x) {{ Square<1> s; Square<3> t; Square<4> u; Square<6> v; Shape *all[] = {{&s, &t, &u, &v}}; return all[x & 3]->area() + x; }}\n"
    );
    let more = format!(
        "{SHAPES}int more(int x) {{ Square<2> s; Square<5> t; Square<9> u; Shape &r = s, &q = t, &p = u; return r.area() + q.area() + (x > 3 ? p.area() : x); }}\n"
    );
    let (plain, calls, throws) = (main("work(3)"), main("work(3) + more(2)"), main("work(3) + more(7)"));
    let scene =
        |main: &str| scene("c++", &cc, Kind::Fat, &[("main", main)], &[("work", &work), ("more", &more)]);
    let (stage, _) = scene(&plain).incremental_wide();
    for main in [&calls, &throws, &plain, &throws] {
        let scene = scene(main);
        scene.again(&stage)[0].assert_outcome("patched");
        scene.compare_with_scratch(&stage);
    }
}

/// Who goes back and forth between two versions is patched again and again.
#[test]
fn members_come_again_and_again() {
    let lib: (&str, What<'_>) =
        ("lib.a", Archive(&[("one.c", ONE), ("two.c", TWO_OF_THREE), ("three.c", THREE)]));
    let versions = [MAIN, MAIN_TWO].map(|main| inputs(&[("main.c", Unit(main)), lib]));
    let mut program = Program::linked(options(GateKind::Wide), &versions[0]);
    for version in [1, 0].repeat(8) {
        let outcome = program.edit(&versions[version]);
        assert_eq!(outcome, Outcome::Patched, "{}", program.reasons_text());
        program.verify();
        assert_behaves(&program.image(), &versions[version]);
    }
}

/// How much a patch does that pulls members, or drops them, is as little in a large program.
#[test]
fn work_does_not_grow_with_the_program() {
    let work = [5, 60].map(|others| {
        let names: Vec<String> = (0..others).map(|n| format!("other{n}.c")).collect();
        let texts: Vec<String> =
            (0..others).map(|n| format!("int other{n}(int x)\n{{\n    return x * {n} + 1;\n}}\n")).collect();
        let declared: String = (0..others).map(|n| format!("int other{n}(int);\n")).collect();
        let calls: String = (0..others).map(|n| format!(" + other{n}(x)")).collect();
        let user = format!("{declared}int use_others(int x)\n{{\n    return x{calls};\n}}\n");
        let mut members = vec![("one.c", ONE), ("two.c", TWO_OF_THREE), ("three.c", THREE)];
        members.extend(names.iter().zip(&texts).map(|(name, text)| (&name[..], &text[..])));
        let version = |main: &str, one: &str| {
            let mut members = members.clone();
            members[0].1 = one;
            inputs(&[("main.c", Unit(main)), ("user.c", Unit(&user)), ("lib.a", Archive(&members))])
        };
        let more = format!("{ONE}int more(int x)\n{{\n    return one(x) + 1;\n}}\n");
        let versions = [version(MAIN_TWO, ONE), version(MAIN_TWO, &more), version(MAIN, ONE)];
        let mut program = Program::linked(options(GateKind::Wide), &version(MAIN, ONE));
        versions.map(|version| {
            let outcome = program.edit(&version);
            assert_eq!(outcome, Outcome::Patched, "{}", program.reasons_text());
            let counters = program.counters();
            assert_eq!(counters.whole_program_resolutions, 0);
            // What is dropped, the names of all objects tell: members, then names that were referred to.
            assert!(counters.mentions_examined <= 4 * others + 150, "{counters:?}");
            // How many pages and bytes an edit meets depends on where things stand.
            Counters { bytes_written: 0, pages_hashed: 0, mentions_examined: 0, ..counters }
        })
    });
    assert_eq!(work[0], work[1]);
    assert!(work[0][0].inputs_parsed >= 3 && work[0][0].atoms_placed > 0, "{:?}", work[0]);
}
