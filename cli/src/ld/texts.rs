//! Options whose value is a file with text: it becomes part of the options, so that an edit of the file is another link.

use std::path::{Path, PathBuf};

use relink::host::{self, FileKind, Io};

use super::command::{LdCommand, TextUse};

/// Reads the files that options name; the errors join those of the command line. The files.
pub(super) fn read(io: &dyn Io, command: &mut LdCommand) -> Vec<PathBuf> {
    for path in std::mem::take(&mut command.rpaths_or_files) {
        if io.stat(&path).is_ok_and(|stat| stat.kind != FileKind::Directory) {
            let path = path.display();
            command.out_of_reach(format!(
                "-R: {path} is a file, and the addresses of another program can't be used (--just-symbols); \
                 give a directory, or the addresses by --defsym"
            ));
        }
    }
    let mut files = Vec::new();
    for (option, use_, path) in std::mem::take(&mut command.texts) {
        if let Err(why) = read_one(io, command, use_, &path) {
            command.error(format!("{option}: {why}"));
        }
        files.push(path);
    }
    files
}

/// Names of files, one a line.
pub(super) fn lines(io: &dyn Io, path: &Path) -> Result<Vec<PathBuf>, String> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = host::read_file(io, path).map_err(|error| error.to_string())?;
    let lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(|line| std::ffi::OsStr::from_bytes(line).into()).collect())
}

fn read_one(io: &dyn Io, command: &mut LdCommand, use_: TextUse, path: &Path) -> Result<(), String> {
    let bytes = host::read_file(io, path).map_err(|error| error.to_string())?;
    // Symbols are ASCII; what is not may stand in comments.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let dynamic = command.dynamic();
    match use_ {
        TextUse::VersionScript => dynamic.version_scripts.push(text),
        TextUse::DynamicList => dynamic.dynamic_lists.push(text),
        TextUse::ExportList => {
            let patterns = export_list(&text).map_err(|why| format!("{}: {why}", path.display()))?;
            dynamic.export_symbols.extend(patterns);
        }
    }
    Ok(())
}

/// The patterns of `{ one; two*; extern "C" { three; }; };`.
fn export_list(text: &str) -> Result<Vec<String>, String> {
    let tokens = tokens(text)?;
    let mut rest = tokens.iter().map(String::as_str).peekable();
    let (mut patterns, mut depth) = (Vec::new(), 0_usize);
    while let Some(token) = rest.next() {
        match token {
            "{" => depth += 1,
            "}" => {
                depth = depth.checked_sub(1).ok_or("a '}' without its '{'")?;
                rest.next_if_eq(&";");
            }
            _ if depth == 0 => return Err(format!("expected '{{', found '{token}'")),
            ";" => {}
            "extern" => match (rest.next(), rest.peek()) {
                (Some("\"C\""), Some(&"{")) => {}
                (Some(language), _) => {
                    return Err(format!(
                        "names of extern {language} can't be listed; write them as they are mangled"
                    ));
                }
                (None, _) => return Err("expected a language behind 'extern'".to_owned()),
            },
            _ => {
                let name = token.trim_matches('"');
                if name != token && name.contains(['*', '?', '[']) {
                    return Err(format!(
                        "{token}: a quoted name can't be matched literally; write it without *, ? and ["
                    ));
                }
                patterns.push(name.to_owned());
                match rest.peek() {
                    Some(&";") | Some(&"}") => {}
                    _ => return Err(format!("expected ';' behind '{name}'")),
                }
            }
        }
    }
    match depth {
        0 => Ok(patterns),
        _ => Err("a '{' without its '}'".to_owned()),
    }
}

/// Names, quoted names and punctuation, without comments.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]).trim_start();
                continue;
            }
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or("a comment without its end")?;
                rest = rest[end + 2..].trim_start();
                continue;
            }
            '{' | '}' | ';' => 1,
            '"' => rest[1..].find('"').ok_or("a name without its closing quote")? + 2,
            _ => rest.find(|c: char| c.is_whitespace() || "{};\"#".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use relink::host::SystemIo;

    use super::super::command::Environment;
    use super::super::{Claims, parse, resolve};
    use super::*;

    #[test]
    fn export_lists() {
        let text =
            "/* what plugins need */\n{ one; two_*; # more\n \"three\" };\n{ extern \"C\" { four; }; five };";
        assert_eq!(export_list(text).unwrap(), ["one", "two_*", "three", "four", "five"]);
        assert_eq!(export_list("").unwrap(), [""; 0]);
        for (text, why) in [
            ("one;", "expected '{'"),
            ("{ one two; };", "expected ';' behind 'one'"),
            ("{ one;", "without its '}'"),
            ("}", "without its '{'"),
            ("{ extern \"C++\" { f(int); }; };", "mangled"),
            ("{ \"a*\"; };", "literally"),
            ("{ /* };", "comment"),
            ("{ \"a };", "quote"),
        ] {
            let error = export_list(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn texts_become_options_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("v"), "{ local: *; };").unwrap();
        std::fs::write(path("d"), "{ d; };").unwrap();
        std::fs::write(path("e"), "{ e*; };").unwrap();
        std::fs::write(path("empty.o"), "\x7fELF").unwrap();
        let linked = |words: &[String]| {
            let io: Arc<dyn Io> = Arc::new(SystemIo);
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let mut command = parse::parse(&words, &Environment::default());
            let found = resolve(&io, &mut command, Claims::Trusted);
            (command, found)
        };
        let (command, found) = linked(&[
            format!("--version-script={}", path("v")),
            format!("--dynamic-list={}", path("d")),
            format!("--export-dynamic-symbol-list={}", path("e")),
            "-R".into(),
            dir.path().display().to_string(),
            path("empty.o"),
        ]);
        assert_eq!(command.errors, [""; 0]);
        let dynamic = &command.options.dynamic;
        assert_eq!(dynamic.version_scripts, ["{ local: *; };"]);
        assert_eq!(dynamic.dynamic_lists, ["{ d; };"]);
        assert_eq!(dynamic.export_symbols, ["e*"]);
        for file in ["v", "d", "e", "empty.o"] {
            assert!(found.dependencies.contains(&PathBuf::from(path(file))), "{file}");
        }
        let (command, _) =
            linked(&[format!("--version-script={}", path("none")), "-R".into(), path("v"), path("empty.o")]);
        assert_eq!(command.errors.len(), 2, "{:?}", command.errors);
        assert!(command.errors[0].starts_with("-R: ") && command.errors[0].contains("--just-symbols"));
        let none = path("none");
        assert_eq!(
            command.errors[1],
            format!("--version-script: cannot open {none}: No such file or directory")
        );
    }
}
