//! What a file stands for where the file system cannot say it: a line of text, kept in an xattr.

use std::fmt;
use std::str::FromStr;

/// The xattr that holds a [`StatRecord`].
pub const STAT_XATTR: &str = "user.kiln.stat";

const TYPE: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;

/// Owner, type and device number: `uid:gid:mode` or, for a device, `uid:gid:mode:major:minor` (mode octal, the others
/// decimal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatRecord {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// As `st_mode`. Only its type counts: chmod(2) changes the file itself.
    pub mode: u32,
    /// Major and minor number; 0 but for devices.
    pub device: (u32, u32),
}

impl StatRecord {
    /// Returns whether it stands for a device node.
    pub fn is_device(&self) -> bool {
        matches!(self.mode & TYPE, CHARACTER_DEVICE | BLOCK_DEVICE)
    }

    /// Returns the mode that the file has to the world: the recorded type, and the permission bits of the file itself,
    /// whose mode is `own`.
    pub fn shown_mode(&self, own: u32) -> u32 {
        self.mode & TYPE | own & !TYPE
    }
}

impl fmt::Display for StatRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid, mode, device: (major, minor) } = self;
        write!(f, "{uid}:{gid}:{mode:o}")?;
        if self.is_device() { write!(f, ":{major}:{minor}") } else { Ok(()) }
    }
}

/// The text is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form uid:gid:mode[:major:minor]")]
pub struct NoStatRecord;

impl FromStr for StatRecord {
    type Err = NoStatRecord;

    fn from_str(text: &str) -> Result<Self, NoStatRecord> {
        let mut parts = text.split(':');
        let mut number = |radix| parts.next().map(|part| u32::from_str_radix(part, radix));
        let mut wanted = |radix| number(radix).and_then(Result::ok).ok_or(NoStatRecord);
        let (uid, gid, mode) = (wanted(10)?, wanted(10)?, wanted(8)?);
        let device = match number(10) {
            None => (0, 0),
            Some(major) => {
                let minor = number(10).ok_or(NoStatRecord)?;
                (major.map_err(|_| NoStatRecord)?, minor.map_err(|_| NoStatRecord)?)
            }
        };
        if parts.next().is_some() {
            return Err(NoStatRecord);
        }
        Ok(Self { uid, gid, mode, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        for (text, uid, gid, mode, device) in [
            ("1000:50:100644", 1000, 50, 0o100_644, (0, 0)),
            ("0:6:60660:8:17", 0, 6, 0o060_660, (8, 17)),
            ("0:0:20666:0:0", 0, 0, 0o020_666, (0, 0)),
        ] {
            let record = StatRecord { uid, gid, mode, device };
            assert_eq!(text.parse(), Ok(record));
            assert_eq!(record.to_string(), text);
        }
        for wrong in
            ["", "1", "1:2", "1:2:9", "1:2:644:3", "1:2:644:3:4:5", "-1:2:644", "1:2:644:x:0", "1:2:3:"]
        {
            assert_eq!(wrong.parse::<StatRecord>(), Err(NoStatRecord), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_the_files_own() {
        let record: StatRecord = "0:0:60660:8:0".parse().unwrap();
        assert_eq!(record.shown_mode(0o100_600), 0o060_600);
    }
}
