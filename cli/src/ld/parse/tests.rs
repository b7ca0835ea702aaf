//! One test per kind of option, and one row per option that changes something.

use std::path::PathBuf;

use anstream::ColorChoice;
use relink::host::InputName;
use relink::{
    BuildId, CompressionAlgorithm, DefsymValue, Discard, DynamicOptions, GateKind, HashStyle,
    IncrementalOptions, LinkOptions, MoveKind, OutputKind, PlaceKind, ScheduleKind, Strip, Symbolic,
    Unresolved, VirtAddr,
};

use super::super::command::{Show, TextUse};
use super::super::help;
use super::*;

/// A command line in one string, with an input so that it is complete.
fn parsed(line: &str) -> LdCommand {
    let words = line.split_whitespace().chain(["a.o"]).map(OsString::from).collect::<Vec<_>>();
    parse(&words, &Environment::default())
}

fn sound(line: &str) -> LdCommand {
    let command = parsed(line);
    assert_eq!(command.errors, [""; 0], "{line}");
    assert_eq!(command.warnings, [""; 0], "{line}");
    command
}

/// The options for dynamic outputs are the default ones after `change`, and no other option has changed.
fn changes_dynamic(line: &str, change: impl FnOnce(&mut DynamicOptions)) {
    changes(line, |options| change(&mut options.dynamic));
}

/// The options of a command line are the default ones after `change`.
fn changes(line: &str, change: impl FnOnce(&mut LinkOptions)) {
    let mut expected = LinkOptions { output_name: "a.out".to_owned(), ..LinkOptions::default() };
    change(&mut expected);
    assert_eq!(sound(line).options, expected, "{line}");
}

fn errors(line: &str) -> Vec<String> {
    parsed(line).errors
}

#[test]
fn kinds_of_output() {
    use OutputKind::{Executable, Pie, SharedLibrary, StaticExecutable, StaticPie};
    for (line, kind, with_shared_libraries) in [
        ("", StaticExecutable, Executable),
        ("-static", StaticExecutable, StaticExecutable),
        ("-no-pie", StaticExecutable, Executable),
        ("-static -pie --no-dynamic-linker -z text", StaticPie, StaticPie),
        ("-pie -static", StaticPie, StaticPie),
        ("-pie --no-dynamic-linker", StaticPie, StaticPie),
        ("--no-dynamic-linker", StaticExecutable, StaticExecutable),
        ("-pie -no-pie", StaticExecutable, Executable),
        ("-static -pie --no-pie", StaticExecutable, StaticExecutable),
        ("-pie", Pie, Pie),
        ("--pic-executable", Pie, Pie),
        ("-shared -pie", Pie, Pie),
        ("-shared", SharedLibrary, SharedLibrary),
        ("-Bshareable", SharedLibrary, SharedLibrary),
        ("-pie -shared", SharedLibrary, SharedLibrary),
        // A library made of archives only.
        ("-static -shared", SharedLibrary, SharedLibrary),
        ("-shared --no-dynamic-linker", SharedLibrary, SharedLibrary),
        ("-dynamic-linker /lib/ld.so", Executable, Executable),
        ("-dynamic-linker /lib/ld.so -pie", Pie, Pie),
        ("-dynamic-linker /lib/ld.so -shared", SharedLibrary, SharedLibrary),
        ("-dynamic-linker /lib/ld.so --no-dynamic-linker", StaticExecutable, StaticExecutable),
        ("-dynamic-linker /lib/ld.so -static", StaticExecutable, StaticExecutable),
        // There it was -Bstatic by another name.
        ("-dynamic-linker /lib/ld.so -static -la -Bdynamic", Executable, Executable),
        ("-dynamic-linker /lib/ld.so --push-state -static -la --pop-state", Executable, Executable),
        ("-static -la -Bdynamic", StaticExecutable, StaticExecutable),
    ] {
        let mut command = sound(line);
        assert_eq!(command.options.output_kind, kind, "{line}");
        command.decide_kind(true);
        assert_eq!(command.options.output_kind, with_shared_libraries, "{line}, with shared libraries");
    }
    for line in ["-dynamic-linker /lib/ld.so", "--dynamic-linker=/lib/ld.so", "-I/lib/ld.so", "-I /lib/ld.so"]
    {
        changes(line, |o| {
            o.output_kind = Executable;
            o.dynamic.interpreter = Some("/lib/ld.so".into());
        });
    }
}

