//! Every reason of the gate that C sources can give: the edit, the reason, and an image equal to a link from scratch.
//!
//! A case is a program of two or three units and one edit of one of them. What may be refused for several reasons at
//! once names the one that must be among them.

use std::collections::BTreeSet;

use relink::{LinkOptions, Outcome};
use relink_tests::cc::{self, Cc, Opt};
use relink_tests::program::{self, Inputs, Program, assert_behaves};

/// Exits with what `app_main` returns, after the constructors and IFUNC relocations that a C library would see to.
const START: &str = r#"
typedef unsigned long word;
struct rela { word offset, info; long addend; };
extern struct rela __rela_iplt_start[] __attribute__((weak, visibility("hidden")));
extern struct rela __rela_iplt_end[] __attribute__((weak, visibility("hidden")));
extern void (*__init_array_start[])(void) __attribute__((weak, visibility("hidden")));
extern void (*__init_array_end[])(void) __attribute__((weak, visibility("hidden")));
int app_main(void);
__attribute__((noreturn, force_align_arg_pointer)) void _start(void)
{
    for (struct rela *r = __rela_iplt_start; r < __rela_iplt_end; r++)
        *(word *)r->offset = ((word (*)(void))r->addend)();
    for (void (**f)(void) = __init_array_start; f < __init_array_end; f++)
        (*f)();
    int status = app_main() & 255;
    for (;;)
        __asm__ volatile("syscall" : : "a"(60), "D"(status));
}
"#;

/// One edit and why it can't be a patch.
struct Case {
    /// The kind that must be among the reasons.
    reason: &'static str,
    /// Body of `main.c`, behind [`START`].
    main: &'static str,
    /// `unit.c`.
    base: &'static str,
    /// `unit.c` after the edit.
    edited: &'static str,
    /// Flags of all units.
    flags: &'static [&'static str],
    /// Flags of the edited unit alone.
    edited_flags: &'static [&'static str],
    options: fn() -> LinkOptions,
}

const CALL_F: &str = "int f(void);\nint app_main(void) { return f(); }\n";

/// What most cases share.
const CASE: Case = Case {
    reason: "",
    main: CALL_F,
    base: "int f(void) { return 1; }\n",
    edited: "",
    flags: &[],
    edited_flags: &[],
    options: program::incremental,
};

