use std::time::Duration;

use kiln::{Event, LogStream, Reason, StepOutcome, StepWhy};

use super::{Screen, cut, width};
use crate::ui::live::{Display, Window};

fn window(columns: usize, rows: usize) -> Window {
    Window { columns, rows }
}

fn start(screen: &mut Screen, step: u32, title: &str) {
    screen.take(Event::StepDeclared { step, title: title.to_owned(), lines: None }, Duration::ZERO);
    screen.take(Event::StepStarted { step }, Duration::ZERO);
}

fn log(screen: &mut Screen, step: u32, text: &str) {
    let event = Event::StepLog { step, stream: LogStream::Stderr, text: text.to_owned() };
    screen.take(event, Duration::ZERO);
}

fn draw(screen: &mut Screen, ms: u64, window: Window) -> String {
    screen.draw(Duration::from_millis(ms), window, false)
}

#[test]
fn a_running_step_shows_its_time_and_tail_and_scrolls_away_when_done() {
    let mut screen = Screen::new(false);
    start(&mut screen, 1, "[1/2] RUN make");
    log(&mut screen, 1, "one\ntwo\nthree\nfour\nfi");
    log(&mut screen, 1, "ve\x1b[2K\x1b[31m!\r\n");
    assert_eq!(
        draw(&mut screen, 1500, window(40, 24)),
        "\
[+] 1.5s 0/1
 => [1/2] RUN make 1.5s
    two
    three
    four
    five!
"
    );
    let done =
        Event::StepFinished { step: 1, outcome: StepOutcome::Done, duration_us: 2_000_000, usage: None };
    screen.take(done, Duration::ZERO);
    assert_eq!(draw(&mut screen, 2000, window(40, 24)), "\x1b[6A\r\x1b[0J ✔ [1/2] RUN make 2.0s\n");
    assert_eq!(draw(&mut screen, 2100, window(40, 24)), "");
}

#[test]
fn long_titles_are_cut_before_the_time() {
    let mut screen = Screen::new(false);
    start(&mut screen, 1, "[1/2] RUN a very long command that does not fit");
    assert_eq!(draw(&mut screen, 0, window(30, 24)), "[+] 0.0s 0/1\n => [1/2] RUN a very lo… 0.0s\n");
}

#[test]
fn what_does_not_fit_the_window_is_counted() {
    let mut screen = Screen::new(false);
    for step in 1..=9 {
        start(&mut screen, step, &format!("step {step}"));
        log(&mut screen, step, "text\n");
    }
    assert_eq!(
        draw(&mut screen, 0, window(40, 6)),
        "\
[+] 0.0s 0/9
 => step 1 0.0s
 => step 2 0.0s
 => step 3 0.0s
    and 6 more
"
    );
    // In the smallest window the head alone is left, and nothing scrolls.
    assert_eq!(draw(&mut screen, 0, window(40, 3)).matches('\n').count(), 2);
}

#[test]
fn a_narrower_window_has_wrapped_what_was_drawn() {
    let mut screen = Screen::new(false);
    start(&mut screen, 1, "a title of thirty columns, ok?");
    assert!(draw(&mut screen, 0, window(80, 24)).ends_with(" => a title of thirty columns, ok? 0.0s\n"));
    // 12 columns in one row, 39 columns in two.
    assert!(draw(&mut screen, 0, window(20, 24)).starts_with("\x1b[3A\r\x1b[0J"));
}

#[test]
fn colours_only_where_wanted() {
    for (colours, cached) in
        [(true, " \x1b[36m=\x1b[0m RUN a \x1b[2mCACHED\x1b[0m\n"), (false, " = RUN a CACHED\n")]
    {
        let mut screen = Screen::new(colours);
        let title = "RUN a".to_owned();
        screen.take(Event::StepDeclared { step: 1, title, lines: None }, Duration::ZERO);
        screen.take(Event::StepCached { step: 1 }, Duration::ZERO);
        assert_eq!(draw(&mut screen, 0, window(80, 24)), cached);
    }
}

#[test]
fn columns_of_wide_and_escaped_text() {
    for (line, columns) in [("abc", 3), ("日本", 4), ("\x1b[31mred\x1b[0m", 3), ("é", 1)] {
        assert_eq!(width(line), columns, "{line:?}");
    }
    assert_eq!(cut("日本語", 5), "日本…");
    assert_eq!(cut("日本語", 6), "日本語");
    assert_eq!(cut("\x1b[31mlong\x1b[0m", 3), "\x1b[31mlo…");
}

#[test]
fn a_reason_scrolls_away_above_the_running_step() {
    let mut screen = Screen::new(false);
    start(&mut screen, 1, "[1/2] RUN make");
    let why = StepWhy {
        step: 1,
        title: "[1/2] RUN make".to_owned(),
        lines: None,
        reason: Reason::NeverBuilt,
        compared: None,
        advice: Vec::new(),
    };
    screen.take(Event::StepReason { step: 1, why: Box::new(why) }, Duration::ZERO);
    assert_eq!(
        draw(&mut screen, 0, window(80, 24)),
        " ? [1/2] RUN make\n    runs because: never built here\n[+] 0.0s 0/1\n => [1/2] RUN make 0.0s\n"
    );
}
