//! Addresses that the user chooses, and addresses that another program has: `-Ttext` and its kin, `--image-base`,
//! `--just-symbols`; and the list of symbols that stay.

use relink_tests::elf::{Elf, nm};
use relink_tests::folder::Folder;
use relink_tests::readers;

const MAIN: &str = r#"
    #include <stdio.h>
    int data[100] = {7};
    int zeros[100];
    const char text[] = "constant";
    int in_own __attribute__((section("own"))) = 9;
    int main(void) { zeros[3] = 5; printf("%d %d %s %d\n", data[0], zeros[3], text, in_own); return 0; }
"#;
const SAYS: &str = "7 5 constant 9\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.unit("main", &["-O1", "-fPIE"], MAIN);
    folder
}

/// Each loaded segment: address, end, offset in the file.
fn loads(folder: &Folder, image: &str) -> Vec<(u64, u64, u64)> {
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let listed = folder.readelf("-l", image);
    let lines = listed.lines().filter_map(|line| line.trim_start().strip_prefix("LOAD"));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (hex(words[1]), hex(words[1]) + hex(words[4]), hex(words[0]))
        })
        .collect()
}

#[test]
fn sections_start_where_options_say() {
    let folder = folder();
    for (shape, options, wanted) in [
        ("-no-pie", "-Wl,-Ttext=600000", &[(".text", 0x60_0000)][..]),
        (
            "-no-pie",
            "-Wl,-Ttext=0x600000,-Tdata=0x800000,-Tbss=0x900000",
            &[(".text", 0x60_0000), (".data", 0x80_0000), (".bss", 0x90_0000)],
        ),
        // In front of everything else.
        ("-static", "-Wl,-Ttext=0x10000", &[(".text", 0x1_0000)]),
        (
            "-static",
            "-Wl,--section-start=own=0x2000010,--section-start=.rodata=0x980000",
            &[("own", 0x200_0010), (".rodata", 0x98_0000)],
        ),
        // The last of a name counts.
        ("-pie", "-Wl,-Tdata=0x300000,--section-start=.data=0x200000", &[(".data", 0x20_0000)]),
        ("-static-pie", "-Wl,-Ttext=0x400000,-z,noseparate-code", &[(".text", 0x40_0000)]),
        (
            "-no-pie",
            "-Wl,-Tdata=0x800000,-z,norelro,--section-start=.got=0x880000",
            &[(".data", 0x80_0000), (".got", 0x88_0000)],
        ),
        ("-no-pie", "-Wl,-Ttext-segment=0x1000000", &[]),
    ] {
        folder.link(&[shape, "main.o", options, "-o", "out"]);
        assert_eq!(folder.run("out"), SAYS, "{options}");
        let bytes = folder.bytes("out");
        let elf = Elf::parse(&bytes);
        for (section, address) in wanted {
            assert_eq!(elf.section_place(section).0, *address, "{section} {options}");
        }
        let loads = loads(&folder, "out");
        assert!(
            loads.is_sorted() && loads.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{options}: {loads:x?}"
        );
        assert!(loads.iter().all(|(address, _, offset)| address % 4096 == offset % 4096), "{loads:x?}");
        // eu-elflint minds a segment of zeros alone, and a static program's headers far from its first section.
        if !options.contains("-Tbss") && !shape.starts_with("-static") {
            folder.link_bfd(&[shape, "main.o", "-o", "plain"]);
            readers::assert_no_worse(&folder.path("out"), &readers::kept_complaints(&folder.path("plain")));
        }
    }
    assert_eq!(loads(&folder, "out")[0].0, 0x100_0000);
}

