//! The acceptance suite once more, through `ld.relink`.

use relink_tests::cc::Opt;
use relink_tests::elf::{self, Elf};
use relink_tests::fixture::{self, App, Core};
use relink_tests::ld::{Linked, Workplace};
use relink_tests::program::reference;
use relink_tests::{lines, read, readers};

struct Base {
    core: Core,
    app: App,
    place: Workplace,
    image: Vec<u8>,
}

impl Base {
    #[track_caller]
    fn new(app: App) -> Base {
        let core = Core::new(Opt::O0);
        let place = Workplace::new(&core.inputs(app), &["--incremental"]);
        place.link().assert_outcome("full");
        let base = Base { image: read(place.out()), core, app, place };
        base.assert_right(&base.core);
        base
    }

    /// The program does what it should, `relink verify` finds nothing, and the readers are content.
    #[track_caller]
    fn assert_right(&self, core: &Core) {
        let said = self.place.run();
        assert_eq!((said.status, said.stdout.clone()), reference(&core.inputs(self.app)), "{said}");
        self.place.relink(["verify", "out"]).ok();
        readers::assert_content(&self.place.out());
    }

    #[track_caller]
    fn edit(&self, unit: &str, define: &str) -> Linked {
        let core = self.core.edited(unit, &[define]);
        self.place.write(&core.inputs(self.app));
        let linked = self.place.link();
        self.assert_right(&core);
        linked
    }

    /// A folder in which nothing was linked before.
    #[track_caller]
    fn link_from_scratch(&self, core: &Core) -> Vec<u8> {
        let place = Workplace::new(&core.inputs(self.app), &["--incremental"]);
        place.link().assert_outcome("full");
        read(place.out())
    }
}

#[test]
fn a_edit_in_slack() {
    for app in App::BOTH {
        let base = Base::new(app);
        let before = elf::nm(&base.place.out());
        let linked = base.edit("table", "TBL_GET_EDIT");
        linked.assert_outcome("patched");
        assert_eq!(linked.counter("whole_program_resolutions"), 0);
        assert_eq!(elf::nm(&base.place.out()), before);
        let line = fixture::line_of("table", "arith_add(value, 5);");
        let address = lines::address_of_line(&base.place.out(), "table.c", line);
        lines::assert_places(&base.place.out(), &[(address, ("table.c".to_owned(), line))]);
        assert_ne!(Elf::parse(&base.image).build_id(), Elf::parse(&read(base.place.out())).build_id());
    }
}

#[test]
fn b_function_grows_twice() {
    for app in App::BOTH {
        let base = Base::new(app);
        let old = Elf::parse(&base.image).symbol("tbl_sum").address;
        for define in ["TBL_SUM_GROW=1", "TBL_SUM_GROW=2"] {
            let linked = base.edit("table", define);
            linked.assert_outcome("patched");
            assert_eq!(linked.counter("whole_program_resolutions"), 0);
            let image = read(base.place.out());
            let elf = Elf::parse(&image);
            assert_eq!(elf.island_target(old), Some(elf.symbol("tbl_sum").address));
            assert_eq!(elf.body("app_main"), Elf::parse(&base.image).body("app_main"));
        }
    }
}

#[test]
fn c_what_is_not_local_falls_back_with_its_reason() {
    for (app, unit, define, reason) in [
        (App::B, "state", "NEW_GLOBAL", "new-global"),
        (App::A, "weakdef", "STRONG", "binding-changed"),
        (App::A, "table", "CALL_OPT_HELPER", "archive-member-pulled"),
        (App::B, "state", "CONFIG_BIG", "data-grew"),
    ] {
        let base = Base::new(app);
        let linked = base.edit(unit, define);
        linked.assert_outcome("fell_back_full");
        assert!(linked.reasons().contains(&reason), "{reason} is not in {:?}", linked.reasons());
        assert!(linked.counter("whole_program_resolutions") > 0);
        let fresh = base.link_from_scratch(&base.core.edited(unit, &[define]));
        assert!(read(base.place.out()) == fresh, "{define}: the image is the one of a link from scratch");
        // `relink log` shows both links and the reason.
        let log = base.place.relink(["log", "out"]).ok().stdout;
        assert!(log.contains(reason), "{log}");
    }
}

#[test]
fn d_one_unit_in_two_outputs() {
    let core = Core::new(Opt::O0);
    let edited = core.edited("table", &["TBL_GET_EDIT"]);
    let bases = App::BOTH.map(Base::new);
    for base in bases {
        base.place.write(&edited.inputs(base.app));
        base.place.link().assert_outcome("patched");
        base.assert_right(&edited);
    }
}

#[test]
fn e_same_inputs_and_any_number_of_threads_give_the_same_bytes() {
    let core = Core::new(Opt::O1);
    for flags in [&[][..], &["--incremental"]] {
        let link = |threads: &str| {
            let place = Workplace::new(&core.inputs(App::A), &[flags, &[threads]].concat());
            place.link().assert_outcome("full");
            read(place.out())
        };
        let image = link("--threads=1");
        assert!(link("--threads=1") == image, "the same bytes twice");
        assert!(link("--threads=2") == image, "the same bytes at two threads");
    }
}

#[test]
fn f_nothing_changed() {
    let base = Base::new(App::A);
    // Written anew: another inode and time, the same bytes.
    let archive = base.place.path(fixture::ARCHIVE);
    std::fs::remove_file(&archive).unwrap();
    relink_tests::write(&archive, base.core.archive());
    for _ in 0..2 {
        let linked = base.place.link();
        assert_ne!(linked.outcome(), "fell_back_full", "{:#}", linked.report);
        assert_eq!(linked.counter("bytes_written"), 0);
        assert_eq!(linked.counter("atoms_changed"), 0);
        assert_eq!(linked.counter("whole_program_resolutions"), 0);
        // The bytes; a new time is what make wants to see.
        assert!(read(base.place.out()) == base.image, "the image is untouched");
    }
}

#[test]
fn g_failed_link_leaves_output_and_state() {
    let base = Base::new(App::A);
    let state = folder(&base.place);
    let undefined = fixture::unit(Opt::O0, "table", &["arith_mul=no_such_function"]);
    let duplicate = fixture::unit(Opt::O0, "state", &["state_sum=app_main"]);
    let site = format!("table.c:{}", fixture::line_of("table", "= arith_mul(index"));
    for (unit, object, words) in [
        ("table", undefined, ["undefined symbol: no_such_function", &site, "libcore.a(table.o)"]),
        ("state", duplicate, ["duplicate symbol: app_main", "state.c:", "libcore.a(state.o)"]),
    ] {
        base.place.write(&base.core.replaced(unit, object).inputs(App::A));
        let linked = base.place.try_link();
        assert_eq!(linked.said.status, 1, "{}", linked.said);
        for word in words {
            assert!(linked.said.stderr.contains(word), "`{word}` is not in:\n{}", linked.said);
        }
        assert!(read(base.place.out()) == base.image, "the output is untouched");
        assert_eq!(base.place.run().status, reference(&base.core.inputs(App::A)).0);
        base.edit("table", "TBL_GET_EDIT").assert_outcome("patched");
        base.place.write(&base.core.inputs(App::A));
        base.place.link().assert_outcome("patched");
    }
    assert_eq!(folder(&base.place), state, "no file is left behind");
}

/// Names in the folder and in its `.relink`.
fn folder(place: &Workplace) -> Vec<String> {
    let names = |dir: &str| {
        let entries = std::fs::read_dir(place.path(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy())).collect();
        names.sort();
        names
    };
    [names("."), names(".relink")].concat()
}
