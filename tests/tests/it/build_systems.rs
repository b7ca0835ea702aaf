//! What configure, libtool, CMake and Meson ask a linker before they use it, and projects of CMake and of autotools with
//! libtool, with a shared library of their own, built, run and installed. And the address sanitizer.

use std::path::Path;
use std::process::Command;

use relink_tests::folder::Folder;
use relink_tests::ld;
use relink_tests::tools::{self, Said, Tool};

const HEADER: &str = "#pragma once
#include <stdexcept>
struct Refused : std::runtime_error { using std::runtime_error::runtime_error; };
extern thread_local int depth;
int enter(int n);
";
const LIBRARY: &str = "#include \"own.hpp\"
thread_local int depth = 3;
int enter(int n) { depth += n; if (depth > 5) throw Refused(\"too deep\"); return depth; }
";
const MAIN: &str = "#include \"own.hpp\"
#include <cstdio>
#include <thread>
int main() {
    std::thread([] { depth = 100; }).join();
    try { printf(\"%d\\n\", enter(1)); enter(9); } catch (const Refused &e) { printf(\"%s %d\\n\", e.what(), depth); }
}
";
const SAYS: &str = "4\ntoo deep 13\n";

const CMAKE_LISTS: &str = "cmake_minimum_required(VERSION 3.13)
project(probe CXX)
find_package(Threads REQUIRED)
add_library(own SHARED own.cpp)
set_target_properties(own PROPERTIES VERSION 1.2 SOVERSION 1)
add_executable(app main.cpp)
target_link_libraries(app PRIVATE own Threads::Threads)
set_target_properties(app PROPERTIES INSTALL_RPATH \"$ORIGIN/../lib\")
install(TARGETS app own RUNTIME DESTINATION bin LIBRARY DESTINATION lib)
";

#[track_caller]
fn at(dir: &Path, tool: &Tool, args: &[&str]) -> Said {
    let mut command = tool.command();
    command.current_dir(dir).env_remove("RELINK_INCREMENTAL").env_remove("MAKEFLAGS");
    tools::say(command.args(args))
}

/// A folder with the sources of both projects.
fn project() -> Folder {
    let folder = Folder::new();
    folder
        .file("own.hpp", HEADER.as_bytes())
        .file("own.cpp", LIBRARY.as_bytes())
        .file("main.cpp", MAIN.as_bytes());
    folder
}

#[track_caller]
fn says(program: &Path) -> String {
    let mut command = Command::new(program);
    tools::say(command.env_remove("LD_LIBRARY_PATH")).ok().stdout
}

#[test]
fn probes_find_a_gnu_linker() {
    let folder = Folder::new();
    // libtool: `ld -v`, `ld --help`; config.guess and Meson: --version; CMake: `cc -Wl,-v`.
    for option in ["-v", "--version", "-V"] {
        let said = folder.ld(&[option]).ok();
        let first = said.stdout.lines().next().unwrap_or_default();
        assert!(first.contains("GNU ld") && said.stderr.is_empty(), "{option}: {said}");
    }
    let help = folder.ld(&["--help"]).ok().stdout;
    assert!(
        help.contains(": supported targets: elf64-x86-64")
            && help.contains(": supported emulations: elf_x86_64")
    );
    for option in
        ["--version-script", "--as-needed", "--no-undefined", "-rpath", "--export-dynamic", "--whole-archive"]
    {
        assert!(help.contains(option), "configure looks for {option} in --help");
    }
    folder.unit("main", &["-O0"], "int main(void) { return 0; }");
    let said = folder.link(&["-Wl,--version"]);
    assert!(said.stdout.contains("GNU ld"), "{said}");
    let said = folder.link(&["main.o", "-Wl,-v", "-o", "out"]);
    assert!(said.stdout.contains("GNU ld"), "{said}");
    assert_eq!(folder.run("out"), "");
}

#[test]
fn cmake_builds_and_installs_a_project() {
    let prefix = ld::gcc_prefix().display().to_string();
    let program = ld::bin_dir().join("ld.relink").display().to_string();
    let compilers = [(tools::GXX, format!("-B{prefix}/")), (tools::CLANGXX, format!("--ld-path={program}"))];
    for (compiler, flag) in compilers {
        let folder = project();
        folder.file("CMakeLists.txt", CMAKE_LISTS.as_bytes());
        let dir = folder.path("");
        let compiler = format!("-DCMAKE_CXX_COMPILER={}", compiler.path().display());
        let linking =
            ["EXE", "SHARED"].map(|kind| format!("-DCMAKE_{kind}_LINKER_FLAGS={flag} -Wl,--incremental"));
        let args =
            ["-S", ".", "-B", "build", "-DCMAKE_BUILD_TYPE=Debug", &compiler, &linking[0], &linking[1]];
        at(&dir, &tools::CMAKE, &args).ok();
        at(&dir, &tools::CMAKE, &["--build", "build"]).ok();
        assert_eq!(says(&folder.path("build/app")), SAYS);
        for output in ["app", "libown.so.1.2"] {
            assert!(folder.path("build/.relink").join(output).exists(), "{output} is a link of ours");
        }
        let install = folder.path("inst").display().to_string();
        at(&dir, &tools::CMAKE, &["--install", "build", "--prefix", &install]).ok();
        // What was built is gone: the run path written on installation is what counts.
        std::fs::rename(folder.path("build"), folder.path("gone")).unwrap();
        assert_eq!(says(&folder.path("inst/bin/app")), SAYS);
        std::fs::rename(folder.path("gone"), folder.path("build")).unwrap();
        // An edit.
        folder.file("own.cpp", LIBRARY.replace("too deep", "too far").as_bytes());
        at(&dir, &tools::CMAKE, &["--build", "build"]).ok();
        assert_eq!(says(&folder.path("build/app")), SAYS.replace("too deep", "too far"));
    }
}

#[test]
fn autotools_and_libtool_build_and_install_a_project() {
    let folder = project();
    folder
        .file("configure.ac", b"AC_INIT([probe], [1.0])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CXX\nAM_PROG_AR\nLT_INIT\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n")
        .file("Makefile.am", b"AM_CXXFLAGS = -pthread\nAM_LDFLAGS = -pthread\nlib_LTLIBRARIES = libown.la\nlibown_la_SOURCES = own.cpp own.hpp\nlibown_la_LDFLAGS = -version-info 1:0:0 -no-undefined\nbin_PROGRAMS = app\napp_SOURCES = main.cpp\napp_LDADD = libown.la\n");
    let dir = folder.path("");
    at(&dir, &tools::AUTORECONF, &["--install", "--force"]).ok();
    let linker = ld::gcc_prefix().join("ld").display().to_string();
    let prefix = folder.path("inst").display().to_string();
    let mut configure = Command::new(folder.path("configure"));
    configure.current_dir(&dir).args([&format!("--prefix={prefix}"), "--quiet"]);
    configure.arg(format!("CXX={} -B{}/", tools::GXX.path().display(), ld::gcc_prefix().display()));
    configure.arg(format!("LD={linker}")).arg("LDFLAGS=-Wl,--incremental");
    tools::say(&mut configure).ok();
    let script = String::from_utf8(folder.bytes("libtool")).unwrap();
    assert!(
        script.contains("\nwith_gnu_ld=yes\n") || script.contains("\nwith_gnu_ld=\"yes\"\n"),
        "libtool knows GNU ld"
    );
    at(&dir, &tools::MAKE, &["-s"]).ok();
    assert_eq!(says(&folder.path("app")), SAYS);
    assert!(folder.path(".libs/.relink").exists(), "the library is a link of ours");
    at(&dir, &tools::MAKE, &["-s", "install"]).ok();
    std::fs::rename(folder.path(".libs"), folder.path("gone")).unwrap();
    assert_eq!(says(&folder.path("inst/bin/app")), SAYS);
    let needed = folder.readelf("-d", "inst/bin/app");
    assert!(needed.contains("[libown.so.1]") && needed.contains("RUNPATH"), "{needed}");
}

#[test]
fn address_sanitizer_finds_its_error() {
    let folder = Folder::new();
    let text = "#include <stdlib.h>\n#include <stdio.h>\nint main(int n, char **v) {\n  char *p = malloc(10);\n  if (n > 1) p[n + 8] = 1;\n  free(p);\n  puts(\"fine\");\n  return 0;\n}\n";
    folder.file("main.c", text.as_bytes());
    let dir = folder.path("");
    let program = format!("--ld-path={}", ld::bin_dir().join("ld.relink").display());
    let prefix = format!("-B{}/", ld::gcc_prefix().display());
    for (compiler, linker) in [(tools::GCC, &prefix), (tools::CLANG, &program)] {
        at(&dir, &compiler, &["-g", "-O0", "-fsanitize=address", "main.c", linker, "-o", "out"]).ok();
        assert_eq!(says(&folder.path("out")), "fine\n");
        let mut command = Command::new(folder.path("out"));
        let said = tools::say(command.args(["one", "two"]).env("ASAN_OPTIONS", "symbolize=0"));
        assert!(said.status != 0 && said.stderr.contains("heap-buffer-overflow"), "{said}");
    }
}
