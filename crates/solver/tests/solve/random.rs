//! Random graphs, built again and again while their inputs change: what comes out is what a first build makes.

use kiln_core::Cancel;
use kiln_testkit::graph;

use crate::bench::Bench;

/// A small generator of pseudo-random numbers (xorshift64*), so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

/// A step as data, so that it can be changed.
struct Line {
    root: Option<usize>,
    /// Stages, or a file of the context.
    sources: Vec<Result<usize, usize>>,
    run: bool,
    /// A copy that is made over nothing, and put over the root by another step.
    linked: bool,
    version: usize,
    no_cache: bool,
}

fn random_lines(dice: &mut Dice) -> Vec<Line> {
    let count = 3 + dice.roll(10);
    let line = |number: usize| Line {
        root: (number > 0 && dice.roll(4) > 0).then(|| dice.roll(number)),
        sources: (0..dice.roll(3))
            .map(|_| if number > 0 && dice.roll(2) > 0 { Ok(dice.roll(number)) } else { Err(dice.roll(3)) })
            .collect(),
        run: dice.roll(2) > 0,
        linked: dice.roll(3) == 0,
        version: 0,
        no_cache: false,
    };
    (0..count).map(line).collect()
}

fn text(lines: &[Line]) -> String {
    let mut out = "main context\nbase image\n".to_owned();
    for (number, line) in lines.iter().enumerate() {
        let root = line.root.map_or_else(|| "base".to_owned(), |root| format!("s{root}"));
        let source = |source: &Result<usize, usize>| match source {
            Ok(stage) => format!("s{stage}:x"),
            Err(file) => format!("main:{file}"),
        };
        let words: Vec<String> = line.sources.iter().map(source).collect();
        let no_cache = if line.no_cache { " no-cache" } else { "" };
        out += &if line.run || words.is_empty() {
            let words: String = words.iter().map(|word| format!(" bind={word}")).collect();
            format!("s{number} run {root} arg={}{words}{no_cache}\n", line.version)
        } else if line.linked {
            let words = words.join(" ");
            format!("l{number} copy - {words}{no_cache}\ns{number} merge {root} l{number}{no_cache}\n")
        } else {
            format!("s{number} copy {root} {}{no_cache}\n", words.join(" "))
        };
    }
    out
}

#[test]
fn what_is_built_in_steps_is_what_is_built_at_once() {
    for seed in 1..=150 {
        let mut dice = Dice(seed);
        let mut lines = random_lines(&mut dice);
        let bench = Bench::default();
        let mut contents = [0; 3];
        let mut forgot = false;
        for round in 0..8 {
            match dice.roll(5) {
                0 => {
                    let file = dice.roll(3);
                    contents[file] += 1;
                    bench.worker.set_content(
                        "main",
                        &file.to_string(),
                        &format!("{file} {}", contents[file]),
                    );
                }
                1 => {
                    let line = dice.roll(lines.len());
                    lines[line].version += 1;
                }
                2 => {
                    let line = dice.roll(lines.len());
                    lines[line].no_cache = true;
                }
                3 => {
                    let kind = ["s", "l"][dice.roll(2)];
                    forgot |= bench.index.forget(&format!("{kind}{}", dice.roll(lines.len()))) > 0;
                }
                _ => {}
            }
            let wanted =
                format!("s{}", if dice.roll(3) == 0 { dice.roll(lines.len()) } else { lines.len() - 1 });
            let jobs = 1 + dice.roll(3);
            let place = format!("seed {seed}, round {round}, {wanted} of\n{}", text(&lines));

            let (_, built) = bench.attempt(&text(&lines), &[&wanted], jobs, &Cancel::new());
            let built = built.unwrap_or_else(|error| panic!("{error} in {place}"));
            let fresh = Bench::default();
            for (file, version) in contents.iter().enumerate().filter(|(_, version)| **version > 0) {
                fresh.worker.set_content("main", &file.to_string(), &format!("{file} {version}"));
            }
            let clean = fresh.build_of(&text(&lines), &[&wanted]);
            let graph = graph(&text(&lines));
            let id = graph.id(&wanted);
            let meanings = (
                bench.worker.meaning(&built.results[&id].snapshot),
                fresh.worker.meaning(clean.snapshot(&wanted)),
            );
            assert_eq!(meanings.0, meanings.1, "{place}");

            // Nothing is a mixture: each result contains its root's, as far as the build knows it.
            for (step_id, step) in graph.graph.iter() {
                let root = step.op.root().and_then(|root| built.results.get(&root));
                if let (Some(finished), Some(root), false) = (built.results.get(&step_id), root, forgot) {
                    let grown = finished.snapshot.layers.starts_with(&root.snapshot.layers);
                    assert!(grown, "{} is not made over its root: {place}", step.info.title);
                }
            }
            lines.iter_mut().for_each(|line| line.no_cache = false);
            let (_, again) = bench.attempt(&text(&lines), &[&wanted], jobs, &Cancel::new());
            let again = again.unwrap_or_else(|error| panic!("{error} in {place}"));
            if !forgot {
                assert_eq!(
                    bench.worker.executed(),
                    [] as [&str; 0],
                    "a second build has nothing to do: {place}"
                );
                assert_eq!(again.results[&id].snapshot, built.results[&id].snapshot, "{place}");
            }
        }
    }
}