const CASES: &[Case] = &[
    Case { reason: "new-global", edited: "int g(void) { return 2; }\nint f(void) { return g(); }\n", ..CASE },
    // Data, and a name without code or data.
    Case { reason: "new-global", edited: "int g = 3;\nint f(void) { return g; }\n", ..CASE },
    Case {
        reason: "new-global",
        edited: "int f(void) { return 1; }\nextern int g(void) __attribute__((alias(\"f\")));\n",
        ..CASE
    },
    Case {
        reason: "removed-global",
        base: "int g(void) { return 2; }\nint f(void) { return g(); }\n",
        edited: "int f(void) { return 4; }\n",
        ..CASE
    },
    Case { reason: "binding-changed", edited: "__attribute__((weak)) int f(void) { return 1; }\n", ..CASE },
    Case {
        reason: "binding-changed",
        base: "__attribute__((weak)) int f(void) { return 1; }\n",
        edited: "int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "visibility-changed",
        edited: "__attribute__((visibility(\"hidden\"))) int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "visibility-changed",
        edited: "__attribute__((visibility(\"protected\"))) int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "type-changed",
        main: "extern int datum;\nint app_main(void) { return datum; }\n",
        base: "__asm__(\".data\\n.globl datum\\n.type datum,@object\\n.size datum,4\\ndatum: .long 5\\n\");\n",
        edited: "__asm__(\".data\\n.globl datum\\n.type datum,@notype\\n.size datum,4\\ndatum: .long 5\\n\");\n",
        ..CASE
    },
    // A weak reference that nothing satisfies, to a name that the first link never heard of.
    Case {
        reason: "new-undefined",
        edited: "int nobody(void) __attribute__((weak));\nint f(void) { return nobody ? nobody() : 9; }\n",
        ..CASE
    },
    Case {
        reason: "removed-undefined",
        base: "int nobody(void) __attribute__((weak));\nint f(void) { return nobody ? nobody() : 9; }\n",
        edited: "int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "data-grew",
        main: "extern int d[];\nint app_main(void) { return d[0]; }\n",
        base: "int d[16] = {1, 2, 3, 4};\n",
        edited: "int d[40] = {2, 2, 3, 4};\n",
        ..CASE
    },
    Case {
        reason: "data-grew",
        main: "extern int d[];\nint app_main(void) { return d[0]; }\n",
        base: "int d[16];\n",
        edited: "int d[4000];\n",
        ..CASE
    },
    Case {
        reason: "data-grew",
        main: "extern const int d[];\nint app_main(void) { return d[0]; }\n",
        base: "const int d[16] = {1, 2, 3, 4};\n",
        edited: "const int d[400] = {2, 2, 3, 4};\n",
        ..CASE
    },
    Case {
        reason: "code-space-exhausted",
        edited: "int f(void) { __asm__ volatile(\".fill 16 << 20, 1, 0x90\"); return 2; }\n",
        ..CASE
    },
    Case {
        reason: "atom-added",
        edited: "static int g(void) { return 2; }\nint f(void) { return g(); }\n",
        ..CASE
    },
    Case { reason: "atom-added", edited: "int f(void) { static int n = 5; return ++n; }\n", ..CASE },
    Case {
        reason: "atom-removed",
        base: "static int g(void) { return 2; }\nint f(void) { return g(); }\n",
        edited: "int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "section-flags-changed",
        main: "extern const int d;\nint app_main(void) { return d; }\n",
        base: "const int d __attribute__((section(\".mine\"))) = 5;\n",
        edited: "int d __attribute__((section(\".mine\"))) = 5;\n",
        ..CASE
    },
    // A second constructor in an array that may have no holes.
    Case {
        reason: "ordered-section-changed",
        base: "static int n = 1;\n__attribute__((constructor)) static void c1(void) { n += 2; }\n\
               __attribute__((used)) static void c2(void) { n += 4; }\nint f(void) { return n; }\n",
        edited: "static int n = 1;\n__attribute__((constructor)) static void c1(void) { n += 2; }\n\
                 __attribute__((constructor)) static void c2(void) { n += 4; }\nint f(void) { return n; }\n",
        ..CASE
    },
    // A table between `__start_` and `__stop_`.
    Case {
        reason: "ordered-section-changed",
        main: "extern int __start_tab[], __stop_tab[];\nint app_main(void)\n\
               { int s = 0; for (int *p = __start_tab; p < __stop_tab; p++) s += *p; return s; }\n",
        base: "__attribute__((section(\"tab\"), used)) static int t[2] = {1, 2};\n",
        edited: "__attribute__((section(\"tab\"), used)) static int t[3] = {1, 2, 4};\n",
        ..CASE
    },
    Case {
        reason: "tls-changed",
        base: "__thread int t[16] = {1, 2};\nint f(void) { return 1; }\n",
        edited: "__thread int t[80] = {1, 2};\nint f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "tls-changed",
        base: "__thread int t[16];\nint f(void) { return 1; }\n",
        edited: "__thread int t[80];\nint f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "common-changed",
        main: "extern int c[];\nint app_main(void) { c[1] = 6; return c[1]; }\n",
        base: "int c[4];\n",
        edited: "int c[80];\n",
        flags: &["-fcommon"],
        ..CASE
    },
    Case {
        reason: "comdat-changed",
        edited: "__asm__(\".section .text.cg,\\\"axG\\\",@progbits,cg,comdat\\n.weak cg\\n.type cg,@function\\ncg: ret\\n.text\\n\");\n\
                 int f(void) { return 1; }\n",
        ..CASE
    },
    Case {
        reason: "comdat-changed",
        base: "__asm__(\".section .text.cg,\\\"axG\\\",@progbits,cg,comdat\\n.weak cg\\n.type cg,@function\\ncg: ret\\n.text\\n\");\n\
               int f(void) { return 1; }\n",
        edited: "int f(void) { return 3; }\n",
        ..CASE
    },
    // push has no relaxed form, so that the address must stand in a table; there are eight spare slots.
    Case {
        reason: "got-slot-added",
        main: "int f(void);\nint d0, d1, d2, d3, d4, d5, d6, d7, d8 = 4;\nint app_main(void) { return f(); }\n",
        base: "int f(void) { return 1; }\n",
        edited: "extern int d8;\n#define PUSH(d) __asm__(\"pushq \" #d \"@GOTPCREL(%%rip)\\n\\tpopq %0\" : \"=r\"(p));\n\
                 int f(void) { int *p; PUSH(d0) PUSH(d1) PUSH(d2) PUSH(d3) PUSH(d4) PUSH(d5) PUSH(d6) PUSH(d7) PUSH(d8)\n\
                 return *p + (p == &d8); }\n",
        flags: &["-mno-red-zone"],
        ..CASE
    },
    Case {
        reason: "ifunc-changed",
        base: "static int one(void) { return 1; }\nstatic void *choose(void) { return one; }\n\
               void *keep(void) { return choose(); }\nint f(void) { return 1; }\n",
        edited: "static int one(void) { return 1; }\nstatic void *choose(void) { return one; }\n\
                 void *keep(void) { return choose(); }\nint f(void) __attribute__((ifunc(\"choose\")));\n",
        ..CASE
    },
    // More pointers than the table of the loader has spare entries for.
    Case {
        reason: "dynamic-relocation-changed",
        main: "int f(void);\nint d;\nint app_main(void) { return f(); }\n",
        base: "extern int d;\nint *p[200] __attribute__((section(\".data.p\"))) = {0};\nint f(void) { return 1; }\n",
        edited: "extern int d;\nint *p[200] __attribute__((section(\".data.p\"))) = {[0 ... 199] = &d};\n\
                 int f(void) { return 1; }\n",
        flags: &["-fPIE"],
        options: || LinkOptions { output_kind: relink::OutputKind::StaticPie, ..program::incremental() },
        ..CASE
    },
    Case {
        reason: "dead-atom-referenced",
        main: "int f(void);\nint dead(void) { return 8; }\nint app_main(void) { return f(); }\n",
        edited: "int dead(void);\nint f(void) { return dead(); }\n",
        options: || LinkOptions { gc_sections: true, ..program::incremental() },
        ..CASE
    },
    // A literal that no reserve can take, in a pool of pieces.
    Case {
        reason: "merge-pool-exhausted",
        base: "__asm__(\".section .rodata.str1.1,\\\"aMS\\\",@progbits,1\\nlit: .string \\\"abc\\\"\\n.text\\n\");\n\
               int f(void) { const char *p; __asm__(\"leaq lit(%%rip), %0\" : \"=r\"(p)); return p[0]; }\n",
        edited: "__asm__(\".section .rodata.str1.1,\\\"aMS\\\",@progbits,1\\nlit: .fill 4 << 20, 1, 66\\n.byte 0\\n.text\\n\");\n\
                 int f(void) { const char *p; __asm__(\"leaq lit(%%rip), %0\" : \"=r\"(p)); return p[0]; }\n",
        ..CASE
    },
    Case {
        reason: "local-symbols-changed",
        edited: "int f(void) { __asm__ volatile(\"local_label:\"); return 2; }\n",
        ..CASE
    },
    Case {
        reason: "property-changed",
        edited: "int f(void) { return 2; }\n",
        flags: &["-fcf-protection=full"],
        edited_flags: &["-fcf-protection=none"],
        ..CASE
    },
    Case {
        reason: "property-changed",
        edited: "__asm__(\".section .note.GNU-stack,\\\"x\\\",@progbits\\n.text\");\nint f(void) { return 2; }\n",
        ..CASE
    },
    // A frame of another kind needs a CIE that the image does not have.
    Case {
        reason: "unwind-changed",
        edited: "int f(void) { __asm__ volatile(\".cfi_signal_frame\"); return 2; }\n",
        ..CASE
    },
    // No input would bring the second name up to date.
    Case {
        reason: "relocation-unpatchable",
        edited: "int f(void) { volatile int n = 0; n++; n++; n++; n++; n++; n++; n++; n++; n++; return n; }\n",
        options: || LinkOptions {
            defsyms: vec![("alias".to_owned(), relink::DefsymValue::Symbol("f".to_owned(), 0))],
            ..program::incremental()
        },
        ..CASE
    },
    // Its words stand in the image in reverse.
    Case {
        reason: "relocation-unpatchable",
        base: "static int n;\nstatic void c1(void) { n += 2; }\nstatic void c2(void) { n *= 3; }\n\
               __attribute__((section(\".ctors\"), used)) static void (*p[])(void) = {c1, c2};\nint f(void) { return n; }\n",
        edited: "static int n;\nstatic void c1(void) { n += 2; }\nstatic void c2(void) { n *= 3; }\n\
                 __attribute__((section(\".ctors\"), used)) static void (*p[])(void) = {c2, c1};\nint f(void) { return n + 1; }\n",
        ..CASE
    },
];