#[test]
fn options_for_the_loader() {
    for line in
        ["-soname libx.so.1", "-soname=libx.so.1", "--soname=libx.so.1", "-h libx.so.1", "-hlibx.so.1"]
    {
        changes_dynamic(line, |d| d.soname = Some("libx.so.1".into()));
    }
    changes_dynamic("-soname=", |_| {});
    for line in [
        "-rpath /a:/b -rpath=$ORIGIN -rpath /a:/b",
        "-R/a:/b -R $ORIGIN",
        "-rpath /a:/b --rpath $ORIGIN -rpath=",
    ] {
        changes_dynamic(line, |d| d.rpaths = vec!["/a:/b".into(), "$ORIGIN".into()]);
    }
    assert_eq!(sound("-R /a -rpath /b").rpaths_or_files, [PathBuf::from("/a")]);
    let links = sound("-rpath-link=/a:/b --rpath-link /c").search.rpath_links;
    assert_eq!(links, ["/a", "/b", "/c"].map(PathBuf::from));
    changes_dynamic("--disable-new-dtags", |d| d.new_dtags = false);
    changes_dynamic("--disable-new-dtags --enable-new-dtags", |_| {});
    changes_dynamic("--hash-style=gnu", |d| d.hash_style = HashStyle::Gnu);
    changes_dynamic("-hash-style=sysv", |d| d.hash_style = HashStyle::Sysv);
    changes_dynamic("--hash-style gnu --hash-style both", |_| {});
    assert_eq!(errors("--hash-style=md5"), ["--hash-style: 'md5' is not one of sysv, gnu, both"]);
    changes_dynamic("-init start", |d| d.init = "start".into());
    changes_dynamic("-fini=stop", |d| d.fini = "stop".into());
    changes_dynamic("--pack-dyn-relocs=relr", |d| d.pack_relative_relocs = true);
    changes_dynamic("--pack-dyn-relocs=relr --pack-dyn-relocs=none", |_| {});
    assert_eq!(
        errors("--pack-dyn-relocs=android"),
        ["--pack-dyn-relocs: 'android' is not one of none, relr"]
    );
    for (keyword, change) in [
        ("pack-relative-relocs", (|d| d.pack_relative_relocs = true) as fn(&mut DynamicOptions)),
        ("origin", |d| d.origin = true),
        ("nodelete", |d| d.nodelete = true),
        ("nodlopen", |d| d.nodlopen = true),
        ("initfirst", |d| d.initfirst = true),
        ("interpose", |d| d.interpose = true),
        ("notext", |d| d.text_relocations = true),
        ("textoff", |d| d.text_relocations = true),
        ("ibt", |d| d.force_ibt = true),
        ("force-ibt", |d| d.force_ibt = true),
        ("ibtplt", |d| d.force_ibt = true),
        ("defs", |d| d.unresolved = Unresolved::Error),
        ("undefs", |d| d.unresolved = Unresolved::Ignore),
    ] {
        changes_dynamic(&format!("-z {keyword}"), change);
    }
    changes_dynamic(
        "-z pack-relative-relocs -z nopack-relative-relocs -z notext -z text -z defs -z nodefs",
        |_| {},
    );
}

