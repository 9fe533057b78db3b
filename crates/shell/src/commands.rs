//! What the shell itself can do.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::session::{Session, say};
use crate::{listing, programs, time};

/// Does it; returns the exit status.
pub(crate) type Command = fn(&mut Session, &[OsString]) -> io::Result<i32>;

/// Name, what it takes and does, and the doing.
const COMMANDS: &[(&str, &str, Command)] = &[
    ("cat", "[FILE...]         write files", cat),
    ("cd", "[DIR]              go to a directory, or home", cd),
    ("echo", "[WORD...]        write words", echo),
    ("env", "                  list the environment", env),
    ("exec", "PROGRAM [ARG...] become a program", exec),
    ("exit", "[STATUS]         leave", exit),
    ("export", "NAME=VALUE...  set variables", export),
    ("find", "[PATH...]        list all below, on one file system", find_below),
    ("head", "[-n N] [FILE...] write the first lines", head),
    ("help", "                 say this", help),
    ("id", "                   say who this is", id),
    ("ls", "[-a] [-l] [PATH...] list files", ls),
    ("pwd", "                  say where this is", pwd),
    ("stat", "PATH...          tell all about files", stat),
    ("unset", "NAME...         forget variables", unset),
];

/// Finds a command.
pub(crate) fn find(name: &OsStr) -> Option<Command> {
    COMMANDS.iter().find(|(known, ..)| *known == name).map(|(.., command)| *command)
}

fn help(_: &mut Session, _: &[OsString]) -> io::Result<i32> {
    let mut text = String::new();
    for (name, about, _) in COMMANDS {
        text += &format!("  {name} {about}\n");
    }
    text += "Any other word is a program, looked for in PATH. There are quotes, $NAME, $?, `;`, `&&`, `||` and `#`;\n\
             no pipes, redirections, patterns or loops.\n";
    print(text)
}

fn cd(session: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let home = || session.env.get(OsStr::new("HOME")).cloned().unwrap_or_else(|| "/".into());
    let dir = args.first().cloned().unwrap_or_else(home);
    std::env::set_current_dir(&dir).map_err(|error| about(Path::new(&dir), &error))?;
    Ok(0)
}

fn pwd(_: &mut Session, _: &[OsString]) -> io::Result<i32> {
    let place = std::env::current_dir()?;
    print_bytes(&[place.as_os_str().as_bytes(), b"\n"].concat())
}

fn echo(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let words: Vec<&[u8]> = args.iter().map(|word| word.as_bytes()).collect();
    print_bytes(&[&words.join(&b' '), &b"\n"[..]].concat())
}

fn env(session: &mut Session, _: &[OsString]) -> io::Result<i32> {
    let line =
        |(name, value): (&OsString, &OsString)| [name.as_bytes(), b"=", value.as_bytes(), b"\n"].concat();
    print_bytes(&session.env.iter().flat_map(line).collect::<Vec<u8>>())
}

fn export(session: &mut Session, args: &[OsString]) -> io::Result<i32> {
    for arg in args {
        let bytes = arg.as_bytes();
        let Some(end) = bytes.iter().position(|byte| *byte == b'=').filter(|end| *end > 0) else {
            return Err(io::Error::other(format!("{}: write NAME=VALUE", arg.to_string_lossy())));
        };
        let (name, value) = (OsStr::from_bytes(&bytes[..end]), OsStr::from_bytes(&bytes[end + 1..]));
        session.env.insert(name.to_owned(), value.to_owned());
    }
    Ok(0)
}

fn unset(session: &mut Session, args: &[OsString]) -> io::Result<i32> {
    for name in args {
        session.env.remove(name);
    }
    Ok(0)
}

fn exec(session: &mut Session, args: &[OsString]) -> io::Result<i32> {
    if args.is_empty() {
        return Err(io::Error::other("say which program"));
    }
    Ok(programs::exec(session, args))
}

fn exit(session: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let status = match args.first() {
        None => session.status,
        Some(text) => number(text)?,
    };
    session.ended = true;
    Ok(status & 0xff)
}

fn cat(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let mut status = 0;
    for_each_input(args, &mut status, |input| io::copy(input, &mut io::stdout()).map(drop))?;
    Ok(status)
}

fn head(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let (count, files) = match args {
        [flag, count, files @ ..] if flag == "-n" => (number(count)?, files),
        files => (10, files),
    };
    let mut status = 0;
    for_each_input(files, &mut status, |input| {
        let mut lines = io::BufReader::new(input);
        for _ in 0..count {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            print_bytes(&line)?;
        }
        Ok(())
    })?;
    Ok(status)
}

