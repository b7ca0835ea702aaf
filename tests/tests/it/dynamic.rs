//! Programs that a loader finishes: PIE and not, every form of call, copy and check, beside what the system's linker makes
//! of the same objects.

use relink_tests::scene::Scene;

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern char **environ, **__environ;
extern int counter;
extern const int table[4];
int bump(int);
int (*callback(void))(int);
extern int lib_only_weak(void) __attribute__((weak));
extern int nobody(void) __attribute__((weak));
extern int nothing __attribute__((weak));
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static int (*volatile pointers[])(int) = {bump, abs};
int *const counted = &counter;
int main(int argc, char **argv)
{
    int sorted[] = {3, 1, 2};
    qsort(sorted, 3, sizeof *sorted, compare);
    printf("%d%d%d %d\n", sorted[0], sorted[1], sorted[2], argc);
    bump(4);
    counter += 1;
    printf("%d %d %d\n", counter, *counted, bump(1));
    printf("same function %d, same data %d\n", callback() == bump, pointers[0] == callback());
    printf("environ %d\n", &environ == &__environ && environ == __environ && getenv("LC_ALL") != 0);
    printf("weak %d %d %d\n", lib_only_weak ? lib_only_weak() : -1, nobody ? nobody() : -1, &nothing == 0);
    printf("%d %d %s\n", table[0] + table[3], pointers[1](-7), strrchr("a/b/c", '/'));
    fputs("to stdout\n", stdout);
    fflush(stdout);
    return counter;
}
"#;

const LIBRARY: &str = r#"
int counter = 10;
const int table[4] = {1, 2, 3, 4};
int bump(int by) { return counter += by; }
int (*callback(void))(int) { return bump; }
int lib_only_weak(void) { return 99; }
"#;

/// A program with its library, in one way to compile and to link.
fn program(compile: &str, link: &str, library: &str) -> Scene {
    Scene::new()
        .c("lib", &format!("-O1 -fPIC {library}"), LIBRARY)
        .c("main", &format!("-O1 {compile}"), PROGRAM)
        .link(&format!("-shared {library} -o libown.so lib.o"))
        .link(&format!("{link} -o main main.o libown.so"))
}

#[test]
fn position_independent_programs() {
    for (compile, link) in [
        ("-fPIE", "-pie"),
        ("-fPIE", "-pie -Wl,-z,now"),
        ("-fPIC", "-pie -Wl,-z,lazy"),
        ("-fPIE", "-pie -Wl,-z,norelro"),
        ("-fPIE -g", "-pie -Wl,-z,relro,-z,now,--hash-style=both"),
        ("-fPIE", "-pie -Wl,--hash-style=sysv -Wl,-z,lazy"),
        ("-fPIE -fno-plt", "-pie -Wl,--hash-style=gnu"),
        ("-fPIE -mno-direct-extern-access", "-pie"),
        ("-fPIE", "-pie -Wl,-z,noseparate-code"),
        ("-fPIE", "-pie -Wl,--gc-sections -s"),
    ] {
        program(compile, link, "").judge();
    }
}

#[test]
fn position_dependent_programs() {
    for (compile, link) in [
        ("-fno-pie", "-no-pie"),
        ("-fno-pie", "-no-pie -Wl,-z,now"),
        ("-fno-pie", "-no-pie -Wl,-z,lazy,--hash-style=both"),
        ("-fno-pie", "-no-pie -Wl,-z,norelro"),
        ("-fno-pie -g", "-no-pie -Wl,--hash-style=sysv"),
        ("-fPIE", "-no-pie"),
        ("-fno-pie -fno-plt", "-no-pie"),
        ("-fno-pie -mcmodel=large", "-no-pie"),
    ] {
        program(compile, link, "").judge();
    }
}

#[test]
fn indirect_branch_tracking() {
    for link in ["-pie", "-no-pie", "-pie -Wl,-z,now", "-pie -Wl,-z,lazy"] {
        let pie = if link.contains("-no-pie") { "-fno-pie" } else { "-fPIE" };
        program(&format!("{pie} -fcf-protection=full"), link, "-fcf-protection=full").judge();
    }
    let ours = program("-fPIE -fcf-protection=none", "-pie -Wl,-z,ibt", "").judge();
    assert_eq!(ours.lines("-S", "main", " .plt.sec ").len(), 1, "{}", ours.readelf("-S", "main"));
}

