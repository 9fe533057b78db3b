//! `--network`, `--dns` and the like.

use kiln::{Network, NetworkChoice, Resolver, Sandbox};

use super::resource_flags;
use crate::args::{NetworkFlag, SandboxArgs};
use crate::hints::Failure;

/// Reads the flags.
pub(crate) fn read(args: &SandboxArgs) -> Result<Sandbox, Failure> {
    let word = |flag: &str, text: &String| match text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        false if !text.is_empty() => Ok(text.clone()),
        _ => Err(Failure::usage(format!("{flag} {text:?}: write one word"))),
    };
    let words = |flag: &str, texts: &[String]| {
        texts.iter().map(|text| word(flag, text)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Sandbox {
        network: match args.network {
            NetworkFlag::Default | NetworkFlag::None => NetworkChoice::Default,
            NetworkFlag::Host => NetworkChoice::Host,
            NetworkFlag::Private => NetworkChoice::Private,
        },
        resolver: Resolver {
            servers: args.dns.iter().map(ToString::to_string).collect(),
            search: words("--dns-search", &args.dns_search)?,
            options: words("--dns-option", &args.dns_option)?,
        },
        resources: resource_flags::read(args)?,
        variation: None,
    })
}

/// What stands in keys of it: that there is none. Which of those with a way out it is says nothing about the result.
pub(crate) fn network(args: &SandboxArgs) -> Network {
    match args.network {
        NetworkFlag::None => Network::None,
        NetworkFlag::Default | NetworkFlag::Host | NetworkFlag::Private => Network::Default,
    }
}
