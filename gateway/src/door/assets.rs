//! What browsers load, embedded in the binary: the JavaScript client, and the page at `/`.
//!
//! Runs on the door's thread: a path → an answer, without its comments, compressed once and
//! revalidated by its hash. It reads no file at run time, and must never let a page load anything
//! from elsewhere.

use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};

use crate::http::{self, Answer};

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// A file as it is served.
#[derive(Debug)]
struct Asset {
    path: &'static str,
    kind: &'static str,
    body: &'static [u8],
    /// Pages of other origins may import it.
    is_for_all: bool,
}

/// A module of the JavaScript client: people's own pages may import it from here.
macro_rules! client {
    ($path:literal) => {
        Asset {
            path: $path,
            kind: JAVASCRIPT,
            body: include_bytes!(concat!("../../web", $path)),
            is_for_all: true,
        }
    };
}

/// A file of our own page, which is nobody else's to load.
macro_rules! page {
    ($file:literal, $kind:expr) => {
        Asset {
            path: concat!("/page/", $file),
            kind: $kind,
            body: include_bytes!(concat!("../../web/page/", $file)),
            is_for_all: false,
        }
    };
}

/// Everything that is served, and as what.
const ASSETS: &[Asset] = &[
    client!("/client.js"),
    client!("/client/clock.js"),
    client!("/client/decimal.js"),
    client!("/client/error.js"),
    client!("/client/levels.js"),
    client!("/client/live.js"),
    client!("/client/mirror.js"),
    client!("/client/registry.js"),
    client!("/client/retry.js"),
    client!("/client/session.js"),
    client!("/client/subscription.js"),
    client!("/client/wire.js"),
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        body: include_bytes!("../../web/page/index.html"),
        is_for_all: false,
    },
    page!("page.css", CSS),
    page!("icon.svg", "image/svg+xml"),
    page!("address.js", JAVASCRIPT),
    page!("clock.js", JAVASCRIPT),
    page!("delays.js", JAVASCRIPT),
    page!("desk.js", JAVASCRIPT),
    page!("dom.js", JAVASCRIPT),
    page!("drawings.js", JAVASCRIPT),
    page!("exact.js", JAVASCRIPT),
    page!("latency.js", JAVASCRIPT),
    page!("listing.js", JAVASCRIPT),
    page!("page.js", JAVASCRIPT),
    page!("panel.js", JAVASCRIPT),
    page!("search.js", JAVASCRIPT),
    page!("story.js", JAVASCRIPT),
    page!("surface.js", JAVASCRIPT),
    page!("words.js", JAVASCRIPT),
    page!("worker.js", JAVASCRIPT),
];

/// What a page of ours may do: load from here, connect to here, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; \
    manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every asset, the first of which only a page heeds. Isolation gives its clocks their
/// full resolution, without which latencies cannot be seen.
const HEADERS: [(HeaderName, &str); 8] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    // Names are not versioned, so each use asks whether its copy is still right.
    (CACHE_CONTROL, "no-cache"),
    (VARY, "accept-encoding"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
];

/// What is worked out once of each asset.
#[derive(Debug)]
struct Prepared {
    asset: &'static Asset,
    body: Bytes,
    /// Weak, because it names the content and not the bytes that it is sent as.
    etag: String,
    gzip: Option<Bytes>,
}

static PREPARED: LazyLock<Vec<Prepared>> =
    LazyLock::new(|| ASSETS.iter().map(Prepared::new).collect());

impl Prepared {
    fn new(asset: &'static Asset) -> Self {
        let body = match asset.kind {
            JAVASCRIPT | CSS => Bytes::from(without_comments(asset.body)),
            _ => Bytes::from_static(asset.body),
        };
        let etag = format!("W/\"{:08x}-{:x}\"", crc32fast::hash(&body), body.len());
        let gzip = compressed(&body).filter(|gzip| gzip.len() < body.len());
        Self { asset, body, etag, gzip: gzip.map(Bytes::from) }
    }
}

/// The text with its lines that are comments empty: they are a fifth of what would go over the wire.
/// Lines keep their numbers, by which browsers name the place of an error.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut is_inside = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let words = line.trim_ascii();
        let begins = words.starts_with(b"/*");
        if is_inside || begins || words.starts_with(b"//") {
            is_inside = (is_inside || begins) && !words.ends_with(b"*/");
            out.push(b'\n');
        } else {
            out.extend(line);
        }
    }
    out
}

fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// Whether something is served under this path.
pub(super) fn is_served(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

/// The asset of this path, or the word that the copy which the client holds is still right.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Answer {
    let Some(Prepared { asset, body, etag, gzip }) =
        PREPARED.iter().find(|prepared| prepared.asset.path == path)
    else {
        return http::text(StatusCode::NOT_FOUND, "nothing is served here");
    };
    let gzip = gzip.as_ref().filter(|_| accepts_gzip(headers));
    let mut answer = if is_held(headers, etag) {
        http::typed(StatusCode::NOT_MODIFIED, asset.kind, Bytes::new())
    } else {
        let body = gzip.unwrap_or(body).clone();
        let mut answer = http::typed(StatusCode::OK, asset.kind, body);
        if gzip.is_some() {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    };
    let out = answer.headers_mut();
    out.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        out.insert(ETAG, etag);
    }
    let readers = if asset.is_for_all { "cross-origin" } else { "same-origin" };
    let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
    out.insert(resource_policy, HeaderValue::from_static(readers));
    if asset.is_for_all {
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    answer
}

/// The words of a header that lists some, over one line or several.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn is_held(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    listed(headers, &IF_NONE_MATCH).any(|tag| tag == "*" || opaque(tag) == opaque(etag))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    listed(headers, &ACCEPT_ENCODING).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_gzip = name.trim().eq_ignore_ascii_case("gzip");
        // A weight of zero refuses it.
        let weight = weight.trim().trim_start_matches("q=");
        is_gzip && (weight.is_empty() || weight.contains(|digit| matches!(digit, '1'..='9')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;
    use std::io::Read;

    fn request(headers: &[(HeaderName, &str)]) -> HeaderMap {
        let parsed = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        parsed.collect()
    }

    fn body(answer: Answer) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(answer.into_body().collect()).unwrap().to_bytes().to_vec()
    }

    fn header<'a>(answer: &'a Answer, name: &HeaderName) -> Option<&'a str> {
        answer.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn what_a_module_imports_is_served() {
        for asset in ASSETS.iter().filter(|asset| asset.kind == JAVASCRIPT) {
            let text = str::from_utf8(asset.body).unwrap();
            let folder = &asset.path[..=asset.path.rfind('/').unwrap()];
            let imported = text.split(" from \"./").skip(1);
            for name in imported.map(|rest| rest.split('"').next().unwrap()) {
                assert!(is_served(&format!("{folder}{name}")), "{} imports {name}", asset.path);
            }
        }
    }

    #[test]
    fn what_the_page_names_is_served() {
        let page = str::from_utf8(ASSETS.iter().find(|asset| asset.path == "/").unwrap().body);
        let named: Vec<_> = page.unwrap().split("=\"/page/").skip(1).collect();
        assert!(named.len() > 2, "{named:?}");
        for name in named.iter().map(|rest| rest.split('"').next().unwrap()) {
            assert!(is_served(&format!("/page/{name}")), "the page names {name}");
        }
    }

    #[test]
    fn comments_go_and_code_and_line_numbers_stay() {
        let text =
            "// one\n/** two\n * three */\nlet a = 1; // four\n  // five\n/* six */\na /* x */;\n";
        let expected = "\n\n\nlet a = 1; // four\n\n\na /* x */;\n";
        assert_eq!(without_comments(text.as_bytes()), expected.as_bytes());
        // Within a text of several lines nothing is a comment, so there must be none.
        for asset in ASSETS.iter().filter(|asset| asset.kind == JAVASCRIPT) {
            for line in without_comments(asset.body).split(|byte| *byte == b'\n') {
                let quotes = line.iter().filter(|byte| **byte == b'`').count();
                assert_eq!(quotes % 2, 0, "{}: {}", asset.path, String::from_utf8_lossy(line));
            }
        }
    }

    #[test]
    fn all_together_are_small() {
        let sent = |prepared: &Prepared| match &prepared.gzip {
            Some(gzip) => gzip.len(),
            None => prepared.body.len(),
        };
        let bytes: usize = PREPARED.iter().map(sent).sum();
        assert!(bytes <= 60_000, "{bytes} bytes go over the wire");
    }

    #[test]
    fn it_is_compressed_for_those_who_can_read_that() {
        let plain = &PREPARED[0].body[..];
        for (accepted, is_compressed) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.00", false),
            ("gzip;q=0.01", true),
            ("br", false),
            ("xgzip", false),
        ] {
            let answer = answer(ASSETS[0].path, &request(&[(ACCEPT_ENCODING, accepted)]));
            let coding = header(&answer, &CONTENT_ENCODING);
            assert_eq!(coding, is_compressed.then_some("gzip"), "{accepted}");
            let mut content = body(answer);
            if is_compressed {
                let mut out = Vec::new();
                GzDecoder::new(&content[..]).read_to_end(&mut out).unwrap();
                assert!(content.len() < plain.len());
                content = out;
            }
            assert_eq!(content, plain, "{accepted}");
        }
    }

    #[test]
    fn whoever_holds_it_is_sent_nothing() {
        let first = answer("/client.js", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let etag = header(&first, &ETAG).unwrap().to_owned();
        for held in [&*etag, "*", etag.trim_start_matches("W/"), &format!("\"other\", {etag}")] {
            let again = answer("/client.js", &request(&[(IF_NONE_MATCH, held)]));
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{held}");
            assert_eq!(header(&again, &ETAG), Some(&*etag));
            assert!(body(again).is_empty());
        }
        let other = answer("/client.js", &request(&[(IF_NONE_MATCH, "\"other\"")]));
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[test]
    fn every_asset_carries_the_policy_and_its_type() {
        for asset in ASSETS {
            let answer = answer(asset.path, &HeaderMap::new());
            assert_eq!(header(&answer, &CONTENT_SECURITY_POLICY), Some(POLICY), "{}", asset.path);
            assert_eq!(header(&answer, &X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
            assert_eq!(header(&answer, &hyper::header::CONTENT_TYPE), Some(asset.kind));
        }
    }
}
