//! The acceptance suite through the library: the scenarios A to G, at -O0 and -O1.
//!
//! A's "every address stays" and C are the two ways in which such a linker is wrong in silence: never skip or loosen them.

use std::collections::BTreeMap;
use std::ops::Range;

use relink::Outcome;
use relink_tests::cc::Opt;
use relink_tests::elf::{self, Elf};
use relink_tests::fixture::{self, App, Core};
use relink_tests::program::{self, Program, assert_behaves, assert_same_bytes};
use relink_tests::{dwarf, lines, readers, scratch};

/// The two programs, linked once, and what is kept of that link.
struct Baseline {
    core: Core,
    app: App,
    program: Program,
    image: Vec<u8>,
    addresses: BTreeMap<String, u64>,
}

impl Baseline {
    #[track_caller]
    fn new(opt: Opt, app: App) -> Baseline {
        let core = Core::new(opt);
        let mut program = Program::linked(program::incremental(), &core.inputs(app));
        program.verify();
        let image = program.image();
        assert_behaves(&image, &core.inputs(app));
        let addresses = addresses(&image);
        Baseline { core, app, program, image, addresses }
    }

    /// Compiles one unit anew and links.
    #[track_caller]
    fn edit(&mut self, unit: &str, defines: &[&str]) -> Outcome {
        let inputs = self.core.edited(unit, defines).inputs(self.app);
        let outcome = self.program.edit(&inputs);
        self.program.verify();
        assert_behaves(&self.program.image(), &inputs);
        outcome
    }
}

#[track_caller]
fn addresses(image: &[u8]) -> BTreeMap<String, u64> {
    with_file(image, elf::nm)
}

/// Gives a tool the image as a file.
#[track_caller]
fn with_file<T>(image: &[u8], ask: impl FnOnce(&std::path::Path) -> T) -> T {
    let dir = scratch();
    let path = dir.path().join("image");
    program::save(image, &path);
    ask(&path)
}

fn each(test: impl Fn(Opt)) {
    Opt::ACCEPTANCE.into_iter().for_each(test);
}

/// The readers like the image as much as the link from scratch of the same inputs, and see the fixture's lines.
#[track_caller]
fn assert_readable(program: &Program, edited: &[(&str, &str, &str)]) {
    let scratch_image = program.from_scratch();
    let measure = with_file(&scratch_image, readers::complaints);
    let image = program.image();
    with_file(&image, |path| {
        readers::assert_no_worse(path, &measure);
        readers::assert_content(path);
        let elf = Elf::parse(&image);
        let dir = scratch();
        let measure = program::reference_image(&program.inputs(), dir.path());
        let functions =
            ["arith_add", "arith_mul", "tbl_get", "tbl_sum", "state_sum", "feature_level", "app_main"];
        let names: Vec<_> =
            functions.iter().filter(|&&name| elf.find(name).is_some()).map(|s| s.to_string()).collect();
        lines::assert_same_lines(path, &measure, &names);
        let mut expected = Vec::new();
        for (unit, function, text) in edited {
            let line = fixture::line_of(unit, text);
            let address = lines::address_of_line(path, &format!("{unit}.c"), line);
            let body = elf.symbol(function);
            assert!((body.address..body.address + body.size).contains(&address), "{text} is in {function}");
            expected.push((address, (format!("{unit}.c"), line)));
        }
        lines::assert_places(path, &expected);
    });
}

#[test]
fn a_edit_in_slack_patches_and_moves_nothing() {
    each(|opt| {
        for app in App::BOTH {
            let mut base = Baseline::new(opt, app);
            let before = base.program.run();
            let outcome = base.edit("table", &["TBL_GET_EDIT"]);
            base.program.assert_patched(outcome);
            let image = base.program.image();
            assert_eq!(addresses(&image), base.addresses, "every symbol keeps its address");
            assert_ne!(base.program.run().status, before.status, "the edit shows");
            assert_readable(&base.program, &[("table", "tbl_get", "arith_add(value, 5);")]);
            assert_only_the_edit_differs(&base.image, &image, "table.c", "tbl_get");
            assert_ne!(Elf::parse(&image).build_id(), Elf::parse(&base.image).build_id());
            let counters = base.program.counters();
            assert_eq!(
                (counters.atoms_moved, counters.islands_written, counters.sites_retargeted),
                (0, 0, 0)
            );
            assert_eq!(counters.inputs_parsed, 1, "one member changed: {counters:?}");
            assert_patch_leads_from(&base.image, &base.program);
        }
    });
}