impl Case {
    fn inputs(&self, unit: &str, flags: &[&str]) -> Inputs {
        let cc = Cc::freestanding(Opt::O0).with(self.flags.iter().copied());
        let main = format!("{START}{}", self.main);
        vec![
            ("main.o".to_owned(), cc.text("main.c", &main)),
            ("unit.o".to_owned(), cc.with(flags.iter().copied()).text("unit.c", unit)),
        ]
    }
}

#[test]
fn each_reason_falls_back_to_the_link_from_scratch() {
    let mut failures = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let judged = std::panic::catch_unwind(|| {
            let base = case.inputs(case.base, &[]);
            let edited = case.inputs(case.edited, case.edited_flags);
            let mut program = Program::linked((case.options)(), &base);
            assert_behaves(&program.image(), &base);
            let outcome = program.edit(&edited);
            program.assert_fell_back(outcome, case.reason);
            program.verify();
            assert_behaves(&program.image(), &edited);
            // Back again: whatever the outcome, the result is right.
            program.edit(&base);
            program.verify();
            assert_behaves(&program.image(), &base);
        });
        if let Err(panic) = judged {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failures.push(format!("case {number}, {}: {text}\n{}", case.reason, case.edited));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), CASES.len(), failures.join("\n"));
}

#[test]
fn every_kind_of_reason_has_a_test() {
    let here = [
        "gate-closed",
        "relocatable-output",
        "warnings-to-repeat",
        "import-need-added",
        "shared-library-changed",
        "state-unusable",
        "options-changed",
        "input-set-changed",
        "input-order-changed",
        "image-tampered",
        "archive-member-pulled",
        "archive-member-dropped",
        "archive-changed",
        "debug-space-exhausted",
        "debris-limit",
        "symbol-table-exhausted",
        "debug-shared",
        "symbol-table-exhausted",
        "layout-exhausted",
    ];
    let tested: BTreeSet<&str> = CASES.iter().map(|case| case.reason).chain(here).collect();
    let source = relink_tests::read(relink_tests::root().join("engine/src/report.rs"));
    let source = String::from_utf8(source).unwrap();
    let (_, body) = source.split_once("pub enum GateReason {").expect("the enum of reasons");
    let (body, _) = body.split_once("\n}").expect("its end");
    for variant in
        body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
    {
        let name: String = variant.chars().take_while(char::is_ascii_alphanumeric).collect();
        let mut kind = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !kind.is_empty() {
                kind.push('-');
            }
            kind.push(c.to_ascii_lowercase());
        }
        assert!(tested.contains(kind.as_str()), "GateReason::{name} ({kind}) has no test");
    }
}

