//! The report as one HTML file that loads nothing: style and script are inside it, and a content security policy
//! allows those two by their hashes and nothing else.
//!
//! Needs a [`View`] and what its plots are made of; yields the page. The template escapes every string.

use super::view::View;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use minijinja::{AutoEscape, Environment, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use sha2::{Digest, Sha256};

const TEMPLATES: [(&str, &str); 3] = [
    ("page.html", include_str!("html/page.html")),
    ("waterfall.html", include_str!("html/waterfall.html")),
    ("curves.html", include_str!("html/curves.html")),
];
const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// Writes the report; its figures are made of the plots by the page's own templates, and `more` of them.
pub(crate) fn render(
    view: &View,
    plots: &impl Serialize,
    more: &[(&'static str, &'static str)],
) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, template) in TEMPLATES.iter().chain(more) {
        env.add_template(name, template)?;
    }
    env.get_template("page.html")?.render(context! {
        view => Serde(view),
        plots => Serde(plots),
        style => STYLE,
        script => SCRIPT,
        style_hash => hash(STYLE),
        script_hash => hash(SCRIPT),
    })
}

/// The source expression that allows an inline element with exactly this content.
fn hash(content: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(content.as_bytes())))
}