#[test]
fn options_about_exported_symbols() {
    for line in ["-E", "--export-dynamic", "-export-dynamic"] {
        changes_dynamic(line, |d| d.export_dynamic = true);
    }
    changes_dynamic("-E --no-export-dynamic", |_| {});
    for line in [
        "--export-dynamic-symbol=f* --export-dynamic-symbol g",
        "--export-dynamic-symbol f* --export-dynamic-symbol=g",
    ] {
        changes_dynamic(line, |d| d.export_symbols = vec!["f*".into(), "g".into()]);
    }
    changes_dynamic("--exclude-libs ALL,liba.a:libb.a --exclude-libs=ALL", |d| {
        d.exclude_libs = ["ALL", "liba.a", "libb.a"].map(str::to_owned).to_vec();
    });
    changes_dynamic("-Bsymbolic", |d| d.symbolic = Symbolic::All);
    changes_dynamic("-Bsymbolic-functions", |d| d.symbolic = Symbolic::Functions);
    changes_dynamic("-Bsymbolic -Bno-symbolic", |_| {});
    changes_dynamic("--dynamic-list-cpp-new", |d| {
        d.dynamic_lists = vec!["{ _Znw*; _Zna*; _Zdl*; _Zda*; };".into()];
    });
    changes_dynamic("--dynamic-list-cpp-typeinfo", |d| d.dynamic_lists = vec!["{ _ZTI*; _ZTS*; };".into()]);
    let texts =
        sound("--version-script=v --dynamic-list d --export-dynamic-symbol-list=e -version-script w").texts;
    assert_eq!(
        texts,
        [
            ("--version-script", TextUse::VersionScript, "v".into()),
            ("--dynamic-list", TextUse::DynamicList, "d".into()),
            ("--export-dynamic-symbol-list", TextUse::ExportList, "e".into()),
            ("--version-script", TextUse::VersionScript, "w".into()),
        ]
    );
}

#[test]
fn options_about_undefined_symbols() {
    let with = |unresolved, allowed| {
        move |d: &mut DynamicOptions| {
            d.unresolved = unresolved;
            d.allow_shlib_undefined = allowed;
        }
    };
    changes_dynamic("--no-undefined", with(Unresolved::Error, None));
    changes_dynamic("--allow-shlib-undefined", with(Unresolved::ByKind, Some(true)));
    changes_dynamic("--no-allow-shlib-undefined", with(Unresolved::ByKind, Some(false)));
    for (method, unresolved, allowed) in [
        ("report-all", Unresolved::Error, false),
        ("ignore-all", Unresolved::Ignore, true),
        ("ignore-in-object-files", Unresolved::Ignore, false),
        ("ignore-in-shared-libs", Unresolved::Error, true),
    ] {
        changes_dynamic(&format!("--unresolved-symbols={method}"), with(unresolved, Some(allowed)));
    }
    assert!(errors("--unresolved-symbols=some")[0].starts_with("--unresolved-symbols: 'some' is not one of"));
    for (line, unresolved) in [
        ("--warn-unresolved-symbols", Unresolved::Warn),
        ("--warn-unresolved-symbols -shared", Unresolved::ByKind),
        ("--warn-unresolved-symbols -shared -z defs", Unresolved::Warn),
        ("--warn-unresolved-symbols --error-unresolved-symbols", Unresolved::ByKind),
    ] {
        let command = parsed(line);
        assert_eq!(command.options.dynamic.unresolved, unresolved, "{line}");
        assert_eq!(command.warnings, [""; 0], "{line}");
    }
}

