//! The C text of a model's units.

use std::fmt::Write;

use super::model::{Data, Function, Import, Linkage, Model, Storage};

/// Exits with the low byte of a hash, after printing it.
const START: &str = r#"
typedef unsigned long word;
extern void (*__init_array_start[])(void) __attribute__((weak, visibility("hidden")));
extern void (*__init_array_end[])(void) __attribute__((weak, visibility("hidden")));
extern int __start_entries[] __attribute__((weak)), __stop_entries[] __attribute__((weak));
int fuel = 20000, built = 0;
int hash_text(const char *text)
{
    int hash = 5381;
    for (; *text; text++)
        hash = hash * 33 + *text;
    return hash;
}
static long call_system(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
static int app_main(void);
__attribute__((noreturn, force_align_arg_pointer)) void _start(void)
{
    char text[9];
    void (**f)(void);
    for (f = __init_array_start; f < __init_array_end; f++)
        (*f)();
    unsigned hash = (unsigned)app_main() + (unsigned)built;
    for (int *entry = __start_entries; entry < __stop_entries; entry++)
        hash = hash * 31 + (unsigned)*entry;
    for (int i = 0; i < 8; i++)
        text[i] = "0123456789abcdef"[hash >> (28 - 4 * i) & 15];
    text[8] = '\n';
    call_system(1, 1, (long)text, 9);
    for (;;)
        call_system(60, hash % 120, 0, 0);
}
"#;

/// Name of a unit's object.
pub(super) fn object_name(unit: usize) -> String {
    format!("u{unit}.o")
}

/// The text of a unit.
/// Functions of the program's own that a resolver chooses, when it is loaded.
const RESOLVED: &str = r#"
static int picked(int x) { return x * 5 + 1; }
static int (*pick(void))(int) { return picked; }
int r0(int) __attribute__((ifunc("pick")));
int r1(int) __attribute__((ifunc("pick")));
"#;

/// The shared libraries: name, C text, version script. The second half of everything is in one of `--as-needed`.
pub(super) fn libraries() -> Vec<(String, String, String)> {
    let halves = [("libfirst.so", 0), ("as-needed-libsecond.so", 1)];
    let half = |name: &str, which: usize| {
        let mut text = String::new();
        let range = |count: usize| which * count / 2..(which + 1) * count / 2;
        for n in range(Import::FUNCTIONS) {
            writeln!(text, "int e{n}(int x) {{ return x * {n} + 7; }}").expect("a string grows");
        }
        for n in range(Import::VARIABLES) {
            writeln!(text, "int v{n}[{}] = {{{n}, 2}};\n__thread int t{n} = {n};", n + 1)
                .expect("a string grows");
        }
        if which == 0 {
            for n in 0..2 {
                writeln!(
                    text,
                    "__asm__(\".symver old_e{n}, e{n}@E_0\");\n__asm__(\".symver new_e{n}, e{n}@@E_1\");"
                )
                .expect("a string grows");
                writeln!(text, "int old_e{n}(int x) {{ return x - {n}; }}").expect("a string grows");
            }
            for n in 0..2 {
                text = text.replace(&format!("int e{n}("), &format!("int new_e{n}("));
            }
        }
        let script = format!(
            "E_0 {{ local: old_*; new_*; }};\nE_1 {{ global: e*; v*; }} E_0;\nE_2{which} {{ global: t*; e3; e6; v3; }} E_1;\n"
        );
        (name.to_owned(), text, script)
    };
    halves.into_iter().map(|(name, which)| half(name, which)).collect()
}

pub(super) fn unit(model: &Model, number: usize) -> String {
    let mut out = String::new();
    let own = &model.units[number];
    (0..own.blank).for_each(|_| out.push('\n'));
    if number == 0 {
        out += START;
        if model.shared {
            out += RESOLVED;
        }
    } else {
        out += "extern int fuel, built;\nint hash_text(const char *);\n";
    }
    declare(model, number, &mut out);
    declare_imports(model, number, &mut out);
    for data in model.data.iter().filter(|data| data.unit == number) {
        define(data, &mut out);
    }
    for comdat in &model.comdats {
        for &(_, value) in comdat.copies.iter().filter(|(unit, _)| *unit == number) {
            let name = format!("c{}", comdat.id);
            writeln!(
                out,
                "__asm__(\".section .text.{name},\\\"axG\\\",@progbits,{name},comdat\\n.weak {name}\\n\
                 .type {name},@function\\n{name}: leal {value}(%rdi), %eax\\n\\tret\\n.size {name}, .-{name}\\n.text\\n\");\n\
                 int {name}(int);"
            )
            .expect("a string grows");
        }
    }
    for function in &model.functions {
        if function.unit == number {
            body(model, function, false, &mut out);
        } else if function.twin == Some(number) {
            body(model, function, true, &mut out);
        }
    }
    for (index, priority) in own.constructors.iter().enumerate() {
        let attribute =
            if *priority == 0 { "constructor".to_owned() } else { format!("constructor({priority})") };
        writeln!(
            out,
            "__attribute__(({attribute})) static void built_{number}_{index}(void)\n{{\n    built = built * 7 + {};\n}}",
            number * 10 + index
        )
        .expect("a string grows");
    }
    if number == 0 {
        out += "static int app_main(void)\n{\n    int x = 1;\n";
        for id in &model.roots {
            writeln!(out, "    x = x * 3 + f{id}(x);").expect("a string grows");
        }
        out += "    return x;\n}\n";
    }
    out
}

/// Declarations of what the unit may use.
fn declare(model: &Model, number: usize, out: &mut String) {
    for function in &model.functions {
        let attribute = match function.linkage {
            Linkage::Static if function.unit != number => continue,
            Linkage::Static => "static ",
            Linkage::Hidden => "__attribute__((visibility(\"hidden\"))) ",
            Linkage::Global | Linkage::Weak => "",
        };
        writeln!(out, "{attribute}int f{}(int);", function.id).expect("a string grows");
    }
    for data in model.data.iter().filter(|data| data.unit != number && !data.local) {
        let (id, thread) = (data.id, if data.storage == Storage::Thread { "__thread " } else { "" });
        let what = match data.storage {
            Storage::Table => format!("extern int (*const d{id}[])(int);"),
            Storage::Const => format!("extern const int d{id}[];"),
            _ => format!("extern {thread}int d{id}[];"),
        };
        writeln!(out, "{what}").expect("a string grows");
    }
}

/// Declarations of what the unit uses of shared libraries: weak ones if all uses can do without.
fn declare_imports(model: &Model, number: usize, out: &mut String) {
    let own = model.functions.iter().filter(|function| function.unit == number);
    let uses: Vec<Import> = own.flat_map(|function| function.imports.iter().copied()).collect();
    for n in 0..Import::FUNCTIONS {
        let strong = [Import::Call(n), Import::Pointer(n), Import::Slot(n), Import::Table(n)];
        let strong = uses.iter().any(|known| strong.contains(known));
        let weak = if uses.contains(&Import::Weak(n)) && !strong { "__attribute__((weak)) " } else { "" };
        writeln!(out, "{weak}int e{n}(int);").expect("a string grows");
        if uses.contains(&Import::Old(n)) {
            writeln!(out, "__asm__(\".symver old_e{n}, e{n}@E_0\");\nint old_e{n}(int);")
                .expect("a string grows");
        }
    }
    for n in 0..Import::VARIABLES {
        writeln!(out, "extern int v{n}[{}];\nextern __thread int t{n};", n + 1).expect("a string grows");
    }
    if number != 0 {
        *out += "int r0(int), r1(int);\n";
    }
}

/// Statements of a function's uses of shared libraries.
fn use_imports(function: &Function, text: &mut String) {
    for import in &function.imports {
        *text += &match *import {
            Import::Call(n) => format!("    x ^= e{n}(x + 1);\n"),
            Import::Weak(n) => format!("    if (e{n})\n        x += e{n}(x);\n"),
            Import::Pointer(n) => format!("    p = e{n};\n    x += (p == e{n}) + p(x);\n"),
            Import::Slot(n) => format!(
                "    __asm__ volatile(\"pushq e{n}@GOTPCREL(%%rip)\\n\\tpopq %0\" : \"=r\"(p));\n    x += p(x);\n"
            ),
            Import::Table(n) => {
                format!("    static int (*volatile table_{n})(int) = e{n};\n    x += table_{n}(x);\n")
            }
            Import::Old(n) => format!("    x += old_e{n}(x);\n"),
            Import::Data(n) => format!("    v{n}[0] += x & 7;\n    x += v{n}[0];\n"),
            Import::DataSlot(n) => format!(
                "    int *at_{n};\n    __asm__ volatile(\"movq v{n}@GOTPCREL(%%rip), %0\" : \"=r\"(at_{n}));\n    at_{n}[0] += x & 3;\n"
            ),
            Import::Thread(n) => format!("    t{n} += x & 7;\n    x += t{n};\n"),
            Import::Resolved(n) => format!("    x += r{n}(x);\n"),
        };
    }
}

fn define(data: &Data, out: &mut String) {
    let (id, length, value) = (data.id, data.length, data.value);
    let local = if data.local { "static " } else { "" };
    let align =
        if data.align == 0 { String::new() } else { format!(" __attribute__((aligned({})))", data.align) };
    let text = match data.storage {
        Storage::Data => format!("{local}int d{id}[{length}]{align} = {{{value}, 1}};"),
        Storage::Bss => format!("{local}int d{id}[{length}]{align} = {{0}};"),
        Storage::Const => format!("{local}const int d{id}[{length}]{align} = {{{value}, 2}};"),
        Storage::Thread => format!("{local}__thread int d{id}[{length}] = {{{value}}};"),
        Storage::Common => format!("__attribute__((common)) int d{id}[{length}];"),
        Storage::Table => {
            let list: Vec<_> = data.functions.iter().map(|f| format!("f{f}")).collect();
            format!(
                "{local}int (*const d{id}[])(int){align} = {{{}}};",
                if list.is_empty() { "0".into() } else { list.join(", ") }
            )
        }
        Storage::Section => {
            format!("__attribute__((section(\"entries\"), used)) static int d{id}[{length}] = {{{value}}};")
        }
    };
    // Arrays of one element would warn of excess elements.
    writeln!(out, "{}", if length == 1 { text.replace(", 1}", "}").replace(", 2}", "}") } else { text })
        .expect("a string grows");
}

/// Whether a unit may name a function.
fn sees(model: &Model, unit: usize, id: u32) -> bool {
    model.functions.iter().any(|f| f.id == id && (f.unit == unit || f.linkage != Linkage::Static))
}

fn body(model: &Model, function: &Function, twin: bool, out: &mut String) {
    let attribute = match function.linkage {
        _ if twin => "__attribute__((weak)) ",
        Linkage::Weak => "__attribute__((weak)) ",
        Linkage::Static => "static __attribute__((used, noinline)) ",
        Linkage::Hidden => "__attribute__((visibility(\"hidden\"), noinline)) ",
        Linkage::Global => "__attribute__((noinline)) ",
    };
    let id = function.id;
    let mut text = format!(
        "{attribute}int f{id}(int x)\n{{\n    int (*volatile p)(int);\n    if (--fuel < 0)\n        return x;\n"
    );
    if twin {
        text += "    x += 77;\n    return x;\n}\n";
        *out += &text;
        return;
    }
    for (index, step) in function.steps.iter().enumerate() {
        text += &match index % 3 {
            0 => format!("    x = x * 31 + {step};\n"),
            1 => format!("    x ^= {step} << (x & 3);\n"),
            _ => format!("    if (x & 1)\n        x -= {step};\n"),
        };
    }
    if function.cases > 0 {
        text += "    switch (x & 15) {\n";
        for case in 0..function.cases {
            text += &format!("    case {case}:\n        x += {};\n        break;\n", case * case * 7 + id);
        }
        text += "    }\n";
    }
    for used in &function.data {
        let Some(data) = model.data.iter().find(|data| data.id == *used) else { continue };
        let name = format!("d{used}");
        text += &match data.storage {
            Storage::Const => format!("    x += {name}[x & 1 & {}];\n", i32::from(data.length > 1)),
            // A variable of a thread: there is no thread pointer to reach it by.
            Storage::Thread => String::new(),
            Storage::Table if data.functions.is_empty() => format!("    x += {name}[0] != 0;\n"),
            Storage::Table if sees(model, function.unit, data.functions[0]) => {
                format!("    x += {name}[0](x) + ({name}[0] == f{});\n", data.functions[0])
            }
            Storage::Table => format!("    x += {name}[0](x);\n"),
            _ => format!("    {name}[0] += x & 7;\n    x += {name}[0];\n"),
        };
    }
    if let Some(literal) = &function.literal {
        text += &format!("    x += hash_text(\"{literal}\");\n");
    }
    // Outside any block: llvm-dwarfdump --verify (14 and 19) hangs on a call site in a lexical block.
    use_imports(function, &mut text);
    for callee in &function.calls {
        text += &format!("    x ^= f{callee}(x + 1);\n");
    }
    for pointee in &function.pointers {
        // Half of them by way of the GOT: no linker can do without a slot for a push.
        text += &if (pointee + id).is_multiple_of(2) {
            let push = format!("pushq f{pointee}@GOTPCREL(%%rip)\\n\\tpopq %0");
            format!("    __asm__ volatile(\"{push}\" : \"=r\"(p));\n")
        } else {
            format!("    p = f{pointee};\n")
        };
        text += &format!("    x += (p == f{pointee}) + p(x);\n");
    }
    for comdat in
        model.comdats.iter().filter(|comdat| comdat.copies.iter().any(|(unit, _)| *unit == function.unit))
    {
        if (comdat.id + id).is_multiple_of(3) {
            text += &format!("    x += c{}(x);\n", comdat.id);
        }
    }
    let first = model.functions.iter().find(|f| f.unit == function.unit).map(|f| f.id) == Some(id);
    if first {
        for label in 0..model.units[function.unit].labels {
            text += &format!("    __asm__ volatile(\"label_{id}_{label}:\");\n");
        }
    }
    text += "    return x;\n}\n";
    *out += &text;
}
