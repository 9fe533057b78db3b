//! pkt-lines: four hexadecimal digits of length, then so many bytes.
//! <https://git-scm.com/docs/protocol-common#_pkt_line_format>

use std::io::{self, Read};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// With content, which may be empty.
    Data(Vec<u8>),
    /// `0000`
    Flush,
    /// `0001`
    Delimiter,
    /// `0002`
    ResponseEnd,
}

impl Packet {
    /// The content without its newline; none for what has no content.
    pub(crate) fn line(&self) -> Option<&[u8]> {
        match self {
            Self::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Self::Flush | Self::Delimiter | Self::ResponseEnd => None,
        }
    }
}

/// Reads the next one; none where the stream ends.
pub(crate) fn read(reader: &mut dyn Read) -> io::Result<Option<Packet>> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < 4 {
        match reader.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digits = std::str::from_utf8(&head).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    let length = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    match length {
        Some(0) => Ok(Some(Packet::Flush)),
        Some(1) => Ok(Some(Packet::Delimiter)),
        Some(2) => Ok(Some(Packet::ResponseEnd)),
        Some(length @ 4..) => {
            let mut data = vec![0; usize::from(length) - 4];
            reader.read_exact(&mut data)?;
            Ok(Some(Packet::Data(data)))
        }
        Some(3) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "no packet of the git protocol")),
    }
}

/// Appends one with a line of text.
pub(crate) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

pub(crate) const FLUSH: &[u8] = b"0000";
pub(crate) const DELIMITER: &[u8] = b"0001";
