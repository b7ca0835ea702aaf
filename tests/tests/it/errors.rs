//! Errors of a link: each names what, where and, if it can, what was meant; all of them come at once.

use relink_tests::cc::{Cc, Opt};
use relink_tests::ld;
use relink_tests::program::{self, Inputs, Program};
use relink_tests::tools::{self, Said};

fn unit(name: &str, text: &str) -> (String, Vec<u8>) {
    (
        format!("{name}.o"),
        Cc::freestanding(Opt::O0)
            .with(["-Wno-implicit-function-declaration"])
            .text(&format!("{name}.c"), text),
    )
}

/// The errors of a link through the library, as text.
#[track_caller]
fn errors(inputs: &Inputs) -> String {
    let mut program = Program::new(program::canonical(), inputs);
    let error = program.session.resolve().expect_err("the link is wrong").to_string();
    // The same errors for an incremental link; a value that does not fit is another one where addresses differ.
    let mut program = Program::new(program::incremental(), inputs);
    let other = program.session.resolve().expect_err("the link is wrong").to_string();
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(words(&other), words(&error));
    error
}

#[track_caller]
fn assert_holds(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for word in wanted {
        let at = rest.find(word).unwrap_or_else(|| panic!("`{word}` (in this order) is not in:\n{text}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn undefined_symbol_names_each_reference() {
    let text = errors(&vec![
        unit("a", "int missing(int);\nvoid _start(void)\n{\n    missing(1);\n}\n"),
        unit(
            "b",
            "extern int missing(int);\nint f(void)\n{\n    return missing(2);\n}\nint (*p)(int) = missing;\n",
        ),
    ]);
    assert_holds(
        &text,
        &[
            "undefined symbol: missing",
            "\n>>> referenced by a.c:4",
            "\n>>>               a.o:(_start)",
            "\n>>> referenced by b.c:4",
            "\n>>>               b.o:(f)",
            "\n>>> referenced by",
            "b.o:(.data.rel.p+0x0)",
        ],
    );
    assert_eq!(text.matches("undefined symbol").count(), 1, "one error for one name:\n{text}");
}

#[test]
fn many_references_are_counted() {
    let calls: String = (0..9).map(|n| format!("int f{n}(void) {{ return missing({n}); }}\n")).collect();
    let text = errors(&vec![unit("a", &format!("int missing(int);\nvoid _start(void) {{}}\n{calls}"))]);
    assert_eq!(text.matches(">>> referenced by").count(), 3, "{text}");
    assert_holds(&text, &["undefined symbol: missing", ">>> referenced 6 more times"]);
}

#[test]
fn duplicate_symbol_names_both_places() {
    let text = errors(&vec![
        unit("a", "void _start(void) {}\n\nint twice(void) { return 1; }\n"),
        unit("b", "\n\n\n\nint twice(void) { return 2; }\n"),
    ]);
    assert_holds(
        &text,
        &["duplicate symbol: twice", ">>> defined at a.c:3", "a.o", ">>> defined at b.c:5", "b.o"],
    );
}

#[test]
fn misspelt_name_gets_a_suggestion() {
    let text = errors(&vec![
        unit("a", "int compute_totl(void);\nvoid _start(void) { compute_totl(); }\n"),
        unit("b", "int compute_total(void) { return 1; }\n"),
    ]);
    assert_holds(
        &text,
        &["undefined symbol: compute_totl\n", ">>> did you mean: compute_total", ">>> defined in: b.o"],
    );
}

#[test]
fn all_errors_come_at_once_up_to_the_limit() {
    let calls: String = (0..30).map(|n| format!("    missing_{n:02}();\n")).collect();
    let inputs = vec![
        unit("a", &format!("void _start(void)\n{{\n{calls}}}\nint twice;\n")),
        unit("b", "int twice = 1;\nint again(void) { return 0; }\n"),
        unit("c", "int twice = 2;\nint again(void) { return 1; }\n"),
    ];
    // 30 names that nothing defines, and three definitions too many.
    for (limit, shown) in [(20, 20), (5, 5), (0, 33)] {
        let options = relink::LinkOptions { error_limit: limit, ..program::canonical() };
        let error = Program::new(options, &inputs).session.resolve().expect_err("the link is wrong");
        assert_eq!(error.diagnostics.len(), shown, "{error}");
        assert_eq!(error.diagnostics.len() + error.omitted, 33, "{error}");
    }
}

#[test]
fn value_that_does_not_fit_names_site_symbol_and_value() {
    for (directive, kind, range) in [
        (".byte f", "R_X86_64_8", "[-128, 255]"),
        (".short f", "R_X86_64_16", "[-32768, 65535]"),
        (".long far", "R_X86_64_32", "[0, 4294967295]"),
        (".long far - .", "R_X86_64_PC32", "[-2147483648, 2147483647]"),
    ] {
        let asm = format!("__asm__(\".data\\n.globl site\\nsite: .long 0\\n{directive}\\n.text\\n\");\n");
        let far = "__asm__(\".globl far\\nfar = 0x7fff12345678\\n\");\n";
        let text = errors(&vec![
            unit("a", &format!("int f(void) {{ return 1; }}\nvoid _start(void) {{ f(); }}\n{asm}")),
            unit("b", far),
        ]);
        let symbol = if directive.contains("far") { "far" } else { "'f'" };
        assert_holds(&text, &["a.o:(.data+0x4)", kind, "out of range", range]);
        assert!(text.contains(symbol), "{text}");
    }
}

#[test]
fn what_is_no_object_is_named() {
    let good = unit("a", "void _start(void) {}\n");
    let m32 = {
        let mut bytes = good.1.clone();
        bytes[4] = 1; // ELFCLASS32
        bytes
    };
    let mut other_machine = good.1.clone();
    other_machine[0x12] = 183; // EM_AARCH64
    for (name, bytes) in [
        ("text.o", b"int main() {}\n".to_vec()),
        ("empty.o", Vec::new()),
        ("short.o", good.1[..40].to_vec()),
        ("m32.o", m32),
        ("other.o", other_machine),
        ("bad.a", b"!<arch>\nthis is no member header, by far not".to_vec()),
    ] {
        let text = errors(&vec![good.clone(), (name.to_owned(), bytes)]);
        assert!(text.contains(name), "{name}: {text}");
    }
}

/// `ld.relink` in a folder with inputs.
#[track_caller]
fn ld(inputs: &Inputs, args: &[&str]) -> Said {
    let dir = relink_tests::scratch();
    for (name, bytes) in inputs {
        relink_tests::write(dir.path().join(name), bytes);
    }
    let said = tools::say(ld::command().current_dir(dir.path()).args(["-o", "out"]).args(args));
    assert!(said.status != 0 || dir.path().join("out").exists(), "{said}");
    assert!(said.status == 0 || !dir.path().join("out").exists(), "a failed link leaves no output: {said}");
    said
}

#[test]
fn command_line_errors_are_clear() {
    let good = unit("a", "void _start(void) {}\n");
    for (args, wanted) in [
        (&["a.o", "--no-such-option"][..], &["error:", "--no-such-option"][..]),
        (&["a.o", "--incremantal"], &["error:", "--incremantal", "did you mean", "--incremental"]),
        (&["a.o", "missing.o"], &["error:", "missing.o", "No such file"]),
        (&["a.o", "-lnowhere"], &["error:", "unable to find library -lnowhere"]),
        (&["a.o", "-z", "max-page-size=5"], &["error:", "max-page-size"]),
        (&["a.o", "--build-id=0x1"], &["error:", "build-id"]),
        (&[], &["error:", "no input files"]),
        (&["a.o", "-o"], &["error:", "-o"]),
    ] {
        let said = ld(&vec![good.clone()], args);
        assert_eq!(said.status, 1, "{said}");
        assert_holds(&said.stderr, wanted);
        assert!(said.stderr.starts_with("ld.relink: error: "), "{said}");
        assert!(said.stdout.is_empty(), "{said}");
        assert!(!said.stderr.contains("panicked") && !said.stderr.contains('\x1b'), "{said}");
    }
}

#[test]
fn names_are_demangled_and_all_errors_shown() {
    let cxx = Cc::cxx(["-g", "-ffreestanding", "-fno-exceptions"]);
    let text = "namespace ns { int f(int); struct S { void g() const; }; }\n\
                extern \"C\" void _start() { ns::f(1); ns::S().g(); }\n";
    let inputs = vec![("a.o".to_owned(), cxx.text("a.cpp", text))];
    let said = ld(&inputs, &["a.o"]);
    assert_eq!(said.status, 1, "{said}");
    assert_holds(
        &said.stderr,
        &["ld.relink: error: undefined symbol: ns::f(int)", "a.cpp:2", "a.o:(_start)"],
    );
    assert_holds(&said.stderr, &["ld.relink: error: undefined symbol: ns::S::g() const"]);
    let said = ld(&inputs, &["a.o", "--no-demangle"]);
    assert_holds(&said.stderr, &["undefined symbol: _ZN2ns1fEi"]);
    let said = ld(&inputs, &["a.o", "--error-limit=1"]);
    assert_eq!(said.stderr.matches("undefined symbol").count(), 1, "{said}");
}

#[test]
fn errors_say_what_lld_says() {
    // Same headlines as the peer for the same wrong link. (The peer stops at duplicates, so one kind at a time.)
    let calls = "int missing(int);\nvoid _start(void)\n{\n    missing(1);\n    nowhere();\n}\nint twice(void) { return 0; }\n";
    let twice = unit("b", "int twice(void) { return 1; }\n");
    let start = unit("a", "void _start(void) {}\nint twice(void) { return 0; }\nint once;\n");
    for inputs in [vec![unit("a", calls)], vec![start, twice]] {
        let dir = relink_tests::scratch();
        let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
        for (name, bytes) in &inputs {
            relink_tests::write(dir.path().join(name), bytes);
        }
        let mut lld = tools::LLD.command();
        let theirs = tools::say(lld.current_dir(dir.path()).args(&names).args(["-o", "out"]));
        let ours = ld(&inputs, &names);
        let headlines = |said: &Said| {
            let lines = said.stderr.lines().filter_map(|line| line.split_once("error: "));
            lines.map(|(_, headline)| headline.to_owned()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(headlines(&ours), headlines(&theirs), "{ours}\n{theirs}");
    }
}

#[test]
fn thin_archive_names_the_member_it_misses() {
    let dir = relink_tests::scratch();
    let (a, b) =
        (unit("a", "int f(void);\nvoid _start(void) { f(); }\n"), unit("b", "int f(void) { return 1; }\n"));
    relink_tests::write(dir.path().join("a.o"), &a.1);
    relink_tests::write(dir.path().join("b.o"), &b.1);
    tools::say(tools::AR.command().current_dir(dir.path()).args(["rcsDT", "thin.a", "b.o"])).ok();
    let link = || tools::say(ld::command().current_dir(dir.path()).args(["a.o", "thin.a", "-o", "out"]));
    link().ok();
    std::fs::remove_file(dir.path().join("b.o")).unwrap();
    let said = link();
    assert_eq!(said.status, 1, "{said}");
    assert_holds(&said.stderr, &["thin.a", "b.o"]);
    // Through the library, whose bytes have no file behind them.
    let thin = relink_tests::read(dir.path().join("thin.a"));
    assert_holds(&errors(&vec![a, ("thin.a".to_owned(), thin)]), &["thin.a", "b.o"]);
}

/// Two strings in a mergeable section, and code or data that refers to them.
fn strings(refer: &str) -> (String, Vec<u8>) {
    let section = ".section .rodata.str1.1,\\\"aMS\\\",@progbits,1\\n";
    let text = format!(
        "__asm__(\"{section}.LC0: .string \\\"head\\\"\\n.LC1: .string \\\"two\\\"\\n.Lend:\\n.text\\n\"\n\
         \"{refer}\");\n\
         void _start(void) {{}}\n"
    );
    unit("a", &text)
}

/// An object whose strings come first in the pool: what is mapped past one's own would be found here.
fn other_strings() -> (String, Vec<u8>) {
    let section = ".section .rodata.str1.1,\\\"aMS\\\",@progbits,1\\n";
    let strings = ".string \\\"two\\\"\\n.string \\\"zzz\\\"\\n.text\\n";
    unit("other", &format!("__asm__(\"{section}{strings}\");\n"))
}

#[test]
fn references_outside_a_mergeable_section_are_errors() {
    // The addend of a section symbol is the offset as it stands, -4 of a PC-relative field included.
    for (refer, offset) in [
        ("lea .rodata.str1.1+50(%rip), %rax", "46"),
        ("lea .rodata.str1.1(%rip), %rax", "-4"),
        (".data\\n.quad .rodata.str1.1+10", "10"),
        (".data\\n.quad .rodata.str1.1-1", "-1"),
        // Debug information does not get a tombstone for it, either.
        (".section .debug_info\\n.long .rodata.str1.1+10", "10"),
    ] {
        let text = errors(&vec![other_strings(), strings(refer)]);
        assert_holds(
            &text,
            &["a.o:(", "'.rodata.str1.1'", &format!("offset {offset} is outside of the 9 bytes")],
        );
        assert_eq!(text.matches("outside").count(), 1, "{text}");
        // A patch does not take what a full link refuses, and a failed one leaves the image.
        let good = vec![other_strings(), strings("nop")];
        let mut program = Program::linked(program::incremental(), &good);
        let before = program.image();
        program.replace("a.o", strings(refer).1);
        let error = program.session.resolve().expect_err("the link is wrong").to_string();
        assert_holds(&error, &["outside of the 9 bytes"]);
        assert!(program.image() == before, "a failed frame changes nothing");
    }
    let label = ".globl outside\\n.set outside, .LC0+10";
    let text = errors(&vec![other_strings(), strings(label)]);
    assert_holds(&text, &["a.o: symbol outside: offset 10 is outside of the 9 bytes", ".rodata.str1.1"]);
}

#[test]
fn references_into_a_mergeable_section_reach_their_piece() {
    // What assemblers make of labels: section and offset for data, the label for a distance; the end is inside.
    let inputs = vec![
        other_strings(),
        strings(
            ".data\\n.globl table\\ntable: .quad .LC0, .LC1, .LC1+1, .Lend\\n.long .LC1-., .Lend-.\\n\
             .quad .rodata.str1.1+6",
        ),
    ];
    for options in [program::canonical(), program::incremental()] {
        let mut program = Program::linked(options.clone(), &inputs);
        if options.incremental.is_some() {
            program.verify();
        }
        let image = program.image();
        let elf = relink_tests::elf::Elf::parse(&image);
        let table = elf.symbol("table").address;
        let word = |at: u64| u64::from_le_bytes(elf.at(table + at, 8).try_into().unwrap());
        let near = |at: u64| {
            let distance = i32::from_le_bytes(elf.at(table + at, 4).try_into().unwrap());
            (table + at).wrapping_add_signed(distance.into())
        };
        assert_eq!(elf.at(word(0), 5), b"head\0");
        assert_eq!(elf.at(word(8), 4), b"two\0");
        assert_eq!(elf.at(word(16), 3), b"wo\0");
        assert_eq!(word(24), word(8) + 4, "behind its own last piece");
        assert_eq!((near(32), near(36)), (word(8), word(8) + 4));
        assert_eq!(word(40), word(8) + 1);
    }
}

#[test]
fn claims_of_sections_without_a_place_are_no_error() {
    // `sh_addralign` of section 0, and of the symbol table: nothing of theirs is placed, by a full link or a patch.
    let good = vec![unit("a", "void _start(void) {}\n"), unit("b", "int f(void) { return 1; }\n")];
    let claim = |bytes: &[u8], section: usize| {
        let mut bytes = bytes.to_vec();
        let table = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
        bytes[table + 64 * section + 48..][..8].copy_from_slice(&(1_u64 << 53).to_le_bytes());
        bytes
    };
    let kind_of = |bytes: &[u8], section: usize| {
        let table = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
        u32::from_le_bytes(bytes[table + 64 * section + 4..][..4].try_into().unwrap())
    };
    let symtab = (1..64).find(|&section| kind_of(&good[1].1, section) == 2).expect("an object has symbols");
    for section in [0, symtab] {
        let edited = vec![good[0].clone(), ("b.o".to_owned(), claim(&good[1].1, section))];
        let mut program = Program::linked(program::incremental(), &good);
        let outcome = program.edit(&edited);
        program.assert_patched(outcome);
        program.verify();
        assert_eq!(program.from_scratch(), program.image(), "section {section}");
        Program::linked(program::canonical(), &edited);
    }
    // What is placed still claims too much.
    let text = (1..64).find(|&section| kind_of(&good[1].1, section) == 1).expect("an object has code");
    let mut program = Program::linked(program::incremental(), &good);
    program.replace("b.o", claim(&good[1].1, text));
    let error = program.session.resolve().expect_err("no image has such an alignment").to_string();
    assert_holds(&error, &["b.o", "alignment 2^53"]);
}

#[test]
fn thread_local_sections_among_others_are_an_error() {
    let section = "__asm__(\".section .data.odd,\\\"awT\\\",@progbits\\n.long 1\\n.text\");\n";
    let main = unit("main", "int word = 3;\nint _start(void)\n{\n    return word;\n}\n");
    let text = errors(&vec![main, unit("odd", section)]);
    assert_holds(&text, &["odd.o: section .data.odd", "thread-local"]);
}
