//! Shared libraries: what they show, what may be replaced, their versions, and what is refused.

use relink_tests::scene::Scene;
use relink_tests::tools;

const CALLER: &str = r#"
#include <stdio.h>
int own(void), through(void), protected_one(void), *datum(void);
extern int number;
int main(void)
{
    printf("%d %d %d %d %d\n", own(), through(), protected_one(), number, *datum());
    return 0;
}
"#;

const LIBRARY: &str = r#"
int number = 3;
int own(void) { return 1; }
int through(void) { return own() * 10; }
__attribute__((visibility("protected"))) int protected_one(void) { return 7; }
__attribute__((visibility("hidden"))) int hidden_one(void) { return 8; }
int *datum(void) { return protected_one() + hidden_one() == 15 ? &number : 0; }
"#;

fn caller(main: &str, library: &str, link: &str) -> Scene {
    Scene::new()
        .c("lib", "-O1 -fPIC -fno-inline -fno-ipa-cp -fsemantic-interposition", library)
        .c("main", "-O1 -fPIE", main)
        .link(&format!("-shared {link} -o libown.so lib.o"))
        .link("-pie -o main main.o libown.so")
}

#[test]
fn program_preempts_what_it_defines_itself() {
    let replaced = format!("{CALLER}\nint own(void) {{ return 2; }}\nint number = 5;\n");
    for link in [
        "",
        "-Wl,-Bsymbolic",
        "-Wl,-Bsymbolic-functions",
        "-Wl,-z,now",
        "-Wl,--hash-style=sysv",
        "-Wl,--dynamic-list=list",
        "-Wl,--gc-sections",
    ] {
        let ours = caller(&replaced, LIBRARY, link).file("list", "{ number; };\n").judge();
        let symbols = ours.readelf("--dyn-syms", "libown.so");
        assert!(!symbols.contains("hidden_one") && symbols.contains("PROTECTED"), "{symbols}");
        let dynamic = ours.readelf("-d", "libown.so");
        assert_eq!(dynamic.contains("SYMBOLIC"), link == "-Wl,-Bsymbolic", "{dynamic}");
    }
    caller(CALLER, LIBRARY, "").judge();
}

#[test]
fn names_and_flags_of_the_dynamic_section() {
    for (flag, shown) in [
        ("-z,nodelete", "NODELETE"),
        ("-z,initfirst", "INITFIRST"),
        ("-z,interpose", "INTERPOSE"),
        ("-z,origin", "ORIGIN"),
        ("-z,nodlopen", "NOOPEN"),
        ("-z,now", "NOW"),
    ] {
        let ours = caller(CALLER, LIBRARY, &format!("-Wl,{flag}")).judge();
        let lines = ours.lines("-d", "libown.so", "(FLAGS_1)");
        assert!(lines.len() == 1 && lines[0].contains(shown), "{flag}: {lines:?}");
    }
    let ours = caller(CALLER, LIBRARY, "-Wl,-soname,libown.so -Wl,-rpath,/a:/b").judge();
    let dynamic = ours.readelf("-d", "libown.so");
    assert!(dynamic.contains("Library soname: [libown.so]") && dynamic.contains("[/a:/b]"), "{dynamic}");
}

