//! Every option of `ld.relink` has a test that fails without it: here, by a difference that somebody else sees, or
//! elsewhere by name. What is accepted as meaningless changes no byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use relink_tests::cc::{self, Cc};
use relink_tests::folder::Folder;
use relink_tests::tools::Said;
use relink_tests::{ld, read, root};

/// What is to be seen of a link with the option, and not of the one without.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// readelf with this flag says so.
    Shows(&'static str, &'static str),
    /// It does not say so any more.
    Hides(&'static str, &'static str),
    /// The linker says so, whatever becomes of the link.
    Says(&'static str),
    /// It does not say so any more.
    Silences(&'static str),
    /// The link fails with this message.
    Fails(&'static str),
    /// It works, where it would fail with this message.
    Mends(&'static str),
    /// A file with this in it is made.
    Makes(&'static str, &'static str),
    /// The image has other bytes.
    Differs,
}
use Sign::{Differs, Fails, Hides, Makes, Mends, Says, Shows, Silences};

/// Spellings of an option, the arguments without it, those with it (`{}` stands for the option), and the sign.
type Case = (&'static [&'static str], &'static str, &'static str, Sign);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Inputs.
    (&["-l", "--library"], "main.o -L.", "main.o -L. {} f", Mends("undefined symbol: f")),
    (&["-L", "--library-path"], "main.o -lonly", "main.o {} sub -lonly", Mends("unable to find library -lonly")),
    (&["--sysroot"], "main.o -L=/sub -lonly", "main.o {}=. -L=/sub -lonly", Mends("unable to find library -lonly")),
    (&["--start-group", "-("], "main.o f.o", "main.o f.o {}", Fails("--start-group without --end-group")),
    (&["--end-group", "-)"], "main.o f.o -(", "main.o f.o -( {}", Mends("--start-group without --end-group")),
    (&["--whole-archive"], "main.o f.o libextra.a", "main.o f.o {} libextra.a", Shows("-s", "extra_name")),
    (&["--no-whole-archive"], "main.o f.o --whole-archive libextra.a", "main.o f.o --whole-archive {} libextra.a", Hides("-s", "extra_name")),
    (&["--as-needed"], "main.o f.o libboth.so", "main.o f.o {} libboth.so", Hides("-d", "libboth.so")),
    (&["--no-as-needed"], "main.o f.o --as-needed libboth.so", "main.o f.o --as-needed {} libboth.so", Shows("-d", "libboth.so")),
    (&["--push-state"], "main.o f.o --pop-state", "main.o f.o {} --pop-state", Mends("no --push-state before it")),
    (&["--pop-state"], "main.o f.o --push-state --as-needed libboth.so", "main.o f.o --push-state --as-needed {} libboth.so", Shows("-d", "libboth.so")),
    (&["-Bstatic", "-dn", "-non_shared"], "main.o -L. -lboth", "main.o -L. {} -lboth", Hides("-d", "libboth.so")),
    (&["-Bdynamic", "-dy", "-call_shared"], "main.o -L. -Bstatic -lboth", "main.o -L. -Bstatic {} -lboth", Shows("-d", "libboth.so")),
    (&["-static"], "main.o -L. -lboth", "main.o -L. {} -lboth", Hides("-d", "libboth.so")),
    // Output.
    (&["-o", "--output"], "main.o f.o", "main.o f.o {} named", Makes("named", "ELF")),
    (&["-shared", "-Bshareable"], "main.o f.o", "main.o f.o {}", Shows("-h", "DYN (Shared")),
    (&["-pie", "--pic-executable"], "main.o f.o", "main.o f.o {}", Shows("-h", "DYN (Position")),
    (&["-no-pie", "--no-pic-executable"], "main.o f.o -pie", "main.o f.o -pie {}", Shows("-h", "EXEC")),
    (&["-r", "-i", "--relocatable", "-Ur"], "main.o f.o", "main.o f.o {}", Shows("-h", "REL (")),
    (&["-d", "-dc", "-dp"], "-r common.o", "-r common.o {}", Hides("-s", " COM ")),
    (&["-dynamic-linker", "-I"], "main.o -L. -lboth", "main.o {} /my/loader -L. -lboth", Shows("-l", "/my/loader")),
    (&["--no-dynamic-linker"], "-pie main.o f.o", "-pie main.o f.o {}", Hides("-l", "INTERP")),
    (&["-m"], "main.o f.o", "main.o f.o {} elf_i386", Fails("'elf_i386' is not supported")),
    (&["-e", "--entry"], "main.o f.o", "main.o f.o {} 0x1234", Shows("-h", "0x1234")),
    (&["--image-base"], "main.o f.o", "main.o f.o {}=0x700000", Shows("-l", "0x0000000000700000")),
    (&["-Ttext-segment"], "main.o f.o", "main.o f.o {}=700000", Shows("-l", "0x0000000000700000")),
    (&["-Ttext"], "main.o f.o", "main.o f.o {}=700000", Shows("-S", "0000000000700000")),
    (&["-Tdata"], "main.o f.o", "main.o f.o {}=700000", Shows("-S", "0000000000700000")),
    (&["-Tbss"], "main.o f.o", "main.o f.o {}=700000", Shows("-S", "0000000000700000")),
    (&["--section-start"], "main.o f.o", "main.o f.o {}=.text=700000", Shows("-S", "0000000000700000")),
    (&["--build-id"], "main.o f.o", "main.o f.o {}", Shows("-n", "Build ID")),
    (&["--eh-frame-hdr"], "main.o f.o", "main.o f.o {}", Shows("-l", "GNU_EH_FRAME")),
    (&["-s", "--strip-all"], "main.o f.o", "main.o f.o {}", Hides("-S", ".symtab")),
    (&["-S", "--strip-debug"], "main.o f.o", "main.o f.o {}", Hides("-S", ".debug_info")),
    (&["--compress-debug-sections"], "main.o f.o", "main.o f.o {}=zlib", Shows("-t", "COMPRESSED")),
    (&["-x", "--discard-all"], "main.o f.o", "main.o f.o {}", Hides("-s", "local_function")),
    (&["--retain-symbols-file"], "main.o f.o", "main.o f.o {}=list", Hides("-s", "unused_function")),
    // Loading.
    (&["-soname", "-h"], "-shared f.o", "-shared f.o {} libname.so.1", Shows("-d", "libname.so.1")),
    (&["-rpath", "-R"], "-pie main.o f.o", "-pie main.o f.o {} /some/where", Shows("-d", "(RUNPATH)")),
    (&["--enable-new-dtags"], "-pie main.o f.o -rpath=/x --disable-new-dtags", "-pie main.o f.o -rpath=/x --disable-new-dtags {}", Shows("-d", "(RUNPATH)")),
    (&["--disable-new-dtags"], "-pie main.o f.o -rpath=/x", "-pie main.o f.o -rpath=/x {}", Shows("-d", "(RPATH)")),
    (&["--hash-style"], "-shared f.o", "-shared f.o {}=sysv", Hides("-S", ".gnu.hash")),
    (&["-init"], "-shared f.o", "-shared f.o {} f", Shows("-d", "(INIT)")),
    (&["-fini"], "-shared f.o", "-shared f.o {} f", Shows("-d", "(FINI)")),
    (&["--pack-dyn-relocs"], "-pie main.o f.o", "-pie main.o f.o {}=relr", Shows("-S", ".relr.dyn")),
    // Which symbols the loader sees.
    (&["-E", "--export-dynamic"], "-pie main.o f.o", "-pie main.o f.o {}", Shows("--dyn-syms", "unused_function")),
    (&["--export-dynamic-symbol"], "-pie main.o f.o", "-pie main.o f.o {}=unused_*", Shows("--dyn-syms", "unused_function")),
    (&["--export-dynamic-symbol-list", "--dynamic-list"], "-pie main.o f.o", "-pie main.o f.o {}=dynlist", Shows("--dyn-syms", "unused_function")),
    (&["--dynamic-list-cpp-new"], "-pie main.o f.o cxx.o", "-pie main.o f.o cxx.o {}", Shows("--dyn-syms", "_Znwm")),
    (&["--dynamic-list-cpp-typeinfo"], "-pie main.o f.o cxx.o", "-pie main.o f.o cxx.o {}", Shows("--dyn-syms", "_ZTI3abc")),
    (&["--version-script"], "-shared f.o", "-shared f.o {}=versions", Shows("-V", "MYVER")),
    (&["--exclude-libs"], "-shared --whole-archive libextra.a", "-shared --whole-archive libextra.a {} ALL", Hides("--dyn-syms", "extra_name")),
    (&["-Bsymbolic"], "-shared main.o f.o", "-shared main.o f.o {}", Shows("-d", "SYMBOLIC")),
    (&["-Bsymbolic-functions"], "-shared main.o f.o", "-shared main.o f.o {}", Hides("-r", "JUMP_SLO")),
    // Undefined symbols.
    (&["--no-undefined"], "-shared main.o", "-shared main.o {}", Fails("undefined symbol: f")),
    (&["--unresolved-symbols"], "main.o", "main.o {}=ignore-all", Mends("undefined symbol: f")),
    (&["--warn-unresolved-symbols"], "main.o", "main.o {}", Says("warning: undefined symbol: f")),
    (&["--allow-shlib-undefined"], "main.o f.o liblacks.so", "main.o f.o liblacks.so {}", Mends("--no-allow-shlib-undefined: lacking")),
    (&["--no-allow-shlib-undefined"], "-shared f.o liblacks.so", "-shared f.o liblacks.so {}", Fails("--no-allow-shlib-undefined: lacking")),
    // Symbols and sections.
    (&["-u", "--undefined", "--require-defined"], "main.o f.o libextra.a", "main.o f.o libextra.a {} extra_name", Shows("-s", "extra_name")),
    (&["--defsym"], "main.o", "main.o {}=f=0x10", Mends("undefined symbol: f")),
    (&["--just-symbols"], "main.o", "main.o {}=program", Mends("undefined symbol: f")),
    (&["--wrap"], "main.o f.o", "main.o f.o {}=f", Fails("undefined symbol: __wrap_f")),
    (&["--gc-sections"], "main.o f.o", "main.o f.o {}", Hides("-s", "unused_function")),
    (&["--print-gc-sections"], "main.o f.o --gc-sections", "main.o f.o --gc-sections {}", Says("removing unused section")),
    (&["--allow-multiple-definition"], "main.o f.o again.o", "main.o f.o again.o {}", Mends("duplicate symbol: f")),
    // Messages and running.
    (&["-Map"], "main.o f.o", "main.o f.o {}=map", Makes("map", "f.o")),
    (&["-M", "--print-map", "-t", "--trace"], "main.o f.o", "main.o f.o {}", Says("f.o")),
    (&["-y", "--trace-symbol"], "main.o f.o", "main.o f.o {} f", Says("f.o: definition of f")),
    (&["--cref"], "main.o f.o", "main.o f.o {}", Says("Cross Reference Table")),
    (&["--dependency-file"], "main.o f.o", "main.o f.o {}=deps", Makes("deps", "out: ")),
    (&["--reproduce"], "main.o f.o", "main.o f.o {}=all.tar", Makes("all.tar", "response.txt")),
    (&["--error-limit"], "main.o lacks.o", "main.o lacks.o {}=1", Says("--error-limit=0 shows all")),
    (&["--color-diagnostics"], "main.o", "main.o {}=always", Says("\x1b[")),
    (&["--demangle"], "main.o f.o calls.o --no-demangle", "main.o f.o calls.o --no-demangle {}", Says("foo(int)")),
    (&["--fatal-warnings"], "main.o f.o -z nonsense", "main.o f.o -z nonsense {}", Fails("-z nonsense ignored")),
    (&["-w", "--no-warnings"], "main.o f.o -z nonsense", "main.o f.o -z nonsense {}", Silences("-z nonsense ignored")),
    (&["--threads"], "main.o f.o", "main.o f.o {}=0", Fails("at least one thread")),
    (&["--version", "-v", "--verbose"], "main.o f.o", "main.o f.o {}", Says("compatible with GNU ld")),
    (&["-V"], "main.o f.o", "main.o f.o {}", Says("elf_x86_64")),
    (&["--help", "--target-help"], "main.o f.o", "main.o f.o {}", Says("Usage")),
    (&["--fallback-linker"], "main.o f.o -q", "main.o f.o -q {}=ld.bfd", Mends("not supported yet")),
    // Of this linker only.
    (&["--incremental"], "main.o f.o", "main.o f.o {}", Differs),
    (&["--code-slack", "--data-slack", "--debug-slack"], "main.o f.o --incremental", "main.o f.o --incremental {}=500", Differs),
    (&["--text-reserve"], "main.o f.o --incremental", "main.o f.o --incremental {}=90000", Fails("too much")),
    (&["--report"], "main.o f.o", "main.o f.o {}=report", Makes("report", "outcome")),
    // Keywords of -z.
    (&["-z norelro"], "main.o -L. -lboth", "main.o -L. -lboth {}", Hides("-l", "GNU_RELRO")),
    (&["-z relro"], "main.o -L. -lboth -z norelro", "main.o -L. -lboth -z norelro {}", Shows("-l", "GNU_RELRO")),
    (&["-z now"], "main.o -L. -lboth", "main.o -L. -lboth {}", Shows("-d", "NOW")),
    (&["-z lazy"], "main.o -L. -lboth -z now", "main.o -L. -lboth -z now {}", Hides("-d", "NOW")),
    (&["-z defs"], "-shared main.o", "-shared main.o {}", Fails("undefined symbol: f")),
    (&["-z undefs", "-z nodefs"], "-shared main.o -z defs", "-shared main.o -z defs {}", Mends("undefined symbol: f")),
    (&["-z notext"], "-shared tied.o", "-shared tied.o {}", Mends("it can't be used when making a shared library")),
    (&["-z text"], "-shared tied.o -z notext", "-shared tied.o -z notext {}", Fails("it can't be used when making a shared library")),
    (&["-z execstack"], "main.o f.o", "main.o f.o {}", Shows("-l", "RWE")),
    (&["-z noexecstack"], "main.o f.o -z execstack", "main.o f.o -z execstack {}", Hides("-l", "RWE")),
    (&["-z separate-code"], "main.o f.o -z noseparate-code", "main.o f.o -z noseparate-code {}", Shows("-l", "0x001000 0x0000000000401000")),
    (&["-z noseparate-code"], "main.o f.o -z separate-code", "main.o f.o -z separate-code {}", Hides("-l", "0x001000 0x0000000000401000")),
    (&["-z start-stop-gc"], "main.o f.o set.o --gc-sections -u uses_set", "main.o f.o set.o --gc-sections -u uses_set {}", Hides("-S", " kept_set ")),
    (&["-z nostart-stop-gc"], "main.o f.o set.o --gc-sections -u uses_set -z start-stop-gc", "main.o f.o set.o --gc-sections -u uses_set -z start-stop-gc {}", Shows("-S", " kept_set ")),
    (&["-z muldefs"], "main.o f.o again.o", "main.o f.o again.o {}", Mends("duplicate symbol: f")),
    (&["-z pack-relative-relocs"], "-pie main.o f.o", "-pie main.o f.o {}", Shows("-S", ".relr.dyn")),
    (&["-z nopack-relative-relocs"], "-pie main.o f.o -z pack-relative-relocs", "-pie main.o f.o -z pack-relative-relocs {}", Hides("-S", ".relr.dyn")),
    (&["-z ibt"], "main.o -L. -lboth", "main.o -L. -lboth {}", Shows("-S", ".plt.sec")),
    (&["-z origin"], "-pie main.o f.o", "-pie main.o f.o {}", Shows("-d", "ORIGIN")),
    (&["-z nodelete"], "-shared f.o", "-shared f.o {}", Shows("-d", "NODELETE")),
    (&["-z nodlopen"], "-shared f.o", "-shared f.o {}", Shows("-d", "NOOPEN")),
    (&["-z initfirst"], "-shared f.o", "-shared f.o {}", Shows("-d", "INITFIRST")),
    (&["-z interpose"], "-shared f.o", "-shared f.o {}", Shows("-d", "INTERPOSE")),
    (&["-z max-page-size="], "main.o f.o", "main.o f.o {}0x10000", Shows("-l", "0x10000")),
    (&["-z stack-size="], "main.o f.o", "main.o f.o {}0x12345", Shows("-l", "0x012345")),
    // What can't be done says so.
    (&["-T", "--script", "-dT", "--default-script", "-c", "--mri-script", "-f", "--auxiliary", "-F", "--filter", "--audit",
       "--depaudit", "-P", "--undefined-glob", "--remap-inputs", "--remap-inputs-file", "--ignore-unresolved-symbol",
       "-Trodata-segment", "-Tldata-segment", "--icf", "--oformat", "-b", "--format"],
        "main.o f.o", "main.o f.o {} value", Fails("not supported yet")),
    (&["-q", "--emit-relocs", "-N", "--omagic", "-n", "--nmagic", "-EB", "--default-symver", "--start-lib", "--end-lib"],
        "main.o f.o", "main.o f.o {}", Fails("not supported yet")),
];

/// Options with a test of their own: module and function.
const ELSEWHERE: &[(&str, &str)] = &[
    ("--gate", "options::policies_of_patches_are_chosen"),
    ("--move", "options::policies_of_patches_are_chosen"),
    ("--place", "options::policies_of_patches_are_chosen"),
    ("--verify", "claims::named_edits_are_patched_and_others_wait_for_a_link_that_looks"),
    ("--changed", "claims::named_edits_are_patched_and_others_wait_for_a_link_that_looks"),
    ("--changed-list", "claims::lists_name_one_file_a_line"),
    ("--trust-mtime", "identity::modification_times_are_trusted_on_request"),
    ("--trust-state", "publication::state_that_others_may_write_to_is_refused"),
];

/// Listed with an effect that no output can show here: local labels never get into a symbol table, libraries of libraries
/// are not searched, and an executor of a schedule makes the same bytes.
const MEANINGLESS: &[&str] = &["-X", "--discard-locals", "-rpath-link=/some/where", "--schedule=multi"];

/// Objects, archives, libraries and lists that all cases share.
fn folder() -> Folder {
    let folder = Folder::new();
    let flags = ["-O1", "-g", "-fPIC", "-ffreestanding", "-ffunction-sections", "-fcf-protection=none"];
    let unit = |name: &str, text: &str| {
        let bytes = Cc::new(flags).text(&format!("{name}.c"), text);
        folder.file(&format!("{name}.o"), &bytes);
        bytes
    };
    unit("main", "int f(void); int data_word = 7, zeros[4]; int *pointer = &data_word;
        __attribute__((noinline)) static int local_function(int x) { __asm__(\"\"); return x + data_word + zeros[1]; }
        int unused_function(void) { return 9; }
        void _start(void) { local_function(f()); for (;;); }");
    let f = unit("f", "int f(void) { return 42; }");
    unit("again", "int f(void) { return 43; }");
    unit("lacks", "int one(void), two(void); int both(void) { return one() + two(); }");
    unit(
        "set",
        "extern char __start_kept_set[]; __attribute__((section(\"kept_set\"), used)) static int member = 1;
        char *uses_set(void) { return __start_kept_set; }",
    );
    let extra = unit("extra", "int extra_name(void) { return 5; }");
    let lacking = unit("lacking", "int lacking(void); int api(void) { return lacking(); }");
    folder.file("common.o", &Cc::new(["-fcommon"]).text("common.c", "int shared_storage;"));
    folder
        .file("calls.o", &Cc::cxx(["-O1"]).text("calls.cpp", "int foo(int); int calls() { return foo(1); }"));
    folder.assembled("cxx", ".globl _Znwm, _ZTI3abc\n.text\n_Znwm: ret\n.data\n_ZTI3abc: .quad 0\n.section .note.GNU-stack,\"\",@progbits\n");
    folder
        .assembled("tied", ".text\n.globl tied\ntied: .quad tied\n.section .note.GNU-stack,\"\",@progbits\n");
    std::fs::create_dir(folder.path("sub")).unwrap();
    folder.file("libf.a", &cc::archive(&[("f.o", &f)])).file("libboth.a", &cc::archive(&[("f.o", &f)]));
    folder
        .file("sub/libonly.a", &cc::archive(&[("f.o", &f)]))
        .file("libextra.a", &cc::archive(&[("extra.o", &extra)]));
    folder.file("dynlist", b"{ unused_function; };").file("versions", b"MYVER { global: f; local: *; };");
    folder.file("list", b"f\n");
    folder.ld(&["-shared", "f.o", "-soname", "libboth.so", "-o", "libboth.so"]).ok();
    folder.file("lacking.o", &lacking);
    folder.ld(&["-shared", "lacking.o", "-o", "liblacks.so"]).ok();
    folder.ld(&["main.o", "f.o", "-e", "f", "-o", "whole"]).ok();
    folder.ld(&["f.o", "-e", "f", "-o", "program"]).ok();
    folder
}

/// Links; what was said, and the image if there is one.
fn link(folder: &Folder, args: &str) -> (Said, Vec<u8>) {
    for name in ["out", "named", "map", "deps", "all.tar", "report"] {
        let _ = std::fs::remove_file(folder.path(name));
    }
    let _ = std::fs::remove_dir_all(folder.path(".relink"));
    let args: Vec<&str> = ["-o", "out"].into_iter().chain(args.split_whitespace()).collect();
    let said = folder.ld(&args);
    assert!(!said.stderr.contains("panicked"), "{said}");
    (said, std::fs::read(folder.path("out")).unwrap_or_default())
}

/// Whether a link shows the sign.
fn seen(folder: &Folder, sign: Sign, said: &Said, image: &[u8], plain: &[u8]) -> bool {
    let words = format!("{}{}", said.stdout, said.stderr);
    let readelf = |flag: &str| match image.is_empty() {
        true => panic!("no output: {said}"),
        false => folder.readelf(flag, "out"),
    };
    match sign {
        Shows(flag, text) => readelf(flag).contains(text),
        Hides(flag, text) => !readelf(flag).contains(text),
        Says(text) => words.contains(text),
        Silences(text) => !words.contains(text),
        Fails(text) => said.status != 0 && words.contains(text),
        Mends(text) => said.status == 0 && !words.contains(&format!("error: {text}")),
        Makes(name, text) => std::fs::read(folder.path(name))
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())),
        Differs => image != plain,
    }
}

#[test]
fn each_option_does_what_can_be_seen() {
    let folder = folder();
    let mut wrong = Vec::new();
    for &(options, without, with, sign) in CASES {
        let (said, plain) = link(&folder, without);
        if let Mends(text) = sign {
            assert!(said.status != 0 && said.stderr.contains(text), "{options:?} without: {said}");
        }
        if seen(&folder, sign, &said, &plain, &plain) {
            wrong.push(format!("{options:?}: {sign:?} without the option as well\n{said}"));
        }
        for option in options {
            // `-e value` and `--entry=value` are both written with a space here, which all options take.
            let (said, image) = link(&folder, &with.replace("{}", option));
            if !seen(&folder, sign, &said, &image, &plain) {
                wrong.push(format!("{option}: not {sign:?}\n{said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What `--help` lists: options with an effect and their help, those without, those that are refused.
struct Listed {
    effective: BTreeMap<String, String>,
    accepted: BTreeSet<String>,
    refused: BTreeSet<String>,
}

fn listed() -> &'static Listed {
    static LISTED: OnceLock<Listed> = OnceLock::new();
    LISTED.get_or_init(|| {
        let text = Folder::new().ld(&["--help"]).ok().stdout;
        let (_, rest) = text.split_once("\nOptions:\n").expect("a list of options");
        let (options, rest) = rest.split_once("\nAccepted without effect:\n").expect("a list of names");
        let (accepted, rest) = rest.split_once("\nNot supported yet:\n").expect("another list of names");
        let (refused, _) = rest.split_once("\n\n").expect("its end");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let mut effective = BTreeMap::new();
        let mut last = Vec::new();
        for line in options.lines() {
            if line.starts_with("  -") {
                let (names, help) =
                    match line.char_indices().skip(2).find(|(at, _)| line[*at..].starts_with("  ")) {
                        Some((at, _)) => (&line[..at], line[at..].trim()),
                        None => (line, ""),
                    };
                // A list of 35 letters leaves one space.
                let names: Vec<&str> = names.split(", ").map(str::trim).collect();
                last = names
                    .iter()
                    .map(|name| {
                        let end = name.find([' ', '=', '[']).unwrap_or(name.len());
                        name[..end].to_owned()
                    })
                    .collect();
                for name in &last {
                    effective.insert(name.clone(), help.to_owned());
                }
            } else {
                for name in &last {
                    let help: &mut String = effective.get_mut(name).expect("a name");
                    help.push(' ');
                    help.push_str(line.trim());
                }
            }
        }
        Listed { effective, accepted: words(accepted), refused: words(refused) }
    })
}

#[test]
fn each_option_has_a_test() {
    let listed = listed();
    assert!(listed.effective.len() > 100 && listed.accepted.len() > 100, "--help was understood");
    let here = CASES.iter().flat_map(|(options, ..)| options.iter().copied());
    let meaningless = MEANINGLESS.iter().map(|option| option.split('=').next().unwrap_or(option));
    let tested: BTreeSet<&str> =
        here.chain(meaningless).chain(ELSEWHERE.iter().map(|(option, _)| *option)).collect();
    let mut missing: Vec<&str> = listed.effective.keys().chain(&listed.refused).map(String::as_str).collect();
    missing.retain(|name| *name != "-z" && !tested.contains(name));
    assert!(missing.is_empty(), "options without a test: {missing:?}");
    // Keywords stand in the help of -z.
    let keywords = &listed.effective["-z"];
    for keyword in keywords.split_whitespace() {
        let (no, rest) = match keyword.strip_prefix("[no]") {
            Some(rest) => (true, rest),
            None => (false, keyword),
        };
        assert!(tested.contains(format!("-z {rest}").as_str()), "-z {rest} has no test");
        assert!(!no || tested.contains(format!("-z no{rest}").as_str()), "-z no{rest} has no test");
    }
    // Nothing is tested that does not exist.
    let known = |name: &str| {
        listed.effective.contains_key(name)
            || listed.refused.contains(name)
            || name.strip_prefix("-z ").is_some_and(|word| keywords.contains(word.trim_start_matches("no")))
    };
    let unknown: Vec<&str> =
        tested.iter().copied().filter(|name| !known(name) && *name != "-z nodefs").collect();
    assert!(unknown.is_empty(), "tests of options that do not exist: {unknown:?}");
    for (option, test) in ELSEWHERE {
        let (module, function) = test.split_once("::").expect("a module and a function");
        let source = String::from_utf8(read(root().join(format!("tests/tests/it/{module}.rs")))).unwrap();
        assert!(
            function.is_empty() || source.contains(&format!("\n#[test]\nfn {function}()")),
            "{test} does not exist"
        );
        assert!(
            source.contains(&format!("{option}=")) || source.contains(&format!("{option}\"")),
            "{test} does not use {option}"
        );
    }
}

#[test]
fn what_is_accepted_without_effect_changes_no_byte() {
    let folder = folder();
    let (_, plain) = link(&folder, "main.o f.o");
    let mut wrong = Vec::new();
    let given = listed().accepted.iter().map(String::as_str).chain(MEANINGLESS.iter().copied());
    for option in given {
        let mut args = format!("{option} main.o f.o");
        let (mut said, mut image) = link(&folder, &args);
        if said.stderr.contains("needs a value") || said.status != 0 {
            args = format!("{option} value main.o f.o");
            (said, image) = link(&folder, &args);
        }
        let told = format!("ld.relink: warning: {option} has no effect yet\n");
        if said.status != 0
            || image != plain
            || !(said.stderr.is_empty() || said.stderr == told)
            || !said.stdout.is_empty()
        {
            wrong.push(format!("{args}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn policies_of_patches_are_chosen() {
    let folder = Folder::new();
    let unit = |body: &str| {
        folder.unit("f", &["-O0", "-ffunction-sections"], &format!("int f(void) {{ {body} }}"));
    };
    folder.unit("main", &["-O0"], "int f(void); int main(void) { return f() - f(); }");
    let grown = "int n = 1; n++; n += 2; n *= 3; n++; n += 2; n *= 3; n++; n += 2; n *= 3; return n;";
    let mut seen = Vec::new();
    for policy in ["--move=island", "--move=retarget", "--gate=closed", "--place=append"] {
        let _ = std::fs::remove_dir_all(folder.path(".relink"));
        unit("return 2;");
        let args = ["-no-pie", "main.o", "f.o", &format!("-Wl,{policy}")];
        assert_eq!(folder.patch("out", &args).0, "full");
        unit(grown);
        let (outcome, reasons) = folder.patch("out", &args);
        let report: serde_json::Value = serde_json::from_slice(&folder.bytes("report.json")).unwrap();
        let islands = report["counters"]["islands_written"].as_u64().unwrap();
        assert_eq!(folder.run("out"), "");
        seen.push((outcome, reasons.join(" "), islands));
        // Another policy is another link.
        let (_, reasons) = folder.patch("out", &["-no-pie", "main.o", "f.o", "-Wl,--code-slack=30"]);
        assert!(reasons.contains(&"options-changed".to_owned()), "{policy}: {reasons:?}");
    }
    let patched = |islands| ("patched".to_owned(), String::new(), islands);
    let closed = ("fell_back_full".to_owned(), "gate-closed".to_owned(), 0);
    assert_eq!(seen, [patched(1), patched(0), closed, patched(1)]);
    let _ = ld::bin_dir();
}