#[test]
fn places_that_can_not_be_are_errors() {
    let folder = folder();
    for (options, why) in [
        ("-Wl,-Tdata=0x401000,-Ttext=0x401000", "overlaps"),
        ("-Wl,--section-start=.rodata=0x400000", "overlaps the ELF and program headers"),
        ("-Wl,-Ttext=0x500001", "not aligned"),
        ("-Wl,--section-start=.dynamic=0x600000", "add -z norelro"),
        ("-Wl,--section-start=.comment=0x600000", "not loaded"),
    ] {
        let said = folder.refused(&["-no-pie", "main.o", options, "-o", "out"]);
        assert!(said.contains(why), "{options}: {said}");
    }
    // Two segments in one page: an image for a programmer's tool, not for a loader.
    folder.assembled("boot", ".globl _start\n.text\n_start: movl cell, %eax\n.data\ncell: .long 5\n");
    let args = ["-static", "boot.o", "-Ttext=0x7c00", "-Tdata=0x7d00", "-o", "boot"];
    let said = folder.ld(&args).ok();
    assert!(
        said.stderr.contains("warning: the segments that end at 0x7c07 and start at 0x7d00 share a page"),
        "{said}"
    );
    let bytes = folder.bytes("boot");
    let elf = Elf::parse(&bytes);
    assert_eq!(elf.section_bytes(".text"), [0x8b, 4, 0x25, 0, 0x7d, 0, 0]);
    assert_eq!(elf.symbol("_start").address, 0x7c00);
}

#[test]
fn programs_with_placed_sections_are_patched() {
    let folder = folder();
    let args = ["-no-pie", "main.o", "-Wl,-Ttext=0x600000,-Tdata=0x800000"];
    assert_eq!(folder.patch("out", &args).0, "full");
    folder.unit(
        "main",
        &["-O1", "-fPIE"],
        &MAIN.replace("zeros[3] = 5", "zeros[3] = 6").replace("{7}", "{8}"),
    );
    assert_eq!(folder.patch("out", &args), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "8 6 constant 9\n");
    let other = ["-no-pie", "main.o", "-Wl,-Ttext=0x600000,-Tdata=0x900000"];
    assert_eq!(folder.patch("out", &other), ("fell_back_full".into(), vec!["options-changed".into()]));
    assert_eq!(folder.run("out"), "8 6 constant 9\n");
    let said = folder.refused(&[
        "-no-pie",
        "main.o",
        "-Wl,-Ttext=0x600000,-Tdata=0x604000,--incremental",
        "-o",
        "other",
    ]);
    assert!(said.contains("overlaps") && said.contains("--incremental reserves room"), "{said}");
}

#[test]
fn only_listed_symbols_stay_in_the_symbol_table() {
    let folder = Folder::new();
    let text =
        "static int inner(void) { return 1; } int kept(void) { return inner(); } int gone(void) { return 2; }
                int main(void) { return kept() + gone() - 3; }";
    folder.unit("main", &["-O0", "-fPIE"], text).file("list", b"kept\n inner main\nnobody\n");
    for shape in ["-pie", "-static"] {
        folder.link(&[shape, "main.o", "-Wl,--retain-symbols-file=list", "-o", "out"]);
        assert_eq!(folder.run("out"), "");
        let bytes = folder.bytes("out");
        let names: Vec<String> = Elf::parse(&bytes).defined_names();
        assert_eq!(names, ["inner", "kept", "main"], "{shape}");
        // What the loader looks for is another table.
        folder.link(&["-shared", "-fPIC", "main.o", "-Wl,--retain-symbols-file=list", "-o", "lib.so"]);
        assert!(folder.readelf("--dyn-syms", "lib.so").contains(" gone\n"));
    }
    let args = ["-pie", "main.o", "-Wl,--retain-symbols-file=list"];
    assert_eq!(folder.patch("patched", &args).0, "full");
    folder.unit("main", &["-O0", "-fPIE"], &text.replace("return 2", "return 7").replace("- 3", "- 8"));
    assert_eq!(folder.patch("patched", &args), ("patched".into(), vec![]));
    assert_eq!(folder.run("patched"), "");
    folder.file("list", b"main\n");
    assert_eq!(folder.patch("patched", &args), ("fell_back_full".into(), vec!["options-changed".into()]));
}

