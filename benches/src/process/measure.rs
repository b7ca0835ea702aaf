//! One process, from its start to its exit.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, wait, waitid};

/// What a process cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Milliseconds from before its start until its exit was seen.
    pub wall_ms: f64,
    /// Bytes that it read by system calls; pages of mapped files are page faults.
    pub read_bytes: u64,
    /// Bytes that it wrote by system calls, copies inside of the kernel included.
    pub written_bytes: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
}

/// Makes what measured processes leave behind children of this one, for [`run`] to wait for.
///
/// # Errors
/// If the kernel does not do that.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Waits until nothing of earlier processes is under way: neither those that they left behind (wild's second one frees
/// 1 GB) nor their pages on the way to the disk. Without it the LLVM tool's edit took 7 ms or 15, by what ran before it.
fn settle() -> io::Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) => {}
            Err(Errno::CHILD) => break,
            Err(error) => return Err(error.into()),
        }
    }
    rustix::fs::sync();
    Ok(())
}

/// Runs a command that must succeed, when everything before it has settled.
///
/// # Errors
/// If it can't be started or fails; its messages are in the error.
pub fn run(command: &mut Command, messages: &Path) -> io::Result<Cost> {
    settle()?;
    let said = fs::File::create(messages)?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    let start = Instant::now();
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    // It is not reaped yet, so that the kernel's accounts of it can still be read.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    let accounts = accounts(child.id());
    let status = child.wait()?;
    if !status.success() {
        let said = fs::read_to_string(messages).unwrap_or_default();
        return Err(io::Error::other(format!("{command:?}: {status}\n{said}")));
    }
    Ok(Cost { wall_ms, ..accounts? })
}

/// What `/proc` knows of a process that ended: `proc_pid_stat(5)`, `proc_pid_io(5)`.
fn accounts(pid: u32) -> io::Result<Cost> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have spaces: fields 3 and on.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0);
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let count = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    Ok(Cost {
        wall_ms: 0.0,
        read_bytes: count("rchar:"),
        written_bytes: count("wchar:"),
        minor_faults: field(10),
        major_faults: field(12),
    })
}

/// How many system calls a command makes, by `strace -f -c`; `None` if there is no strace.
///
/// # Errors
/// If the command fails.
pub fn system_calls(command: &Command, messages: &Path) -> io::Result<Option<u64>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(messages.with_extension("strace")).arg(command.get_program());
    strace.args(command.get_args());
    strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        strace.current_dir(dir);
    }
    match strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(status) if !status.success() => return Err(io::Error::other(format!("{strace:?}: {status}"))),
        Ok(_) => {}
    }
    let said = fs::read_to_string(messages.with_extension("strace"))?;
    // % time, seconds, usecs/call, calls, [errors], total
    let total = said.lines().rfind(|line| line.ends_with(" total"));
    Ok(total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()))
}