fn two_units(f: &str) -> Inputs {
    CASE.inputs(f, &[])
}

/// A program whose `f` comes from an archive of these members.
fn with_archive(main: &str, members: &[(&str, &str)]) -> Inputs {
    let cc = Cc::freestanding(Opt::O0);
    let members: Vec<_> =
        members.iter().map(|(name, text)| (format!("{name}.o"), cc.text(name, text))).collect();
    vec![
        ("main.o".to_owned(), cc.text("main.c", &format!("{START}{main}"))),
        ("lib.a".to_owned(), cc::archive(&members)),
    ]
}

#[track_caller]
fn judge(base: &Inputs, edited: &Inputs, reason: &str) {
    let mut program = Program::linked(program::incremental(), base);
    let outcome = program.edit(edited);
    program.assert_fell_back(outcome, reason);
    program.verify();
    assert_behaves(&program.image(), edited);
}

#[test]
fn archive_member_pulled() {
    let members = |a| [("a.c", a), ("b.c", "int g(void) { return 30; }\n")];
    let base = with_archive(CALL_F, &members("int f(void) { return 1; }\n"));
    let edited = with_archive(CALL_F, &members("int g(void);\nint f(void) { return g(); }\n"));
    judge(&base, &edited, "archive-member-pulled");
    // The reference is in an object of the command line, and weak references pull nothing.
    let call_g = "int f(void);\nint g(void);\nint app_main(void) { return f() + g(); }\n";
    let edited = with_archive(call_g, &members("int f(void) { return 1; }\n"));
    judge(&base, &edited, "archive-member-pulled");
}