/// Outside the changed slot, the unit's debug contributions, the symbol's row and the build-id, no byte differs.
#[track_caller]
pub(crate) fn assert_only_the_edit_differs(before: &[u8], after: &[u8], unit: &str, function: &str) {
    let mut allowed: Vec<Range<u64>> = Vec::new();
    for image in [before, after] {
        let elf = Elf::parse(image);
        let symbol = elf.symbol(function);
        let start = elf.offset_of(symbol.address);
        allowed.push(start..start + symbol.size);
        allowed.extend(dwarf::contributions(&elf, unit, symbol.address));
        let row = elf.section(".symtab").start + 24 * symbol.index as u64;
        allowed.push(row..row + 24);
        allowed.push(elf.section(".note.gnu.build-id"));
    }
    let elf = Elf::parse(before);
    let stray: Vec<_> = elf::differences(before, after)
        .into_iter()
        .filter(|range| !range.clone().all(|at| allowed.iter().any(|allowed| allowed.contains(&at))))
        .map(|range| elf::whose(&elf, &range))
        .collect();
    assert!(stray.is_empty(), "bytes that no edit of {function} touches differ:\n{}", stray.join("\n"));
}

/// The patch, applied to the older image, gives the new one.
#[track_caller]
fn assert_patch_leads_from(before: &[u8], program: &Program) {
    let mut image = before.to_vec();
    image.resize(program.image().len(), 0);
    let mut written = 0;
    for range in program.session.patch().expect("a patch") {
        image[range.offset as usize..][..range.bytes.len()].copy_from_slice(&range.bytes);
        written += range.bytes.len() as u64;
    }
    assert_same_bytes(&image, &program.image(), "old image with the patch, and new image");
    assert_eq!(written, program.counters().bytes_written, "the report counts the patch's bytes");
}

#[test]
fn b_grown_function_moves_behind_one_island() {
    each(|opt| {
        let mut bases = App::BOTH.map(|app| Baseline::new(opt, app));
        for base in &mut bases {
            let old = Elf::parse(&base.image).symbol("tbl_sum");
            let outcome = base.edit("table", &["TBL_SUM_GROW=1"]);
            base.program.assert_patched(outcome);
            let first = assert_moved(base, old, old.address);
            assert_eq!(base.program.counters().atoms_moved, 1);
            assert_eq!(base.program.counters().islands_written, 1);
            assert_patch_leads_from(&base.image, &base.program);
            assert_unwinds(&base.program);
            assert_readable(&base.program, &[("table", "tbl_sum", "total = arith_mul(total, 5);")]);

            let before = base.program.image();
            let outcome = base.edit("table", &["TBL_SUM_GROW=2"]);
            base.program.assert_patched(outcome);
            let second = assert_moved(base, old, old.address);
            assert_ne!(first, second, "the second growth fits the first's slot no more");
            let elf_names = Elf::parse(&base.program.image()).names_at(first);
            assert!(
                !elf_names.iter().any(|name| name.contains("tbl_sum")),
                "no second island: {elf_names:?}"
            );
            assert_patch_leads_from(&before, &base.program);
            assert_unwinds(&base.program);
            assert_readable(&base.program, &[("table", "tbl_sum", "total = arith_mul(total, 5);")]);

            // Back to the first text: still a patch, still one island, and it still runs.
            let inputs = base.core.inputs(base.app);
            let outcome = base.program.edit(&inputs);
            base.program.assert_patched(outcome);
            base.program.verify();
            assert_behaves(&base.program.image(), &inputs);
        }
    });
}

