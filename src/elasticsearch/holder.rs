//! Who holds a lease, and whether that process is surely gone.
//!
//! A lease whose holder is dead need not be waited for. From the same machine and namespaces that can be told:
//! no process has its number, or one that started at another time, or only its remains. From anywhere else it
//! cannot, and whatever is in doubt counts as alive.

use std::fmt;
use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, named so that no other ever has the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Where its number means something: this boot of the machine, the namespaces of process numbers and of
    /// time. Such a namespace lives as long as a process in it, so its number is not given away before.
    scope: String,
    /// Its number.
    pid: i32,
    /// When it started, as the system counts.
    started: u64,
}

/// The lease as it stands in the state document. Who holds it is who wrote the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// From its renewal on.
    pub duration_ms: u64,
    /// The machine of its holder, for whoever reads this.
    pub host: String,
    /// The number of its process there.
    pub pid: u32,
    /// Its process, where the system tells enough to prove its death.
    pub process: Option<Process>,
}

impl Lease {
    /// Of this process.
    pub fn ours(duration: std::time::Duration) -> Self {
        Self {
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            host: host(),
            pid: std::process::id(),
            process: Process::this(),
        }
    }

    /// Whether its holder is surely gone.
    pub fn is_orphaned(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_dead)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on \"{}\"", self.pid, self.host)
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    name.trim().to_owned()
}

impl Process {
    /// This one; none where the system does not tell enough.
    fn this() -> Option<Self> {
        let pid = i32::try_from(std::process::id()).ok()?;
        Self::of(pid)
    }

    fn of(pid: i32) -> Option<Self> {
        let Seen::Alive { started } = look(pid)? else { return None };
        Some(Self { scope: scope()?, pid, started })
    }

    fn is_dead(&self) -> bool {
        // Somebody else's numbers say nothing here.
        if scope().as_ref() != Some(&self.scope) {
            return false;
        }
        let Some(pid) = Some(self.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return false;
        };
        match test_kill_process(pid) {
            Err(Errno::SRCH) => true,
            Ok(()) | Err(_) => look(self.pid).is_some_and(|seen| seen.is_not(self.started)),
        }
    }
}

/// None if `/proc` is not that of this process' own namespace.
fn scope() -> Option<String> {
    let own = fs::read_link("/proc/self").ok()?;
    if own.to_str()?.parse() != Ok(std::process::id()) {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let pids = fs::read_link("/proc/self/ns/pid").ok()?;
    // Kernels before 5.6 have none.
    let times = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{} {} {}", boot.trim(), pids.display(), times.display()))
}

/// What `/proc` shows of a process number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Alive {
        started: u64,
    },
    /// It has ended, and its parent has not asked for it yet.
    Remains,
}

impl Seen {
    fn is_not(self, started: u64) -> bool {
        self != Self::Alive { started }
    }
}

/// None if that cannot be seen, which it may not be for a process of another user.
fn look(pid: i32) -> Option<Seen> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A line of `/proc/<pid>/stat`; the name in parentheses may itself hold spaces and parentheses.
fn parse(line: &str) -> Option<Seen> {
    let mut fields = line.rsplit_once(") ")?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // The start time is the 22nd field of the line, and the state the 3rd.
    let started = fields.nth(18)?.parse().ok()?;
    Some(if matches!(state, "Z" | "X" | "x") { Seen::Remains } else { Seen::Alive { started } })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> (Child, Process) {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let child = child.unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        (child, process)
    }

    #[test]
    fn what_lives_is_not_dead() {
        let ours = Lease::ours(std::time::Duration::from_secs(5));
        assert!(ours.process.is_some() && !ours.is_orphaned(), "{ours:?}");
        let (mut child, process) = child();
        assert!(!process.is_dead());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_gone_or_not_asked_for_is_dead() {
        let (mut child, process) = child();
        child.kill().unwrap();
        while look(process.pid) != Some(Seen::Remains) {
            std::thread::yield_now();
        }
        assert!(process.is_dead(), "not asked for");
        child.wait().unwrap();
        assert!(process.is_dead(), "gone");
    }

    #[test]
    fn another_process_of_the_number_is_another() {
        let this = Process::this().unwrap();
        let before = Process { started: this.started - 1, ..this };
        assert!(before.is_dead());
    }

    #[test]
    fn nothing_is_known_of_another_machine() {
        let (mut child, process) = child();
        child.kill().unwrap();
        child.wait().unwrap();
        let elsewhere = Process { scope: "elsewhere".to_owned(), ..process };
        assert!(!elsewhere.is_dead());
        let unknown = Lease { process: None, ..Lease::ours(std::time::Duration::ZERO) };
        assert!(!unknown.is_orphaned());
        let nonsense = Process { pid: -1, ..Process::this().unwrap() };
        assert!(!nonsense.is_dead() && !Process { pid: 0, ..nonsense }.is_dead());
    }

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse(&format!("9 (a) Z (b)) {fields}")), Some(Seen::Alive { started: 4711 }));
        assert_eq!(parse(&format!("9 (a) Z{}", &fields[1..])), Some(Seen::Remains));
        assert_eq!(parse("9 (a) S 1 2"), None);
    }
}
