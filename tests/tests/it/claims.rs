//! Links that are told what changed: what they look at, what they find, and what a wrong word of the caller does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use relink::host::{
    self, FaultyIo, HostRequest, InputArg, InputName, Io, ResolvedInputs, SearchPath, StateTrust,
};
use relink::{LinkSession, Outcome};
use relink_tests::cc::{self, Cc, Opt};
use relink_tests::fixture;
use relink_tests::ld::{Linked, Workplace};
use relink_tests::program::{self, Inputs, reference};
use relink_tests::tools;
use relink_tests::{read, scratch};

/// The fixture's units as objects, some compiled with a definition.
fn objects(defines: &[(&str, &str)]) -> Inputs {
    let units = ["app_a", "arith", "table", "state", "weakdef"];
    let object = |unit: &str| {
        let defines: Vec<&str> = defines.iter().filter(|edit| edit.0 == unit).map(|edit| edit.1).collect();
        (format!("{unit}.o"), fixture::unit(Opt::O0, unit, &defines))
    };
    units.map(object).into()
}

const TABLE: (&str, &str) = ("table", "TBL_GET_EDIT");
const ARITH: (&str, &str) = ("arith", "ARITH_EDIT");

#[track_caller]
fn link(place: &Workplace, words: &[&str]) -> Linked {
    let _ = std::fs::remove_file(place.path("report.json"));
    let said = tools::say(place.command().args(words));
    let report = std::fs::read(place.path("report.json")).ok();
    let report = report.map_or(serde_json::Value::Null, |text| serde_json::from_slice(&text).unwrap());
    Linked { said, report }
}

#[track_caller]
fn assert_runs_as(place: &Workplace, inputs: &Inputs) {
    let said = place.run();
    assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
}

/// Behaviour, and the oracle, which says whether the image is older than its inputs.
#[track_caller]
fn assert_right(place: &Workplace, inputs: &Inputs) {
    assert_runs_as(place, inputs);
    let said = place.relink(["verify", "out"]).ok();
    assert!(!said.stdout.contains("older than its inputs"), "{said}");
}

#[track_caller]
fn settled(inputs: &Inputs) -> Workplace {
    let place = Workplace::new(inputs, &["--incremental"]);
    std::thread::sleep(Duration::from_millis(60));
    place.link().assert_outcome("full");
    place.link().assert_outcome("patched");
    place
}

#[test]
fn named_edits_are_patched_and_others_wait_for_a_link_that_looks() {
    let place = settled(&objects(&[]));
    place.write(&objects(&[TABLE]));
    let linked = link(&place, &["--changed=table.o"]);
    linked.assert_outcome("patched");
    assert_eq!(linked.report["changed_inputs"], serde_json::json!(["table.o"]));
    assert_right(&place, &objects(&[TABLE]));

    // Two changed, one is named: the other's old code stays, whole; it is found as soon as somebody looks.
    place.write(&objects(&[ARITH]));
    link(&place, &["--changed", "./table.o"]).assert_outcome("patched");
    assert_runs_as(&place, &objects(&[]));
    let said = place.relink(["verify", "out"]).ok();
    assert!(said.stdout.contains("older than its inputs: arith.o changed"), "{said}");
    let linked = link(&place, &["--changed=table.o", "--verify"]);
    assert_eq!(linked.said.status, 1, "--verify looks at everything: {}", linked.said);
    assert!(linked.said.stderr.contains("differs from a full link"), "{}", linked.said);
    assert_runs_as(&place, &objects(&[]));
    // (What --verify finds wrong is never patched again.)
    link(&place, &[]).assert_outcome("full");
    assert_right(&place, &objects(&[ARITH]));

    // Found by an ordinary link, too, which patches it.
    place.write(&objects(&[TABLE]));
    link(&place, &["--changed=arith.o"]).assert_outcome("patched");
    assert_runs_as(&place, &objects(&[]));
    place.link().assert_outcome("patched");
    assert_right(&place, &objects(&[TABLE]));
}

