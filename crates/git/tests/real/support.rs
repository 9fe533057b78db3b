//! A client over plain sockets, and a place for repositories and checkouts.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_core::Cancel;
use kiln_git::{
    Access, CheckoutOptions, GitError, Http, HttpRequest, HttpResponse, Limits, Progress, Resolved, Ssh,
    checkout, resolve,
};
use kiln_testkit::git::{GitServer, TestRepository, git};
use tempfile::TempDir;

/// HTTP/1.1 without TLS, one connection per request.
pub(crate) struct PlainHttp;

impl Http for PlainHttp {
    fn exchange(&self, request: HttpRequest, _: &Cancel) -> io::Result<HttpResponse> {
        let rest = request.url.strip_prefix("http://").expect("tests are without TLS");
        let (host, path) = rest.split_once('/').expect("a path");
        let mut stream = TcpStream::connect(host)?;
        let method = if request.body.is_some() { "POST" } else { "GET" };
        let body = request.body.unwrap_or_default();
        write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len())?;
        for (name, value) in &request.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(&body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let (mut location, mut content_type, mut length) = (None, None, 0);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_lowercase().as_str() {
                "location" => location = Some(value.to_owned()),
                "content-type" => content_type = Some(value.to_owned()),
                "content-length" => length = value.parse().expect("a length"),
                _ => {}
            }
        }
        Ok(HttpResponse { status, location, content_type, body: Box::new(Whole(reader, length)) })
    }
}

/// A body that ends early is a broken connection.
struct Whole(BufReader<TcpStream>, u64);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.1).unwrap_or(usize::MAX).min(buffer.len());
        match self.0.read(&mut buffer[..most])? {
            0 if self.1 > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.1 -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Repositories, a server for them, and room for checkouts.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) server: GitServer,
    pub(crate) access: Access<'static>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["repositories", "scratch"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let server = GitServer::start(&directory.path().join("repositories"));
        let access = Access {
            http: &PlainHttp,
            auth: BTreeMap::new(),
            ssh: Ssh::default(),
            files: true,
            limits: Limits::default(),
            cancel: Cancel::new(),
        };
        Self { directory, server, access }
    }

    pub(crate) fn repository(&self, name: &str) -> TestRepository {
        TestRepository::create(&self.directory.path().join("repositories"), name)
    }

    pub(crate) fn file_url(&self, name: &str) -> String {
        format!("file://{}/repositories/{name}.git", self.directory.path().display())
    }

    /// A path where nothing is.
    pub(crate) fn target(&self) -> PathBuf {
        let taken = |number: &usize| self.directory.path().join(format!("target{number}")).exists();
        let number = (0..).find(|number| !taken(number)).unwrap();
        self.directory.path().join(format!("target{number}"))
    }

    pub(crate) fn options(&self) -> Options {
        Options { scratch: self.directory.path().join("scratch"), ..Options::default() }
    }

    /// Resolves and checks out; returns where to.
    pub(crate) fn checkout(
        &self,
        remote: &str,
        reference: Option<&str>,
        options: &Options,
    ) -> Result<PathBuf, GitError> {
        let wanted = resolve(&self.access, remote, reference)?;
        self.checkout_resolved(remote, &wanted, options)
    }

    pub(crate) fn checkout_resolved(
        &self,
        remote: &str,
        wanted: &Resolved,
        options: &Options,
    ) -> Result<PathBuf, GitError> {
        let target = self.target();
        let scratch = &options.scratch;
        let options = CheckoutOptions {
            subdir: &options.subdir,
            keep_git_dir: options.keep,
            submodules: options.submodules,
            scratch,
        };
        let done = checkout(&self.access, remote, wanted, &options, &target, &mut |_: Progress<'_>| {});
        let left = std::fs::read_dir(scratch).unwrap().count();
        assert_eq!(left, 0, "the scratch directory is empty again");
        done.map(|_| target)
    }
}

pub(crate) struct Options {
    pub(crate) subdir: String,
    pub(crate) keep: bool,
    pub(crate) submodules: bool,
    pub(crate) scratch: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { subdir: String::new(), keep: false, submodules: true, scratch: PathBuf::new() }
    }
}

/// Returns the id that git gives to a directory's files.
pub(crate) fn tree_id(place: &Place, files: &Path) -> String {
    let judge = place.directory.path().join("judge");
    if !judge.exists() {
        std::fs::create_dir(&judge).unwrap();
        git(&judge, &["init", "-q", "--bare"]);
    }
    let _ = std::fs::remove_file(judge.join("index"));
    let work_tree = format!("--work-tree={}", files.display());
    let git_dir = format!("--git-dir={}", judge.display());
    git(files, &[&git_dir, &work_tree, "-c", "core.excludesFile=/dev/null", "add", "-A", "-f", "."]);
    git(files, &[&git_dir, &work_tree, "write-tree"])
}

/// Every path below a directory but `.git`, with mode, time, and what a link leads to.
pub(crate) fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let about = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if name == ".git" {
                continue;
            }
            let time = about.mtime();
            if about.is_dir() {
                lines.push(format!("{name}/ {:o} {time}", about.permissions().mode() & 0o7777));
                waiting.push(path);
            } else if about.is_symlink() {
                lines.push(format!("{name} -> {} {time}", path.read_link().unwrap().display()));
            } else {
                lines.push(format!("{name} {:o} {time}", about.permissions().mode() & 0o7777));
            }
        }
    }
    lines.sort();
    lines
}
