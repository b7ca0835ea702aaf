//! `--reproduce`: a tar file with everything that a link reads, and a command line for it. As lld's: unpacked anywhere,
//! `ld.relink @response.txt` in its folder makes the same link.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use relink::host::{self, FileKind, HostError, Io};

use super::help;
use super::parse::{Found, Kind, words};

/// Writes the tar file.
pub(super) fn write(
    io: &dyn Io,
    path: &Path,
    args: &[OsString],
    files: Vec<PathBuf>,
) -> Result<(), HostError> {
    let top = PathBuf::from(path.file_stem().unwrap_or(OsStr::new("reproduce")));
    let response = response(args);
    host::write_file_with(io, path, |writer| {
        let mut archive = tar::Builder::new(writer);
        append(&mut archive, &top.join("response.txt"), &response)?;
        append(&mut archive, &top.join("version.txt"), format!("{}\n", help::VERSION).as_bytes())?;
        let files: BTreeSet<(PathBuf, PathBuf)> =
            files.into_iter().map(|file| (top.join(below_root(&file)), file)).collect();
        for (name, file) in files {
            // What a pipe gave is gone.
            if io.stat(&file).is_ok_and(|stat| stat.kind == FileKind::Regular) {
                let bytes = host::read_file(io, &file).map_err(io::Error::other)?;
                append(&mut archive, &name, &bytes)?;
            }
        }
        archive.finish()
    })
}

fn append(archive: &mut tar::Builder<&mut dyn Write>, name: &Path, bytes: &[u8]) -> io::Result<()> {
    // No owner and no time: the same link gives the same file.
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes)
}

/// Where a file lies in the archive: its absolute path without the root, `.` and `..`.
fn below_root(path: &Path) -> PathBuf {
    let mut below = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => drop(below.pop()),
            _ => {}
        }
    }
    below
}

/// The command line for the archive's folder.
fn response(args: &[OsString]) -> Vec<u8> {
    // Linker scripts name absolute files: they are to be found below the folder.
    let mut text = Vec::new();
    let mut sysroot = OsString::from(".");
    for word in words(args) {
        let line = match &word.kind {
            Kind::File(path) => vec![moved(path)],
            Kind::Option(Found { spec, value: Some(value), .. }) => {
                let name = spec.names[0];
                let new_value = match name {
                    "--sysroot" if value.is_empty() => continue,
                    "--sysroot" => {
                        sysroot = moved(value);
                        continue;
                    }
                    "--reproduce" | "--fallback-linker" | "-plugin" | "-plugin-opt" => continue,
                    "-L" if !value.as_bytes().starts_with(b"=")
                        && !value.as_bytes().starts_with(b"$SYSROOT") =>
                    {
                        moved(value)
                    }
                    "--version-script" | "--dynamic-list" | "--export-dynamic-symbol-list" => moved(value),
                    // Folders for what is written are not in the archive.
                    "-o" | "-Map" | "--report" | "--dependency-file" => {
                        Path::new(value).file_name().unwrap_or(value).to_owned()
                    }
                    _ => {
                        text.extend(line_of(word.args.iter().map(OsString::as_os_str)));
                        continue;
                    }
                };
                vec![OsString::from(name), new_value]
            }
            _ => word.args.to_vec(),
        };
        text.extend(line_of(line.iter().map(OsString::as_os_str)));
    }
    let mut all = line_of([OsStr::new("--sysroot"), &sysroot]);
    all.extend(text);
    all
}

/// A path as it is from the archive's folder.
fn moved(path: &OsStr) -> OsString {
    Path::new(".").join(below_root(Path::new(path))).into_os_string()
}

/// Words in a line, quoted for response files.
fn line_of<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Vec<u8> {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        let special = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'\\');
        if !word.is_empty() && !word.as_bytes().iter().any(special) {
            line.extend(word.as_bytes());
            continue;
        }
        line.push(b'"');
        for &byte in word.as_bytes() {
            if matches!(byte, b'"' | b'\\') {
                line.push(b'\\');
            }
            line.push(byte);
        }
        line.push(b'"');
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use relink::host::SystemIo;

    use super::*;

    fn text_of(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        String::from_utf8(response(&args)).unwrap()
    }

    #[test]
    fn command_line_is_that_of_the_folder() {
        let text = text_of(&[
            "-plugin",
            "/p.so",
            "-L/usr/lib",
            "-L=/lib",
            "--version-script=/a/../v",
            "-o",
            "/out/x",
            "-soname",
            "a \"b\"",
            "/a/./b.o",
            "-lc",
            "--gc-sections",
            "--reproduce=r.tar",
            "-m",
            "elf_x86_64",
        ]);
        assert_eq!(
            text,
            "--sysroot .\n-L ./usr/lib\n-L=/lib\n--version-script ./v\n-o x\n-soname \"a \\\"b\\\"\"\n./a/b.o\n-lc\n\
             --gc-sections\n-m elf_x86_64\n"
        );
        assert_eq!(text_of(&["--sysroot=/s/r", "/a.o"]), "--sysroot ./s/r\n./a.o\n");
        let here = std::env::current_dir().unwrap();
        assert_eq!(text_of(&["a.o"]), format!("--sysroot .\n.{}/a.o\n", here.display()));
    }

    #[test]
    fn archive_holds_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, object) = (dir.path().join("r.tar"), dir.path().join("a.o"));
        std::fs::write(&object, b"an object").unwrap();
        let files = vec![object.clone(), dir.path().join("x/../a.o"), "/dev/null".into()];
        write(&SystemIo, &tar, &["-r".into()], files).unwrap();
        let bytes = host::read_file(&SystemIo, &tar).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().into_owned(), text));
        }
        let name = Path::new("r").join(object.strip_prefix("/").unwrap());
        assert_eq!(
            found,
            [
                ("r/response.txt".into(), "--sysroot .\n-r\n".to_owned()),
                ("r/version.txt".into(), format!("{}\n", help::VERSION)),
                (name, "an object".to_owned()),
            ]
        );
    }
}
