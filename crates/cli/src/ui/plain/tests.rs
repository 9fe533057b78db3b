use std::time::Duration;

use kiln::{
    Advice, CacheMountState, Event, KeyChange, LogStream, PathChange, PathPart, Reason, StepOutcome, StepWhy,
};

use super::Plain;
use crate::ui::live::{Display, Window};

/// What happens at a time in milliseconds.
enum At {
    Event(u64, Event),
    Draw(u64),
}

fn declared(step: u32, title: &str) -> At {
    At::Event(0, Event::StepDeclared { step, title: title.to_owned(), lines: None })
}

fn started(at: u64, step: u32) -> At {
    At::Event(at, Event::StepStarted { step })
}

fn log(at: u64, step: u32, text: &str) -> At {
    At::Event(at, Event::StepLog { step, stream: LogStream::Stdout, text: text.to_owned() })
}

fn finished(at: u64, step: u32, outcome: StepOutcome, ms: u64) -> At {
    At::Event(at, Event::StepFinished { step, outcome, duration_us: ms * 1000, usage: None })
}

fn shown(story: Vec<At>) -> String {
    let mut plain = Plain::default();
    let window = Window { columns: 80, rows: 24 };
    let mut out = String::new();
    for at in story {
        match at {
            At::Event(ms, event) => plain.take(event, Duration::from_millis(ms)),
            At::Draw(ms) => out += &plain.draw(Duration::from_millis(ms), window, false),
        }
    }
    out + &plain.draw(Duration::from_secs(1000), window, true)
}

#[test]
fn one_step_after_another() {
    let failed = StepOutcome::Failed { message: "exit code: 2".to_owned() };
    let text = shown(vec![
        declared(1, "[1/3] FROM base"),
        declared(2, "[2/3] RUN make\n  all"),
        declared(3, "[3/3] RUN false"),
        At::Event(0, Event::StepCached { step: 1 }),
        At::Draw(100),
        started(100, 2),
        At::Draw(200),
        log(223, 2, "cc a.c\ncc"),
        log(230, 2, " b.c\n10%\r100%\nno end"),
        At::Draw(300),
        finished(1334, 2, StepOutcome::Done, 1234),
        started(1400, 3),
        finished(1500, 3, failed, 100),
    ]);
    assert_eq!(
        text,
        "\
#1 [1/3] FROM base
#1 CACHED

#2 [2/3] RUN make all
#2 0.123 cc a.c
#2 0.130 cc b.c
#2 0.130 100%
#2 1.234 no end
#2 DONE 1.2s

#3 [3/3] RUN false
#3 ERROR: exit code: 2
"
    );
}

#[test]
fn steps_side_by_side_take_turns() {
    let text = shown(vec![
        declared(1, "RUN a"),
        declared(2, "RUN b"),
        started(0, 1),
        started(0, 2),
        log(50, 1, "a1\n"),
        log(60, 2, "b1\n"),
        At::Draw(100),
        log(150, 1, "a2\n"),
        log(160, 2, "b2\n"),
        // Within the patience the first goes on.
        At::Draw(200),
        // After it the second has its turn; the first is marked as unfinished.
        At::Draw(1200),
        log(1300, 1, "a3\n"),
        finished(1400, 2, StepOutcome::Done, 1400),
        finished(1500, 1, StepOutcome::Cancelled, 1500),
    ]);
    assert_eq!(
        text,
        "\
#1 RUN a
#1 0.050 a1
#1 0.150 a2
#1 ...

#2 RUN b
#2 0.060 b1
#2 0.160 b2
#2 DONE 1.4s

#1 RUN a
#1 1.300 a3
#1 CANCELED
"
    );
}

#[test]
fn progress_waits_warnings_and_outputs() {
    let progress = |at, current| {
        let item = "87fcfc688975".to_owned();
        At::Event(at, Event::StepProgress { step: 1, item, current, total: Some(20_000_000) })
    };
    let cache = |at, state| {
        let (id, target) = ("apt".to_owned(), "/var/cache/apt".to_owned());
        At::Event(at, Event::CacheMount { step: 1, id, target, state })
    };
    let warning = Event::Warning { message: "base is old".to_owned(), lines: Some((3, 3)) };
    let names = vec!["demo:latest".to_owned()];
    let text = shown(vec![
        declared(1, "RUN a"),
        At::Event(0, warning),
        At::Draw(0),
        started(0, 1),
        progress(0, 1_000_000),
        // Soon after: not told.
        progress(100, 2_000_000),
        progress(2000, 10_000_000),
        progress(2100, 20_000_000),
        progress(2200, 20_000_000),
        cache(2300, CacheMountState::Waiting { holder: "process 1".to_owned() }),
        cache(5300, CacheMountState::Acquired { new: false, waited_us: 3_000_000 }),
        finished(6000, 1, StepOutcome::Done, 6000),
        At::Draw(6000),
        At::Event(6000, Event::Exported { output: "image".to_owned(), digest: None, names }),
    ]);
    assert_eq!(
        text,
        "\
WARNING: base is old (line 3)

#1 RUN a
#1 87fcfc688975 1.0 MB / 20.0 MB
#1 87fcfc688975 10.0 MB / 20.0 MB
#1 87fcfc688975 20.0 MB / 20.0 MB done
#1 waiting for cache \"apt\", held by process 1
#1 got cache \"apt\" after 3.0s
#1 DONE 6.0s

exported image as demo:latest
"
    );
}

fn because() -> Event {
    let path = PathChange { path: "src/\x1b[2Ja".to_owned(), what: vec![PathPart::Content] };
    let change = |count| KeyChange::Files {
        source: "src".to_owned(),
        of: None,
        paths: vec![path.clone(), path.clone()],
        count,
        modes_only: false,
    };
    let why = StepWhy {
        step: 1,
        title: "[1/2] COPY src /".to_owned(),
        lines: None,
        reason: Reason::Changed { changes: vec![change(2)] },
        compared: None,
        advice: vec![Advice::ContextModes],
    };
    Event::StepReason { step: 1, why: Box::new(why) }
}

#[test]
fn a_reason_stands_before_what_the_step_says() {
    let text = shown(vec![
        declared(1, "[1/2] COPY src /"),
        started(0, 1),
        At::Event(0, because()),
        log(100, 1, "x\n"),
        finished(200, 1, StepOutcome::Done, 200),
    ]);
    assert_eq!(
        text,
        "#1 [1/2] COPY src /\n#1 runs because: src: 2 paths differ\n#1     src/a content\n#1     src/a content\n\
         #1 hint: checkouts under another umask hit as well with --context-modes=git\n#1 0.100 x\n#1 DONE 0.2s\n"
    );
}
