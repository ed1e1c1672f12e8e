//! Loads kernel modules that nothing loads by itself, with the program that the
//! kernel itself would call.

use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long loading may take: a module on a disk that does not answer must not
/// keep the node from saying so.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the end of the program is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// Loads `module`.
///
/// # Errors
/// Why the program did not do it, in a few words.
pub(super) fn load(module: &str) -> Result<(), String> {
    // Plain users' PATH lacks it.
    let program = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    run(program.trim(), module, LIMIT)
}

fn run(program: &str, argument: &str, limit: Duration) -> Result<(), String> {
    if program.is_empty() {
        return Err("the kernel names no program that loads modules".to_owned());
    }
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("run {program}: {error}"))?;
    match wait(&mut child, limit) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("{program} {argument}: {status}")),
        Ok(None) => {
            // In the kernel's hands it may not die at once: nobody waits for that.
            let _ = child.kill();
            std::thread::spawn(move || child.wait());
            Err(format!("{program} {argument} did not end within {limit:?}"))
        }
        Err(error) => Err(format!("wait for {program}: {error}")),
    }
}

/// How the child ended, if it did in time.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(LOOK),
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_program_has_its_time_and_no_more() {
        let long = Duration::from_secs(60);
        assert_eq!(run("true", "x", long), Ok(()));
        assert!(run("false", "x", long).unwrap_err().starts_with("false x: exit status: 1"));
        assert!(run("/no/such/program", "x", long).unwrap_err().starts_with("run /no/such/program: "));
        assert!(run("", "x", long).is_err());
        let told = run("sleep", "infinity", Duration::from_millis(50)).unwrap_err();
        assert_eq!(told, "sleep infinity did not end within 50ms");
    }
}
