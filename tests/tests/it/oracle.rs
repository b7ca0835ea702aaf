//! The oracle itself on trial: a check that can't fail proves nothing. Each part of a patched image is damaged by
//! one byte, and the violation must be found by its bytes, not by the digest of the whole.

use object::{Object, ObjectSection, ObjectSymbol};
use relink::{DynamicOptions, HashStyle, LinkOptions, OutputKind};
use relink_tests::cc::{Cc, Opt};
use relink_tests::damage::Trial;
use relink_tests::fixture::{App, Core};
use relink_tests::ld;
use relink_tests::program::{self, Inputs, Program};
use relink_tests::scene::Scene;
use relink_tests::start::START;

#[test]
fn one_wrong_byte_anywhere_is_a_violation() {
    let core = Core::new(Opt::O0);
    let edited = core.edited("table", &["TBL_SUM_GROW=1"]).inputs(App::A);
    let trial = Trial::new(program::incremental(), &core.inputs(App::A), edited);
    let elf = object::File::parse(&*trial.image).unwrap();
    let section = |name: &str| elf.section_by_name(name).unwrap_or_else(|| panic!("no {name}"));
    let file_offset = |name: &str| section(name).file_range().unwrap().0;
    let symbol = |name: &str| elf.symbol_by_name(name).unwrap_or_else(|| panic!("no {name}")).address();
    let code = |address: u64| file_offset(".text") + (address - section(".text").address());
    let symtab_end = section(".symtab").file_range().map(|(start, len)| start + len).unwrap();
    for (what, offset) in [
        ("a function", code(symbol("tbl_get")) + 5),
        ("a moved function", code(symbol("tbl_sum")) + 5),
        ("an island", code(symbol("tbl_sum.island")) + 1),
        ("data", file_offset(".data") + (symbol("g_config") - section(".data").address()) + 4),
        ("a frame description", file_offset(".eh_frame") + 0x30),
        ("the sorted table", file_offset(".eh_frame_hdr") + 16),
        ("a symbol's value", symtab_end - 16),
        ("a unit of debug information", file_offset(".debug_info") + section(".debug_info").size() / 2),
        ("the entry point", 24),
    ] {
        trial.assert_found(what, offset);
    }
}

#[test]
fn inputs_of_another_meaning_are_violations() {
    let core = Core::new(Opt::O0);
    let linked = Program::linked(program::incremental(), &core.inputs(App::A));
    let state = linked.state();
    for (unit, define) in [("table", "TBL_GET_EDIT"), ("weakdef", "STRONG"), ("state", "NEW_GLOBAL")] {
        let mut program =
            Program::resumed(program::incremental(), &core.edited(unit, &[define]).inputs(App::A), &state);
        // Not linked again: the image is still that of the old inputs.
        let violations = program.session.verify().unwrap();
        assert!(!violations.is_empty(), "{define}");
    }
}

#[test]
fn one_wrong_byte_in_what_a_loader_reads_is_a_violation() {
    let library = "int number = 3; int f(int x) { return x; } int g(int x) { return x + number; }\n";
    let stage = Scene::new()
        .c("lib", "-O1 -fPIC", library)
        .link("-shared -nostdlib -o libown.so lib.o")
        .built(Some(ld::gcc_prefix()));
    let main = "extern int number; int f(int), g(int); int *p = &number; int (*q)(int) = g; int local;\n
        int *own = &local; int app_main(void) { return f(number) + g(1) + q(2) + *p + BODY; }\n";
    let cc = Cc::freestanding(Opt::O0).with(["-fPIE"]);
    let inputs = |body: &str| -> Inputs {
        let text = format!("{START}{}", main.replace("BODY", body));
        vec![
            ("main.o".to_owned(), cc.text("main.c", &text)),
            ("libown.so".to_owned(), relink_tests::read(stage.path("libown.so"))),
        ]
    };
    let dynamic = DynamicOptions { hash_style: HashStyle::Both, ..DynamicOptions::default() };
    let options = LinkOptions { output_kind: OutputKind::Pie, dynamic, ..program::incremental() };
    let trial = Trial::new(options, &inputs("1"), inputs("2"));
    for (name, at) in [
        (".dynsym", 24 + 4),
        (".dynsym", 24 + 8),
        (".dynstr", 2),
        (".rela.dyn", 0),
        (".rela.dyn", 16),
        (".rela.plt", 0),
        (".rela.plt", 12),
        (".gnu.hash", 12),
        (".gnu.hash", 16),
        (".hash", 4),
        (".got.plt", 0),
        (".got.plt", 24),
        (".plt", 2),
        (".plt", 18),
        (".got", 0),
        (".dynamic", 0),
        (".dynamic", 24),
        (".interp", 3),
    ] {
        let (start, len) = trial.section(name);
        assert!(at < len, "{name} has {len} bytes");
        trial.assert_found(name, start + at);
    }
}
