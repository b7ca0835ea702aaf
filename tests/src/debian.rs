//! Sources that Debian's archive has and no crate carries: brought by apt as any user, with lists of its own, so that neither
//! the machine's configuration nor its state changes; apt checks signatures and digests.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::tools::{self, Said, Tool};

/// Brings sources.
const APT_GET: Tool = Tool { names: &["apt-get"], package: "apt" };
/// Unpacks them.
const TAR: Tool = Tool { names: &["tar"], package: "tar" };

/// Folder of a source package as its authors released it (no patches of Debian), in the version of this machine's release.
///
/// It is brought once and kept in the tests' cache. Where apt can't bring it, the sources may be unpacked there by hand.
///
/// # Panics
/// If the package can't be had; the message names it.
#[track_caller]
pub fn source(package: &str) -> PathBuf {
    let cache = crate::cache_dir("debian");
    let kept = cache.join(package);
    // Several tests ask at once; one download is enough.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.is_dir() {
        return kept;
    }
    let work = tempfile::tempdir_in(&cache).expect("the cache can be written");
    let said = download(package, work.path());
    let tarball = files(work.path()).into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{package}_")) && name.contains(".orig.tar.")
    });
    let tarball = tarball.unwrap_or_else(|| {
        panic!(
            "the sources of Debian's package `{package}` can't be had: apt-get needs the network and an archive of \
             Debian in /etc/apt; or unpack them as {}\n{said}",
            kept.display()
        )
    });
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder of ours");
    let mut tar = TAR.command();
    tar.arg("-xf").arg(tarball).arg("-C").arg(&tree).args(["--strip-components=1", "--no-same-owner"]);
    tools::say(&mut tar).ok();
    // Another process may have been faster.
    if let Err(error) = std::fs::rename(&tree, &kept) {
        assert!(kept.is_dir(), "{}: {error}", kept.display());
    }
    kept
}

/// Has apt download the authors' archive into a folder; what it said.
#[track_caller]
fn download(package: &str, dir: &Path) -> Said {
    for name in ["sources", "lists/partial", "archives/partial"] {
        std::fs::create_dir_all(dir.join(name)).expect("a folder of ours");
    }
    let etc = Path::new("/etc/apt");
    for path in files(etc).into_iter().chain(files(&etc.join("sources.list.d"))) {
        let name = path.file_name().unwrap_or_default();
        let entries = match path.extension().and_then(|end| end.to_str()) {
            Some("list") => one_line_entries as fn(&str) -> String,
            Some("sources") => deb822_entries,
            _ => continue,
        };
        let text = String::from_utf8_lossy(&crate::read(&path)).into_owned();
        crate::write(dir.join("sources").join(name), entries(&text));
    }
    let apt = |args: &[&str]| {
        let mut command = APT_GET.command();
        command.current_dir(dir);
        let dirs =
            [("State", "."), ("Cache", "."), ("Etc::sourcelist", "none"), ("Etc::sourceparts", "sources")];
        for (name, path) in dirs {
            command.arg("-o").arg(format!("Dir::{name}={}", dir.join(path).display()));
        }
        // The user whom apt has downloads done by may not reach a folder of ours.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]);
        tools::say(command.args(args))
    };
    // An entry that has no sources, or is out of reach, is an error of this and no matter.
    let updated = apt(&["update"]);
    let said = apt(&["source", "--download-only", "--tar-only", package]);
    Said {
        command: format!("{}; {}", updated.command, said.command),
        stdout: updated.stdout + &said.stdout,
        stderr: updated.stderr + &said.stderr,
        ..said
    }
}

/// The files of a folder; none if there is no folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// `deb …` as `deb-src …`; nothing else.
fn one_line_entries(text: &str) -> String {
    let binary = text.lines().filter_map(|line| line.trim_start().strip_prefix("deb"));
    let binary = binary.filter(|rest| rest.starts_with([' ', '\t']));
    binary.map(|rest| format!("deb-src{rest}\n")).collect()
}

/// Stanzas of packages as stanzas of sources.
fn deb822_entries(text: &str) -> String {
    let types = |line: &str| line.to_ascii_lowercase().starts_with("types:");
    text.lines()
        .map(|line| if types(line) { "Types: deb-src\n".to_owned() } else { format!("{line}\n") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{deb822_entries, one_line_entries};

    #[test]
    fn entries_of_packages_become_entries_of_sources() {
        let lines = "# deb a\ndeb [arch=amd64] http://a b main\ndeb-src http://a b main\n deb\tfile:/c d e\n";
        assert_eq!(one_line_entries(lines), "deb-src [arch=amd64] http://a b main\ndeb-src\tfile:/c d e\n");
        let stanza = "types: deb deb-src\nURIs: http://a\nSuites: b\n\nTypes: deb\n";
        let expected = "Types: deb-src\nURIs: http://a\nSuites: b\n\nTypes: deb-src\n";
        assert_eq!(deb822_entries(stanza), expected);
    }
}
