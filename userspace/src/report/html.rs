//! The report as one HTML file that loads nothing: style and script are inside it, and a content security policy
//! allows those two by their hashes and nothing else.
//!
//! Needs a [`View`] and its [`Plots`]; yields the page. The template escapes every string.

use super::{ReportError, plot::Plots, view::View};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use minijinja::{AutoEscape, Environment, context, syntax::SyntaxConfig, value::Serde};
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("html/page.html");
const WATERFALL: &str = include_str!("html/waterfall.html");
const CURVES: &str = include_str!("html/curves.html");
const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// Writes the report.
pub(super) fn render(view: &View, plots: &Plots) -> Result<String, ReportError> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.add_template("page.html", PAGE)?;
    env.add_template("waterfall.html", WATERFALL)?;
    env.add_template("curves.html", CURVES)?;
    let page = env.get_template("page.html")?.render(context! {
        view => Serde(view),
        plots => Serde(plots),
        style => STYLE,
        script => SCRIPT,
        style_hash => hash(STYLE),
        script_hash => hash(SCRIPT),
    })?;
    Ok(page)
}

/// The source expression that allows an inline element with exactly this content.
fn hash(content: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(content.as_bytes())))
}
