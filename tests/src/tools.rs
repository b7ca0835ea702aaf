//! Programs of other projects. A missing one is a failure that names its Debian package.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program and where Debian has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Names to look for, the best first.
    pub names: &'static [&'static str],
    /// The package that holds the first one.
    pub package: &'static str,
}

macro_rules! tools {
    ($($(#[$doc:meta])* $id:ident = $package:literal: $($name:literal)|+;)*) => {
        $($(#[$doc])* pub const $id: Tool = Tool { names: &[$($name),+], package: $package };)*
        /// All of them, for a check before a long run.
        pub const ALL: &[Tool] = &[$($id),*];
    };
}

tools! {
    /// The C compiler.
    GCC = "gcc": "gcc";
    /// The C++ compiler.
    GXX = "g++": "g++";
    /// The other C compiler.
    CLANG = "clang-19": "clang-19" | "clang" | "clang-16" | "clang-14";
    /// The other C++ compiler.
    CLANGXX = "clang-19": "clang++-19" | "clang++" | "clang++-16" | "clang++-14";
    /// Builds projects.
    CMAKE = "cmake": "cmake";
    /// Makes configure scripts; needs automake and libtool.
    AUTORECONF = "autoconf": "autoreconf";
    /// Makes archives.
    AR = "binutils": "ar";
    /// The linker that says what is right.
    LD_BFD = "binutils": "ld.bfd" | "ld";
    /// The linker whose sizes and messages are the measure.
    LLD = "lld-19": "ld.lld-19" | "ld.lld" | "ld.lld-18" | "ld.lld-17" | "ld.lld-16" | "ld.lld-14";
    /// Addresses of symbols.
    NM = "binutils": "nm";
    /// The GNU reader.
    READELF = "binutils": "readelf";
    /// Address to line, GNU.
    ADDR2LINE = "binutils": "addr2line";
    /// The elfutils reader.
    EU_READELF = "elfutils": "eu-readelf";
    /// Address to line, elfutils.
    EU_ADDR2LINE = "elfutils": "eu-addr2line";
    /// The strictest judge of ELF files.
    EU_ELFLINT = "elfutils": "eu-elflint";
    /// The strictest judge of DWARF.
    LLVM_DWARFDUMP = "llvm": "llvm-dwarfdump" | "llvm-dwarfdump-19" | "llvm-dwarfdump-16" | "llvm-dwarfdump-14";
    /// Address to line, LLVM.
    LLVM_SYMBOLIZER = "llvm": "llvm-symbolizer" | "llvm-symbolizer-19" | "llvm-symbolizer-16" | "llvm-symbolizer-14";
    /// The debugger.
    GDB = "gdb": "gdb";
    /// Makes system calls fail.
    STRACE = "strace": "strace";
    /// Limits the size of files.
    PRLIMIT = "util-linux": "prlimit";
    /// Ends what hangs.
    TIMEOUT = "coreutils": "timeout";
    /// The archiver's friend: changes finished images.
    STRIP = "binutils": "strip";
    /// Builds by times.
    MAKE = "make": "make";
    /// Runs a program as another user.
    SETPRIV = "util-linux": "setpriv";
}

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// The command, for messages.
    pub command: String,
    /// Exit status; 128 + signal if a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Panics unless the exit status is 0.
    #[track_caller]
    pub fn ok(self) -> Said {
        assert!(self.status == 0, "{self}");
        self
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\nexit status {}", self.command, self.status)?;
        write!(f, "--- stdout\n{}--- stderr\n{}", cut(&self.stdout), cut(&self.stderr))
    }
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 4000;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}\n[… {} bytes more]\n", &text[..at], text.len() - at),
        None => text.to_owned(),
    }
}

impl Tool {
    /// Where it is.
    pub fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        self.names
            .iter()
            .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
            .find(|candidate| candidate.is_file())
    }

    /// Where it is; panics with the package's name.
    #[track_caller]
    pub fn path(&self) -> PathBuf {
        self.find()
            .unwrap_or_else(|| panic!("`{}` is missing: apt-get install {}", self.names[0], self.package))
    }

    /// A command that is ended after five minutes (a hang is a failure) and reads nothing.
    #[track_caller]
    pub fn command(&self) -> Command {
        let mut command = Command::new(TIMEOUT.path());
        command
            .args(["--kill-after=5", "300"])
            .arg(self.path())
            .stdin(Stdio::null())
            .env("LC_ALL", "C.UTF-8");
        // A debug information server would be asked over the network.
        command.env_remove("DEBUGINFOD_URLS");
        command
    }

    /// Runs it.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        say(self.command().args(args))
    }
}

/// Runs a command and keeps what it says.
#[track_caller]
pub fn say(command: &mut Command) -> Said {
    use std::os::unix::process::ExitStatusExt;
    let shown = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    let output = loop {
        match command.output() {
            // Another test's fork may hold the program open for writing for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => break other.unwrap_or_else(|error| panic!("$ {shown}\n{error}")),
        }
    };
    Said {
        command: shown,
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that was just linked, with the libraries beside it; it has a minute.
#[track_caller]
pub fn run_image(path: &Path, args: &[&str]) -> Said {
    // `timeout` hides a busy file (another test forked while it was written) behind its own exit status.
    loop {
        let said = say(Command::new(TIMEOUT.path())
            .args(["--kill-after=5", "60"])
            .arg(path)
            .args(args)
            .stdin(Stdio::null())
            .env("LD_LIBRARY_PATH", path.parent().unwrap_or(path))
            .env("LC_ALL", "C.UTF-8"));
        if said.status == 126 && said.stderr.contains("Text file busy") {
            std::thread::sleep(std::time::Duration::from_millis(5));
            continue;
        }
        return said;
    }
}