/// `tbl_sum` left its slot, an island there leads to it, and nothing else moved. Returns where it is now.
#[track_caller]
fn assert_moved(base: &Baseline, old: elf::Sym, island: u64) -> u64 {
    let image = base.program.image();
    let (before, after) = (Elf::parse(&base.image), Elf::parse(&image));
    let new = after.symbol("tbl_sum").address;
    assert_ne!(new, old.address, "tbl_sum has a new address");
    assert_eq!(after.island_target(island), Some(new), "the island leads straight to the body");
    let names = after.names_at(island);
    assert!(!names.is_empty(), "the island has a symbol");
    assert_eq!(before.body("app_main"), after.body("app_main"), "the callers keep their bytes");
    let now = addresses(&image);
    for (name, address) in &base.addresses {
        if name != "tbl_sum" && now.get(name) != Some(address) && !is_extent(name) {
            panic!("{name} was at {address:#x}, is at {:x?}", now.get(name));
        }
    }
    // The island has an FDE of its own, and the body has another.
    let frames = [island, new].map(|address| dwarf::frame_entry(&after, address));
    assert_ne!(frames[0], frames[1], "island and body have one FDE each");
    new
}

/// Names that mark the end of what is in use, which a move may extend.
fn is_extent(name: &str) -> bool {
    ["etext", "_etext", "__etext"].contains(&name)
}

/// A backtrace through the moved function, and a return into it.
#[track_caller]
fn assert_unwinds(program: &Program) {
    let text = with_file(&program.image(), |path| {
        lines::gdb(
            path,
            &[
                "-ex",
                "break tbl_sum",
                "-ex",
                "run",
                "-ex",
                "break arith_add",
                "-ex",
                "continue",
                "-ex",
                "backtrace",
                "-ex",
                "finish",
                "-ex",
                "info symbol $pc",
            ],
        )
    });
    let frames: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    for (number, function) in ["arith_add (", "tbl_sum (", "app_main ("].into_iter().enumerate() {
        let shown = frames.get(number).is_some_and(|frame| frame.contains(function));
        assert!(shown, "frame {number} is {function}…):\n{text}");
    }
    assert!(frames[1].contains("table.c:"), "the moved function has lines:\n{text}");
    assert!(
        text.lines().any(|line| line.starts_with("tbl_sum + ")),
        "finish returns into the moved body:\n{text}"
    );
}

#[test]
fn c1_new_global_falls_back() {
    each(|opt| falls_back(opt, App::B, "state", "NEW_GLOBAL", "new-global"));
}

#[test]
fn c2_weak_that_became_strong_falls_back() {
    each(|opt| falls_back(opt, App::A, "weakdef", "STRONG", "binding-changed"));
}

#[test]
fn c3_reference_that_pulls_a_member_falls_back() {
    each(|opt| {
        falls_back(opt, App::A, "table", "CALL_OPT_HELPER", "archive-member-pulled");
        falls_back(opt, App::B, "table", "CALL_OPT_HELPER", "archive-member-pulled");
    });
}

#[test]
fn c4_data_past_its_slack_falls_back() {
    each(|opt| {
        falls_back(opt, App::A, "state", "CONFIG_BIG", "data-grew");
        falls_back(opt, App::B, "state", "CONFIG_BIG", "data-grew");
    });
}

#[track_caller]
fn falls_back(opt: Opt, app: App, unit: &str, define: &str, reason: &str) {
    let mut base = Baseline::new(opt, app);
    let outcome = base.edit(unit, &[define]);
    base.program.assert_fell_back(outcome, reason);
    assert_readable(&base.program, &[]);
    // From here on the session patches again.
    let inputs = base.core.edited(unit, &[define]).edited("arith", &["ARITH_EDIT"]).inputs(app);
    let outcome = base.program.edit(&inputs);
    base.program.assert_patched(outcome);
    base.program.verify();
    assert_behaves(&base.program.image(), &inputs);
}

