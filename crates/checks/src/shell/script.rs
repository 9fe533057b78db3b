//! The shell text of a RUN, and where each byte of it stands in the file.

use std::borrow::Cow;
use std::ops::Range;

use kiln_dockerfile::{Command, Located, Logical, Run, Span};

/// A RUN's command for a POSIX shell.
#[derive(Debug, Clone)]
pub(crate) struct Script<'a> {
    /// What the shell reads.
    pub(crate) text: Cow<'a, str>,
    place: Place<'a>,
}

#[derive(Debug, Clone)]
enum Place<'a> {
    /// From this offset of the instruction's joined line.
    Line(Logical<'a>, usize),
    /// A heredoc's body from this offset of the file.
    Body(usize),
    /// Nowhere: tabs were stripped, or a quoted text was read as a script.
    Unknown,
}

impl<'a> Script<'a> {
    /// Returns what a shell reads: nothing for an exec form, and for a script that another program reads.
    pub(crate) fn of(
        file: &'a str,
        located: &Located<impl Sized>,
        run: &'a Run,
        escape: char,
    ) -> Option<Self> {
        let Command::Shell(text) = &run.command else { return None };
        if let [heredoc] = &run.heredocs[..]
            && is_only_a_marker(text)
        {
            let first = heredoc.content.lines().next().unwrap_or("");
            if first.starts_with("#!") && !is_shell(first) {
                return None;
            }
            let as_written = file.get(heredoc.span.start..heredoc.span.end) == Some(heredoc.content.as_str());
            let place = if as_written { Place::Body(heredoc.span.start) } else { Place::Unknown };
            return Some(Self { text: Cow::Borrowed(&heredoc.content), place });
        }
        let line = Logical::at(file, located.span.start, escape);
        let start = line.text.trim_end().strip_suffix(text.as_str()).map(str::len);
        let place = start.map_or(Place::Unknown, |start| Place::Line(line, start));
        Some(Self { text: Cow::Borrowed(text), place })
    }

    /// Returns where a range stands in the file.
    pub(crate) fn span(&self, range: Range<usize>) -> Option<Span> {
        match &self.place {
            Place::Line(line, start) => Some(line.span(start + range.start..start + range.end)),
            Place::Body(start) => Some(Span { start: start + range.start, end: start + range.end }),
            Place::Unknown => None,
        }
    }
}

/// `<<EOF` and nothing else: the heredoc is the whole command.
fn is_only_a_marker(text: &str) -> bool {
    let text = text.trim().trim_start_matches(|ch: char| ch.is_ascii_digit());
    text.strip_prefix("<<")
        .is_some_and(|name| !name.starts_with('<') && !name.contains([' ', '\t', ';', '|', '&']))
}

/// `#!/bin/sh -e`, `#!/usr/bin/env bash`.
fn is_shell(line: &str) -> bool {
    let mut words = line.trim_start_matches("#!").split_whitespace();
    let program = words.find(|word| !word.ends_with("/env") && !word.starts_with('-')).unwrap_or("");
    SHELLS.contains(&program.rsplit('/').next().unwrap_or(""))
}

/// Shells whose language is close enough.
pub(crate) const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];
