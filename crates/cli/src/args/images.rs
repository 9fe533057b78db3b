//! Images: `kiln images`, `kiln rmi`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print digests only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Also images without a name
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names to remove; an id removes all names of its image
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
    /// Accepted as docker's
    #[arg(short, long, hide = true)]
    pub(crate) force: bool,
}
