//! The JSON form of an instruction: an array of strings, as Go's encoding/json reads it.

use serde::de::IgnoredAny;

use crate::words::Word;

/// What a text that may be a JSON array is.
pub(crate) enum Json {
    /// An array of strings.
    Strings(Vec<Word>),
    /// A JSON array with something else in it; the program refuses it.
    NotStrings,
    /// Not JSON: the instruction is in its shell form.
    No,
}

/// Reads a text that is one JSON array and nothing else.
pub(crate) fn array(text: &str) -> Json {
    let body = text.trim_start();
    if !body.starts_with('[') {
        return Json::No;
    }
    if let Some(words) = strings(text) {
        return Json::Strings(words);
    }
    match serde_json::from_str::<Vec<IgnoredAny>>(body) {
        Ok(_) => Json::NotStrings,
        Err(_) => Json::No,
    }
}

fn strings(text: &str) -> Option<Vec<Word>> {
    let mut reader = Reader { text, at: text.len() - text.trim_start().len() };
    reader.eat('[')?;
    let mut words = Vec::new();
    if reader.peek() != Some(']') {
        loop {
            words.push(reader.string()?);
            if reader.peek() != Some(',') {
                break;
            }
            reader.eat(',')?;
        }
    }
    reader.eat(']')?;
    reader.peek().is_none().then_some(words)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// The next character after JSON's white space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
        rest.chars().next()
    }

    fn eat(&mut self, wanted: char) -> Option<()> {
        (self.peek() == Some(wanted)).then(|| self.at += wanted.len_utf8())
    }

    fn string(&mut self) -> Option<Word> {
        self.eat('"')?;
        let start = self.at - 1;
        let mut text = String::new();
        loop {
            let ch = self.text[self.at..].chars().next()?;
            self.at += ch.len_utf8();
            match ch {
                '"' => return Some(Word { text, start, end: self.at }),
                '\\' => text.push(self.escaped()?),
                '\0'..='\x1f' => return None,
                _ => text.push(ch),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let ch = self.text[self.at..].chars().next()?;
        self.at += ch.len_utf8();
        Some(match ch {
            '"' | '\\' | '/' => ch,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode()?,
            _ => return None,
        })
    }

    /// `\uXXXX`; a lone half of a pair becomes U+FFFD, as in Go.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if let 0xd800..=0xdbff = first
            && self.text[self.at..].starts_with("\\u")
        {
            let before = self.at;
            self.at += 2;
            if let second @ 0xdc00..=0xdfff = self.hex()? {
                return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = before;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
