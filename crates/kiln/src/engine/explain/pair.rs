//! Which line of one build is which line of another.

use std::collections::{HashMap, HashSet, VecDeque};

use super::line::Line;

/// Returns for each line of `now` the position in `was` of what is the same line of the Dockerfile.
///
/// The same stage, and the same text there: the first of several goes with the first. So a line that was moved is found
/// again. A line whose text is new stands for the first line left over of its kind behind the one that it follows, so that
/// an edited line is found too. Stages that have another name now go together in their order.
pub(crate) fn pair(now: &[Line], was: &[Line]) -> Vec<Option<usize>> {
    let (stages, old) = (by_stage(now), by_stage(was));
    let mut pairs = vec![None; now.len()];
    let names: HashSet<&str> = stages.iter().map(|(name, _)| *name).collect();
    let known: HashMap<&str, &Vec<usize>> = old.iter().map(|(name, lines)| (*name, lines)).collect();
    let mut renamed = old.iter().filter(|(name, _)| !names.contains(name)).map(|(_, lines)| lines);
    for (name, lines) in &stages {
        if let Some(before) = known.get(name).copied().or_else(|| renamed.next()) {
            pair_stage((now, lines), (was, before), &mut pairs);
        }
    }
    pairs
}

/// Positions of the lines of each stage, in the order in which stages first come.
fn by_stage(lines: &[Line]) -> Vec<(&str, Vec<usize>)> {
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        let stage = *known.entry(&line.stage).or_insert_with(|| {
            stages.push((&line.stage, Vec::new()));
            stages.len() - 1
        });
        stages[stage].1.push(number);
    }
    stages
}

fn pair_stage(
    (now, lines): (&[Line], &[usize]),
    (was, before): (&[Line], &[usize]),
    pairs: &mut [Option<usize>],
) {
    let mut same: HashMap<(&str, &str), VecDeque<usize>> = HashMap::new();
    for (place, &number) in before.iter().enumerate() {
        same.entry((&was[number].kind, &was[number].text)).or_default().push_back(place);
    }
    let mut taken = vec![false; before.len()];
    let mut places: Vec<Option<usize>> = Vec::with_capacity(lines.len());
    for &number in lines {
        let key = (now[number].kind.as_str(), now[number].text.as_str());
        let place = same.get_mut(&key).and_then(VecDeque::pop_front);
        if let Some(place) = place {
            taken[place] = true;
        }
        places.push(place);
    }
    let mut next = 0;
    for (&number, place) in lines.iter().zip(&mut places) {
        if place.is_none() {
            let left = (next..before.len()).take_while(|&place| !taken[place]);
            let found = left.into_iter().find(|&place| was[before[place]].kind == now[number].kind);
            if let Some(found) = found {
                taken[found] = true;
                *place = Some(found);
            }
        }
        if let Some(place) = *place {
            next = place + 1;
            pairs[number] = Some(before[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `run make`: kind and text; a line `stage NAME` begins a stage.
    fn lines(text: &str) -> Vec<Line> {
        let mut stage = "0".to_owned();
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim) {
            match line.split_once(' ') {
                Some(("stage", name)) => stage = name.to_owned(),
                Some((kind, _)) => lines.push(Line {
                    stage: stage.clone(),
                    kind: kind.to_owned(),
                    text: line.to_owned(),
                    ..Line::default()
                }),
                None => panic!("{line}"),
            }
        }
        lines
    }

    fn paired(now: &str, was: &str) -> Vec<Option<usize>> {
        pair(&lines(now), &lines(was))
    }

    #[test]
    fn lines_are_found_again() {
        let rows: [(&str, &str, &[Option<usize>]); 9] = [
            ("run a\nrun b", "run a\nrun b", &[Some(0), Some(1)]),
            // Moved.
            ("run b\nrun a", "run a\nrun b", &[Some(1), Some(0)]),
            ("copy x\nrun a\nrun b", "run a\nrun b\ncopy x", &[Some(2), Some(0), Some(1)]),
            // Twice.
            ("run a\nrun a", "run a\nrun a", &[Some(0), Some(1)]),
            ("run a\nrun a", "run a", &[Some(0), None]),
            // Edited: the same kind at the same place.
            ("run a\nrun B\nrun c", "run a\nrun b\nrun c", &[Some(0), Some(1), Some(2)]),
            ("run a\ncopy x\nrun c", "run a\nrun b\nrun c", &[Some(0), None, Some(2)]),
            // New.
            ("run a\nrun new\nrun c", "run a\nrun c", &[Some(0), None, Some(1)]),
            ("run a", "", &[None]),
        ];
        for (now, was, pairs) in rows {
            assert_eq!(paired(now, was), pairs, "{now:?} and {was:?}");
        }
    }

    #[test]
    fn stages_do_not_mix_but_may_be_renamed() {
        let was = "stage a\nrun x\nstage b\nrun x\nrun y";
        assert_eq!(paired("stage b\nrun x\nrun y\nstage a\nrun x", was), [Some(1), Some(2), Some(0)]);
        assert_eq!(paired("stage a\nrun x\nstage c\nrun x\nrun y", was), [Some(0), Some(1), Some(2)]);
        assert_eq!(paired("stage a\nrun y", "stage a\ncopy q\nstage b\nrun y"), [None]);
    }

    #[test]
    fn no_earlier_line_stands_for_two() {
        let all = ["run a", "run b", "copy c", "run d"];
        let text = |order: &[usize]| order.iter().map(|&i| all[i]).collect::<Vec<_>>().join("\n");
        for number in 0..256 {
            let order: Vec<usize> = (0..4).map(|place| number >> (2 * place) & 3).collect();
            let pairs = paired(&text(&order), &text(&[0, 1, 2, 3]));
            let mut found: Vec<usize> = pairs.into_iter().flatten().collect();
            let count = found.len();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), count, "{order:?}");
        }
    }
}
