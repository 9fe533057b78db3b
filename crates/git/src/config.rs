//! The format of `.gitmodules` and of a repository's `config`.
//! <https://git-scm.com/docs/git-config#_syntax>

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Lower case.
    pub(crate) section: String,
    /// As written; empty if there is none.
    pub(crate) subsection: String,
    /// Lower case.
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Reads all of them; the error is the number of the line that is wrong.
pub(crate) fn parse(text: &str) -> Result<Vec<Setting>, usize> {
    let mut settings = Vec::new();
    let (mut section, mut subsection) = (String::new(), String::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let number = number + 1;
        let mut line = line.trim_start();
        if line.starts_with('[') {
            let rest;
            (section, subsection, rest) = header(line).ok_or(number)?;
            line = rest.trim_start();
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if section.is_empty() {
            return Err(number);
        }
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        let key = key.trim_end().to_lowercase();
        if !key.starts_with(|c: char| c.is_ascii_alphabetic()) || !key.chars().all(is_word) {
            return Err(number);
        }
        let mut out = Value::default();
        out.add(value.trim_start()).ok_or(number)?;
        while std::mem::take(&mut out.goes_on) {
            let (_, next) = lines.next().ok_or(number)?;
            out.add(next).ok_or(number)?;
        }
        let value = out.finish().ok_or(number)?;
        settings.push(Setting { section: section.clone(), subsection: subsection.clone(), key, value });
    }
    Ok(settings)
}

/// `[section]`, `[section "name"]`, `[section.name]`, and what follows.
fn header(line: &str) -> Option<(String, String, &str)> {
    let rest = line.strip_prefix('[')?;
    let end = rest.find([']', '"', ' ', '\t'])?;
    let (name, mut rest) = rest.split_at(end);
    if name.is_empty() || !name.chars().all(|c| is_word(c) || c == '.') {
        return None;
    }
    let (section, mut subsection) = match name.split_once('.') {
        Some((section, subsection)) => (section.to_lowercase(), subsection.to_lowercase()),
        None => (name.to_lowercase(), String::new()),
    };
    rest = rest.trim_start();
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut chars = quoted.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    rest = quoted[at + 1..].trim_start();
                    break;
                }
                (_, '\\') => subsection.push(chars.next()?.1),
                (_, other) => subsection.push(other),
            }
        }
    }
    Some((section, subsection, rest.strip_prefix(']')?))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// A value on its way: quotes may open and close anywhere in it, and a line may go on in the next.
#[derive(Default)]
struct Value {
    text: String,
    /// Length without blanks at the end that were not quoted.
    solid: usize,
    quoted: bool,
    goes_on: bool,
}

impl Value {
    fn add(&mut self, line: &str) -> Option<()> {
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                '"' => {
                    self.quoted = !self.quoted;
                    self.solid = self.text.len();
                    continue;
                }
                '#' | ';' if !self.quoted => return Some(()),
                '\\' => match chars.next() {
                    None => {
                        self.goes_on = true;
                        return Some(());
                    }
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('b') => '\u{8}',
                    Some(c @ ('"' | '\\')) => c,
                    Some(_) => return None,
                },
                c => c,
            };
            self.text.push(c);
            if self.quoted || !c.is_whitespace() {
                self.solid = self.text.len();
            }
        }
        Some(())
    }

    fn finish(mut self) -> Option<String> {
        self.text.truncate(self.solid);
        (!self.quoted).then_some(self.text)
    }
}

/// Writes a value, or the name of a subsection, so that it is read back as it is.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = "# c\n[Core]\n\tBare = false ; c\n\tflag\n[submodule \"a \\\"b\\\\\"] path = \"x # y\" z  \n url = one\\\n  two\n[a.B]c=\"q\"\n";
        let settings = parse(text).unwrap();
        let rows: Vec<_> = settings
            .iter()
            .map(|s| (s.section.as_str(), s.subsection.as_str(), s.key.as_str(), s.value.as_str()))
            .collect();
        let expected = [
            ("core", "", "bare", "false"),
            ("core", "", "flag", "true"),
            ("submodule", "a \"b\\", "path", "x # y z"),
            ("submodule", "a \"b\\", "url", "one  two"),
            ("a", "b", "c", "q"),
        ];
        assert_eq!(rows, expected);
        let back = parse(&format!("[s {}]\nk = {}\n", quoted("a\"\\b"), quoted(" x;\\ "))).unwrap();
        assert_eq!((back[0].subsection.as_str(), back[0].value.as_str()), ("a\"\\b", " x;\\ "));
        for (text, line) in [
            ("k = v", 1),
            ("[a]\n=x", 2),
            ("[a", 1),
            ("[a]\nk = \"x", 2),
            ("[a]\nk = \\q", 2),
            ("[a]\nk=\\", 2),
        ] {
            assert_eq!(parse(text), Err(line), "{text}");
        }
    }
}
