//! How an instruction's text falls into words. Three ways: at blanks, at blanks outside quotes, and leading flags.

/// A word and its bytes in the text it was cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What separates words; ASCII only, as in the program.
pub(crate) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Cuts at runs of blanks; quotes mean nothing.
pub(crate) fn split_blanks(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = text[start..].find(BLANKS).map_or(text.len(), |at| start + at);
        words.push(Word { text: text[start..end].to_owned(), start, end });
        start = text.len() - text[end..].trim_start_matches(BLANKS).len();
    }
    words
}

/// Cuts at white space outside quotes; quotes and escapes stay as written, an escape at the very end is dropped.
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            if let Some(mut done) = word.take()
                && (quoted || !done.text.is_empty())
            {
                done.end = at;
                words.push(done);
            }
            quoted = false;
            continue;
        }
        let word = word.get_or_insert_with(|| Word { text: String::new(), start: at, end: text.len() });
        match quote {
            None if ch == '\'' || ch == '"' => {
                quote = Some(ch);
                quoted = true;
            }
            Some(open) if ch == open => quote = None,
            _ => {}
        }
        if ch == escape && quote != Some('\'') {
            let Some((_, next)) = chars.next() else { break };
            word.text.push(ch);
            word.text.push(next);
        } else {
            word.text.push(ch);
        }
    }
    words.extend(word.filter(|word| quoted || !word.text.is_empty()));
    words
}

/// Cuts off leading `--flag` words, with their quotes and backslashes removed, and tells where the rest begins. A bare
/// `--` ends them.
pub(crate) fn split_flags(text: &str) -> (Vec<Word>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at = text.len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (flags, at);
        }
        let (word, quoted) = flag_word(text, at);
        at = word.end;
        if word.text == "--" {
            return (flags, at);
        }
        if quoted || !word.text.is_empty() {
            flags.push(word);
        }
    }
}

fn flag_word(text: &str, start: usize) -> (Word, bool) {
    let mut word = Word { text: String::new(), start, end: text.len() };
    let mut quote: Option<char> = None;
    let mut quoted = false;
    let mut chars = text[start..].char_indices();
    while let Some((at, ch)) = chars.next() {
        match quote {
            None if ch.is_whitespace() => {
                word.end = start + at;
                break;
            }
            None if ch == '\'' || ch == '"' => {
                quote = Some(ch);
                quoted = true;
            }
            Some(open) if ch == open => quote = None,
            // always a backslash, whatever `# escape=` says
            _ if ch == '\\' => word.text.extend(chars.next().map(|(_, next)| next)),
            _ => word.text.push(ch),
        }
    }
    (word, quoted)
}