#[test]
fn lists_name_one_file_a_line() {
    let place = settled(&objects(&[]));
    relink_tests::write(place.path("list"), "table.o\r\n\n./arith.o\n");
    let absolute = place.path("state.o").display().to_string();
    relink_tests::write(place.path("rest"), &absolute);
    for (number, word) in ["--changed-list=@list", "--changed-list=list"].into_iter().enumerate() {
        let edits = [&[TABLE, ARITH][..], &[]][number];
        place.write(&objects(edits));
        let linked = link(&place, &[word, "--changed-list=@rest"]);
        linked.assert_outcome("patched");
        assert_eq!(linked.report["changed_inputs"], serde_json::json!(["arith.o", "table.o"]));
        assert_right(&place, &objects(edits));
    }
    // An empty one says that nothing changed.
    place.write(&objects(&[TABLE]));
    relink_tests::write(place.path("list"), "\n");
    let linked = link(&place, &["--changed-list=@list"]);
    linked.assert_outcome("patched");
    assert_eq!(linked.counter("bytes_written"), 0);
    assert_runs_as(&place, &objects(&[]));
    for (word, why) in
        [("--changed-list=@none", "cannot open none"), ("--changed-list=@", "it names no file")]
    {
        let linked = link(&place, &[word]);
        assert_eq!(linked.said.status, 1);
        assert!(linked.said.stderr.contains(why), "{}", linked.said);
    }
    // What was kept for the oracle does not say it again.
    let command = String::from_utf8(read(place.path(".relink/out/command"))).unwrap();
    assert!(!command.contains("changed") && command.contains("table.o"), "{command}");
}

#[test]
fn names_of_no_input_are_errors_with_a_suggestion() {
    let inputs = objects(&[]);
    for first in [true, false] {
        let place = if first { Workplace::new(&inputs, &["--incremental"]) } else { settled(&inputs) };
        for (name, hint) in [
            ("tabel.o", "did you mean: --changed=table.o"),
            ("other/arith.o", "did you mean: --changed=arith.o"),
            ("whatever", "no such input"),
        ] {
            let linked = link(&place, &[&*format!("--changed={name}"), "--changed=table.o"]);
            assert_eq!(linked.said.status, 1, "{}", linked.said);
            let text = &linked.said.stderr;
            assert!(text.contains(&format!("--changed={name}: this link has no such input")), "{text}");
            assert!(text.contains(hint), "{text}");
        }
        // In a first link there is nothing to believe; nor where nothing is kept.
        place.write(&objects(&[TABLE]));
        link(&place, &["--changed=arith.o"]).assert_outcome(if first { "full" } else { "patched" });
        assert_runs_as(&place, &objects(if first { &[TABLE] } else { &[] }));
        link(&place, &["--no-incremental", "--changed=arith.o"]).assert_outcome("full");
        assert_runs_as(&place, &objects(&[TABLE]));
    }
}

