//! EXPOSE: `[[ip:]host:]port[-port][/protocol]`; only the container's ports count.

use kiln_dockerfile::{Diagnostic, Span, Spanned};

use crate::diagnose::error;
use crate::lowering::Lowering;
use crate::state::StageState;

/// `EXPOSE`: the words are sorted as written, then expanded and split.
pub(super) fn expose(
    mut state: StageState,
    ports: &[Spanned<String>],
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let mut written: Vec<&Spanned<String>> = ports.iter().collect();
    written.sort_by(|a, b| a.value.cmp(&b.value));
    let mut exposed = Vec::new();
    for word in written {
        for port in lowering.words.look(word, &state.env)?.words {
            exposed.extend(read(&port, word.span)?);
        }
    }
    let line = format!("EXPOSE [{}]", exposed.join(" "));
    state.config.config.exposed_ports.extend(exposed);
    Ok(state.with_history(line))
}

fn read(text: &str, span: Span) -> Result<Vec<String>, Diagnostic> {
    let bad = |why: &str| error(span, format!("`{text}` is not a port: {why}"));
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, text),
    };
    if let Some(host) = host {
        let host = host.rsplit_once(':').map_or(host, |(_, port)| port);
        if !host.is_empty() {
            range(host).ok_or_else(|| bad("the host's part is not a port or a range"))?;
        }
    }
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        _ => return Err(bad("the protocol is tcp, udp or sctp")),
    };
    let (first, last) =
        range(ports).ok_or_else(|| bad("write a number up to 65535, or a range such as 8000-8010"))?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        }
    }
}
