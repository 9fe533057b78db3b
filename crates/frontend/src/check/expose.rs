//! Checks of EXPOSE: only the container's ports count, in lower case.

use kiln_dockerfile::{Diagnostic, Rule, Spanned};

use super::finding;
use crate::variables::Variables;
use crate::words::Words;

pub(super) fn ports(ports: &[Spanned<String>], env: &Variables, words: &Words) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for written in ports {
        for port in words.look(written, env).map_or_else(|_| Vec::new(), |expanded| expanded.words) {
            let (host, container) = port.rsplit_once(':').unwrap_or(("", &port));
            let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let message = format!("`{port}`: the protocol is not in lower case");
                found.push(finding(Rule::ExposeProtoCasing, written.span, message));
            }
            if !host.is_empty() && host != ":" {
                let message = format!("`{port}`: an address or a host port means nothing to EXPOSE");
                found.push(finding(Rule::ExposeInvalidFormat, written.span, message));
            }
        }
    }
    found
}
