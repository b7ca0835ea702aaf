//! The grammar of ld's options, which no library serves: long names with one dash or two, values after `=` or in the
//! next word, and letters whose value follows at once (`-lfoo`, `-znow`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::command::{Environment, LdCommand};
use super::table::{Act, Spec, Value, options};
use super::value::nearest;

/// Understands a command line (without the program's name). What is wrong with it is in its `errors`.
pub(super) fn parse(args: &[OsString], environment: &Environment) -> LdCommand {
    let mut command = LdCommand::new(environment);
    for Word { kind, .. } in words(args) {
        match kind {
            Kind::File(path) => command.add_file(path),
            Kind::Option(found) => take(&mut command, &found),
            Kind::Unknown(word) => unknown(&mut command, word),
        }
    }
    command.finish();
    command
}

/// What belongs together on a command line.
pub(super) struct Word<'a> {
    pub(super) kind: Kind<'a>,
    /// The arguments that it is made of: one, or two if the value stands apart.
    pub(super) args: &'a [OsString],
}

/// What a word is.
pub(super) enum Kind<'a> {
    File(&'a OsStr),
    Option(Found<'a>),
    Unknown(&'a OsStr),
}

/// An option of a command line.
pub(super) struct Found<'a> {
    pub(super) spec: &'static Spec,
    /// As it was written, without value: `--gc-sections`, `-l`.
    pub(super) written: &'a str,
    /// The value, wherever it stands.
    pub(super) value: Option<&'a OsStr>,
}

/// Cuts a command line into options with their values, and files.
pub(super) fn words(args: &[OsString]) -> impl Iterator<Item = Word<'_>> {
    let mut rest = args;
    std::iter::from_fn(move || {
        let word = rest.first()?;
        let mut length = 1;
        // A lone dash is a file name, as everywhere.
        let kind = if word.len() < 2 || !word.as_bytes().starts_with(b"-") {
            Kind::File(word)
        } else {
            match find(word) {
                Some(mut found) => {
                    if let (Value::Required(_), None, Some(next)) =
                        (found.spec.value, found.value, rest.get(1))
                    {
                        found.value = Some(next);
                        length = 2;
                    }
                    Kind::Option(found)
                }
                None => Kind::Unknown(word),
            }
        };
        let (args, behind) = rest.split_at(length);
        rest = behind;
        Some(Word { kind, args })
    })
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
        if let Some(spec) = options().find(fits).or_else(|| options().find(any)) {
            return Some(Found { spec, written: str::from_utf8(&bytes[..dashes + name.len()]).ok()?, value });
        }
    }
    if dashes == 2 {
        return None;
    }
    let (letter, rest) = body.split_at_checked(1)?;
    let spec = options().find(|spec| names(spec).any(|known| known.as_bytes() == letter))?;
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

fn take(command: &mut LdCommand, found: &Found<'_>) {
    let Found { spec, written, value } = found;
    match (spec.value, value) {
        (Value::None, Some(_)) => return command.error(format!("{written}: takes no value")),
        (Value::Required(what), None) => return command.error(format!("{written}: needs a value ({what})")),
        _ => {}
    }
    match spec.act {
        Act::Set(act) => act(command),
        Act::Do(act) => {
            if let Err(why) = act(command, value.unwrap_or_default()) {
                command.error(format!("{written}: {why}"));
            }
        }
        Act::Try(act) => {
            if let Err(why) = act(command, value.unwrap_or_default()) {
                command.out_of_reach(format!("{written}: {why}"));
            }
        }
        Act::Ignore => {}
        Act::WithoutEffect => command.warn(format!("{written} has no effect yet")),
        Act::Refuse(instead) => command.out_of_reach(format!("{written}: not supported yet; {instead}")),
    }
}

fn unknown(command: &mut LdCommand, word: &OsStr) {
    let word = word.to_string_lossy();
    let (name, _) = word.split_once('=').unwrap_or((&word, ""));
    let body = name.trim_start_matches('-');
    let all = || options().flat_map(|spec| spec.names).copied();
    // Distances count letters, not dashes.
    let best = nearest(body, all().map(|known| known.trim_start_matches('-')));
    let best = best.and_then(|best| all().find(|known| known.trim_start_matches('-') == best));
    let hint = best.map(|best| format!(", did you mean '{best}'")).unwrap_or_default();
    command.error(format!("unknown option '{word}'{hint}"));
}

#[cfg(test)]
mod tests;