#[test]
fn options_that_shape_the_image() {
    changes("", |_| {});
    changes("-static", |_| {});
    changes("-m elf_x86_64 -melf_x86_64", |_| {});
    for line in ["-e main", "-emain", "--entry=main", "--entry main", "-entry=main"] {
        changes(line, |o| o.entry = Some("main".into()));
    }
    for line in ["-u f -u g", "-uf -ug", "--undefined=f -undefined g"] {
        changes(line, |o| o.undefined = vec!["f".into(), "g".into()]);
    }
    for line in ["--defsym=a=0x10 -defsym b=c+2", "--defsym a=16 --defsym=b=c+0x2"] {
        changes(line, |o| {
            o.defsyms = vec![
                ("a".into(), DefsymValue::Absolute(16)),
                ("b".into(), DefsymValue::Symbol("c".into(), 2)),
            ];
        });
    }
    changes("--gc-sections", |o| o.gc_sections = true);
    changes("--gc-sections --no-gc-sections", |_| {});
    changes("--eh-frame-hdr", |o| o.eh_frame_hdr = true);
    changes("--eh-frame-hdr --no-eh-frame-hdr", |_| {});
    changes("-s", |o| o.strip = Strip::All);
    changes("--strip-all -S", |o| o.strip = Strip::All);
    changes("-S", |o| o.strip = Strip::Debug);
    changes("--strip-debug", |o| o.strip = Strip::Debug);
    changes("-x", |o| o.discard = Discard::All);
    changes("-x --discard-none", |_| {});
    for line in ["--wrap=malloc --wrap free --wrap=malloc", "-wrap malloc -wrap=free"] {
        changes(line, |o| o.wrap = vec!["malloc".into(), "free".into()]);
    }
    changes("-X", |o| o.discard = Discard::Locals);
    changes("--allow-multiple-definition", |o| o.allow_multiple_definition = true);
    changes("--image-base=0x200000", |o| o.image_base = Some(VirtAddr(0x20_0000)));
    changes("-Ttext-segment=0x200000", |o| o.image_base = Some(VirtAddr(0x20_0000)));
    changes("-Ttext-segment 200000", |o| o.image_base = Some(VirtAddr(0x20_0000)));
    changes("--error-limit=0", |o| o.error_limit = 0);
    changes("--error-limit 7", |o| o.error_limit = 7);
    changes("--threads=3", |o| o.threads = 3);
    changes("--thread-count 3", |o| o.threads = 3);
    changes("--threads=3 --threads", |_| {});
    changes("--no-threads", |o| o.threads = 1);
    changes("--schedule=multi", |o| o.schedule_kind = ScheduleKind::MultiThreaded);
}

#[test]
fn build_id_styles() {
    for line in ["--build-id", "-build-id", "--build-id=sha1", "--build-id=tree"] {
        changes(line, |o| o.build_id = BuildId::Tree { len: 20 });
    }
    changes("--build-id=md5", |o| o.build_id = BuildId::Tree { len: 16 });
    changes("--build-id=fast", |o| o.build_id = BuildId::Tree { len: 8 });
    changes("--build-id=0xabcd", |o| o.build_id = BuildId::Hex(vec![0xab, 0xcd]));
    changes("--build-id --build-id=none", |_| {});
}

#[test]
fn keywords() {
    changes("-z norelro", |o| o.relro = false);
    changes("-znorelro -z relro", |_| {});
    changes("-z now", |o| o.now = true);
    changes("-z now -z lazy", |_| {});
    changes("-z execstack", |o| o.exec_stack = Some(true));
    changes("-znoexecstack", |o| o.exec_stack = Some(false));
    changes("-z separate-code", |o| o.separate_code = true);
    changes("-z separate-code -z noseparate-code", |_| {});
    changes("-z muldefs", |o| o.allow_multiple_definition = true);
    changes("-z start-stop-gc", |o| o.start_stop_gc = true);
    changes("-z start-stop-gc -z nostart-stop-gc", |_| {});
    changes("-z max-page-size=0x10000", |o| o.max_page_size = 0x1_0000);
    changes("-z stack-size=1M", |o| o.stack_size = 1 << 20);
    changes("-z separate-loadable-segments", |o| o.separate_code = true);
    changes("-z text -z nodefs -z common-page-size=4096 -z nocopyreloc -z norewrite-endbr", |_| {});
    assert_eq!(
        errors("-z max-page-size=3"),
        ["-z: max-page-size=3: must be a power of two and at least 4096"]
    );
    assert_eq!(errors("-z stack-size=x"), ["-z: 'x' is not a number"]);
    let command = parsed("-z frobnicate -z shstk");
    assert_eq!(command.warnings, ["-z frobnicate ignored", "-z shstk has no effect yet"]);
    assert!(command.errors.is_empty());
}