#[test]
fn copied_data_has_one_address_under_all_its_names() {
    let library = r#"
        int first[4] = {1, 2, 3, 4};
        extern int second[4] __attribute__((alias("first")));
        extern int third[4] __attribute__((weak, alias("first")));
        int *of_library(int which) { return which == 0 ? first : which == 1 ? second : third; }
        const char text[] = "read only";
        long long wide __attribute__((aligned(64))) = 5;
    "#;
    let main = r#"
        #include <stdio.h>
        extern int first[4], third[4];
        extern const char text[];
        extern long long wide;
        int *of_library(int);
        int main(void)
        {
            third[1] = 20;
            printf("%d %d %d\n", first == third, of_library(0) == first, of_library(1) == first);
            printf("%d %d %s %d\n", of_library(2)[1], first[1], text, (int)((unsigned long)&wide % 64));
            return 0;
        }
    "#;
    for (compile, link) in
        [("-fno-pie", "-no-pie"), ("-fPIE", "-pie"), ("-fno-pie", "-no-pie -Wl,-z,norelro")]
    {
        let ours = Scene::new()
            .c("lib", "-O1 -fPIC", library)
            .c("main", &format!("-O1 {compile}"), main)
            .link("-shared -o libown.so lib.o")
            .link(&format!("{link} -o main main.o libown.so"))
            .says("1 1 1\n20 20 read only 0\n") // GNU ld copies `first` twice.
            .judge();
        assert_eq!(ours.lines("-r", "main", "R_X86_64_COPY").len(), 3, "{}", ours.readelf("-r", "main"));
    }
}

const PLUGIN_HOST: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int shown = 7;
int visible(int x) { return x + shown; }
__attribute__((visibility("hidden"))) int hidden(void) { return 1; }
__attribute__((used)) int listed_too(void) { return 2; }
int main(int argc, char **argv)
{
    void *self = dlopen(0, RTLD_NOW);
    int (*f)(int) = (int (*)(int))dlsym(self, "visible");
    int *d = dlsym(self, "shown");
    printf("%d %d %d %d\n", f ? f(1) : -1, d ? *d : -1, dlsym(self, "hidden") != 0, dlsym(self, "listed_too") != 0);
    void *plugin = dlopen("./plugin.so", RTLD_NOW);
    int (*g)(void) = plugin ? (int (*)(void))dlsym(plugin, "plugged") : 0;
    printf("%d %d\n", plugin != 0, g ? g() : -1);
    Dl_info info;
    printf("%s\n", f && dladdr((void *)f, &info) && info.dli_sname ? info.dli_sname : "none");
    return 0;
}
"#;

#[test]
fn exported_names_are_found_at_run_time() {
    let plugin = "int visible(int); int plugged(void) { return visible(100); }\n";
    for (link, how) in [
        ("-rdynamic", ""),
        ("-rdynamic -Wl,--gc-sections", ""),
        ("-Wl,--export-dynamic-symbol=visible -Wl,--export-dynamic-symbol=sh*", ""),
        ("-Wl,--dynamic-list=list", "{ visible; shown; };"),
        ("-Wl,-E -Wl,--version-script=list", "{ global: visible; shown; local: *; };"),
        ("-Wl,-E", "-no-pie"),
        ("", ""),
    ] {
        let pie = if how == "-no-pie" { "-no-pie" } else { "-pie" };
        Scene::new()
            .c("main", "-O1 -fPIE -ffunction-sections -fdata-sections", PLUGIN_HOST)
            .c("plugin", "-O1 -fPIC", plugin)
            .file("list", how)
            .link("-shared -o plugin.so plugin.o")
            .link(&format!("{pie} {link} -o main main.o"))
            .judge();
    }
}

#[test]
fn interpreter_and_search_paths() {
    let main = "#include <stdio.h>\nint own(void);\nint main(void) { printf(\"%d\\n\", own()); return 0; }\n";
    let scene = |flags: &str| {
        Scene::new()
            .c("main", "-O1 -fPIE", main)
            .c("lib", "-O1 -fPIC", "int own(void) { return 5; }\n")
            .link("-shared -Wl,-soname,libown.so.1 -o libown.so.1 lib.o")
            .link(&format!("-pie {flags} -o main main.o libown.so.1"))
            .run("LD_LIBRARY_PATH=/nowhere main")
    };
    let ours = scene("-Wl,-rpath,$ORIGIN -Wl,-z,origin").judge();
    let dynamic = ours.readelf("-d", "main");
    assert!(dynamic.contains("(RUNPATH)            Library runpath: [$ORIGIN]"), "{dynamic}");
    assert!(dynamic.contains("ORIGIN") && dynamic.contains("Shared library: [libown.so.1]"), "{dynamic}");
    let ours = scene("-Wl,-rpath,/nowhere:$ORIGIN -Wl,-rpath,/other -Wl,--disable-new-dtags").judge();
    let dynamic = ours.readelf("-d", "main");
    assert!(dynamic.contains("(RPATH)              Library rpath: [/nowhere:$ORIGIN:/other]"), "{dynamic}");
}

