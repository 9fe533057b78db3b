//! HEALTHCHECK. <https://docs.docker.com/reference/dockerfile/#healthcheck>

use kiln_dockerfile::{Command, Diagnostic, Flag, Healthcheck};
use serde_json::{Map, Value};

use crate::diagnose::error;
use crate::duration;
use crate::state::StageState;

/// The shortest time that docker takes, in nanoseconds.
const SHORTEST: i64 = 1_000_000;

/// Times by flag, with their names in docker's JSON, in the order in which docker writes them.
const TIMES: [(&str, &str); 4] = [
    ("interval", "Interval"),
    ("timeout", "Timeout"),
    ("start-period", "StartPeriod"),
    ("start-interval", "StartInterval"),
];

/// `HEALTHCHECK`: the last one counts, all of it.
pub(super) fn healthcheck(mut state: StageState, check: &Healthcheck) -> Result<StageState, Diagnostic> {
    let test: Vec<String> = match &check.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Some(Command::Exec(args)) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
    };
    let given = |name: &str| check.flags.iter().find(|flag| flag.name == name);
    let mut line = format!("HEALTHCHECK {{Test:[{}]", test.join(" "));
    let mut written = Map::new();
    written.insert("Test".to_owned(), Value::from(test));
    for (flag, name) in TIMES {
        let time = given(flag).map_or(Ok(0), time)?;
        line.push_str(&format!(" {name}:{}", duration::format(time)));
        if time != 0 {
            written.insert(name.to_owned(), Value::from(time));
        }
    }
    let retries = given("retries").map_or(Ok(0), retries)?;
    line.push_str(&format!(" Retries:{retries}}}"));
    if retries != 0 {
        written.insert("Retries".to_owned(), Value::from(retries));
    }
    state.config.config.healthcheck = Some(Value::Object(written));
    Ok(state.with_history(line))
}

/// Zero means what docker does by itself.
fn time(flag: &Flag) -> Result<i64, Diagnostic> {
    let text = flag.value.as_deref().unwrap_or_default();
    let problem = |expected: &str| Err(error(flag.span, format!("`--{}={text}`: {expected}", flag.name)));
    match duration::parse(text) {
        None if text.is_empty() => Ok(0),
        None => problem("write a duration, such as 30s or 1m30s"),
        Some(time) if time != 0 && time < SHORTEST => {
            problem("the shortest duration is 1ms, and 0 is docker's own")
        }
        Some(time) => Ok(time),
    }
}

fn retries(flag: &Flag) -> Result<i32, Diagnostic> {
    let text = flag.value.as_deref().unwrap_or_default();
    let retries = if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    retries
        .filter(|retries| *retries >= 0)
        .ok_or_else(|| error(flag.span, format!("`--retries={text}`: write a number, 0 or more")))
}
