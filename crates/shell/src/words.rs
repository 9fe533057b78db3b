//! A line into commands: words, quotes, variables; `;`, `&&`, `||`, `#`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// When a command is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// If the one before ended well.
    And,
    /// If it did not.
    Or,
}

/// Why a line is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A quote is open, or the line ends with a backslash: there must be more.
    Incomplete,
    /// Something that a real shell takes and this one does not.
    Refused(&'static str),
}

/// One word as it was written: what its variables hold is asked when its command is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Word {
    parts: Vec<Part>,
    /// Whether it is a word even if it is empty.
    quoted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Variable(Vec<u8>),
}

impl Word {
    /// Returns what it says; none if that is nothing and it has no quotes. `variable` gives values; what is not set is empty.
    pub(crate) fn expand(&self, variable: &dyn Fn(&[u8]) -> Option<OsString>) -> Option<OsString> {
        let mut word = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => word.extend_from_slice(text),
                Part::Variable(name) => word.extend(variable(name).unwrap_or_default().into_vec()),
            }
        }
        (self.quoted || !word.is_empty()).then(|| OsString::from_vec(word))
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.extend_from_slice(bytes),
            _ => self.parts.push(Part::Text(bytes.to_vec())),
        }
    }
}

/// Splits text into the commands that it says.
pub(crate) fn split(text: &[u8]) -> Result<Vec<(When, Vec<Word>)>, Trouble> {
    let mut reader = Reader { text, at: 0 };
    let mut commands = Vec::new();
    let (mut when, mut words) = (When::Always, Vec::new());
    while let Some(byte) = reader.peek() {
        let next = match byte {
            b' ' | b'\t' | b'\r' => {
                reader.at += 1;
                continue;
            }
            b'#' => {
                reader.at +=
                    reader.rest().iter().position(|byte| *byte == b'\n').unwrap_or(reader.rest().len());
                continue;
            }
            b'\n' | b';' => {
                reader.at += 1;
                When::Always
            }
            b'&' if reader.rest().starts_with(b"&&") => {
                reader.at += 2;
                When::And
            }
            b'|' if reader.rest().starts_with(b"||") => {
                reader.at += 2;
                When::Or
            }
            _ => {
                words.push(reader.word()?);
                continue;
            }
        };
        if words.is_empty() {
            // An empty line, or a `;` too many: nothing. But `&&` stands between two commands.
            if next != When::Always {
                return Err(Trouble::Refused("there is no command before `&&` or `||`"));
            }
        } else {
            commands.push((when, std::mem::take(&mut words)));
        }
        when = next;
    }
    match (words.is_empty(), when) {
        (false, _) => commands.push((when, words)),
        (true, When::Always) => {}
        (true, _) => return Err(Trouble::Incomplete),
    }
    Ok(commands)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn next(&mut self) -> Result<u8, Trouble> {
        let byte = self.peek().ok_or(Trouble::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    fn word(&mut self) -> Result<Word, Trouble> {
        let mut word = Word::default();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' => break,
                b'&' if self.rest().starts_with(b"&&") => break,
                b'|' if self.rest().starts_with(b"||") => break,
                b'|' | b'&' => return Err(Trouble::Refused("no pipes, and nothing in the background")),
                b'<' | b'>' => return Err(Trouble::Refused("no redirections")),
                b'(' | b')' | b'`' => return Err(Trouble::Refused("no commands inside commands")),
                b'*' | b'?' | b'[' => {
                    return Err(Trouble::Refused(
                        "no patterns of file names; in quotes they stand for themselves",
                    ));
                }
                b'\'' => {
                    word.quoted = true;
                    self.at += 1;
                    let end =
                        self.rest().iter().position(|byte| *byte == b'\'').ok_or(Trouble::Incomplete)?;
                    word.push(&self.rest()[..end]);
                    self.at += end + 1;
                }
                b'"' => {
                    word.quoted = true;
                    self.at += 1;
                    self.double_quoted(&mut word)?;
                }
                b'\\' => {
                    self.at += 1;
                    match self.next()? {
                        b'\n' => {}
                        byte => word.push(&[byte]),
                    }
                }
                b'$' => self.expand(&mut word)?,
                byte => {
                    word.push(&[byte]);
                    self.at += 1;
                }
            }
        }
        Ok(word)
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Trouble> {
        loop {
            match self.peek().ok_or(Trouble::Incomplete)? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'$' => self.expand(word)?,
                b'`' => return Err(Trouble::Refused("no commands inside commands")),
                b'\\' => {
                    self.at += 1;
                    match self.next()? {
                        b'\n' => {}
                        byte @ (b'"' | b'\\' | b'$' | b'`') => word.push(&[byte]),
                        byte => word.push(&[b'\\', byte]),
                    }
                }
                byte => {
                    word.push(&[byte]);
                    self.at += 1;
                }
            }
        }
    }

    /// `$NAME`, `${NAME}`, `$?`; any other `$` is itself.
    fn expand(&mut self, word: &mut Word) -> Result<(), Trouble> {
        self.at += 1;
        let rest = self.rest();
        let name = match rest.first() {
            Some(b'(') => return Err(Trouble::Refused("no commands inside commands")),
            Some(b'?') => &rest[..1],
            Some(b'{') => {
                let end = rest.iter().position(|byte| *byte == b'}').ok_or(Trouble::Incomplete)?;
                let name = &rest[1..end];
                if name.is_empty() || !name.iter().all(|byte| in_name(*byte)) {
                    return Err(Trouble::Refused("of ${...} only ${NAME}"));
                }
                self.at += end + 1;
                word.parts.push(Part::Variable(name.to_vec()));
                return Ok(());
            }
            _ => &rest[..rest.iter().position(|byte| !in_name(*byte)).unwrap_or(rest.len())],
        };
        if name.is_empty() {
            word.push(b"$");
        } else {
            word.parts.push(Part::Variable(name.to_vec()));
            self.at += name.len();
        }
        Ok(())
    }
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let variable = |name: &[u8]| match name {
            b"A" => Some("one two".into()),
            b"?" => Some("7".into()),
            _ => None,
        };
        match split(text.as_bytes()) {
            Err(Trouble::Incomplete) => "...".to_owned(),
            Err(Trouble::Refused(why)) => format!("! {why}"),
            Ok(commands) => {
                let one = |(when, words): &(When, Vec<Word>)| {
                    let words: Vec<OsString> =
                        words.iter().filter_map(|word| word.expand(&variable)).collect();
                    format!("{when:?}{words:?}")
                };
                commands.iter().map(one).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn lines_are_read_as_a_shell_reads_them() {
        let table = [
            ("", ""),
            ("  # nothing", ""),
            ("ls -l  /", r#"Always["ls", "-l", "/"]"#),
            ("a;b ; c\nd", r#"Always["a"] Always["b"] Always["c"] Always["d"]"#),
            ("a && b || c", r#"Always["a"] And["b"] Or["c"]"#),
            ("echo 'a  b' \"c $A\" d\\ e", r#"Always["echo", "a  b", "c one two", "d e"]"#),
            ("echo $A ${A}x $B \"$B\" $? $", r#"Always["echo", "one two", "one twox", "", "7", "$"]"#),
            ("echo a#b # c", r#"Always["echo", "a#b"]"#),
            ("echo \"\\$A \\\" \\n\"", r#"Always["echo", "$A \" \\n"]"#),
            ("echo a\\\nb", r#"Always["echo", "ab"]"#),
            ("echo 'a", "..."),
            ("echo \"a", "..."),
            ("echo a\\", "..."),
            ("a &&", "..."),
            ("&& a", "! there is no command before `&&` or `||`"),
            ("ls | cat", "! no pipes, and nothing in the background"),
            ("a &", "! no pipes, and nothing in the background"),
            ("a > b", "! no redirections"),
            ("$(a)", "! no commands inside commands"),
            ("ls *", "! no patterns of file names; in quotes they stand for themselves"),
            ("echo ${A:-b}", "! of ${...} only ${NAME}"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }
}
