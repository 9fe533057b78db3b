//! Debian's `docker-registry`, the real peer.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;

use crate::tools::{run, tool};

/// A running registry with an empty store of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct DebianRegistry {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

/// How one is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Doors<'p> {
    /// Its certificate and key: then it speaks TLS.
    pub tls: Option<(&'p Path, &'p Path)>,
    /// The authority whose certificates let one in.
    pub clients: Option<&'p Path>,
    /// A name and a password that it asks for.
    pub user: Option<(&'p str, &'p str)>,
}

impl DebianRegistry {
    /// Starts one on a free port of 127.0.0.1, with TLS if a certificate and its key are given. None without the program,
    /// as [`tool`] has it.
    ///
    /// # Panics
    /// It does not start; the message has what it wrote.
    pub fn start(tls: Option<(&Path, &Path)>) -> Option<Self> {
        Self::behind(Doors { tls, ..Doors::default() })
    }

    /// The same, not for everybody.
    ///
    /// # Panics
    /// As above.
    pub fn behind(doors: Doors<'_>) -> Option<Self> {
        let mut command = tool("docker-registry")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = directory.path().join("storage");
        let mut tls = doors.tls.map_or_else(String::new, |(certificate, key)| {
            format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display())
        });
        if let Some(authority) = doors.clients {
            tls.push_str(&format!("    clientcas:\n      - {}\n", authority.display()));
        }
        let auth = match doors.user {
            Some((user, password)) => {
                let file = directory.path().join("htpasswd");
                fs::write(&file, run(tool("htpasswd")?.args(["-nbB", user, password])))
                    .expect("writing its users");
                format!("auth:\n  htpasswd:\n    realm: kiln\n    path: {}\n", file.display())
            }
            None => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{tls}{auth}",
            storage.display()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config).expect("writing its configuration");
        command.arg("serve").arg(&file).env_remove("OTEL_TRACES_EXPORTER").stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the registry starts");
        // It logs the port that it got, then nothing that is worth keeping.
        let mut lines =
            BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut log = String::new();
        let port = lines.find_map(|line| {
            log.push_str(&line);
            log.push('\n');
            let after = line.split("listening on 127.0.0.1:").nth(1)?;
            after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        let Some(port) = port else { panic!("docker-registry did not start:\n{log}") };
        thread::spawn(move || lines.for_each(drop));
        Some(Self { child, port, _directory: directory })
    }

    /// Returns the port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its process id, to measure it by.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
