//! The page and what it is made of, inside the program.
//!
//! Needs the files below `page/`, which no step prepares, and the table of signals; yields them with their types, digests
//! and compressed forms.

use super::body::{self, Body};
use crate::report::{plot::color, view::PATH_ORDER};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::sync::OnceLock;

/// One file.
pub(super) struct Asset {
    /// Where it is served.
    pub(super) path: &'static str,
    content_type: &'static str,
    bytes: fn() -> Bytes,
    made: OnceLock<Made>,
}

/// What is made of a file when it is first asked for.
struct Made {
    bytes: Bytes,
    /// Its digest, quoted (RFC 9110, 8.8.3).
    etag: HeaderValue,
    packed: Option<Bytes>,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($path:literal, $type:expr, $file:literal) => {
        Asset {
            path: $path,
            content_type: $type,
            bytes: || Bytes::from_static(include_bytes!(concat!("page/", $file))),
            made: OnceLock::new(),
        }
    };
}

/// All of them.
pub(super) static ASSETS: [Asset; 18] = [
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/assets/style.css", STYLE, "style.css"),
    asset!("/assets/parts.css", STYLE, "parts.css"),
    asset!("/assets/app.js", SCRIPT, "app.js"),
    asset!("/assets/changes.js", SCRIPT, "changes.js"),
    asset!("/assets/dom.js", SCRIPT, "dom.js"),
    asset!("/assets/findings.js", SCRIPT, "findings.js"),
    asset!("/assets/format.js", SCRIPT, "format.js"),
    asset!("/assets/node.js", SCRIPT, "node.js"),
    asset!("/assets/plots.js", SCRIPT, "plots.js"),
    asset!("/assets/stream.js", SCRIPT, "stream.js"),
    asset!("/assets/tables.js", SCRIPT, "tables.js"),
    asset!("/assets/tiles.js", SCRIPT, "tiles.js"),
    asset!("/assets/waterfall.js", SCRIPT, "waterfall.js"),
    asset!("/assets/icon.svg", "image/svg+xml", "icon.svg"),
    asset!("/assets/uplot.js", SCRIPT, "uplot/uPlot.iife.min.js"),
    asset!("/assets/uplot.css", STYLE, "uplot/uPlot.min.css"),
    Asset {
        path: "/assets/signals.json",
        content_type: "application/json",
        bytes: signals,
        made: OnceLock::new(),
    },
];

/// A signal as the page shows it.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    definition: &'static str,
    color: usize,
}

/// The table of signals, in the order of a packet's way, with the colours that the reports give them.
fn signals() -> Bytes {
    let row = |signal: &nettrace_common::Signal| {
        let (name, definition) = (signal.name(), signal.definition());
        Row { name, definition, color: color(name) }
    };
    let rows: Vec<_> = PATH_ORDER.iter().map(row).collect();
    // Numbers and plain texts: it cannot fail.
    serde_json::to_vec(&rows).unwrap_or_default().into()
}

/// What is served at a path.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// The file, or that the client has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let made = self.made.get_or_init(|| self.make());
        let packed = made.packed.as_ref().filter(|_| body::takes_gzip(headers));
        let has = headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &made.etag));
        let mut response = if has {
            let mut response = Response::new(Body::Whole(None));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else if let Some(packed) = packed {
            let mut response = body::whole(StatusCode::OK, self.content_type, packed.clone());
            body::set(&mut response, header::CONTENT_ENCODING, "gzip");
            response
        } else {
            body::whole(StatusCode::OK, self.content_type, made.bytes.clone())
        };
        response.headers_mut().insert(header::ETAG, made.etag.clone());
        body::set(&mut response, header::VARY, "accept-encoding");
        // Asked for again each time, and not sent again: after an update nobody has half of the old page.
        body::set(&mut response, header::CACHE_CONTROL, "no-cache");
        response
    }

    fn make(&self) -> Made {
        let bytes = (self.bytes)();
        let digest = BASE64.encode(&Sha256::digest(&bytes)[..12]);
        let etag = HeaderValue::from_str(&format!("W/\"{digest}\""));
        let packed = body::gzip(&bytes).ok().filter(|packed| packed.len() < bytes.len());
        Made {
            etag: etag.unwrap_or_else(|_| HeaderValue::from_static("W/\"\"")),
            packed: packed.map(Bytes::from),
            bytes,
        }
    }
}

/// Whether a list of tags names this one, compared weakly (RFC 9110, 13.1.2).
fn matches(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let strip = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Ok(tags), Ok(etag)) = (tags.to_str(), etag.to_str()) else { return false };
    tags.split(',').any(|tag| tag.trim() == "*" || strip(tag) == strip(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(asset: &Asset) -> String {
        String::from_utf8((asset.bytes)().to_vec()).unwrap()
    }

    /// Files that are ours.
    fn own() -> impl Iterator<Item = &'static Asset> {
        ASSETS.iter().filter(|asset| !asset.path.starts_with("/assets/uplot"))
    }

    #[test]
    fn everything_that_the_page_names_is_there_and_nothing_else_is() {
        let mut named = vec!["/".to_owned()];
        for asset in own() {
            for part in text(asset).split(['"', '\'']).filter(|part| part.len() < 60) {
                match part.strip_prefix("./") {
                    Some(module) if module.ends_with(".js") => named.push(format!("/assets/{module}")),
                    _ if part.starts_with("/assets/") => named.push(part.to_owned()),
                    _ => {}
                }
            }
        }
        named.sort_unstable();
        named.dedup();
        let mut paths: Vec<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        paths.sort_unstable();
        assert_eq!(named, paths);
    }

    #[test]
    fn nothing_is_inline_foreign_or_made_of_markup() {
        for asset in own() {
            let text = text(asset);
            let foreign = text.matches("://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(foreign, 0, "{}", asset.path);
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                "<style",
                " onclick=",
            ] {
                assert!(!text.contains(never), "{}: {never}", asset.path);
            }
            assert!(text.lines().count() < 600, "{}", asset.path);
        }
        let page = text(find("/").unwrap());
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script src=").count() + page.matches("<script type=\"module\" src=").count()
        );
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let asset = find("/assets/app.js").unwrap();
        let first = asset.answer(&HeaderMap::new());
        let etag = first.headers()[header::ETAG].clone();
        assert_eq!(first.status(), StatusCode::OK);
        let ask = |tags: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(tags).unwrap());
            asset.answer(&headers).status()
        };
        let etag = etag.to_str().unwrap();
        assert_eq!(ask(etag), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&format!("\"x\", {}", etag.trim_start_matches("W/"))), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("\"x\""), StatusCode::OK);
    }

    #[test]
    fn the_licence_of_what_is_vendored_is_with_it() {
        let licence = include_str!("page/uplot/LICENSE");
        assert!(licence.contains("MIT License") && licence.contains("Leon Sorokin"));
        assert!(text(find("/assets/uplot.js").unwrap()).starts_with("/*! https://github.com/leeoniya/uPlot"));
    }
}
