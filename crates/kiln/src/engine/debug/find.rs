//! Which step is meant by what was typed.

use super::{Candidate, Journal, StepSummary};
use crate::error::LookError;

/// Shorter beginnings of names are rather numbers.
const SHORTEST: usize = 4;

/// Finds the one step that `which` means, among failed ones (the last first) and those of the last build.
pub(super) fn find(which: &str, failed: Vec<Candidate>, journal: &Journal) -> Result<Candidate, LookError> {
    if which == "last" {
        return last(failed, journal);
    }
    // What failed in the last build stands for its step there.
    let of_last = |candidate: &Candidate| journal.failed == Some(candidate.step);
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |candidate: Candidate| {
        if !found.iter().any(|known| known.summary.name == candidate.summary.name) {
            found.push(candidate);
        }
    };
    for candidate in failed {
        if is_named(which, &candidate) || of_last(&candidate) && is_at(which, &candidate) {
            add(candidate);
        }
    }
    for candidate in journal.candidates() {
        if is_named(which, &candidate) || is_at(which, &candidate) {
            add(candidate);
        }
    }
    let step = || which.to_owned();
    match found.len() {
        0 => Err(LookError::NoSuchStep { step: step() }),
        1 => Ok(found.remove(0)),
        _ => {
            let titles =
                found.into_iter().map(|found| format!("{} ({})", found.summary.name, found.summary.title));
            Err(LookError::Several { step: step(), titles: titles.collect() })
        }
    }
}

fn last(failed: Vec<Candidate>, journal: &Journal) -> Result<Candidate, LookError> {
    let of_last_build = |candidate: &&Candidate| journal.failed == Some(candidate.step);
    if let (Some(step), None) = (journal.failed, failed.iter().find(of_last_build)) {
        let newer = failed.first().is_none_or(|kept| kept.summary.time <= journal.time);
        if let (Some(title), true) = (journal.title(step), newer) {
            return Err(LookError::NotKept { title: title.to_owned() });
        }
    }
    let found = failed.iter().find(of_last_build).filter(|found| found.summary.time >= journal.time);
    found.or(failed.first()).cloned().ok_or(LookError::NothingKept)
}

/// By its name or the beginning of it.
fn is_named(which: &str, candidate: &Candidate) -> bool {
    let name = &candidate.summary.name;
    let bare = name.split(['-', ':']).next_back().unwrap_or(name);
    name == which || which.len() >= SHORTEST && (name.starts_with(which) || bare.starts_with(which))
}

fn is_at(which: &str, candidate: &Candidate) -> bool {
    let StepSummary { file, title, lines, .. } = &candidate.summary;
    is_place(which, file, title, *lines)
}

/// Whether a step of a Dockerfile is meant: by its number in the title, or by a line.
pub(crate) fn is_place(which: &str, name: &str, title: &str, lines: Option<(usize, usize)>) -> bool {
    if let Some((file, line)) = which.rsplit_once(':') {
        let Ok(line) = line.parse::<usize>() else { return false };
        let file = file.is_empty() || std::path::Path::new(name).ends_with(file);
        return file && lines.is_some_and(|(first, last)| (first..=last).contains(&line));
    }
    let inner = title.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((inner, _)) = inner else { return false };
    let which = which.trim_start_matches('[').trim_end_matches(']');
    inner == which || inner.strip_prefix(which).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use kiln_core::{Digest, LayerId, Snapshot, StepId};

    use super::super::StepSummary;
    use super::*;

    fn candidate(name: &str, title: &str, line: usize) -> Candidate {
        let step: StepId = serde_json::from_value(serde_json::json!(Digest::of(title.as_bytes()))).unwrap();
        Candidate {
            summary: StepSummary {
                name: name.to_owned(),
                title: title.to_owned(),
                file: "app/Dockerfile".to_owned(),
                lines: Some((line, line + 1)),
                failed: None,
                time: 0,
            },
            step,
            below: Snapshot::default(),
            own: vec![LayerId("a".to_owned())],
            process: None,
        }
    }

    #[test]
    fn names_numbers_and_lines() {
        let step = candidate("failed-1234abcd", "[build 2/12] RUN make", 7);
        for which in ["failed-1234abcd", "failed-12", "1234", "1234ab"] {
            assert!(is_named(which, &step), "{which}");
        }
        for which in ["failed", "123", "2345", "abcd", ""] {
            assert!(!is_named(which, &step) || which == "failed", "{which}");
        }
        for which in ["build 2/12", "[build 2/12]", "build 2", ":7", ":8", "Dockerfile:8", "app/Dockerfile:7"]
        {
            assert!(is_at(which, &step), "{which}");
        }
        for which in ["2/12", "build 2/1", "build", ":6", ":9", "file:7", "other:7", "", "RUN"] {
            assert!(!is_at(which, &step), "{which}");
        }
        assert!(is_at("2", &candidate("a", "[2/5] RUN true", 1)));
        assert!(!is_at("2", &candidate("a", "[22/55] RUN true", 1)));
    }

    #[test]
    fn what_failed_last_is_told_from_what_failed_before() {
        let (a, b) = (candidate("failed-a", "[1/2] RUN a", 1), candidate("failed-b", "[2/2] RUN b", 2));
        let name = |found: Result<Candidate, LookError>| found.map(|found| found.summary.name);
        let none = Journal::default();
        assert_eq!(name(find("last", vec![], &none)), Err(LookError::NothingKept));
        assert_eq!(name(find("last", vec![b.clone(), a.clone()], &none)).unwrap(), "failed-b");
        let failed = Journal { failed: Some(a.step), ..Journal::default() };
        assert_eq!(name(find("last", vec![b.clone(), a.clone()], &failed)).unwrap(), "failed-a");
        let other = name(find(":1", vec![b.clone(), a.clone()], &failed));
        assert_eq!(other.unwrap(), "failed-a", "a line is one of the last build");
        assert!(matches!(find("1/2", vec![b, a], &none), Err(LookError::NoSuchStep { .. })));
    }
}