#[test]
fn full_links_believe_nothing() {
    let place = settled(&objects(&[]));
    // A new global in one unit, and an edit in another that nobody names.
    let edited = objects(&[("state", "NEW_GLOBAL"), TABLE]);
    place.write(&edited);
    let linked = link(&place, &["--changed=state.o"]);
    linked.assert_outcome("fell_back_full");
    assert!(linked.reasons().contains(&"new-global"), "{:?}", linked.reasons());
    assert_right(&place, &edited);
    // Another command line, another state, none at all.
    for (words, state) in [(&["--code-slack=30"][..], true), (&[][..], false)] {
        let [before, after] =
            [objects(&[("state", "NEW_GLOBAL"), ARITH]), objects(&[("state", "NEW_GLOBAL"), TABLE])];
        place.write(&before);
        link(&place, words);
        place.write(&after);
        if !state {
            std::fs::remove_file(place.path(".relink/out/current")).unwrap();
        }
        let words =
            if state { &["--code-slack=35", "--changed=arith.o"][..] } else { &["--changed=arith.o"] };
        assert_ne!(link(&place, words).outcome(), "patched");
        assert_right(&place, &after);
    }
    // A file more on the command line: it is not in the list.
    place.write(&objects(&[ARITH]));
    relink_tests::write(place.path("more.o"), Cc::freestanding(Opt::O0).text("more.c", "int more;\n"));
    let linked = link(&place, &["more.o", "--changed=more.o"]);
    linked.assert_outcome("fell_back_full");
    assert!(linked.reasons().contains(&"input-set-changed"), "{:?}", linked.reasons());
    assert_runs_as(&place, &objects(&[ARITH]));
    // The list is kept up with the words, also by a patch.
    place.link();
    std::fs::remove_file(place.path(".relink/out/resolved")).unwrap();
    for (edits, found) in [(&[TABLE][..], true), (&[], false)] {
        place.write(&objects(edits));
        link(&place, &["--changed=arith.o"]).assert_outcome("patched");
        assert_runs_as(&place, &objects(if found { edits } else { &[TABLE] }));
    }
}

#[test]
fn archives_thin_ones_and_scripts_are_named_like_objects() {
    let unit = |value: u32| {
        Cc::freestanding(Opt::O0).text("own.c", &format!("int own(void) {{ return {value}; }}\n"))
    };
    let main = "int own(void), other(void);\nvoid _start(void) { int x = own() + other();\n\
                __asm__ volatile(\"syscall\" : : \"a\"(60), \"D\"(x)); for (;;); }\n";
    let other = |value: u32| {
        let text = format!("int other(void) {{ return {value}; }}\n");
        cc::archive(&[("other.o", Cc::freestanding(Opt::O0).text("other.c", &text))])
    };
    let inputs = |own: u32, value: u32| -> Inputs {
        vec![
            ("main.o".to_owned(), Cc::freestanding(Opt::O0).text("main.c", main)),
            ("thin.a".to_owned(), cc::archive_with("rcsTD", &[("own.o", unit(own))])),
            ("libother.a".to_owned(), other(value)),
        ]
    };
    let place = Workplace::new(&inputs(1, 2), &["--incremental"]);
    relink_tests::write(place.path("own.o"), unit(1));
    relink_tests::write(place.path("sub.txt"), "GROUP ( libother.a )\n");
    std::thread::sleep(Duration::from_millis(60));
    let status = || place.run().status;
    let linked = link(&place, &["sub.txt"]);
    linked.assert_outcome("full");
    assert_eq!(status(), 3);
    link(&place, &["sub.txt"]).assert_outcome("patched");
    let step = |words: &[&str], outcome: &str, expected: i32| {
        let linked = link(&place, &[&["sub.txt"], words].concat());
        linked.assert_outcome(outcome);
        assert_eq!(status(), expected, "{words:?}");
    };
    relink_tests::write(place.path("own.o"), unit(10));
    relink_tests::write(place.path("libother.a"), other(20));
    step(&["--changed=main.o"], "patched", 3);
    step(&["--changed=libother.a"], "patched", 21);
    step(&["--changed=own.o"], "patched", 30);
    relink_tests::write(place.path("own.o"), unit(30));
    step(&["--changed=thin.a"], "patched", 50);
    // A script that is named: who names it wants it read.
    relink_tests::write(place.path("other2.a"), other(40));
    relink_tests::write(place.path("sub.txt"), "GROUP ( other2.a )\n");
    step(&["--changed=main.o"], "patched", 50);
    step(&["--changed=sub.txt"], "fell_back_full", 50);
    place.relink(["verify", "out"]).ok();
    assert_eq!(status(), 50, "libother.a stands before it");
}