#[test]
fn incremental_options() {
    let incremental = |change: fn(&mut IncrementalOptions)| {
        let mut options = IncrementalOptions::default();
        change(&mut options);
        options
    };
    for (line, expected) in [
        ("--incremental", incremental(|_| {})),
        ("--incremental --code-slack=50", incremental(|i| i.code_slack_percent = 50)),
        ("--data-slack=1 --incremental", incremental(|i| i.data_slack_percent = 1)),
        ("--incremental --text-reserve 9", incremental(|i| i.text_reserve_percent = 9)),
        ("--incremental --debug-slack=0%", incremental(|i| i.debug_slack_percent = 0)),
        ("--incremental --move=retarget", incremental(|i| i.move_kind = MoveKind::Retarget)),
        ("--incremental --move=auto", incremental(|i| i.move_kind = MoveKind::Auto)),
        ("--incremental --place=append", incremental(|i| i.place_kind = PlaceKind::Append)),
        ("--incremental --gate=closed", incremental(|i| i.gate_kind = GateKind::Closed)),
        ("--incremental --gate=wide", incremental(|i| i.gate_kind = GateKind::Wide)),
    ] {
        changes(line, |o| o.incremental = Some(expected));
    }
    changes("--incremental --no-incremental", |_| {});
    changes("--code-slack=50", |_| {});
    assert_eq!(errors("--move=jump"), ["--move: 'jump' is not one of island, retarget, auto"]);
    assert_eq!(errors("--gate=wider"), ["--gate: 'wider' is not one of strict, wide, closed"]);
}

#[test]
fn environment_is_the_default_and_the_command_line_decides() {
    let with = |value: &str, line: &str| {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let environment = Environment {
            incremental: Some(value.into()),
            report: Some("r.json".into()),
            ..Environment::default()
        };
        parse(&words, &environment)
    };
    assert!(with("1", "a.o").options.incremental.is_some());
    assert!(with("1", "a.o").incremental);
    let gate = |value: &str| with(value, "a.o").options.incremental.map(|i| i.gate_kind);
    assert_eq!((gate("1"), gate("wide")), (Some(GateKind::Strict), Some(GateKind::Wide)));
    assert!(!with("0", "a.o").incremental);
    assert!(!with("", "a.o").incremental);
    assert!(!with("1", "a.o --no-incremental").incremental);
    assert_eq!(with("1", "a.o").report, Some("r.json".into()));
    assert_eq!(with("1", "a.o --report=other").report, Some("other".into()));
}

#[test]
fn options_of_the_host() {
    for line in ["-o out", "-oout", "--output=out", "--output out"] {
        assert_eq!(sound(line).output, PathBuf::from("out"), "{line}");
    }
    assert_eq!(sound("").output, PathBuf::from("a.out"));
    changes("-o dir/libx.so", |o| o.output_name = "libx.so".into());
    // As in every ld, a single dash before an `o` is `-o`.
    assert_eq!(sound("-output").output, PathBuf::from("utput"));
    assert_eq!(sound("-Map=m").map, Some("m".into()));
    assert_eq!(sound("-Map m").map, Some("m".into()));
    assert!(sound("-Map=-").map_to_output && sound("-M").map_to_output && sound("--print-map").map_to_output);
    assert_eq!(sound("-y f -yg --trace-symbol=f --trace-symbol h").traced_symbols, ["f", "g", "h"]);
    assert!(sound("--cref").cross_reference && !sound("--cref --no-cref").cross_reference);
    assert!(sound("-t").trace && sound("--trace").trace);
    assert!(sound("--print-gc-sections").print_gc_sections);
    assert!(sound("--verify").verify);
    assert_eq!(sound("--report=r").report, Some("r".into()));
    assert_eq!(sound("--dependency-file=d").dependency_file, Some("d".into()));
    assert_eq!(sound("--reproduce=r.tar").reproduce, Some("r.tar".into()));
    assert_eq!(sound("--fallback-linker=ld.bfd").fallback_linker, Some("ld.bfd".into()));
    assert!(sound("--fatal-warnings").fatal_warnings && !sound("").fatal_warnings);
    assert!(!sound("--no-demangle").demangle && sound("--demangle=gnu-v3").demangle);
    assert_eq!(sound("--color-diagnostics").color, ColorChoice::Always);
    assert_eq!(sound("--color-diagnostics=never").color, ColorChoice::Never);
    assert_eq!(sound("--color-diagnostics=auto").color, ColorChoice::Auto);
    assert_eq!(sound("--no-color-diagnostics").color, ColorChoice::Never);
    assert_eq!(sound("--version").show, Some(Show::Version));
    assert_eq!(sound("--help --version").show, Some(Show::Help));
    assert!(sound("-v").announce && sound("--verbose").announce);
    assert!(sound("-V").emulations);
}