#[test]
fn archive_member_dropped() {
    let g = ("b.c", "int g(void) { return 30; }\n");
    let base = with_archive(CALL_F, &[("a.c", "int g(void);\nint f(void) { return g(); }\n"), g]);
    let edited = with_archive(CALL_F, &[("a.c", "int f(void) { return 1; }\n"), g]);
    judge(&base, &edited, "archive-member-dropped");
}

#[test]
fn archive_member_that_another_reference_of_the_object_keeps() {
    let b = ("b.c", "int g(void) { return 30; }\nint h(void) { return 40; }\n");
    let base = with_archive(
        CALL_F,
        &[("a.c", "int g(void);\nint h(void);\nint f(void) { return g() + h(); }\n"), b],
    );
    let edited = with_archive(CALL_F, &[("a.c", "int h(void);\nint f(void) { return h(); }\n"), b]);
    let mut program = Program::linked(program::incremental(), &base);
    let outcome = program.edit(&edited);
    program.assert_patched(outcome);
    program.verify();
    assert_behaves(&program.image(), &edited);
}

#[test]
fn visibility_that_a_reference_gives_or_takes() {
    const HIDDEN: &str = "__attribute__((visibility(\"hidden\")))";
    let open = "int g(void) { return 30; }\n".to_owned();
    let hidden = format!("{HIDDEN} {open}");
    let inputs = |definition: &str, calls: bool| -> Inputs {
        let cc = Cc::freestanding(Opt::O0);
        let (call, unit) =
            if calls { ("g()", format!("{HIDDEN} int g(void);\n")) } else { ("2", String::new()) };
        let unit = format!("{unit}int f(void) {{ return {call}; }}\n");
        vec![
            ("main.o".to_owned(), cc.text("main.c", &format!("{START}{CALL_F}"))),
            ("unit.o".to_owned(), cc.text("unit.c", &unit)),
            ("g.o".to_owned(), cc.text("g.c", definition)),
        ]
    };
    // It hides what the definition does not, or no longer does.
    judge(&inputs(&open, false), &inputs(&open, true), "visibility-changed");
    judge(&inputs(&open, true), &inputs(&open, false), "visibility-changed");
    // What is hidden anyway is hidden with the reference and without it, which is how rustc refers to its own.
    let (base, edited) = (inputs(&hidden, false), inputs(&hidden, true));
    let mut program = Program::linked(program::incremental(), &base);
    for inputs in [&edited, &base] {
        let outcome = program.edit(inputs);
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), inputs);
    }
}

#[test]
fn archive_that_resolves_otherwise() {
    let one = ("one.c", "int f(void) { return 1; }\n");
    let two = ("two.c", "int f(void) { return 2; }\n");
    let base = with_archive(CALL_F, &[one]);
    // An earlier member defines the name now.
    judge(&base, &with_archive(CALL_F, &[two, one]), "archive-changed");
    // The member that was loaded is gone, another takes its place.
    judge(&base, &with_archive(CALL_F, &[two]), "archive-changed");
}

