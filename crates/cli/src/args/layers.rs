//! `kiln layers`, and the limits that `kiln build` has, too.

use clap::Args;

const LAYERS_EXAMPLES: &str = "\
Examples:
  kiln layers demo                                    what each layer adds, changes, deletes and wastes
  kiln layers --layer 3 --top 20 demo                 the largest files of the third
  kiln layers --max-image-size 200m demo              fails if it is larger, for a pipeline";

#[derive(Debug, Args)]
#[command(after_help = LAYERS_EXAMPLES)]
pub(crate) struct LayersArgs {
    /// Name or id
    pub(crate) image: String,
    /// Only this layer, with its largest files; 1 is the lowest
    #[arg(long, value_name = "N")]
    pub(crate) layer: Option<usize>,
    /// How many of the largest files are named
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) top: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Platform, of those that the image has [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) limits: SizeLimitArgs,
}

/// How large an image may be.
#[derive(Debug, Args)]
pub(crate) struct SizeLimitArgs {
    /// Fail if a layer has more bytes, compressed, such as 50m
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) max_layer_size: Option<String>,
    /// Fail if an image's layers have more bytes together, compressed, such as 500m
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) max_image_size: Option<String>,
}