/// A link through the library of `units` objects, of which those are looked at that `changed` names.
fn host_link(io: &Arc<FaultyIo>, dir: &Path, args: &[InputArg], changed: Option<&[PathBuf]>) -> Outcome {
    let shared: Arc<dyn Io> = io.clone();
    let (output, trust, search) = (dir.join("out"), StateTrust::Own, SearchPath::default());
    let claimed: Option<ResolvedInputs> =
        changed.and_then(|changed| host::resolve_claimed(&shared, &output, trust, &search, args, changed));
    let partial = claimed.is_some();
    let inputs = claimed.unwrap_or_else(|| host::resolve_inputs(&shared, &search, args));
    assert!(inputs.errors.is_empty());
    let request = HostRequest {
        output,
        inputs,
        names_changes: changed.is_some(),
        incremental: true,
        verify: false,
        trust,
        command: None,
    };
    let mut session = LinkSession::new(program::incremental()).unwrap();
    let result = match partial {
        true => host::patch_with(&mut session, request, &**io).unwrap().expect("a patch"),
        false => host::link_with(&mut session, request, &**io).unwrap(),
    };
    result.report.outcome
}

#[test]
fn calls_do_not_grow_with_the_inputs_that_nobody_names() {
    let mut looks = Vec::new();
    for units in [20, 400] {
        let dir = scratch();
        let unit = |number: usize, value: u32| {
            let text = format!("int f{number}(void) {{ return {value}; }}\n");
            Cc::freestanding(Opt::O0).text("unit.c", &text)
        };
        let main = "int f1(void);\nvoid _start(void) { int x = f1();\n\
                    __asm__ volatile(\"syscall\" : : \"a\"(60), \"D\"(x)); for (;;); }\n";
        let path = |number: usize| dir.path().join(format!("unit{number}.o"));
        relink_tests::write(path(0), Cc::freestanding(Opt::O0).text("main.c", main));
        // Of most units the names alone differ: one object, and symbols of its own, made without a compiler for each.
        for number in 1..units {
            let bytes = if number < 4 { unit(number, 1) } else { read(path(0)) };
            let bytes = if number < 4 { bytes } else { renamed(&bytes, number) };
            relink_tests::write(path(number), bytes);
        }
        std::thread::sleep(Duration::from_millis(60));
        let args: Vec<InputArg> =
            (0..units).map(|number| InputArg::new(InputName::File(path(number)))).collect();
        let link = |changed: Option<&[PathBuf]>| {
            let io = Arc::new(FaultyIo::counting());
            let outcome = host_link(&io, dir.path(), &args, changed);
            (outcome, io.looks())
        };
        assert_eq!(link(None).0, Outcome::Full);
        assert_eq!(link(None).0, Outcome::Patched);
        let mut counts = Vec::new();
        for value in 2..4 {
            relink_tests::write(path(1), unit(1, value));
            let (outcome, count) = link(Some(&[path(1)]));
            assert_eq!(outcome, Outcome::Patched);
            assert_eq!(
                tools::run_image(&dir.path().join("out"), &[]).status,
                value as i32,
                "the edit is there"
            );
            counts.push(count);
        }
        let (outcome, all) = link(None);
        assert_eq!(outcome, Outcome::Patched);
        assert!(all >= units, "an ordinary link looks at each: {all}");
        looks.push(counts);
    }
    assert_eq!(looks[0], looks[1], "calls with 20 and with 400 inputs");
    assert!(looks[0].iter().all(|&count| count < 80), "{looks:?}");
}

/// An object with the names `_start` and `f1` changed to others of the same length.
fn renamed(object: &[u8], number: usize) -> Vec<u8> {
    let mut bytes = object.to_vec();
    let name = format!("u{number:05}");
    let at = bytes.windows(8).rposition(|window| window == b"\0_start\0").expect("its name");
    bytes[at + 1..at + 7].copy_from_slice(name.as_bytes());
    bytes
}