#[test]
fn inputs_carry_the_options_in_force() {
    let command = sound(
        "-static -L d -Le --library-path=f -L=g one.o --whole-archive -lw --push-state --no-whole-archive -l n \
         --pop-state --library=v --no-whole-archive -l:exact.a --sysroot=/root - --start-group x.a --end-group -( y.a -)",
    );
    assert_eq!(command.search.directories, ["d", "e", "f", "=g"].map(PathBuf::from));
    assert_eq!(command.search.sysroot, Some("/root".into()));
    let inputs: Vec<(String, bool)> = command
        .inputs
        .iter()
        .map(|input| match &input.name {
            InputName::File(path) => (path.display().to_string(), input.whole_archive),
            InputName::Library(name) => (format!("-l{}", name.display()), input.whole_archive),
        })
        .collect();
    let expected = [
        ("one.o", false),
        ("-lw", true),
        ("-ln", false),
        ("-lv", true),
        ("-l:exact.a", false),
        ("-", false),
        ("x.a", false),
        ("y.a", false),
        ("a.o", false),
    ];
    assert_eq!(inputs, expected.map(|(name, whole)| (name.to_owned(), whole)));
    assert!(command.inputs.iter().all(|input| input.static_only));
    assert!(command.inputs.iter().all(|input| !input.as_needed));

    let command = sound("-la -Bstatic -lb -Bdynamic -lc");
    let static_only: Vec<bool> = command.inputs.iter().map(|input| input.static_only).collect();
    assert_eq!(static_only, [false, true, false, false]);
    // In a static link -Bdynamic does not bring shared libraries back.
    assert!(sound("-lz -static -Bdynamic -lc").inputs.iter().all(|input| input.static_only));

    let command =
        sound("-la --push-state --as-needed -lb -Bstatic -lc --pop-state -ld --as-needed -le --no-as-needed");
    let flags: Vec<_> = command.inputs.iter().map(|input| (input.as_needed, input.static_only)).collect();
    assert_eq!(
        flags,
        [(false, false), (true, false), (true, true), (false, false), (true, false), (false, false)]
    );
}

