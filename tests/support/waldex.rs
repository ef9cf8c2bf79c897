//! Runs the binary under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::servers::process::signal;
use super::servers::search_node::SearchNode;
use super::wait::wait_until;

/// A command line of waldex, in the making.
pub struct Waldex {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: Option<String>,
    input: Option<String>,
    is_unread: bool,
}

impl Waldex {
    /// The binary that `WALDEX_TEST_PROGRAM` names, or else the one that Cargo built for this test, with a
    /// subcommand.
    pub fn new(subcommand: &str) -> Result<Self> {
        let given = std::env::var_os("WALDEX_TEST_PROGRAM").map(PathBuf::from);
        let built = option_env!("CARGO_BIN_EXE_waldex").map(PathBuf::from);
        let program = given.or(built);
        let program =
            program.context("only an integration test knows its binary: use Waldex::at")?;
        Ok(Self::at(program, subcommand))
    }

    /// A binary at a known place.
    pub fn at(program: PathBuf, subcommand: &str) -> Self {
        let args = vec![subcommand.to_owned()];
        Self { program, args, env: Vec::new(), config: None, input: None, is_unread: false }
    }

    /// The four settings that are enough; slot and publication have the same name.
    pub fn between(self, database_url: &str, slot: &str, node: &SearchNode) -> Self {
        self.over(database_url, slot, &node.url_with_credentials())
    }

    /// The same, with other addresses of the cluster.
    pub fn over(self, database_url: &str, slot: &str, search_urls: &str) -> Self {
        self.arg("--postgres-url")
            .arg(database_url)
            .arg("--slot")
            .arg(slot)
            .arg("--publication")
            .arg(slot)
            .arg("--elasticsearch-url")
            .arg(search_urls)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Names another publication than the slot's namesake.
    #[must_use]
    pub fn publication(mut self, name: &str) -> Self {
        if let Some(place) = self.args.iter().position(|arg| arg == "--publication") {
            self.args.splice(place + 1..place + 2, [name.to_owned()]);
        }
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Passes this YAML as a file with `--config`.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        self.config = Some(yaml.to_owned());
        self
    }

    /// What is typed into it; without this its input is empty.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Whoever reads its outputs leaves at once, as `head -0` does.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.is_unread = true;
        self
    }

    /// Starts it; both outputs are collected line by line.
    pub fn spawn(self) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if let Some(yaml) = &self.config {
            let file = directory.path().join("waldex.yaml");
            std::fs::write(&file, yaml)?;
            command.arg("--config").arg(file);
        }
        // A developer's own WALDEX_ variables must not change what a test means.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WALDEX_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .envs(self.env)
            .current_dir(directory.path())
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start \"{}\"", self.program.display()))?;
        if let (Some(text), Some(mut stdin)) = (&self.input, child.stdin.take()) {
            // Short enough for the pipe; whether it is read is the program's affair.
            let _ = stdin.write_all(text.as_bytes());
        }
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take());
        let err = err.context("no stderr")?;
        let readers = match self.is_unread {
            true => Vec::new(),
            false => vec![collect(out, stdout.clone()), collect(err, stderr.clone())],
        };
        Ok(Running { child, stdout, stderr, readers, _directory: directory })
    }

    /// Starts it and waits until it ends by itself.
    pub async fn run_to_end(self, limit: Duration) -> Result<Finished> {
        self.spawn()?.finish(limit).await
    }
}

/// Lines that a reader thread adds to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn collect(pipe: impl Read + Send + 'static, lines: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

/// A waldex that was started; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
    _directory: TempDir,
}

/// How a waldex ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<String>,
    /// Its standard error: the log.
    pub stderr: Vec<String>,
}

impl Finished {
    /// Fails, with the log, unless it ended with this exit code.
    pub fn expect_code(&self, code: i32) -> Result<&Self> {
        if self.code != Some(code) {
            let log = [self.stdout.join("\n"), self.stderr.join("\n")].join("\n");
            bail!("ended with {:?} (signal {:?}), not {code}:\n{log}", self.code, self.signal);
        }
        Ok(self)
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far, on both outputs.
    pub fn lines(&self) -> Vec<String> {
        [self.stderr.all(), self.stdout.all()].concat()
    }

    /// Waits for a line of either output that contains `text`; fails early if waldex ends first.
    pub async fn wait_for_line(&mut self, limit: Duration, text: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                self.join_readers();
            }
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            if ended.is_some() || Instant::now() > deadline {
                let log = self.lines().join("\n");
                bail!("no line with \"{text}\" within {limit:?} (ended: {ended:?}):\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Peak resident memory in bytes, from `/proc`; none once it has ended.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    /// `kill -9`, and waits for it.
    pub fn kill(mut self) -> Result<Finished> {
        self.child.kill()?;
        let status = self.child.wait()?;
        Ok(self.finished(status))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Sends any signal: SIGINT, SIGSTOP, SIGCONT.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits until it ends by itself; after the limit it is killed and that is an error.
    pub async fn finish(mut self, limit: Duration) -> Result<Finished> {
        let child = &mut self.child;
        let ended =
            wait_until(limit, "waldex to end", async || !matches!(child.try_wait(), Ok(None)))
                .await;
        if let Err(late) = ended {
            let killed = self.kill()?;
            let log = [killed.stdout.join("\n"), killed.stderr.join("\n")].join("\n");
            return Err(late.context(log));
        }
        let status = self.child.wait()?;
        Ok(self.finished(status))
    }

    /// SIGTERM, and waits for its end in good order.
    pub async fn stop(self, limit: Duration) -> Result<()> {
        self.terminate();
        self.finish(limit).await?.expect_code(0).map(drop)
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader cannot panic; its pipe ends with the process.
            let _ = reader.join();
        }
    }

    fn finished(&mut self, status: ExitStatus) -> Finished {
        self.join_readers();
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