#[test]
fn indirect_functions_in_programs() {
    let main = r#"
        #include <stdio.h>
        static int one(int x) { return x + 1; }
        static int two(int x) { return x + 2; }
        static int (*pick(void))(int) { return one; }
        static int (*pick_two(void))(int) { return two; }
        int chosen(int) __attribute__((ifunc("pick")));
        static int inner(int) __attribute__((ifunc("pick_two")));
        int (*table[])(int) = {chosen, inner};
        int (*const fixed)(int) = chosen;
        #ifdef LIBRARY
        int from_library(int), (*address_in_library(void))(int), (*address_of_chosen(void))(int);
        #endif
        int main(void)
        {
            int (*volatile p)(int) = chosen;
            printf("%d %d %d %d\n", chosen(1), inner(1), table[0](1), table[1](1));
            printf("%d %d\n", p == table[0], p == fixed);
        #ifdef LIBRARY
            int (*volatile q)(int) = from_library;
            printf("%d %d %d\n", from_library(1), q == address_in_library(), q(4));
            printf("%d %d\n", address_of_chosen() == p, address_of_chosen()(1));
        #endif
            return 0;
        }
    "#;
    let library = r#"
        static int ten(int x) { return x + 10; }
        static int (*pick(void))(int) { return ten; }
        int from_library(int) __attribute__((ifunc("pick")));
        int (*address_in_library(void))(int) { return from_library; }
        extern int chosen(int);
        int (*address_of_chosen(void))(int) { return chosen; }
    "#;
    for (compile, link) in [
        ("-fPIE", "-pie"),
        ("-fPIC", "-pie -Wl,-z,now"),
        ("-fno-pie", "-no-pie"),
        ("-fPIE -fno-plt", "-pie"),
        ("-fPIE -fcf-protection=full", "-pie"),
    ] {
        Scene::new()
            .c("main", &format!("-O1 {compile}"), main)
            .link(&format!("{link} -o main main.o"))
            .says("2 3 2 3\n1 1\n") // GNU ld gives `chosen` two addresses in a PIE.
            .judge();
        Scene::new()
            .c("main", &format!("-O1 -DLIBRARY {compile}"), main)
            .c("lib", "-O1 -fPIC", library)
            .link("-shared -o libown.so lib.o")
            .link(&format!("{link} -o main main.o libown.so"))
            .says("2 3 2 3\n1 1\n11 1 14\n1 2\n")
            .judge();
    }
}

#[test]
fn weak_references_to_what_is_nowhere() {
    let main = r#"
        #include <stdio.h>
        extern int f(void) __attribute__((weak));
        extern int d __attribute__((weak));
        int (*pf)(void) = f;
        int *pd = &d;
        int main(void) { printf("%d %d %d %d\n", f != 0, &d != 0, pf != 0, pd != 0); return f ? f() : 0; }
    "#;
    for (compile, link) in [("-fPIE", "-pie"), ("-fno-pie", "-no-pie"), ("-fPIC", "-pie -Wl,-z,now")] {
        let scene = Scene::new().c("main", &format!("-O1 {compile}"), main);
        scene.link(&format!("{link} -o main main.o")).judge();
    }
}

#[test]
fn thread_local_data_of_programs_and_libraries() {
    let library = r#"
        __thread int shared_tls = 5;
        static __thread int own_tls[3] = {1, 2, 3};
        __thread int zero_tls;
        int *address(void) { return &shared_tls; }
        int sum(void) { return own_tls[0]++ + own_tls[2] + zero_tls + shared_tls; }
        __attribute__((visibility("hidden"))) __thread int hidden_tls = 9;
        int hidden(void) { return hidden_tls++; }
    "#;
    let main = r#"
        #include <pthread.h>
        #include <stdio.h>
        extern __thread int shared_tls, zero_tls;
        __thread long mine = 40;
        static __thread char buffer[100] = "abc";
        int *address(void), sum(void), hidden(void);
        static void *run(void *arg)
        {
            shared_tls += 1; zero_tls += 2; mine += 3; buffer[0]++;
            printf("%d %d %d %d %d %ld %s\n", address() == &shared_tls, shared_tls, zero_tls, sum(), hidden(), mine, buffer);
            return 0;
        }
        int main(void)
        {
            pthread_t thread;
            run(0);
            pthread_create(&thread, 0, run, 0);
            pthread_join(thread, 0);
            run(0);
            return 0;
        }
    "#;
    for model in
        ["", "-ftls-model=initial-exec", "-mtls-dialect=gnu2", "-ftls-model=local-dynamic", "-fno-plt"]
    {
        for (compile, link) in [
            ("-fPIE", "-pie"),
            ("-fno-pie", "-no-pie"),
            ("-fPIC -mtls-dialect=gnu2", "-pie"),
            ("-fPIC -fno-plt", "-pie"),
        ] {
            Scene::new()
                .c("lib", &format!("-O1 -fPIC {model}"), library)
                .c("main", &format!("-O1 -pthread {compile}"), main)
                .link("-shared -o libown.so lib.o")
                .link(&format!("{link} -pthread -o main main.o libown.so"))
                .judge();
        }
    }
}
