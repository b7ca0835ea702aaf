//! The grammar of ld's options, which no library serves: long names with one dash or two, values after `=` or in the
//! next word, and letters whose value follows at once (`-lfoo`, `-znow`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::command::{Environment, LdCommand};
use super::table::{Act, OPTIONS, Spec, Value};
use super::value::nearest;

/// Understands a command line (without the program's name). What is wrong with it is in its `errors`.
pub(super) fn parse(args: &[OsString], environment: &Environment) -> LdCommand {
    let mut command = LdCommand::new(environment);
    let mut words = args.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        // A lone dash is a file name, as everywhere.
        if word.len() < 2 || !word.as_bytes().starts_with(b"-") {
            command.add_file(word);
            continue;
        }
        match find(word) {
            Some(found) => take(&mut command, &found, &mut words),
            None => unknown(&mut command, word),
        }
    }
    command.finish();
    command
}

/// An option of a command line.
struct Found<'a> {
    spec: &'static Spec,
    /// As it was written, without value: `--gc-sections`, `-l`.
    written: &'a str,
    /// The value in the same word.
    value: Option<&'a OsStr>,
}

fn find(word: &OsStr) -> Option<Found<'_>> {
    let bytes = word.as_bytes();
    let dashes = if bytes.starts_with(b"--") { 2 } else { 1 };
    let body = &bytes[dashes..];
    let (name, value) = match body.iter().position(|&byte| byte == b'=') {
        Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
        None => (body, None),
    };
    // `-oformat` is `-o format`, as in every ld; all other long names may have one dash.
    if name.len() > 1 && (dashes == 2 || name[0] != b'o') {
        let fits = |spec: &&'static Spec| {
            // `--sort-common` and `--time-trace` exist with and without a value.
            (value.is_none() || spec.value != Value::None)
                && names(spec).any(|known| known.as_bytes() == name)
        };
        let any = |spec: &&'static Spec| names(spec).any(|known| known.as_bytes() == name);
        if let Some(spec) = OPTIONS.iter().find(fits).or_else(|| OPTIONS.iter().find(any)) {
            return Some(Found { spec, written: str::from_utf8(&bytes[..dashes + name.len()]).ok()?, value });
        }
    }
    if dashes == 2 {
        return None;
    }
    let (letter, rest) = body.split_at_checked(1)?;
    let spec = OPTIONS.iter().find(|spec| names(spec).any(|known| known.as_bytes() == letter))?;
    let value = (!rest.is_empty()).then(|| OsStr::from_bytes(rest));
    if value.is_some() && spec.value == Value::None {
        return None;
    }
    Some(Found { spec, written: str::from_utf8(&bytes[..2]).ok()?, value })
}

/// Names without dashes.
fn names(spec: &'static Spec) -> impl Iterator<Item = &'static str> {
    spec.names.iter().map(|name| name.trim_start_matches('-'))
}

fn take<'a>(command: &mut LdCommand, found: &Found<'_>, words: &mut impl Iterator<Item = &'a OsStr>) {
    let Found { spec, written, value } = found;
    let value = match (spec.value, value) {
        (Value::None, Some(_)) => return command.error(format!("{written}: takes no value")),
        (Value::Required(what), None) => match words.next() {
            Some(next) => next,
            None => return command.error(format!("{written}: needs a value ({what})")),
        },
        (_, value) => value.unwrap_or_default(),
    };
    match spec.act {
        Act::Set(act) => act(command),
        Act::Do(act) => {
            if let Err(why) = act(command, value) {
                command.error(format!("{written}: {why}"));
            }
        }
        Act::Ignore => {}
        Act::WithoutEffect => command.warn(format!("{written} has no effect yet")),
        Act::Refuse(instead) => {
            command.hopeless = true;
            command.error(format!("{written}: not supported yet; {instead}"));
        }
    }
}

fn unknown(command: &mut LdCommand, word: &OsStr) {
    let word = word.to_string_lossy();
    let (name, _) = word.split_once('=').unwrap_or((&word, ""));
    let body = name.trim_start_matches('-');
    let all = OPTIONS.iter().flat_map(|spec| spec.names).copied();
    // Distances count letters, not dashes.
    let best = nearest(body, all.clone().map(|known| known.trim_start_matches('-')));
    let best = best.and_then(|best| all.clone().find(|known| known.trim_start_matches('-') == best));
    let hint = best.map(|best| format!(", did you mean '{best}'")).unwrap_or_default();
    command.error(format!("unknown option '{word}'{hint}"));
}

#[cfg(test)]
mod tests;
