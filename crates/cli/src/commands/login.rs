//! `kiln login`, `kiln logout`.

use std::io::Read as _;
use std::process::ExitCode;

use kiln::Secret;

use crate::args::{LoginArgs, LogoutArgs, RegistryArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Tries a name and a password, and keeps them where docker would.
pub(crate) fn login(args: &LoginArgs) -> Result<ExitCode, Failure> {
    let options = config::registry(&args.registry)?;
    let host = host(&args.host);
    if args.get_login {
        return match kiln::account(&options, host)? {
            Some(account) => {
                ui::print(account.user.as_deref().unwrap_or("<token>"));
                Ok(ExitCode::SUCCESS)
            }
            None => Err(Failure::usage(format!("not logged in to {host}"))),
        };
    }
    let file = config::login_file(args.registry.authfile.as_deref())?;
    let (user, password) = credentials(args, host)?;
    // No namespaces: a program that keeps secrets shall be asked by whom it knows.
    let cancel = super::cancel_on_signal()?;
    let kept = kiln::login(&options, host, &user, &password, &file, &cancel)?;
    if kept.plain {
        ui::note(format_args!(
            "the password is in {} as it is; `credsStore` or `credHelpers` there name a program to keep it",
            kept.place
        ));
    }
    if let Some(other) = kept.behind {
        ui::note(format_args!("WARNING: {other} has other credentials for {host}, and they come first"));
    }
    ui::print("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// Forgets credentials.
pub(crate) fn logout(args: &LogoutArgs) -> Result<ExitCode, Failure> {
    let registry = RegistryArgs { authfile: args.authfile.clone(), ..RegistryArgs::default() };
    let options = config::registry(&registry)?;
    let file = config::login_file(args.authfile.as_deref())?;
    let host = host(args.host.as_deref().unwrap_or("docker.io"));
    let erased = kiln::logout(&options, (!args.all).then_some(host), &file)?;
    for what in &erased {
        ui::print(format_args!("removed {what}"));
    }
    if erased.is_empty() {
        let whom = if args.all { "any registry" } else { host };
        ui::print(format_args!("Not logged in to {whom}"));
    }
    if !args.all
        && let Some(account) = kiln::account(&options, host)?
    {
        ui::note(format_args!("WARNING: there are other credentials for {host}: {}", account.source));
    }
    Ok(ExitCode::SUCCESS)
}

/// Docker's name for docker.io is an address, and people paste addresses.
fn host(typed: &str) -> &str {
    let host = typed.split_once("://").map_or(typed, |(_, rest)| rest).trim_end_matches('/');
    let host = host.strip_suffix("/v1").or_else(|| host.strip_suffix("/v2")).unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

fn credentials(args: &LoginArgs, host: &str) -> Result<(String, Secret), Failure> {
    let too_large = |error: kiln::SecretTooLarge| Failure::usage(error.to_string());
    if args.password_stdin {
        let Some(user) = args.username.clone() else {
            return Err(Failure::usage("--password-stdin: --username NAME is missing"));
        };
        let mut bytes = Vec::new();
        let read = std::io::stdin().take(Secret::MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(Failure::usage("--password-stdin: standard input has no password"));
        }
        return Ok((user, Secret::new(bytes).map_err(too_large)?));
    }
    if let (Some(user), Some(password)) = (&args.username, &args.password) {
        ui::note(
            "WARNING: others on this machine may see a password that is typed as an argument: --password-stdin is better",
        );
        return Ok((user.clone(), Secret::new(password.clone().into_bytes()).map_err(too_large)?));
    }
    if !config::interactive() {
        return Err(Failure::usage(
            "there is no terminal to ask at: give --username NAME and --password-stdin",
        ));
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ui::ask(&format!("Username for {host}: ")).unwrap_or_default(),
    };
    if user.is_empty() {
        return Err(Failure::usage("a username is needed"));
    }
    let password = match &args.password {
        Some(password) => password.clone().into_bytes(),
        None => ui::ask_secretly("Password: ").unwrap_or_default(),
    };
    if password.is_empty() {
        return Err(Failure::usage("a password is needed"));
    }
    Ok((user, Secret::new(password).map_err(too_large)?))
}
