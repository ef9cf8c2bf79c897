//! A command line that is meant to be refused: what it complains of, and what it says to do about it.

use anyhow::{Context, Result, ensure};

use super::stage::{LIMIT, Stage};
use super::waldex::{Finished, Waldex};

/// What waldex is called with, each part of it free to be wrong.
#[derive(Clone, Debug)]
pub struct CommandLine {
    pub postgres_url: String,
    pub slot: String,
    pub publication: String,
    pub elasticsearch_url: String,
    /// The file, if there is one.
    pub config: Option<String>,
    /// Further flags.
    pub flags: Vec<String>,
}

/// One thing that waldex complains of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    /// Empty if it gives no advice.
    pub fix: String,
}

impl CommandLine {
    /// What [`Stage::waldex`] would call it with.
    pub fn of(stage: &Stage<'_>) -> Self {
        Self {
            postgres_url: stage.database.url.clone(),
            slot: stage.name().to_owned(),
            publication: stage.name().to_owned(),
            elasticsearch_url: stage.node.url_with_credentials(),
            config: Some(stage.config()),
            flags: Vec::new(),
        }
    }

    /// The same as another role of the database.
    pub fn with_role(mut self, role: &str, password: &str) -> Result<Self> {
        let mut url = url::Url::parse(&self.postgres_url)?;
        let set = url.set_username(role).and_then(|()| url.set_password(Some(password)));
        set.ok().context("a URL without a host")?;
        self.postgres_url = url.to_string();
        Ok(self)
    }

    /// The command, ready to be started.
    pub fn waldex(&self, words: &[&str]) -> Result<Waldex> {
        let [subcommand, rest @ ..] = words else { anyhow::bail!("no command") };
        let mut waldex = Waldex::new(subcommand)?
            .over(&self.postgres_url, &self.slot, &self.elasticsearch_url)
            .publication(&self.publication);
        for arg in self.flags.iter().map(String::as_str).chain(rest.iter().copied()) {
            waldex = waldex.arg(arg);
        }
        Ok(match &self.config {
            Some(yaml) => waldex.config(yaml),
            None => waldex,
        })
    }

    /// Runs a command to its end.
    pub async fn finish(&self, words: &[&str]) -> Result<Finished> {
        self.waldex(words)?.run_to_end(LIMIT).await
    }

    /// Runs a command that must succeed.
    pub async fn succeed(&self, words: &[&str]) -> Result<Finished> {
        let finished = self.finish(words).await?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    /// Everything that `check` and `run` complain of, which must be the same. Exit codes: `check` 1,
    /// `run` as given.
    pub async fn complaints(&self, run_code: i32) -> Result<Vec<Complaint>> {
        let run = ["run", "--until", "current"];
        let (checked, ran) = tokio::join!(self.finish(&["check"]), self.finish(&run));
        let (checked, ran) = (checked?, ran?);
        checked.expect_code(1)?;
        ran.expect_code(run_code)?;
        let (of_check, of_run) = (complaints(&checked), complaints(&ran));
        let still = |complaints: &[Complaint]| complaints.iter().map(at_rest).collect::<Vec<_>>();
        ensure!(
            still(&of_check) == still(&of_run),
            "check says {of_check:#?}, and run says {of_run:#?}"
        );
        ensure!(!of_run.is_empty(), "refused without a reason: {:?}", ran.stderr);
        Ok(of_run)
    }

    /// The only complaint, which must contain `what`, with advice.
    pub async fn refused(&self, what: &str, run_code: i32) -> Result<Complaint> {
        let complaints = self.complaints(run_code).await?;
        let [complaint] = complaints.as_slice() else {
            anyhow::bail!("not one complaint: {complaints:#?}");
        };
        ensure!(complaint.what.contains(what), "\"{what}\" is not in {complaint:?}");
        ensure!(!complaint.fix.is_empty(), "no advice with {complaint:?}");
        Ok(complaint.clone())
    }
}

/// What a command that ended complains of: a list of problems, or one reason with advice below it.
pub fn complaints(finished: &Finished) -> Vec<Complaint> {
    let mut found: Vec<Complaint> = Vec::new();
    for line in &finished.stderr {
        if let Some(what) = line.strip_prefix("waldex: ") {
            found.push(Complaint { what: what.to_owned(), fix: String::new() });
        } else if let Some((what, fix)) =
            line.strip_prefix("  ").and_then(|it| it.split_once("; fix: "))
        {
            found.push(Complaint { what: what.to_owned(), fix: fix.to_owned() });
        } else if let Some((fix, last)) = line.strip_prefix("  ").zip(found.last_mut()) {
            last.fix.push_str(fix);
        }
    }
    // The head of a list only counts.
    found.retain(|complaint| !complaint.what.ends_with("found before the start"));
    found
}

/// The same without the end of the server's WAL, which moves between two looks.
fn at_rest(complaint: &Complaint) -> Complaint {
    let still = |word| if is_position(word) { "LSN" } else { word };
    let what = complaint.what.split(' ').map(still).collect::<Vec<_>>().join(" ");
    Complaint { what, fix: complaint.fix.clone() }
}

fn is_position(word: &str) -> bool {
    word.trim_end_matches([',', ':']).parse::<waldex::lsn::Lsn>().is_ok()
}