#[test]
fn data_in_its_slack_patches_and_moves_nothing() {
    each(|opt| {
        for define in ["CONFIG_EDIT", "NAME_LONGER"] {
            let mut base = Baseline::new(opt, App::A);
            let outcome = base.edit("state", &[define]);
            base.program.assert_patched(outcome);
            assert_eq!(
                addresses(&base.program.image()),
                base.addresses,
                "{define}: every symbol keeps its address"
            );
            assert_patch_leads_from(&base.image, &base.program);
        }
    });
}

#[test]
fn e_same_source_gives_the_same_bytes_and_one_byte_changes_one_atom() {
    each(|opt| {
        let path = fixture::dir().join("table.c");
        let cc = relink_tests::cc::Cc::freestanding(opt);
        let text = String::from_utf8(relink_tests::read(path)).unwrap();
        let header = String::from_utf8(relink_tests::read(fixture::dir().join("fixture.h"))).unwrap();
        let text = text.replace("#include \"fixture.h\"", &header);
        assert_eq!(
            cc.text_anew("table.c", &text),
            cc.text_anew("table.c", &text),
            "the compiler is deterministic"
        );

        let core = Core::new(opt);
        for app in App::BOTH {
            let inputs = core.inputs(app);
            let images: Vec<_> = [0, 1, 2]
                .map(|threads| {
                    let options = relink::LinkOptions { threads, ..program::incremental() };
                    Program::linked(options, &inputs)
                })
                .into();
            for other in &images[1..] {
                assert_same_bytes(&other.image(), &images[0].image(), "thread counts");
                assert_eq!(other.state(), images[0].state(), "state at other thread counts");
            }
        }
        // One byte of one body: one atom's id differs, and the object's.
        let ids = |defines: &[&str]| {
            let object = fixture::unit(opt, "arith", defines);
            (relink::object_id(&object), relink::atom_ids(object).unwrap())
        };
        let ((object, atoms), (edited_object, edited_atoms)) = (ids(&[]), ids(&["ARITH_EDIT"]));
        assert_eq!(ids(&[]), (object, atoms.clone()), "ids are a function of the bytes");
        assert_ne!(object, edited_object);
        assert_eq!(atoms.len(), edited_atoms.len());
        let other: Vec<_> =
            atoms.iter().zip(&edited_atoms).filter(|(a, b)| a.id != b.id).map(|(a, _)| &a.section).collect();
        assert_eq!(other, [".text.arith_mul"], "one byte changes one atom");
        let mut base = Baseline::new(opt, App::B);
        let outcome = base.edit("arith", &["ARITH_EDIT"]);
        base.program.assert_patched(outcome);
        assert_eq!(base.program.counters().atoms_changed, 1, "{:?}", base.program.session.report());
        let image = base.program.image();
        assert_only_the_edit_differs(&base.image, &image, "arith.c", "arith_mul");
        let elf = Elf::parse(&image);
        let body = elf.symbol("arith_mul");
        let differing = elf::differences(elf.body("arith_mul"), Elf::parse(&base.image).body("arith_mul"));
        assert_eq!(
            differing.iter().map(|range| range.end - range.start).sum::<u64>(),
            1,
            "of {} bytes",
            body.size
        );
    });
}

#[test]
fn f_identical_bytes_do_nothing() {
    each(|opt| {
        let mut base = Baseline::new(opt, App::A);
        let state = base.program.state();
        for name in [fixture::ARCHIVE, "app_a.o"] {
            let bytes = base.program.inputs().into_iter().find(|(n, _)| n == name).unwrap().1;
            base.program.replace(name, bytes);
            let outcome = base.program.resolve();
            assert_ne!(outcome, Outcome::FellBackFull, "{:?}", base.program.session.report());
            assert_untouched(&base, &state);
        }
        // Not even a replacement.
        base.program.resolve();
        assert_untouched(&base, &state);
        assert_eq!(base.program.counters().atoms_diffed, 0);
        // The same in another process.
        let inputs = base.program.inputs();
        let mut resumed = Program::resumed(program::incremental(), &inputs, &state);
        assert_ne!(resumed.resolve(), Outcome::FellBackFull);
        assert_same_bytes(&resumed.image(), &base.image, "image of the other process");
        assert_eq!(resumed.counters().bytes_written, 0);
        assert_eq!(resumed.counters().whole_program_resolutions, 0);
    });
}