#[test]
fn what_gcc_passes_is_understood() {
    let plugin = "-plugin /usr/lib/liblto_plugin.so -plugin-opt=/usr/lib/lto-wrapper \
                  -plugin-opt=-fresolution=/tmp/ccX.res -plugin-opt=-pass-through=-lgcc";
    let command = sound(&format!(
        "{plugin} --build-id -m elf_x86_64 --hash-style=gnu --as-needed -static -pie --no-dynamic-linker -z text \
         -o out rcrt1.o crti.o -L/usr/lib main.o --start-group -lgcc -lgcc_eh -lc --end-group crtn.o"
    ));
    assert_eq!(command.options.output_kind, OutputKind::StaticPie);
    assert_eq!(command.inputs.len(), 8);
    let command = sound(&format!(
        "{plugin} --build-id --eh-frame-hdr -m elf_x86_64 --hash-style=gnu --as-needed \
         -dynamic-linker /lib64/ld-linux-x86-64.so.2 -pie -z now -z relro -o out Scrt1.o crti.o crtbeginS.o -L/usr/lib \
         main.o -lgcc --push-state --as-needed -lgcc_s --pop-state -lc -lgcc --push-state --as-needed -lgcc_s \
         --pop-state crtendS.o crtn.o"
    ));
    assert_eq!(command.options.output_kind, OutputKind::Pie);
    assert_eq!(command.options.dynamic.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    changes(
        "-shared -z noexecstack --as-needed --eh-frame-hdr --gc-sections -z relro -z now -O1 --strip-debug \
         -z nostart-stop-gc -rpath /x -rpath-link=/y --export-dynamic -soname=s --sort-common=descending \
         --sort-section=name -Bsymbolic-functions --no-undefined --warn-common --no-map-whole-files -EL -O --relax \
         --no-copy-dt-needed-entries --no-add-needed -flavor gnu -G 8 -A x86-64 --lto-O2 -plugin-opt O2 -mllvm -x",
        |o| {
            o.output_kind = OutputKind::SharedLibrary;
            o.exec_stack = Some(false);
            o.eh_frame_hdr = true;
            o.gc_sections = true;
            o.now = true;
            o.strip = Strip::Debug;
            o.dynamic.rpaths = vec!["/x".into()];
            o.dynamic.export_dynamic = true;
            o.dynamic.soname = Some("s".into());
            o.dynamic.symbolic = Symbolic::Functions;
            o.dynamic.unresolved = Unresolved::Error;
        },
    );
}

#[test]
fn what_changes_nothing_is_accepted() {
    for line in [
        "-plugin /usr/lib/liblto_plugin.so -plugin-opt=-pass-through=-lc --plugin-opt O2 -plugin-opt mcpu=x86-64",
        "--lto-O2 --lto-O 2 --lto-partitions=4 --thinlto-jobs=all -mllvm -x --lto-whole-program-visibility",
        "-O2 -O --sort-common --sort-common=descending --no-sort-common --sort-section name",
        "--copy-dt-needed-entries --no-copy-dt-needed-entries --no-add-needed --add-needed",
        "--undefined-version --no-undefined-version --orphan-handling=warn --gc-keep-exported",
        "-flavor gnu -G 8 -G8 -A x86-64 -a shared -Y x -g -EL --package-metadata={} -nostdlib",
        "--warn-common --warn-textrel --no-warn-rwx-segments --warn-execstack --no-warn-mismatch",
        "--spare-dynamic-tags=5 --traditional-format --no-keep-memory --rosegment --relax",
        "-z nocopyreloc -z combreloc -z nodynamic-undefined-weak -z rodynamic -z nognustack -z start-stop-visibility=hidden",
    ] {
        changes(line, |_| {});
    }
    for line in [
        "--dynamic-list-data",
        "-Bgroup",
        "-Bsymbolic-non-weak",
        "-z nodefaultlib",
        "-z retpolineplt",
        "-z global",
    ] {
        let command = parsed(line);
        assert_eq!(command.warnings, [format!("{line} has no effect yet")]);
        assert!(command.errors.is_empty());
    }
}

#[test]
fn what_is_not_supported_says_so_by_name() {
    for (line, option) in [
        ("-r", "-r"),
        ("--relocatable", "--relocatable"),
        ("-T x.ld", "-T"),
        ("-Tx.ld", "-T"),
        ("--script=x.ld", "--script"),
        ("--emit-relocs", "--emit-relocs"),
        ("-q", "-q"),
        ("-Ttext=0x1000", "-Ttext"),
        ("-Tdata 0x1000", "-Tdata"),
        ("-Tbss=0x1000", "-Tbss"),
        ("--section-start=.text=0x1000", "--section-start"),
        ("--retain-symbols-file=s", "--retain-symbols-file"),
        ("--just-symbols=s", "--just-symbols"),
        ("--filter=libx.so", "--filter"),
        ("--icf=all", "--icf"),
        ("--oformat=binary", "--oformat"),
        ("-b binary", "-b"),
    ] {
        let errors = errors(line);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("{option}: ")), "{}", errors[0]);
        assert!(errors[0].contains("not supported yet"), "{}", errors[0]);
        assert_eq!(parsed(line).out_of_reach.as_ref(), Some(&errors[0]));
    }
    changes("--icf=none --oformat=elf64-x86-64", |_| {});
    changes("--compress-debug-sections=none", |_| {});
    changes("--compress-debug-sections=zlib", |o| o.compress_debug = Some(CompressionAlgorithm::Zlib));
    changes("--compress-debug-sections zstd", |o| o.compress_debug = Some(CompressionAlgorithm::Zstd));
    assert!(errors("--compress-debug-sections=lzma")[0].contains("'lzma' is not one of"));
    let command = parsed("--compress-debug-sections=zlib --incremental");
    assert_eq!((command.options.compress_debug, command.warnings.len()), (None, 1));
    assert_eq!(parsed("--gdb-index").warnings.len(), 1);
    assert!(errors("-m elf_i386")[0].contains("'elf_i386' is not supported"));
    assert!(parsed("-m elf_i386").out_of_reach.is_some());
    assert!(parsed("--frobnicate").out_of_reach.is_none());
}

