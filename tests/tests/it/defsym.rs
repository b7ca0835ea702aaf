//! `--defsym`: expressions as GNU ld has them, in programs with fixed and with moving addresses, and in patches.

use relink_tests::elf::{Elf, nm};
use relink_tests::folder::Folder;

const MAIN: &str = r#"
    #include <stdio.h>
    int f(void), g(void);
    int f(void) { return 1; }
    int g(void) { return 2; }
    char table[40] = "abcdefghijklmnop";
    extern char at[] __attribute__((weak)), behind[] __attribute__((weak));
    extern char number[] __attribute__((weak)), distance[] __attribute__((weak));
    int main(void) { printf("%s %s %d %d\n", at, behind, (int)(long)number, (int)(long)distance); return 0; }
"#;

/// Name and expression; what follows is the value, given the addresses of `table`, `f` and `g`.
type Case = (&'static str, fn(&dyn Fn(&str) -> u64) -> u64);

const ABSOLUTE: &[Case] = &[
    ("4K+0x10", |_| 4112),
    ("(1+2)*3<<2|1", |_| 37),
    ("-4", |_| (-4_i64) as u64),
    ("17/5%2 ? 10 : 20", |_| 10),
    ("g-f", |at| at("g").wrapping_sub(at("f"))),
    ("f<g", |at| u64::from(at("f") < at("g"))),
    ("f==f && f!=g || 0", |_| 1),
    ("DEFINED(f)+DEFINED(nobody)*2", |_| 1),
    ("SIZEOF(.init_array)", |_| 8),
    ("ALIGNOF(.init_array)", |_| 8),
    ("_end-__executable_start", |at| at("_end") - at("__executable_start")),
    ("ABSOLUTE(table)", |at| at("table")),
    ("MAX(g-f,f-g)&0xffff", |at| at("g").wrapping_sub(at("f")).max(at("f").wrapping_sub(at("g"))) & 0xffff),
];

const RELATIVE: &[Case] = &[
    ("table", |at| at("table")),
    ("table+4", |at| at("table") + 4),
    ("(table-1)+2*3", |at| at("table") + 5),
    ("table+(g-f)", |at| at("table").wrapping_add(at("g")).wrapping_sub(at("f"))),
    ("ALIGN(table+1,64)", |at| (at("table") + 1).next_multiple_of(64)),
    ("MAX(f,table)", |at| at("f").max(at("table"))),
    ("DEFINED(nobody)?nobody:table+8", |at| at("table") + 8),
    ("ADDR(.data)+SIZEOF(.data)", |at| at("__data_end")),
    ("_end+0x100", |at| at("_end") + 0x100),
];

/// Values that have sense only where addresses stay.
const FIXED: &[Case] = &[
    ("table&0xfff", |at| at("table") & 0xfff),
    ("table>>4", |at| at("table") >> 4),
    ("table*2/2", |at| at("table")),
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.unit("main", &["-O1", "-fPIE"], MAIN);
    folder
}

#[test]
fn expressions_have_the_values_that_gnu_ld_gives_them() {
    let folder = folder();
    for (shape, cases) in [("-no-pie", [ABSOLUTE, RELATIVE, FIXED]), ("-pie", [ABSOLUTE, RELATIVE, &[]])] {
        let cases: Vec<&Case> = cases.into_iter().flatten().collect();
        let mut args = vec![shape.to_owned(), "main.o".to_owned()];
        for (index, (text, _)) in cases.iter().enumerate() {
            // Commas part the options of -Wl.
            args.extend(["-Xlinker".to_owned(), format!("--defsym=value{index}={text}")]);
        }
        args.extend(
            ["-Wl,--defsym=_end_=_end", "-Wl,--defsym=__executable_start_=__executable_start"]
                .map(str::to_owned),
        );
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for (name, link) in
            [("ours", Folder::link as fn(&Folder, &[&str]) -> _), ("theirs", Folder::link_bfd)]
        {
            link(&folder, &[&args[..], &["-o", name]].concat());
            let symbols = nm(&folder.path(name));
            let bytes = folder.bytes(name);
            let data = Elf::parse(&bytes);
            let at = |name: &str| match name {
                "__data_end" => {
                    let (address, size) = data.section_place(".data");
                    address + size
                }
                "_end" | "__executable_start" => symbols[&format!("{name}_")],
                name => symbols[name],
            };
            for (index, (text, wanted)) in cases.iter().enumerate() {
                let found = symbols[&format!("value{index}")];
                assert_eq!(found, wanted(&at), "{name} {shape}: {text} = {found:#x}");
            }
        }
    }
}

#[test]
fn relative_values_move_with_a_program_and_absolute_ones_do_not() {
    let folder = folder();
    let defined = ["at=table+3", "behind=(at+0)+4", "number=(2+3)*4", "distance=behind-at"];
    let options: Vec<String> = defined.iter().map(|text| format!("-Wl,--defsym={text}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for shape in ["-pie", "-no-pie", "-static", "-static-pie"] {
        folder.link(&[&[shape, "main.o", "-o", "out"], &options[..]].concat());
        assert_eq!(folder.run("out"), "defghijklmnop hijklmnop 20 4\n", "{shape}");
        let kinds: Vec<bool> = ["at", "behind", "number", "distance"]
            .iter()
            .map(|name| {
                let line = folder.readelf("-s", "out");
                let line = line
                    .lines()
                    .find(|line| line.split_whitespace().last() == Some(name))
                    .unwrap()
                    .to_owned();
                line.contains(" ABS ")
            })
            .collect();
        assert_eq!(kinds, [false, false, true, true], "{shape}");
    }
}

#[test]
fn values_that_loading_would_change_are_refused_in_moving_programs() {
    let folder = folder();
    for (text, why) in [
        ("table&0xfff", "'&' of an address has no value before the image is loaded"),
        ("-table", "'-' of an address"),
        ("f+g", "'+' of an address"),
        ("table<5", "'<' of an address"),
        ("ALIGN(table,1M)", "'ALIGN' of an address"),
        ("number?table:1", "'?:' of an address"),
    ] {
        let defined = format!("--defsym=value={text}");
        let args = ["main.o", "-Xlinker", &defined, "-Wl,--defsym=number=main-f", "-o", "out"];
        let said = folder.refused(&[&["-pie"], &args[..]].concat());
        assert!(said.contains(&format!("--defsym value: {why}")), "{text}: {said}");
        folder.link(&[&["-no-pie"], &args[..]].concat());
    }
}

#[test]
fn mistakes_in_expressions_are_named() {
    let folder = folder();
    for (options, why) in [
        (&["a=1/(2-2)"][..], "--defsym: division by zero"),
        (&["a=f/(f-f)"], "--defsym a: division by zero"),
        (&["a=nobody+1"], "--defsym a: the symbol nobody is not defined by any input"),
        (&["a=nobody"], "--defsym a: the symbol nobody is not defined by any input"),
        (&["a=printf+1"], "--defsym a: the symbol printf is not defined by any input"),
        (&["a=SIZEOF(.none)"], "--defsym a: the output has no section .none"),
        (&["a=b", "b=c+1", "c=a"], "and the other way round"),
        (&["a=a+1"], "--defsym a: the symbol a is not defined by any input"),
        (&["a=(1"], "expected ')' at character 3 of '(1'"),
        (&["a=.+1"], "location counter"),
        (&["a=ALIGN(f,3)"], "no power of two"),
    ] {
        let defined: Vec<String> = options.iter().map(|text| format!("--defsym={text}")).collect();
        let mut args = vec!["-no-pie", "main.o", "-o", "out"];
        for option in &defined {
            args.extend(["-Xlinker", option]);
        }
        let said = folder.refused(&args);
        assert!(said.contains(why), "{options:?}: {said}");
    }
}

#[test]
fn names_may_be_defined_in_any_order_and_by_what_they_were_before() {
    let folder = folder();
    // A chain against the order of the command line; a name that the inputs have; one that they have not.
    let options = "-Wl,--defsym=at=one-1,--defsym=one=two-1,--defsym=two=table+5,--defsym=behind=table+9,\
                   --defsym=number=DEFINED(f)?1:2,--defsym=distance=DEFINED(distance)?distance:7,--defsym=g=g+0,\
                   --defsym=f=DEFINED(f)?f:g";
    folder.link(&["-pie", "main.o", options, "-o", "out"]);
    assert_eq!(folder.run("out"), "defghijklmnop jklmnop 1 7\n");
}

#[test]
fn second_names_of_functions_are_called_like_them() {
    let folder = Folder::new();
    let text = r#"
        #include <stdio.h>
        static int one(void) { return 41; }
        static int (*choose(void))(void) { return one; }
        int chosen(void) __attribute__((ifunc("choose")));
        __thread int local = 5;
        extern __thread int again;
        int second(void);
        int main(void) { printf("%d %d %d\n", second(), again, second == chosen); return 0; }"#;
    folder.unit("main", &["-O1", "-fPIE"], text);
    for shape in ["-pie", "-no-pie", "-static"] {
        folder.link(&[shape, "main.o", "-Wl,--defsym=second=chosen,--defsym=again=local", "-o", "out"]);
        assert!(folder.run("out").starts_with("41 5 "), "{shape}: {}", folder.run("out"));
        let symbols = folder.readelf("-s", "out");
        let is = |name: &str, kind: &str| {
            symbols
                .lines()
                .any(|line| line.ends_with(&format!(" {name}")) && line.contains(&format!(" {kind} ")))
        };
        assert!(is("second", "IFUNC") && is("again", "TLS"), "{symbols}");
    }
}

#[test]
fn patches_keep_expressions_right_or_are_refused() {
    let folder = Folder::new();
    let unit = |body: &str| {
        let text = format!(
            "int counter = 3; __attribute__((noipa)) int f(void) {{ {body} }} __attribute__((noipa)) int g(void) {{ return 1; }}"
        );
        folder.unit("f", &["-O1", "-fPIE", "-ffunction-sections"], &text);
    };
    let main = r#"#include <stdio.h>
        int f(void), g(void), again(void); extern int count; extern char distance[] __attribute__((weak)), size[] __attribute__((weak));
        int main(void) { printf("%d %d %d %d\n", again(), count, (char *)g - (char *)f == (long)distance, (long)size > 0);
                         return 0; }"#;
    folder.unit("main", &["-O1", "-fPIE"], main);
    let args = [
        "main.o",
        "f.o",
        "-Wl,--defsym=again=f,--defsym=count=MAX(counter,counter-8),--defsym=distance=g-f",
        "-Wl,--defsym=size=SIZEOF(.text)/16",
    ];
    // Commas inside of MAX part the options of -Wl.
    let args: Vec<&str> = args
        .iter()
        .flat_map(|arg| match arg.contains("MAX") {
            true => vec![
                "-Wl,--defsym=again=f,--defsym=distance=g-f",
                "-Xlinker",
                "--defsym=count=MAX(counter,counter-8)",
            ],
            false => vec![*arg],
        })
        .collect();
    for shape in ["-pie", "-no-pie"] {
        let args = [&[shape], &args[..]].concat();
        let _ = std::fs::remove_dir_all(folder.path(".relink"));
        unit("return 2;");
        assert_eq!(folder.patch("out", &args).0, "full");
        assert_eq!(folder.run("out"), "2 3 1 1\n");
        // In its place: no address changes.
        unit("return 7;");
        assert_eq!(folder.patch("out", &args), ("patched".into(), vec![]), "{shape}");
        assert_eq!(folder.run("out"), "7 3 1 1\n");
        // It moves.
        unit(
            "volatile int n = 1; n++; n *= 3; n++; n++; n += 8; n *= 2; n++; n++; n++; n += n; n -= 2; n++; return n;",
        );
        let (outcome, reasons) = folder.patch("out", &args);
        assert_eq!(outcome, "fell_back_full", "{shape}");
        assert!(reasons.iter().all(|reason| reason == "relocation-unpatchable"), "{shape}: {reasons:?}");
        assert_eq!(folder.run("out"), "69 3 1 1\n");
    }
}