#[track_caller]
fn assert_untouched(base: &Baseline, state: &[u8]) {
    assert_same_bytes(&base.program.image(), &base.image, "image before and after nothing");
    assert!(base.program.state() == state, "the state is untouched");
    let counters = base.program.counters();
    let atoms = relink_tests::elf::allocated_sections(&base.core.archive());
    assert!(
        counters.atoms_diffed <= atoms,
        "{} of {atoms} atoms of the replaced input",
        counters.atoms_diffed
    );
    assert_eq!(
        (counters.bytes_written, counters.atoms_changed, counters.atoms_placed, counters.pages_hashed),
        (0, 0, 0, 0),
        "{counters:?}"
    );
    assert_eq!(counters.whole_program_resolutions, 0);
}

#[test]
fn g_failed_frames_leave_everything_and_the_next_good_one_patches() {
    each(|opt| {
        let mut base = Baseline::new(opt, App::A);
        let state = base.program.state();
        let good = base.core.inputs(App::A);
        let core = &base.core;
        let undefined = fixture::unit(opt, "table", &["arith_mul=no_such_function"]);
        let undefined = core.replaced("table", undefined).archive();
        let duplicate =
            core.replaced("state", fixture::unit(opt, "state", &["state_sum=app_main"])).archive();
        let archive = core.archive();
        let table = &core.members()[1].1;
        let at = archive.windows(table.len()).position(|bytes| bytes == table).expect("the member's bytes");
        let mut damaged = archive.clone();
        damaged[at + 0x28..at + 0x30].fill(0x7f); // e_shoff: the section table is out of the file.
        let cut = archive[..at + table.len() / 2].to_vec();
        let cases: [(Vec<u8>, &[&str]); 4] = [
            (undefined, &["undefined symbol: no_such_function", "table.c:", "libcore.a(table.o)", "tbl_get"]),
            (
                duplicate,
                &["duplicate symbol: app_main", "app_a.c:", "state.c:", "app_a.o", "libcore.a(state.o)"],
            ),
            (damaged, &["libcore.a(table.o)"]),
            (cut, &["libcore.a"]),
        ];
        for (archive, words) in cases {
            base.program.replace(fixture::ARCHIVE, archive);
            let error = base.program.session.resolve().expect_err("a bad input is an error").to_string();
            for word in words {
                assert!(error.contains(word), "`{word}` is not in: {error}");
            }
            assert_same_bytes(&base.program.image(), &base.image, "image before and after an error");
            assert!(base.program.state() == state, "the state before and after an error");
            // The same error again, not a wrong success.
            assert!(
                base.program.session.resolve().is_err(),
                "an error stays one until its input is replaced"
            );
            // The old state is still good for another process.
            let mut other = Program::resumed(program::incremental(), &good, &base.program.state());
            assert_ne!(other.resolve(), Outcome::FellBackFull);
            assert_same_bytes(&other.image(), &base.image, "image of another process");

            let outcome = base.edit("table", &["TBL_GET_EDIT"]);
            base.program.assert_patched(outcome);
            let outcome = base.program.edit(&good);
            base.program.assert_patched(outcome);
            base = Baseline::new(opt, App::A);
        }
    });
}

#[test]
fn state_from_another_process_patches_as_the_live_session_does() {
    each(|opt| {
        for define in ["TBL_GET_EDIT", "TBL_SUM_GROW=1"] {
            let mut base = Baseline::new(opt, App::A);
            let state = base.program.state();
            let inputs = base.core.edited("table", &[define]).inputs(App::A);
            let mut resumed = Program::resumed(program::incremental(), &inputs, &state);
            let outcome = resumed.resolve();
            resumed.assert_patched(outcome);
            resumed.verify();
            base.edit("table", &[define]);
            assert_same_bytes(&resumed.image(), &base.program.image(), "two ways to one patch");
            assert_eq!(resumed.state(), base.program.state(), "two ways to one state");
            assert_behaves(&resumed.image(), &inputs);
        }
    });
}