#[test]
fn all_errors_at_once_and_what_was_meant() {
    let found = errors(
        "--gc-section --threads=many --no-gc-sections=1 --end-group --pop-state -Bstatik --frobnicate",
    );
    assert_eq!(
        found,
        [
            "unknown option '--gc-section', did you mean '--gc-sections'",
            "--threads: 'many' is not a number",
            "--no-gc-sections: takes no value",
            "--end-group: there is no --start-group before it",
            "--pop-state: there is no --push-state before it",
            "unknown option '-Bstatik', did you mean '-Bstatic'",
            "unknown option '--frobnicate'",
        ]
    );
    let words = |words: &[&str]| {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>(), &Environment::default())
    };
    assert_eq!(words(&["a.o", "-o"]).errors, ["-o: needs a value (FILE)"]);
    assert_eq!(words(&["a.o", "--start-group"]).errors, ["--start-group without --end-group"]);
    assert_eq!(words(&[]).errors, ["no input files"]);
    assert_eq!(words(&["--version"]).errors, [""; 0]);
    assert_eq!(words(&["-v"]).errors, [""; 0]);
    assert_eq!(words(&["--static"]).errors, ["no input files"]);
}

#[test]
fn table_is_sound() {
    let mut seen = std::collections::HashSet::new();
    for spec in options() {
        assert!(!spec.names.is_empty());
        for name in spec.names {
            assert!(name.starts_with('-') && name.is_ascii(), "{name}");
            let form = (name.trim_start_matches('-'), spec.value != Value::None);
            assert!(seen.insert(form), "{name} is there twice");
        }
    }
}

#[test]
fn help_has_what_configure_scripts_look_for() {
    let help = help::help();
    for text in [
        "--gc-sections",
        "--as-needed",
        "--push-state",
        "-shared",
        "-Bstatic",
        "-Bsymbolic",
        "-pie",
        "-rpath",
        "-plugin",
        "--no-whole-archive",
        "--version-script",
        "--dynamic-list",
        "--export-dynamic",
        "--hash-style",
        "--build-id",
        "--eh-frame-hdr",
        "--sysroot",
        "--demangle",
        "--compress-debug-sections",
        ": supported targets: elf64-x86-64",
        ": supported emulations: elf_x86_64",
        "-z KEYWORD",
        "pack-relative-relocs",
    ] {
        assert!(help.contains(text), "{text}");
    }
    assert!(help.lines().all(|line| line.len() < 160), "{help}");
}

#[test]
fn version_is_one_that_configure_scripts_trust() {
    let version = help::VERSION;
    // libtool: a GNU ld, and none from before version scripts: ` 0.`, ` 1.`, ` 2.N.`.
    assert!(version.contains("GNU"));
    for word in version.split(' ') {
        let ancient = |minor: &str| minor.contains('.') && minor.find('.') == Some(1);
        assert!(!word.starts_with("0.") && !word.starts_with("1."), "{word}");
        assert!(!word.strip_prefix("2.").is_some_and(ancient), "{word}");
    }
    // cmake.
    let (_, number) = version.split_once("GNU ld version ").unwrap();
    assert!(number.starts_with(|first: char| first.is_ascii_digit()));
}
