//! The harness judged by images of another linker: what it finds right there it may demand here.

use relink_tests::cc::Opt;
use relink_tests::elf::Elf;
use relink_tests::fixture::{self, App, Core};
use relink_tests::program::{reference, reference_image};
use relink_tests::{lines, read, readers, scratch};

#[test]
fn every_tool_is_here() {
    let missing: Vec<_> = relink_tests::tools::ALL
        .iter()
        .filter(|tool| tool.find().is_none())
        .map(|tool| format!("`{}`: apt-get install {}", tool.names[0], tool.package))
        .collect();
    assert!(missing.is_empty(), "missing tools:\n{}", missing.join("\n"));
}

#[test]
fn fixture_answers_what_its_sources_say() {
    for opt in Opt::ACCEPTANCE {
        let status = |unit: &str, define: &str, app| {
            let core = Core::new(opt);
            let core = if unit.is_empty() { core } else { core.edited(unit, &[define]) };
            reference(&core.inputs(app)).0
        };
        for (unit, define, a, b) in [
            ("", "", 163, 227),
            ("table", "TBL_GET_EDIT", 168, 237),
            ("table", "TBL_SUM_GROW=1", 64, 116),
            ("table", "TBL_SUM_GROW=2", 166, 218),
            ("table", "CALL_OPT_HELPER", 180, 244),
            ("state", "CONFIG_EDIT", 177, 248),
            ("state", "NEW_GLOBAL", 163, 235),
            ("state", "CONFIG_BIG", 163, 231),
            ("arith", "ARITH_EDIT", 164, 230),
            ("weakdef", "STRONG", 163, 227),
        ] {
            let found = (status(unit, define, App::A), status(unit, define, App::B));
            assert_eq!(found, (a, b), "{define} at {opt:?}");
        }
    }
}

#[test]
fn readers_are_content_with_another_linkers_image() {
    for opt in Opt::ACCEPTANCE {
        for app in App::BOTH {
            let dir = scratch();
            let path = reference_image(&Core::new(opt).inputs(app), dir.path());
            readers::assert_content(&path);
            let image = read(&path);
            let elf = Elf::parse(&image);
            let place = |unit: &str, name: &str| {
                // gcc gives a function the line of its brace.
                let line = fixture::line_of(unit, &format!("int {name}(")) + 1;
                (elf.symbol(name).address, (format!("{unit}.c"), line))
            };
            if opt == Opt::O0 {
                // Where code is optimised, several lines start at one address.
                lines::assert_places(&path, &[place("arith", "arith_mul"), place("table", "tbl_sum")]);
            }
            lines::assert_same_lines(&path, &path, &["tbl_get".to_owned(), "app_main".to_owned()]);
        }
    }
}

#[test]
fn readers_complain_of_a_damaged_image() {
    let dir = scratch();
    let path = reference_image(&Core::new(Opt::O0).inputs(App::A), dir.path());
    let image = read(&path);
    let elf = Elf::parse(&image);
    for section in [".debug_info", ".debug_line", ".symtab"] {
        let range = elf.section(section);
        let mut damaged = image.clone();
        damaged[range.start as usize + 4..range.end as usize].fill(0xa5);
        let other = dir.path().join("damaged");
        relink_tests::write(&other, damaged);
        let complaints = readers::complaints(&other);
        assert!(!complaints.is_empty(), "nobody noticed {section}");
    }
}

#[test]
fn one_byte_edit_differs_only_where_it_may_under_another_linker() {
    for opt in Opt::ACCEPTANCE {
        let images = [Core::new(opt), Core::new(opt).edited("arith", &["ARITH_EDIT"])].map(|core| {
            let dir = scratch();
            read(reference_image(&core.inputs(App::B), dir.path()))
        });
        crate::acceptance::assert_only_the_edit_differs(&images[0], &images[1], "arith.c", "arith_mul");
        let other = std::panic::catch_unwind(|| {
            crate::acceptance::assert_only_the_edit_differs(&images[0], &images[1], "table.c", "tbl_get");
        });
        assert!(other.is_err(), "a change of arith_mul is none of tbl_get");
    }
}