#[test]
fn needed_libraries_stand_in_order_of_the_command_line() {
    let one = |name: &str| format!("int {name}(void) {{ return 1; }}\n");
    let main = "#include <stdio.h>\nint u(void), w(void);\nextern int y(void) __attribute__((weak));\n
        int main(void) { printf(\"%d %d\\n\", u() + w(), y != 0); return 0; }\n";
    let needed = |order: &str| -> Vec<String> {
        let mut scene = Scene::new().c("main", "-O1 -fPIE", main);
        for name in ["u", "v", "w", "x", "y"] {
            scene = scene.c(name, "-O1 -fPIC", &one(name)).link(&format!("-shared -o lib{name}.so {name}.o"));
        }
        let ours = scene.link(&format!("-pie -L. -o main main.o {order}")).judge();
        let lines = ours.lines("-d", "main", "NEEDED");
        let name = |line: &String| Some(line.split_once("[lib")?.1.split_once(".so")?.0.to_owned());
        lines.iter().filter_map(name).collect()
    };
    assert_eq!(needed("-Wl,--no-as-needed -lw -lu -lv -lx -ly"), ["w", "u", "v", "x", "y", "c"]);
    assert_eq!(needed("-Wl,--as-needed -lx -lu -lv -lw"), ["u", "w", "c"]);
    let state = "-Wl,--no-as-needed -lv -Wl,--push-state,--as-needed -lx -lu -Wl,--pop-state -lw -ly";
    assert_eq!(needed(state), ["v", "u", "w", "y", "c"]);
}

const ORDER: &str = r#"
#include <stdio.h>
__attribute__((constructor(101))) static void first(void) { puts("NAME first"); }
__attribute__((constructor)) static void later(void) { puts("NAME later"); }
__attribute__((destructor)) static void gone(void) { puts("NAME gone"); }
__attribute__((destructor(101))) static void last(void) { puts("NAME last"); }
void start_NAME(void) { puts("NAME start"); }
void finish_NAME(void) { puts("NAME finish"); }
int used_NAME;
"#;

#[test]
fn constructors_and_destructors_run_in_order() {
    let of = |name: &str| ORDER.replace("NAME", name);
    let main =
        format!("{}extern int used_b;\nint main(void) {{ puts(\"main\"); return used_b; }}\n", of("m"));
    for flags in ["", "-Wl,-init,start_b -Wl,-fini,finish_b", "-Wl,-z,initfirst"] {
        Scene::new()
            .c("a", "-O1 -fPIC", &of("a"))
            .c("b", "-O1 -fPIC", &format!("{}extern int used_a; int *pa = &used_a;", of("b")))
            .c("m", "-O1 -fPIE", &main)
            .link("-shared -o liba.so a.o")
            .link(&format!("-shared {flags} -o libb.so b.o -L. -la"))
            .link("-pie -o main m.o -L. -lb -Wl,-rpath-link,.")
            .judge();
    }
}

const CXX_HEADER: &str = r#"
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
struct Base { virtual ~Base(); virtual int value() const; };
struct Derived : Base { int value() const override; };
struct Odd : std::runtime_error { using std::runtime_error::runtime_error; ~Odd() override; };
template <class T> struct Counter { static inline int count = 0; static thread_local int mine; int step(); };
template <class T> thread_local int Counter<T>::mine = 100;
template <class T> int Counter<T>::step() { return ++count + ++mine; }
inline int &shared_static() { static int x = 5; return x; }
Base *make(); void fail(int how); int counted(); int &static_of_library(); void call(void (*f)());
extern thread_local std::string text;
"#;
const CXX_LIBRARY: &str = r#"
Base::~Base() {}
int Base::value() const { return 1; }
int Derived::value() const { return 2; }
Odd::~Odd() {}
Base *make() { return new Derived; }
void fail(int how) { if (how == 0) throw Odd("odd"); if (how == 1) throw 42; throw std::string("text"); }
int counted() { return Counter<int>().step(); }
int &static_of_library() { return shared_static(); }
void call(void (*f)()) { struct Guard { ~Guard() { puts("guard"); } } guard; f(); }
thread_local std::string text = "thread local";
"#;
const CXX_MAIN: &str = r#"
static void thrower() { throw Odd("through"); }
int main()
{
    std::unique_ptr<Base> base(make());
    printf("%d %d %d\n", base->value(), dynamic_cast<Derived *>(base.get()) != nullptr, typeid(*base) == typeid(Derived));
    for (int how = 0; how < 3; how++)
        try { fail(how); } catch (const Odd &e) { puts(e.what()); } catch (int n) { printf("%d\n", n); } catch (const std::string &s) { puts(s.c_str()); }
    try { call(thrower); } catch (std::exception &e) { puts(e.what()); }
    printf("%d %d %d\n", counted(), Counter<int>().step(), &shared_static() == &static_of_library());
    text += "!";
    puts(text.c_str());
}
"#;

#[test]
fn cxx_across_a_library() {
    for (compile, link) in [
        ("-fPIE", "-pie"),
        ("-fno-pie", "-no-pie"),
        ("-fPIE -g -O0", "-pie -Wl,--gc-sections"),
        ("-fPIE -fno-plt", "-pie -Wl,-z,now"),
    ] {
        let ours = Scene::new()
            .cxx("lib", "-std=c++17 -O1 -fPIC", &format!("{CXX_HEADER}{CXX_LIBRARY}"))
            .cxx("main", &format!("-std=c++17 -O1 {compile}"), &format!("{CXX_HEADER}{CXX_MAIN}"))
            .linkxx("-shared -o libown.so lib.o")
            .linkxx(&format!("{link} -o main main.o libown.so"))
            .judge();
        assert!(!ours.lines("--dyn-syms", "libown.so", "UNIQUE").is_empty());
    }
}

#[test]
fn exceptions_reach_a_program_compiled_by_clang() {
    let clang = tools::CLANGXX.path();
    let dir = relink_tests::scratch();
    let write =
        |name: &str, text: &str| relink_tests::write(dir.path().join(name), format!("{CXX_HEADER}{text}"));
    write("lib.cpp", CXX_LIBRARY);
    write("main.cpp", CXX_MAIN);
    let linker = format!("--ld-path={}/ld.relink", relink_tests::ld::bin_dir().display());
    for (pie, library) in [("-fPIE -pie", ""), ("-fno-pie -no-pie", "-Wl,-Bsymbolic-functions")] {
        let run = |args: &str| {
            let mut command = std::process::Command::new(&clang);
            command.current_dir(dir.path()).args(["-std=c++17", "-O0", "-g", &linker]);
            tools::say(command.args(args.split_whitespace())).ok();
        };
        run(&format!("-fPIC -shared {library} lib.cpp -o libown.so"));
        run(&format!("{pie} main.cpp -o main -L. -lown -Wl,-rpath,{}", dir.path().display()));
        let said = tools::run_image(&dir.path().join("main"), &[]).ok();
        assert_eq!(said.stdout, "2 1 1\nodd\n42\ntext\nguard\nthrough\n102 104 1\nthread local!\n");
        // lld's images beside ours: it is what clang's users link with.
        let images = ["main", "libown.so"]
            .map(|image| (dir.path().join(image), dir.path().join(format!("ours-{image}"))));
        for (image, ours) in &images {
            std::fs::rename(image, ours).unwrap();
        }
        let lld = format!("--ld-path={}", tools::LLD.path().display());
        let run = |args: &str| {
            let mut command = std::process::Command::new(&clang);
            command.current_dir(dir.path()).args(["-std=c++17", "-O0", "-g", &lld]);
            tools::say(command.args(args.split_whitespace())).ok();
        };
        run(&format!("-fPIC -shared {library} lib.cpp -o libown.so"));
        run(&format!("{pie} main.cpp -o main -L. -lown -Wl,-rpath,{}", dir.path().display()));
        for (image, ours) in &images {
            let measure = relink_tests::readers::kept_complaints(image);
            relink_tests::readers::assert_no_worse(ours, &measure);
        }
    }
}

const SCRIPT: &str = r#"
V1 { global: old_name; both; data_v1; extern "C++" { "space::f(int)"; space::Thing::*; }; local: *; };
V2 { global: both; new_*; } V1;
"#;
const VERSIONED: &str = r#"
int data_v1 = 11;
extern "C" int old_name() { return 1; }
extern "C" int both_old() { return 100; }
extern "C" int both_new() { return 200; }
__asm__(".symver both_old,both@V1");
__asm__(".symver both_new,both@@V2");
extern "C" int new_one() { return 3; }
extern "C" int private_one() { return 4; }
namespace space {
int f(int x) { return x + private_one(); }
int g(int x) { return x; }
struct Thing { int m(); };
int Thing::m() { return 9; }
}
"#;

#[test]
fn version_scripts_with_two_nodes_and_users_of_the_old_one() {
    let user = "#include <stdio.h>\nint both(void), old_name(void); extern int data_v1;\n
        int main(void) { printf(\"%d %d %d\\n\", both(), old_name(), data_v1); return 0; }\n";
    let old_library = "int both(void) { return 100; } int old_name(void) { return 1; } int data_v1 = 11;\n";
    for script in ["-Wl,--version-script=new.map", "-Wl,--version-script,new.map -Wl,--hash-style=sysv"] {
        let ours = Scene::new()
            .cxx("lib", "-O1 -fPIC -fno-toplevel-reorder", VERSIONED)
            .c("old", "-O1 -fPIC", old_library)
            .c("user", "-O1 -fPIE", user)
            .file("new.map", SCRIPT)
            .file("old.map", "V1 { global: *; };\n")
            .link("-shared -Wl,-soname,libv.so -Wl,--version-script=old.map -o libv.so old.o")
            .link("-pie -o before user.o libv.so")
            .link(&format!("-shared -Wl,-soname,libv.so {script} -o libv.so lib.o"))
            .link("-pie -o after user.o libv.so")
            .run("before")
            .run("after")
            .judge();
        let symbols = ours.readelf("--dyn-syms", "libv.so");
        for name in [
            "both@V1",
            "both@@V2",
            "old_name@@V1",
            "new_one@@V2",
            "_ZN5space1fEi@@V1",
            "_ZN5space5Thing1mEv@@V1",
        ] {
            assert!(symbols.contains(name), "{name}\n{symbols}");
        }
        assert!(!symbols.contains("private_one") && !symbols.contains("_ZN5space1gEi"), "{symbols}");
        assert_eq!(ours.run("before").stdout, "100 1 11\n");
        assert_eq!(ours.run("after").stdout, "200 1 11\n");
        let definitions = ours.readelf("-V", "libv.so");
        assert!(definitions.contains("Parent 1: V1"), "{definitions}");
    }
}

#[test]
fn weak_and_versioned_references() {
    let main = r#"
        #include <stdio.h>
        extern int maybe(void) __attribute__((weak));
        int old(void);
        __asm__(".symver old,both@V1");
        int both(void);
        int main(void) { printf("%d %d %d\n", maybe ? maybe() : -1, old(), both()); return 0; }
    "#;
    let library = r#"
        int both_old(void) { return 1; }
        int both_new(void) { return 2; }
        __asm__(".symver both_old,both@V1");
        __asm__(".symver both_new,both@@V2");
        int maybe(void) { return 3; }
    "#;
    Scene::new()
        .c("lib", "-O1 -fPIC -fno-toplevel-reorder", library)
        .c("main", "-O1 -fPIE", main)
        .file("map", "V1 { global: maybe; };\nV2 { global: both; } V1;\n")
        .link("-shared -Wl,--version-script=map -o libown.so lib.o")
        .link("-pie -o main main.o libown.so")
        .judge();
}

#[test]
fn excluded_archives_and_dynamic_roots() {
    let archive = |name: &str, text: &str| {
        let object = relink_tests::cc::Cc::new(["-O1", "-fPIC", "-ffunction-sections"]).text(name, text);
        relink_tests::cc::archive(&[("member.o", object)])
    };
    let main =
        "#include <stdio.h>\nint shown(void);\nint main(void) { printf(\"%d\\n\", shown()); return 0; }\n";
    for (flags, hidden, kept) in [
        ("-Wl,--exclude-libs,libhidden.a", true, true),
        ("-Wl,--exclude-libs,ALL", true, true),
        ("-Wl,--exclude-libs,libother.a -Wl,--gc-sections", false, true),
        ("-Wl,--exclude-libs=ALL -Wl,--gc-sections", true, false),
    ] {
        let ours = Scene::new()
            .file(
                "libhidden.a",
                archive("h.c", "int helper(void) { return 4; } int unused(void) { return 5; }\n"),
            )
            .c(
                "lib",
                "-O1 -fPIC -ffunction-sections",
                "int helper(void); int shown(void) { return helper(); }\n",
            )
            .c("main", "-O1 -fPIE", main)
            .link(&format!("-shared {flags} -o libown.so lib.o libhidden.a"))
            .link("-pie -o main main.o libown.so")
            .judge();
        assert_eq!(ours.lines("--dyn-syms", "libown.so", " helper").is_empty(), hidden, "{flags}");
        assert_eq!(!ours.lines("-s", "libown.so", " unused").is_empty(), kept, "{flags}");
    }
}

#[test]
fn common_symbol_meets_a_shared_definition() {
    let main = r#"
        #include <stdio.h>
        int both_know; int only_here;
        int *library_sees(void);
        int main(void) { printf("%d %d %d\n", both_know, only_here, library_sees() == &both_know); return 0; }
    "#;
    for (compile, link) in [("-fPIE", "-pie"), ("-fno-pie", "-no-pie")] {
        Scene::new()
            .c("lib", "-O1 -fPIC", "int both_know = 6; int *library_sees(void) { return &both_know; }\n")
            .c("main", &format!("-O1 -fcommon {compile}"), main)
            .link("-shared -o libown.so lib.o")
            .link(&format!("{link} -o main main.o libown.so"))
            .says("0 0 1\n") // As lld has it; GNU ld takes the library's.
            .judge();
    }
}

#[test]
fn what_is_undefined_is_an_error_that_helps() {
    let said = Scene::new()
        .c(
            "main",
            "-O0 -g -fPIE",
            "int computed(int); int computer(int x) { return x; } int main(void) { return computed(1); }\n",
        )
        .link("-pie -o main main.o")
        .refused();
    for text in ["undefined symbol: computed", "main.c:1", "main.o:(main)", "did you mean: computer"] {
        assert!(said.contains(text), "{text}\n{said}");
    }
    let library =
        Scene::new().c("lib", "-O1 -fPIC", "int missing(void); int f(void) { return missing(); }\n");
    for flags in ["-Wl,-z,defs", "-Wl,--no-undefined", "-Wl,--unresolved-symbols=report-all"] {
        let said = library.clone().link(&format!("-shared {flags} -o libown.so lib.o")).refused();
        assert!(said.contains("undefined symbol: missing") && said.contains("lib.o:(f)"), "{said}");
    }
    library.clone().link("-shared -o libown.so lib.o").built(Some(relink_tests::ld::gcc_prefix()));
    // A library of the program lacks something.
    let said = library
        .c("main", "-O1 -fPIE", "int f(void); int main(void) { return f(); }\n")
        .link("-shared -o libown.so lib.o")
        .link("-pie -o main main.o libown.so")
        .refused();
    assert!(said.contains("missing") && said.contains("libown.so"), "{said}");
}

#[test]
fn code_that_is_tied_to_its_address_is_refused() {
    let refuse = |compile: &str, text: &str, link: &str, wanted: &[&str]| {
        let said = Scene::new().c("tied", compile, text).link(&format!("{link} -o out tied.o")).refused();
        for text in wanted {
            assert!(said.contains(text), "{text}\n{said}");
        }
    };
    let extern_datum = "extern int datum; int f(void) { return datum; }\n";
    refuse("-O1 -fno-pic", extern_datum, "-shared", &["R_X86_64_PC32", "datum", "tied.o", "-fPIC"]);
    let own_datum = "int datum = 4; int f(void) { return datum; }\n";
    refuse("-O1 -fno-pic", own_datum, "-shared", &["R_X86_64_PC32", "datum", "tied.o", "-fPIC"]);
    let address =
        "static int datum[9]; int *f(int x) { return &datum[x]; } void g(int x) { datum[x] = x; }\n";
    refuse("-O1 -fno-pic", address, "-shared", &["R_X86_64_32", ".bss", "tied.o", "-fPIC"]);
    let table = "extern int f(void);\n__asm__(\".section .text.odd,\\\"ax\\\"\\n.quad f\\n.previous\");\n";
    refuse("-O1 -fPIC", table, "-shared", &["R_X86_64_64", "f", "tied.o", "-fPIC"]);
    let tls = "__thread int mine; int f(void) { return mine; }\n";
    refuse("-O1 -fno-pic", tls, "-shared", &["R_X86_64_TPOFF32", "mine", "tied.o", "-fPIC"]);
    let main = "static int datum[9]; int main(int c, char **v) { return datum[c] + (int)(long)&datum[c]; }\n";
    refuse("-O1 -fno-pie -mcmodel=small", main, "-pie", &["R_X86_64_32", "tied.o", "-fPIE"]);
}

#[test]
fn text_relocations_on_request() {
    let library = "extern int number; int number = 5;\nextern int *const here __attribute__((visibility(\"hidden\")));\n__asm__(\".section .rodata.odd,\\\"a\\\"\\n.globl here\\nhere: .quad number\\n.previous\");\nint get(void) { return *here; }\n";
    let main = "#include <stdio.h>\nint get(void);\nint main(void) { printf(\"%d\\n\", get()); return 0; }\n";
    let ours = Scene::new()
        .c("lib", "-O1 -fPIC", library)
        .c("main", "-O1 -fPIE", main)
        .link("-shared -Wl,-z,notext -o libown.so lib.o")
        .link("-pie -o main main.o libown.so")
        .judge();
    assert!(!ours.lines("-d", "libown.so", "TEXTREL").is_empty());
}