#[test]
fn archive_with_an_edited_member_patches() {
    let base = with_archive(
        CALL_F,
        &[("one.c", "int f(void) { return 1; }\n"), ("two.c", "int g(void) { return 1; }\n")],
    );
    for edited in [
        // The loaded member, and one that is not loaded.
        [("one.c", "int f(void) { return 2; }\n"), ("two.c", "int g(void) { return 1; }\n")],
        [("one.c", "int f(void) { return 1; }\n"), ("two.c", "int g(void) { return 2; }\n")],
    ] {
        let edited = with_archive(CALL_F, &edited);
        let mut program = Program::linked(program::incremental(), &base);
        let outcome = program.edit(&edited);
        program.assert_patched(outcome);
        program.verify();
        assert_behaves(&program.image(), &edited);
    }
}

#[test]
fn inputs_added_removed_and_reordered() {
    let base = two_units(CASE.base);
    let mut more = base.clone();
    more.push(("more.o".to_owned(), Cc::freestanding(Opt::O0).text("more.c", "int more = 5;\n")));
    judge(&base, &more, "input-set-changed");
    judge(&more, &base, "input-set-changed");

    let state = Program::linked(program::incremental(), &more).state();
    let order: Inputs = [&more[0], &more[2], &more[1]].map(Clone::clone).into();
    let mut program = Program::resumed(program::incremental(), &order, &state);
    let outcome = program.resolve();
    program.assert_fell_back(outcome, "input-order-changed");
    assert_behaves(&program.image(), &order);
}

#[test]
fn options_changed() {
    let base = two_units(CASE.base);
    let state = Program::linked(program::incremental(), &base).state();
    for options in [
        LinkOptions { image_base: Some(relink::VirtAddr(0x80_0000)), ..program::incremental() },
        LinkOptions { separate_code: true, ..program::incremental() },
        LinkOptions { build_id: relink::BuildId::None, ..program::incremental() },
        LinkOptions { entry: Some("app_main".to_owned()), ..program::incremental() },
        LinkOptions { undefined: vec!["f".to_owned()], ..program::incremental() },
        LinkOptions {
            incremental: Some(relink::IncrementalOptions { code_slack_percent: 60, ..Default::default() }),
            ..program::incremental()
        },
    ] {
        let mut program = Program::resumed(options.clone(), &base, &state);
        let outcome = program.resolve();
        program.assert_fell_back(outcome, "options-changed");
    }
    // Threads are no part of the result.
    let options = LinkOptions { threads: 1, error_limit: 3, ..program::incremental() };
    let mut program = Program::resumed(options, &base, &state);
    assert_ne!(program.resolve(), Outcome::FellBackFull, "{:?}", program.session.report());
}

#[test]
fn closed_gate_lets_nothing_through() {
    let incremental =
        relink::IncrementalOptions { gate_kind: relink::GateKind::Closed, ..Default::default() };
    let options = LinkOptions { incremental: Some(incremental), ..program::incremental() };
    let mut program = Program::linked(options, &two_units(CASE.base));
    let edited = two_units("int f(void) { return 2; }\n");
    let outcome = program.edit(&edited);
    program.assert_fell_back(outcome, "gate-closed");
    assert_behaves(&program.image(), &edited);
}

#[test]
fn image_that_something_else_changed() {
    let base = two_units(CASE.base);
    let edited = two_units("int f(void) { return 2; }\n");
    let linked = Program::linked(program::incremental(), &base);
    let mut columns = Vec::new();
    linked.session.serialize_columns(&mut columns).unwrap();
    let image = linked.image();
    let stripped = {
        let dir = relink_tests::scratch();
        let path = dir.path().join("image");
        program::save(&image, &path);
        relink_tests::tools::STRIP.run([&path]).ok();
        relink_tests::read(path)
    };
    let mut longer = image.clone();
    longer.push(0);
    for (what, tampered) in
        [("strip", stripped), ("cut", image[..image.len() / 2].to_vec()), ("longer", longer)]
    {
        let mut program = Program::new(program::incremental(), &edited);
        program.session.set_prior_parts(columns.clone().into(), tampered.into());
        let outcome = program.resolve();
        assert_eq!(outcome, Outcome::FellBackFull, "{what}");
        program.assert_fell_back(outcome, "image-tampered");
        assert_behaves(&program.image(), &edited);
    }
    let mut program = Program::new(program::incremental(), &edited);
    program.session.set_prior_parts(columns.into(), image.into());
    let outcome = program.resolve();
    program.assert_patched(outcome);
    assert_behaves(&program.image(), &edited);
}