fn ls(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let (mut all, mut long, mut paths) = (false, false, Vec::new());
    for arg in args {
        match arg.as_bytes() {
            [b'-', flags @ ..] if !flags.is_empty() => {
                for flag in flags {
                    match flag {
                        b'a' => all = true,
                        b'l' => long = true,
                        _ => return Err(io::Error::other(format!("-{} is unknown here", char::from(*flag)))),
                    }
                }
            }
            _ => paths.push(PathBuf::from(arg)),
        }
    }
    if paths.is_empty() {
        paths.push(".".into());
    }
    let mut status = 0;
    let several = paths.len() > 1;
    for path in paths {
        if let Err(error) = list(&path, all, long, several) {
            say(&format!("ls: {}", about(&path, &error)));
            status = 1;
        }
    }
    Ok(status)
}

fn list(path: &Path, all: bool, long: bool, titled: bool) -> io::Result<()> {
    // A link to a directory is gone through, but with `-l` it is shown itself.
    let is_dir = if long { std::fs::symlink_metadata(path)?.is_dir() } else { path.is_dir() };
    if !is_dir {
        return entry(path, path.as_os_str(), long);
    }
    if titled {
        print(format!("{}:\n", path.display()))?;
    }
    let mut names =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    for name in names.iter().filter(|name| all || !name.as_bytes().starts_with(b".")) {
        entry(&path.join(name), name, long)?;
    }
    Ok(())
}

fn entry(path: &Path, name: &OsStr, long: bool) -> io::Result<()> {
    if !long {
        std::fs::symlink_metadata(path)?;
        return print_bytes(&[name.as_bytes(), b"\n"].concat()).map(drop);
    }
    let metadata = std::fs::symlink_metadata(path)?;
    print(format!("{}\n", listing::line(path, &name.to_string_lossy(), &metadata))).map(drop)
}

fn stat(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let mut status = 0;
    for path in args.iter().map(Path::new) {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => print(tell(path, &metadata)).map(drop)?,
            Err(error) => {
                say(&format!("stat: {}", about(path, &error)));
                status = 1;
            }
        }
    }
    Ok(status)
}

fn tell(path: &Path, metadata: &std::fs::Metadata) -> String {
    let device =
        listing::device(metadata).map_or_else(String::new, |(major, minor)| format!(" {major}:{minor}"));
    format!(
        "path   {}{}\ntype   {}{device}\nsize   {}\nmode   {:04o} {}\nowner  {}:{}\ninode  {} links {}\nchanged {}.{:09} UTC\n",
        path.display(),
        listing::target(path, metadata),
        listing::kind(metadata.file_type()),
        metadata.size(),
        metadata.mode() & 0o7777,
        listing::mode(metadata),
        metadata.uid(),
        metadata.gid(),
        metadata.ino(),
        metadata.nlink(),
        time::shown(metadata.mtime()),
        metadata.mtime_nsec(),
    )
}

fn find_below(_: &mut Session, args: &[OsString]) -> io::Result<i32> {
    let here = [OsString::from(".")];
    let mut status = 0;
    for start in if args.is_empty() { &here[..] } else { args } {
        let mut todo = vec![PathBuf::from(start)];
        let mut device = None;
        while let Some(path) = todo.pop() {
            let below = std::fs::symlink_metadata(&path).and_then(|metadata| {
                print_bytes(&[path.as_os_str().as_bytes(), b"\n"].concat())?;
                // /proc and the like are other file systems.
                if !metadata.is_dir() || *device.get_or_insert(metadata.dev()) != metadata.dev() {
                    return Ok(Vec::new());
                }
                std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()
            });
            match below {
                Ok(mut below) => {
                    below.sort_unstable_by(|a, b| b.cmp(a));
                    todo.extend(below);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error),
                Err(error) => {
                    say(&format!("find: {}", about(&path, &error)));
                    status = 1;
                }
            }
        }
    }
    Ok(status)
}

/// Who this is, as the kernel says: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>.
fn id(_: &mut Session, _: &[OsString]) -> io::Result<i32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
    };
    let first = |name| field(name).first().copied().unwrap_or("?").to_owned();
    let (uid, gid, groups) = (first("Uid:"), first("Gid:"), field("Groups:").join(","));
    print(format!("uid={uid} gid={gid} groups={groups} capabilities={}\n", first("CapEff:")))
}

fn for_each_input(
    files: &[OsString],
    status: &mut i32,
    mut work: impl FnMut(&mut dyn io::Read) -> io::Result<()>,
) -> io::Result<()> {
    if files.is_empty() {
        return work(&mut io::stdin());
    }
    for path in files.iter().map(Path::new) {
        let done = File::open(path).and_then(|mut file| work(&mut file));
        if let Err(error) = done {
            say(&about(path, &error).to_string());
            *status = 1;
        }
    }
    Ok(())
}

fn number(text: &OsStr) -> io::Result<i32> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{}: no number", text.to_string_lossy())))
}

/// An error that names the file.
fn about(path: &Path, error: &io::Error) -> io::Error {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    io::Error::new(error.kind(), format!("{}: {text}", path.display()))
}

fn print(text: impl AsRef<str>) -> io::Result<i32> {
    print_bytes(text.as_ref().as_bytes())
}

fn print_bytes(bytes: &[u8]) -> io::Result<i32> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(0)
}
