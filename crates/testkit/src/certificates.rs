//! Certificates of an authority that only a test knows, by openssl.

use std::path::{Path, PathBuf};

use crate::tools::{run, tool};

/// An authority with what it signed, in a directory.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes one. None without openssl, as [`tool`] has it.
    ///
    /// # Panics
    /// openssl fails.
    pub fn new(directory: &Path) -> Option<Self> {
        let authority = Self { directory: directory.to_owned() };
        let mut openssl = tool("openssl")?;
        run(openssl.args(["req", "-x509", "-subj", "/CN=kiln test"]).args(KEY).args(authority.out("ca")));
        Some(authority)
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Makes a certificate for `localhost` and its key, to serve or to be let in by.
    ///
    /// # Panics
    /// openssl fails.
    pub fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut openssl = tool("openssl").expect("it was there a moment ago");
        openssl.args(["req", "-x509", "-subj", &format!("/CN={name}")]).args(NAMES);
        // rustls takes no certificate that is its own authority.
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]).args(KEY).args(self.out(name));
        openssl.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.directory.join("ca.key"));
        run(&mut openssl);
        (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")))
    }

    /// Makes a certificate for `localhost` that vouches for itself, as people do who have no authority.
    ///
    /// # Panics
    /// openssl fails.
    pub fn alone(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut openssl = tool("openssl").expect("it was there a moment ago");
        run(openssl
            .args(["req", "-x509", "-subj", "/CN=localhost"])
            .args(NAMES)
            .args(KEY)
            .args(self.out(name)));
        (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")))
    }

    fn out(&self, name: &str) -> [PathBuf; 4] {
        let file = |extension: &str| self.directory.join(format!("{name}.{extension}"));
        ["-keyout".into(), file("key"), "-out".into(), file("pem")]
    }
}

const KEY: [&str; 7] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
const NAMES: [&str; 2] = ["-addext", "subjectAltName=DNS:localhost"];