#[test]
fn state_of_another_kind() {
    let base = two_units(CASE.base);
    let state = Program::linked(program::incremental(), &base).state();
    for bad in [b"no state".to_vec(), Vec::new(), state[..state.len() / 2].to_vec(), state[..100].to_vec()] {
        let mut program = Program::resumed(program::incremental(), &base, &bad);
        let outcome = program.resolve();
        program.assert_fell_back(outcome, "state-unusable");
        assert_behaves(&program.image(), &base);
    }
}

#[test]
fn debug_information_past_its_room() {
    // Names of three letters stand in the entries themselves, not in the pool of strings.
    let letters = || ('a'..='z').chain('A'..='Z');
    let names: Vec<_> = letters().flat_map(|a| letters().map(move |b| format!("_{a}{b}"))).collect();
    let block = format!("    {{ enum {{ {} }} e = _aa; x += e; }}\n", names.join(", "));
    let text = |blocks: usize| {
        format!("int f(void)\n{{\n    int x = 3;\n{}    return x;\n}}\n", block.repeat(blocks))
    };
    judge(&two_units(&text(0)), &two_units(&text(40)), "debug-space-exhausted");
}

#[test]
fn debris_is_limited() {
    // One after another outgrows its slot, every other function, so no two of the vacated slots join, and none is large
    // enough for the next.
    const FUNCTIONS: u32 = 80;
    let text = |grown: u32| {
        let body = |index: u32| {
            let bytes = if index.is_multiple_of(2) && index < 2 * grown { 8000 } else { 5000 };
            let nops = format!("__asm__ volatile(\".fill {bytes}, 1, 0x90\");");
            let section = format!("__attribute__((section(\".text.f{index}\")))");
            format!("{section} static int f{index}(void) {{ {nops} return {index}; }}\n")
        };
        let bodies: String = (0..FUNCTIONS).map(body).collect();
        let calls: Vec<String> = (0..FUNCTIONS).map(|index| format!("f{index}()")).collect();
        format!("{bodies}int f(void) {{ return ({}) % 100; }}\n", calls.join(" + "))
    };
    let mut options = program::incremental();
    if let Some(incremental) = &mut options.incremental {
        incremental.text_reserve_percent = 300;
    }
    let mut program = Program::linked(options, &two_units(&text(0)));
    let mut kinds = Vec::new();
    for grown in 1..=FUNCTIONS / 2 {
        if program.edit(&two_units(&text(grown))) == Outcome::FellBackFull {
            kinds.extend(program.reasons());
            program.assert_fell_back(Outcome::FellBackFull, "debris-limit");
        }
        program.verify();
        assert_eq!(program.run().status, (FUNCTIONS * (FUNCTIONS - 1) / 2 % 100) as i32);
    }
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| kind == "debris-limit"), "{kinds:?}");
}

#[test]
fn type_unit_past_its_room() {
    // The lines of its members need two bytes each instead of one; its signature does not speak of lines.
    let members = (0..100).map(|n| format!("    int m{n};\n")).collect::<String>();
    let text = |blank: usize| {
        let blank = "\n".repeat(blank);
        format!("{blank}struct s {{\n{members}}};\nstruct s v = {{5}};\nint f(void) {{ return v.m0; }}\n")
    };
    let inputs = |blank| {
        let cc = Cc::freestanding(Opt::O0).with(["-gdwarf-4", "-fdebug-types-section"]);
        let mut inputs = two_units(CASE.base);
        inputs[1].1 = cc.text("unit.c", &text(blank));
        inputs
    };
    judge(&inputs(0), &inputs(300), "debug-shared");
}

/// So many functions, each with so many bytes of padding, and in an unchanged unit an `f` that calls them: who outgrows its
/// slot leaves an island.
fn many(functions: usize, padding: usize, flags: &[&str]) -> Inputs {
    let names: Vec<_> = (0..functions).map(|n| format!("g{n}")).collect();
    called(&names, padding, flags)
}

