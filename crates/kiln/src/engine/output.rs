//! A step's output on its way to events: whole lines, readable text, and the last of them for an error.

use std::collections::VecDeque;

use kiln_core::LogStream;

use super::redact::Redactor;

/// Lines kept for a failure's message.
const TAIL: usize = 50;
/// A line longer than this is passed on in pieces: a program that never ends a line must not fill memory.
const LONGEST: usize = 64 * 1024;

/// Collects what a process writes until it is a line.
pub(crate) struct StepOutput<'a> {
    redactor: &'a Redactor,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: VecDeque<String>,
}

impl<'a> StepOutput<'a> {
    /// Starts with nothing written.
    pub(crate) fn new(redactor: &'a Redactor) -> Self {
        Self { redactor, stdout: Vec::new(), stderr: Vec::new(), tail: VecDeque::new() }
    }

    /// Takes bytes in; returns the lines that are whole now, line ends included.
    pub(crate) fn push(&mut self, stream: LogStream, bytes: &[u8]) -> Option<String> {
        let partial = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        partial.extend_from_slice(bytes);
        let end = match partial.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if partial.len() > LONGEST + self.redactor.overlap() => {
                // A secret that is not written to its end yet stays for the next piece.
                *partial = self.redactor.redact(partial).into_owned();
                partial.len().saturating_sub(self.redactor.overlap())
            }
            None => return None,
        };
        let whole: Vec<u8> = partial.drain(..end).collect();
        Some(self.keep(&whole))
    }

    /// Returns what is left of each stream.
    pub(crate) fn finish(&mut self) -> Vec<(LogStream, String)> {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        let rest = [(LogStream::Stdout, stdout), (LogStream::Stderr, stderr)];
        rest.into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(stream, bytes)| (stream, self.keep(&bytes) + "\n"))
            .collect()
    }

    /// Returns the last lines, without line ends.
    pub(crate) fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }

    fn keep(&mut self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(&self.redactor.redact(bytes)).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back((*line).to_owned());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_the_tail_is_the_last_of_them() {
        let redactor = Redactor::default();
        let mut output = StepOutput::new(&redactor);
        assert_eq!(output.push(LogStream::Stdout, b"a\nb"), Some("a\n".to_owned()));
        assert_eq!(output.push(LogStream::Stderr, b"e\xff\n"), Some("e\u{fffd}\n".to_owned()));
        assert_eq!(output.push(LogStream::Stdout, b"c"), None);
        // A character that comes in two pieces is not broken.
        assert_eq!(output.push(LogStream::Stdout, "é\n".as_bytes().split_at(1).0), None);
        assert_eq!(output.push(LogStream::Stdout, "é\n".as_bytes().split_at(1).1), Some("bcé\n".to_owned()));
        output.push(LogStream::Stdout, b"last");
        assert_eq!(output.finish(), [(LogStream::Stdout, "last\n".to_owned())]);
        assert_eq!(output.into_tail(), ["a", "e\u{fffd}", "bcé", "last"]);
    }

    #[test]
    fn an_endless_line_does_not_fill_memory() {
        let redactor = Redactor::default();
        let mut output = StepOutput::new(&redactor);
        let piece = vec![b'x'; LONGEST + 1];
        assert_eq!(output.push(LogStream::Stdout, &piece).map(|text| text.len()), Some(LONGEST + 1));
        assert!(output.finish().is_empty());
    }

    #[test]
    fn a_secret_in_pieces_is_seen_by_nobody() {
        let secret = kiln_core::Secret::new(b"hunter2".to_vec()).unwrap();
        let redactor = Redactor::new(&[("id".to_owned(), secret)].into());
        let mut output = StepOutput::new(&redactor);
        let mut seen = String::new();
        // Wherever the cut falls.
        for at in 0..10 {
            let piece = [vec![b'x'; LONGEST + at], b"hunter2".to_vec()].concat();
            let (first, second) = piece.split_at(LONGEST + 7);
            for part in [first, second] {
                seen += &output.push(LogStream::Stdout, part).unwrap_or_default();
            }
            seen += &output.push(LogStream::Stdout, b"\n").unwrap_or_default();
        }
        assert_eq!((seen.matches("hunter").count(), seen.matches("***\n").count()), (0, 10));
        assert_eq!(seen.matches('x').count(), (0..10).map(|at| LONGEST + at).sum::<usize>());
        assert!(!output.into_tail().concat().contains("hunter"));
    }
}
