//! What this machine has: users, programs, installed servers, ways to install more.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// A user to run servers as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who servers run as: nobody else than us, except when we are root.
pub fn server_user() -> Option<User> {
    if !is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let nobody = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let ["nobody", _, uid, gid, ..] = fields.as_slice() else { return None };
        Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    });
    Some(nobody.unwrap_or(User { uid: 65534, gid: 65534 }))
}

/// Gives `path` and all below it to `user`.
pub fn give(path: &Path, user: Option<User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    chown(path, Some(user.uid), Some(user.gid))
        .with_context(|| format!("cannot give \"{}\" away", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), Some(user))?;
        }
    }
    Ok(())
}

/// Whether the user that servers run as can get to `path`: root's home is closed to others.
pub fn is_reachable(path: &Path) -> bool {
    !is_root()
        || path.ancestors().all(|part| {
            fs::metadata(part).is_ok_and(|meta| !meta.is_dir() || meta.mode() & 0o001 != 0)
        })
}

/// The first executable of that name in `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// The entries of a directory, sorted; none if it cannot be read.
pub fn entries(directory: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

/// A Postgres installation of this machine.
#[derive(Clone, Debug)]
pub struct InstalledPostgres {
    /// Where `initdb` and `postgres` are.
    pub bin: PathBuf,
    /// Major version.
    pub major: u32,
}

/// The newest installed Postgres that `accepts` (by major version) and servers can run.
pub fn installed_postgres(accepts: impl Fn(u32) -> bool) -> Option<InstalledPostgres> {
    let mut places: Vec<PathBuf> =
        entries("/usr/lib/postgresql").into_iter().map(|version| version.join("bin")).collect();
    if let Some(real) = which("initdb").and_then(|file| file.canonicalize().ok()) {
        places.extend(real.parent().map(Path::to_path_buf));
    }
    places
        .into_iter()
        .filter(|bin| bin.join("initdb").is_file() && is_reachable(bin))
        .filter_map(|bin| {
            let line = output(Command::new(bin.join("postgres")).arg("--version"))?;
            let version = line.split_whitespace().nth(2)?.to_owned();
            let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
            Some(InstalledPostgres { bin, major: digits.parse().ok()? })
        })
        .filter(|found| accepts(found.major))
        .max_by_key(|found| found.major)
}

/// An installed search server: its home and version, by the name of its main jar.
pub fn installed_search(name: &str, home_variable: &str) -> Option<(PathBuf, String)> {
    let named = std::env::var_os(home_variable).map(PathBuf::from);
    named.into_iter().chain([Path::new("/usr/share").join(name)]).find_map(|home| {
        if !home.join("bin").join(name).is_file() || !is_reachable(&home) {
            return None;
        }
        let prefix = format!("{name}-");
        fs::read_dir(home.join("lib"))
            .ok()?
            .filter_map(Result::ok)
            .find_map(|entry| {
                let file = entry.file_name();
                let version = file.to_str()?.strip_prefix(&prefix)?.strip_suffix(".jar")?;
                version
                    .starts_with(|first: char| first.is_ascii_digit())
                    .then(|| version.to_owned())
            })
            .map(|version| (home.clone(), version))
    })
}

/// Standard output of a command that succeeded.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command to its end; its standard error is part of the failure.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run \"{program}\""))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("\"{program}\" failed ({}): {text}{errors}", output.status);
    }
    Ok(text)
}

/// Whether a Docker engine answers.
pub fn has_docker() -> bool {
    which("docker").is_some() && output(Command::new("docker").arg("info")).is_some()
}

/// Whether we may install packages of the system.
pub fn can_install() -> bool {
    is_root() && which("apt-get").is_some()
}

/// Installs packages of the system; only where [`can_install`].
pub fn install<S: AsRef<OsStr>>(packages: &[S]) -> Result<()> {
    if !can_install() {
        bail!("packages of the system can only be installed by root with apt-get");
    }
    // Servers are obtained side by side, and apt-get refuses to run twice.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    say("installing packages of the system with apt-get");
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install = || run(apt().args(["install", "-y", "--no-install-recommends"]).args(packages));
    if install().is_err() {
        run(apt().arg("update"))?;
        install()?;
    }
    Ok(())
}

/// Tells whoever watches what is going on, past the test runner, which would keep it to itself: which servers
/// were used belongs to a result.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "servers: {what}");
}
