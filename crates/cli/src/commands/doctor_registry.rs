//! `kiln doctor registry`.

use std::process::ExitCode;

use kiln::{ServerTrace, Trace};

use crate::args::DoctorRegistryArgs;
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints how an image is looked up. Tells with its exit code whether it can be had.
pub(crate) fn registry(args: &DoctorRegistryArgs) -> Result<ExitCode, Failure> {
    let options = config::registry(&args.registry)?;
    let cancel = super::cancel_on_signal()?;
    let trace = kiln::trace_image(&options, &args.image, &cancel)?;
    let found = trace.servers.iter().any(|server| server.delivers);
    let code = ExitCode::from(if found { 0 } else { 4 });
    if args.json {
        ui::print(serde_json::to_string_pretty(&trace).unwrap_or_default());
    } else {
        text(&trace).iter().for_each(ui::print);
    }
    Ok(code)
}

fn text(trace: &Trace) -> Vec<String> {
    let mut lines = vec![trace.image.clone()];
    if let Some(from) = &trace.decided_by {
        lines.push(match trace.candidates.as_slice() {
            [] => format!("  a short name: {from} says that it is this"),
            several => format!("  a short name: by {from} the first there is of {}", several.join(", ")),
        });
    }
    for server in &trace.servers {
        lines.push(String::new());
        lines.extend(about(server));
    }
    lines.push(String::new());
    match (&trace.digest, trace.platforms.as_slice()) {
        (Some(digest), []) => lines.push(format!("{digest}: one image")),
        (Some(digest), platforms) => lines.push(format!("{digest}: {}", platforms.join(", "))),
        (None, _) => lines.push("nobody delivers it".to_owned()),
    }
    lines
}

fn about(server: &ServerTrace) -> Vec<String> {
    let what = if server.mirror { "mirror" } else { "registry" };
    let mut lines = vec![format!("{what} {}", server.host)];
    lines.extend(server.decided_by.iter().map(|from| format!("  by {from}")));
    match server.verified {
        None => lines.push("  plain http".to_owned()),
        Some(false) => lines.push("  https, its certificate is not checked".to_owned()),
        Some(true) => {}
    }
    lines.extend(server.authorities.iter().map(|file| format!("  trusts also {file}")));
    let proxy = server.proxy.iter();
    lines.extend(
        proxy.map(|proxy| {
            format!("  through the proxy {proxy}, by the environment (HTTPS_PROXY and its like)")
        }),
    );
    for request in &server.requests {
        let status = request.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        lines.push(format!("  {} {}: {status}, {} ms", request.method, request.url, request.milliseconds));
        lines.extend(request.challenge.iter().map(|text| format!("    asks for {text}")));
        lines.extend(request.redirect.iter().map(|url| format!("    leads to {url}")));
        lines.extend(request.limits.iter().map(|(name, value)| format!("    {name}: {value}")));
    }
    lines.extend(server.credentials.iter().map(|from| format!("  credentials: {from}")));
    lines.extend(server.failed.iter().map(|reason| format!("  no credentials: {reason}")));
    lines.push(match &server.error {
        Some(error) => format!("  failed: {error}"),
        None => "  delivers it".to_owned(),
    });
    lines
}
