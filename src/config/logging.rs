//! `--log-format` and `--log-level`: needed before, and independently of, everything else.

use super::problem::{ConfigErrors, Place, Problem};
use crate::cli::SharedArgs;

const FORMAT_FLAG: &str = "--log-format";
const FORMAT_VARIABLE: &str = "WALDEX_LOG_FORMAT";
const LEVEL_FLAG: &str = "--log-level";
const LEVEL_VARIABLE: &str = "WALDEX_LOG_LEVEL";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what stops the work.
    Error,
    /// And what needs attention.
    Warn,
    /// And changes of state and progress.
    Info,
    /// And each step.
    Debug,
    /// And each message.
    Trace,
}

impl LogLevel {
    /// The name `tracing` knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What to log, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Given, or human on a terminal and JSON otherwise.
    pub format: LogFormat,
    /// Given, or `info`.
    pub level: LogLevel,
}

/// Reads both settings; `on_terminal` says whether the log goes to one.
pub fn load_logging(
    args: &SharedArgs,
    env: &dyn Fn(&str) -> Option<String>,
    on_terminal: bool,
) -> Result<LogSettings, ConfigErrors> {
    let mut problems = Vec::new();
    let format = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    let format = choice(
        (args.log_format.as_deref(), FORMAT_FLAG),
        (env(FORMAT_VARIABLE), FORMAT_VARIABLE),
        &format,
        &mut problems,
    );
    let levels =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
            .map(|level| (level.as_str(), level));
    let level = choice(
        (args.log_level.as_deref(), LEVEL_FLAG),
        (env(LEVEL_VARIABLE), LEVEL_VARIABLE),
        &levels,
        &mut problems,
    );
    if !problems.is_empty() {
        return Err(ConfigErrors::new(problems));
    }
    let usual = if on_terminal { LogFormat::Human } else { LogFormat::Json };
    Ok(LogSettings { format: format.unwrap_or(usual), level: level.unwrap_or(LogLevel::Info) })
}

fn choice<T: Copy>(
    flag: (Option<&str>, &'static str),
    variable: (Option<String>, &'static str),
    choices: &[(&str, T)],
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let in_variable = variable.0.filter(|text| !text.is_empty());
    let (text, place) = match (flag.0, &in_variable) {
        (Some(text), _) => (text, Place::Flag(flag.1)),
        (None, Some(text)) => (text.as_str(), Place::Variable(variable.1)),
        (None, None) => return None,
    };
    let found = choices.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("\"{text}\" must be one of {}", names.join(", "));
        problems.push(Problem { place, message });
    }
    found.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_decides_unless_told() {
        let none = |_: &str| None;
        let args = SharedArgs::default();
        let loaded = |on_terminal| load_logging(&args, &none, on_terminal).unwrap();
        assert_eq!(loaded(true), LogSettings { format: LogFormat::Human, level: LogLevel::Info });
        assert_eq!(loaded(false).format, LogFormat::Json);

        let env = |name: &str| (name == LEVEL_VARIABLE).then(|| "debug".to_owned());
        let args = SharedArgs { log_format: Some("json".into()), ..SharedArgs::default() };
        let loaded = load_logging(&args, &env, true).unwrap();
        assert_eq!(loaded, LogSettings { format: LogFormat::Json, level: LogLevel::Debug });
    }

    #[test]
    fn both_mistakes_are_reported() {
        let env = |name: &str| (name == LEVEL_VARIABLE).then(|| "loud".to_owned());
        let args = SharedArgs { log_format: Some("xml".into()), ..SharedArgs::default() };
        let errors = load_logging(&args, &env, true).unwrap_err().to_string();
        assert_eq!(
            errors,
            "WALDEX_LOG_LEVEL: \"loud\" must be one of error, warn, info, debug, trace\n\
             --log-format: \"xml\" must be one of human, json"
        );
    }
}
