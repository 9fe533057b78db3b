//! What `kiln build` and `kiln run` have in common: how what runs is kept in its place.

use clap::{Args, ValueEnum};

/// How processes run; none of it is in a step's key.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Network of what says nothing else
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "MODE",
        env = "KILN_NETWORK",
        hide_env_values = true,
        help_heading = "Sandbox"
    )]
    pub(crate) network: NetworkFlag,
    /// Name server to ask instead of the machine's; may be repeated
    #[arg(long, value_name = "ADDRESS", help_heading = "Sandbox")]
    pub(crate) dns: Vec<std::net::IpAddr>,
    /// Domain that names are looked up in; `.` for none; may be repeated
    #[arg(long, value_name = "DOMAIN", help_heading = "Sandbox")]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf(5), such as timeout:1; may be repeated
    #[arg(long, alias = "dns-opt", value_name = "OPTION", help_heading = "Sandbox")]
    pub(crate) dns_option: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkFlag {
    /// A private one if pasta is installed, else the host's
    #[default]
    Default,
    /// The host's
    Host,
    /// None but an isolated `lo`
    None,
    /// Behind pasta, or not at all: the host's loopback cannot be reached
    Private,
}