#[test]
fn addresses_of_another_program_are_used() {
    let folder = Folder::new();
    folder
        .assembled("rom", ".globl rom_value, rom_add\n.weak __weak\n.text\nrom_add: leal 3(%rdi), %eax\nret\n__weak: ret\n.data\nrom_value: .long 42\n.type rom_add,@function\n")
        .unit("main", &["-O1", "-fno-pie"], "int rom_add(int); extern int rom_value; int given(void) { return 1; }
              int main(int n, char **v) { return n > 5 ? rom_add(1) + (int)(long)&rom_value : given() - 1; }");
    folder.ld(&["-static", "rom.o", "-e", "rom_add", "-Ttext=0x20000", "-Tdata=0x30000", "-o", "rom"]).ok();
    for option in ["-Wl,--just-symbols=rom", "-Wl,-R,rom"] {
        folder.link(&["-no-pie", "main.o", option, "-o", "out"]);
        assert_eq!(folder.run("out"), "");
        let symbols = nm(&folder.path("out"));
        assert_eq!((symbols["rom_add"], symbols["rom_value"]), (0x2_0000, 0x3_0000));
        assert!(
            folder
                .readelf("-s", "out")
                .lines()
                .any(|line| line.contains(" ABS rom_add") && line.contains("FUNC"))
        );
        let bytes = folder.bytes("out");
        assert!(!bytes.windows(3).any(|bytes| bytes == [0x8d, 0x47, 3]), "nothing else of it is linked");
    }
    let bfd = ["-no-pie", "main.o", "-Wl,--just-symbols=rom", "-o", "bfd"];
    folder.link_bfd(&bfd);
    assert_eq!(nm(&folder.path("bfd"))["rom_value"], 0x3_0000);
    // Its definitions count as those of an input.
    folder.assembled("more", ".globl rom_add\nrom_add: ret\n");
    let said = folder.refused(&["-no-pie", "main.o", "more.o", "-Wl,--just-symbols=rom", "-o", "out"]);
    assert!(said.contains("duplicate symbol: rom_add") && said.contains("rom\n"), "{said}");
    for (file, why) in [("main.o", "not linked"), ("none", "cannot open none"), ("more.s", "not ELF")] {
        let said = folder.refused(&["-no-pie", "main.o", &format!("-Wl,--just-symbols={file}"), "-o", "out"]);
        assert!(said.contains(why), "{file}: {said}");
    }
    // Another address is another link.
    let args = ["-no-pie", "main.o", "-Wl,--just-symbols=rom"];
    assert_eq!(folder.patch("patched", &args).0, "full");
    folder.ld(&["-static", "rom.o", "-e", "rom_add", "-Ttext=0x40000", "-Tdata=0x30000", "-o", "rom"]).ok();
    assert_eq!(folder.patch("patched", &args), ("fell_back_full".into(), vec!["options-changed".into()]));
    assert_eq!(nm(&folder.path("patched"))["rom_add"], 0x4_0000);
}

/// What has no bytes may have its place where the file has long ended.
#[test]
fn zeros_beyond_the_end_of_the_file_are_patched() {
    let unit = |more: &str, large: usize, add: u32| {
        format!(
            "#include <stdio.h>\nchar small[64], large[{large}];\n{more}\n\
             int main(void) {{ large[{large} - 1] = 5; printf(\"%d\\n\", large[{large} - 1] + small[9] + {add}); return 0; }}\n"
        )
    };
    for (flags, gate) in
        [("-fno-data-sections", "strict"), ("-fdata-sections", "strict"), ("-fdata-sections", "wide")]
    {
        let folder = Folder::new();
        let step = |text: &str, says: &str| {
            folder.unit("main", &["-O1", "-ffunction-sections", flags], text);
            let (outcome, reasons) = folder.patch("main", &["main.o", &format!("-Wl,--gate={gate}")]);
            assert_eq!(folder.run("main"), says, "{flags} {gate}");
            let report: serde_json::Value = serde_json::from_slice(&folder.bytes("report.json")).unwrap();
            let written = report["counters"]["bytes_written"].as_u64().unwrap();
            assert!(outcome != "patched" || written < 4096, "{flags} {gate}: {written} bytes of an edit");
            (outcome, reasons)
        };
        assert_eq!(step(&unit("", 64 << 20, 1), "6\n").0, "full");
        let patched =
            |(outcome, reasons): (String, Vec<String>)| assert_eq!(outcome, "patched", "{reasons:?}");
        patched(step(&unit("", 64 << 20, 20), "25\n"));
        if flags == "-fno-data-sections" {
            continue;
        }
        // It fits where it was.
        patched(step(&unit("", (64 << 20) + 4096, 30), "35\n"));
        if gate == "wide" {
            patched(step(
                &unit("static char other[5];\nvoid *f(void) { return other; }", 64 << 20, 40),
                "45\n",
            ));
        }
    }
}