fn called(names: &[String], padding: usize, flags: &[&str]) -> Inputs {
    let fill = format!("__asm__ volatile(\".fill {padding}, 1, 0x90\");");
    let body = |name| format!("int {name}(int x) {{ {fill} return x + {padding}; }}\n");
    let call = |name| format!("    int {name}(int);\n    x = {name}(x);\n");
    let calls = names.iter().map(call).collect::<String>();
    let cc = Cc::freestanding(Opt::O0).with(flags.iter().copied());
    let mut inputs = two_units(&format!("int f(void)\n{{\n    int x = 1;\n{calls}    return x & 63;\n}}\n"));
    inputs.push(("more.o".to_owned(), cc.text("more.c", &names.iter().map(body).collect::<String>())));
    inputs
}

#[test]
fn more_islands_than_local_symbols() {
    let inputs = |padding| many(90, padding, &["-fno-asynchronous-unwind-tables"]);
    judge(&inputs(1), &inputs(60), "symbol-table-exhausted");
    // Or a name that the reserve behind the strings can't take.
    let inputs = |padding| called(&["n".repeat(9000)], padding, &[]);
    judge(&inputs(1), &inputs(60), "symbol-table-exhausted");
}

#[test]
fn more_islands_than_frame_descriptions() {
    judge(&many(60, 1, &[]), &many(60, 60, &[]), "unwind-changed");
}

#[test]
fn more_islands_than_rows_of_the_sorted_table() {
    // Many small descriptions: the reserve for them lasts longer than that for their rows. Without a symbol table, whose
    // hole for islands is smaller still.
    const CODE: &str =
        "__asm__(\".text\\n.rept 12000\\n.cfi_startproc\\n.fill 200, 1, 0x90\\n.cfi_endproc\\n.endr\");\n";
    let other = Cc::freestanding(Opt::O0).text("other.c", CODE);
    let inputs = |padding| {
        let mut inputs = many(950, padding, &["-g0"]);
        inputs.push(("other.o".to_owned(), other.clone()));
        inputs
    };
    let options = LinkOptions { strip: relink::Strip::All, ..program::incremental() };
    let mut program = Program::linked(options, &inputs(1));
    let outcome = program.edit(&inputs(40));
    program.assert_fell_back(outcome, "layout-exhausted");
    program.verify();
    assert_behaves(&program.image(), &inputs(40));
}

#[test]
fn cases_are_programs_that_run_under_another_linker() {
    for case in CASES {
        for inputs in [case.inputs(case.base, &[]), case.inputs(case.edited, case.edited_flags)] {
            let (status, _) = program::reference(&inputs);
            assert!(status < 124, "{} exits with {status}: {}", case.reason, case.edited);
        }
    }
}

#[test]
fn islands_of_a_program_of_globals_have_room() {
    // 3200 functions, none of them local: an edit moves 220 of them, and each leaves an island with a symbol. There is
    // room for 264.
    const FUNCTIONS: usize = 3200;
    const CALLED: usize = 300;
    let unit = |grown: usize| -> String {
        let body = |n| if n < grown { "__asm__ volatile(\".fill 64, 1, 0x90\");" } else { "" };
        (0..FUNCTIONS).map(|n| format!("int f{n}(void) {{ {} return {}; }}\n", body(n), n % 3)).collect()
    };
    let declared: String = (0..CALLED).map(|n| format!("int f{n}(void);\n")).collect();
    let calls: Vec<String> = (0..CALLED).map(|n| format!("f{n}()")).collect();
    let main = format!("{declared}int app_main(void) {{ return {}; }}\n", calls.join(" + "));
    let inputs = |grown| {
        let cc = Cc::freestanding(Opt::O1);
        let main = cc.text("main.c", &format!("{START}{main}"));
        vec![("main.o".to_owned(), main), ("unit.o".to_owned(), cc.text("unit.c", &unit(grown)))]
    };
    let mut program = Program::linked(program::incremental(), &inputs(0));
    let edited = inputs(220);
    let outcome = program.edit(&edited);
    program.assert_patched(outcome);
    assert_eq!(program.counters().islands_written, 220);
    program.verify();
    assert_behaves(&program.image(), &edited);
    let edited = inputs(CALLED);
    let outcome = program.edit(&edited);
    program.assert_fell_back(outcome, "symbol-table-exhausted");
    assert_behaves(&program.image(), &edited);
}
