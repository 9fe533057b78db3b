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
    /// Memory of each step at most, such as 512m
    #[arg(short, long, value_name = "SIZE", help_heading = "Sandbox")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1 for as much swap as there is [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Sandbox")]
    pub(crate) memory_swap: Option<String>,
    /// Processors' worth of time for each step, such as 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Sandbox")]
    pub(crate) cpus: Option<String>,
    /// The same in microseconds of each --cpu-period
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus", help_heading = "Sandbox")]
    pub(crate) cpu_quota: Option<u32>,
    /// Microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", requires = "cpu_quota", help_heading = "Sandbox")]
    pub(crate) cpu_period: Option<u32>,
    /// Processors that steps may use, such as 0-2,4
    #[arg(long, value_name = "LIST", help_heading = "Sandbox")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Processes and threads of each step at a time; -1 for any number
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Sandbox")]
    pub(crate) pids_limit: Option<i64>,
    /// Time for each step, such as 10m; then it is ended
    #[arg(long, value_name = "DURATION", help_heading = "Sandbox")]
    pub(crate) step_timeout: Option<String>,
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
