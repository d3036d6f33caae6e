//! The files of the page, compiled into the binary.

/// One file of the page.
pub(super) struct PageAsset {
    path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const fn asset(path: &'static str, content_type: &'static str, text: &'static str) -> PageAsset {
    PageAsset { path, content_type, text }
}

const ASSETS: [PageAsset; 9] = [
    asset("/", HTML, include_str!("assets/index.html")),
    asset("/live/style.css", CSS, include_str!("assets/style.css")),
    asset("/live/icon.svg", SVG, include_str!("assets/icon.svg")),
    asset("/live/page.js", SCRIPT, include_str!("assets/page.js")),
    asset("/live/chart.js", SCRIPT, include_str!("assets/chart.js")),
    asset("/live/occupancy_map.js", SCRIPT, include_str!("assets/occupancy_map.js")),
    asset("/live/checkpoints.js", SCRIPT, include_str!("assets/checkpoints.js")),
    asset("/live/memory.js", SCRIPT, include_str!("assets/memory.js")),
    asset("/live/format.js", SCRIPT, include_str!("assets/format.js")),
];

/// The file with this path.
pub(super) fn find(path: &str) -> Option<&'static PageAsset> {
    ASSETS.iter().find(|asset| asset.path == path)
}
