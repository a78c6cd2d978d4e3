//! The rules of the design that no compiler holds: which file may use what, and what may stand
//! nowhere.
//!
//! Runs under `cargo test`. Each rule is a row of [`RULES`]: a function over all files, what to do
//! instead, and small trees that break it on purpose, because a rule that cannot fail holds
//! nothing. To change a rule, change the design first.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[path = "tidy/source.rs"]
mod source;

use source::{CodePath, Source};

/// All files that the rules look at, by their path from the root of the repository.
type Tree = BTreeMap<String, Source>;

/// A place that breaks a rule.
struct Finding {
    path: String,
    line: usize,
    what: String,
}

/// A rule of the design.
struct Rule {
    /// The rule, as a sentence.
    says: &'static str,
    /// What to do instead of breaking it.
    instead: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
    /// Trees that break it: paths and texts.
    broken: &'static [&'static [(&'static str, &'static str)]],
}

/// The folders of the packages.
const PACKAGES: [&str; 3] = ["gateway", "feed-sim", "bench"];

/// The document that names every file.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// Files that start both halves of the gateway and so may know both.
const STARTERS: [&str; 4] = [
    "gateway/src/main.rs",
    "gateway/src/lib.rs",
    "gateway/src/serve.rs",
    "gateway/src/simulation.rs",
];

const WRITING_HALF: [&str; 2] = ["venue", "feed"];
const READING_HALF: [&str; 3] = ["fanout", "door", "admin"];

/// The modules of the core in the order in which data flows through them.
const CORE_ORDER: [&str; 8] =
    ["decimal", "market", "book", "snapshot", "diff", "view", "wire", "ws"];

/// What the core may stand on, among crates of others.
const CORE_CRATES: [&str; 5] = ["arc-swap", "itoa", "serde", "serde_json", "thiserror"];

/// Which of our packages each of them may depend on.
const OUR_PACKAGES: [(&str, &[&str]); 5] = [
    ("tickfan-core", &[]),
    ("feed-sim", &["tickfan-core"]),
    ("tickfan", &["tickfan-core", "feed-sim"]),
    ("tickfan-fuzz", &["tickfan-core", "tickfan"]),
    ("bench", &["tickfan-core", "feed-sim", "tickfan"]),
];

/// Crates of others that have one home in the gateway, so that replacing one touches one module.
/// A home is a file or, with a slash at the end, a folder.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["simd_json"], &["gateway/src/venue/"]),
    (&["arc_swap"], &["gateway/core/src/snapshot.rs"]),
    (&["itoa"], &["gateway/core/src/decimal.rs"]),
    (&["hdrhistogram", "prometheus_client"], &["gateway/src/stats.rs"]),
    (&["crossbeam"], &["gateway/src/fanout.rs"]),
    (&["flate2"], &["gateway/src/door/assets.rs"]),
    (&["rustix"], &["gateway/src/affinity.rs", "gateway/src/fanout/poller.rs"]),
    (&["slab"], &["gateway/src/fanout/table.rs"]),
    (&["socket2"], &["gateway/src/http.rs", "gateway/src/fanout/socket.rs"]),
    (&["mimalloc"], &["gateway/src/main.rs"]),
    (&["toml", "strsim"], &["gateway/src/config.rs"]),
    (
        &["rustls", "tokio_rustls", "webpki_roots"],
        &["gateway/src/feed/session.rs", "gateway/src/feed/rest.rs", "gateway/src/feed/tls.rs"],
    ),
    (
        &["hyper"],
        &[
            "gateway/src/http.rs",
            "gateway/src/door.rs",
            "gateway/src/door/",
            "gateway/src/admin.rs",
            "gateway/src/feed/",
            "gateway/src/client.rs",
            "gateway/src/client/",
        ],
    ),
    (&["clap"], &["gateway/src/main.rs", "gateway/src/cli/"]),
    (&["clap_complete", "clap_mangen"], &["gateway/src/cli/manual.rs"]),
    (&["ratatui", "crossterm"], &["gateway/src/cli/screen.rs", "gateway/src/cli/screen/"]),
    (
        &["fastwebsockets"],
        &[
            "gateway/src/door/upgrade.rs",
            "gateway/src/feed/session.rs",
            "gateway/src/feed/session/",
            "gateway/src/client.rs",
        ],
    ),
];

/// The files that read time, one a package: the bench measures us with a clock of its own.
const CLOCKS: [&str; 3] = ["gateway/src/clock.rs", "feed-sim/src/clock.rs", "bench/src/clock.rs"];

/// An instant of tokio's clock.
const TOKIO_INSTANT: [&str; 3] = ["tokio", "time", "Instant"];

/// The files that may say `unsafe`, and why they must.
const UNSAFE: &[(&str, &str)] = &[
    ("gateway/tests/memory.rs", "an allocator that counts passes its calls on"),
    ("bench/src/peer/uws.rs", "uWebSockets is C++, and has no safe face"),
];

const RULES: &[Rule] = &[
    Rule {
        says: "a venue stands alone",
        instead: "share through venue.rs or a reader beside it, and hand events on",
        check: venues_stand_alone,
        broken: &[
            &[
                ("gateway/src/venue/binance.rs", "use super::{Malformed, kraken::pair};"),
                ("gateway/src/venue/kraken.rs", ""),
            ],
            &[("gateway/src/venue/kraken.rs", "fn f() { crate::feed::session::run() }")],
            &[("gateway/src/venue/kraken.rs", "use crate::fanout;")],
        ],
    },
    Rule {
        says: "the writing half (venue, feed) and the reading one (fanout, door, admin) never meet",
        instead: "pass it through the snapshot, or start it in main.rs",
        check: halves_never_meet,
        broken: &[
            &[("gateway/src/fanout/shard.rs", "use crate::{limits, feed::Command};")],
            &[("gateway/src/admin.rs", "fn f() { crate::venue::endpoints(v); }")],
            &[("gateway/src/feed.rs", "use crate::fanout::Shard;")],
            &[("gateway/src/feed/rest.rs", "use super::super::door::Door;")],
            &[("gateway/src/stats.rs", "use crate::feed::A;\nuse crate::fanout::B;")],
        ],
    },
    Rule {
        says: "the client and the commands know the protocol and nothing of the gateway behind it",
        instead: "take it from the protocol's messages in tickfan-core, or from overview.rs",
        check: clients_are_outside,
        broken: &[
            &[("gateway/src/client.rs", "use crate::fanout::lane;")],
            &[("gateway/src/client/mirror.rs", "use tickfan_core::book::Book;")],
            &[("gateway/src/cli/top.rs", "use crate::admin::Admin;")],
        ],
    },
    Rule {
        says: "the core knows no socket, clock, task or thread",
        instead: "take bytes and times as arguments, and return values",
        check: core_is_pure,
        broken: &[
            &[("gateway/core/src/book.rs", "use std::{fmt, net::TcpStream};")],
            &[("gateway/core/src/ws.rs", "use std::time::{Duration, Instant};")],
            &[("gateway/core/src/ws.rs", "fn f() { std::thread::yield_now() }")],
            &[("gateway/core/src/view.rs", "async fn f() { tokio::task::yield_now().await }")],
        ],
    },
    Rule {
        says: "a module of the core uses only what stands left of it in the flow of data",
        instead: "move what both need to the left, or the caller to the right",
        check: core_flows_one_way,
        broken: &[
            &[("gateway/core/src/market.rs", "use crate::book::Book;")],
            &[("gateway/core/src/book/side.rs", "use super::super::snapshot::Snapshot;")],
            &[("gateway/core/src/view.rs", "fn f() { crate::wire::json::Json; }")],
            &[("gateway/core/src/novel.rs", "")],
        ],
    },
    Rule {
        says: "one encoding does not know another",
        instead: "put what encodings share into wire.rs",
        check: encodings_stand_alone,
        broken: &[&[
            ("gateway/core/src/wire/binary.rs", "use super::json::Json;"),
            ("gateway/core/src/wire/json.rs", ""),
        ]],
    },
    Rule {
        says: "each crate of others has one home",
        instead: "call the module that is its home",
        check: crates_are_at_home,
        broken: &[
            &[("gateway/src/fanout/lane.rs", "use simd_json::Buffers;")],
            &[("gateway/core/src/book.rs", "use arc_swap as swap;")],
            &[("gateway/src/fanout/shard.rs", "fn f() { hyper::Uri::default(); }")],
            &[("gateway/src/limits.rs", "#[derive(clap::Args)]\nstruct A;")],
            &[("gateway/src/cli/top.rs", "use ratatui::buffer::Buffer;")],
            &[("gateway/src/door.rs", "use fastwebsockets::upgrade;")],
        ],
    },
    Rule {
        says: "every queue has a bound",
        instead: "use a bounded channel, with its size in limits.rs, a policy when full, a counter",
        check: queues_are_bounded,
        broken: &[
            &[("gateway/src/feed.rs", "use tokio::sync::mpsc::unbounded_channel;")],
            &[("gateway/src/feed.rs", "let (a, b) = crossbeam::channel::unbounded();")],
            &[("gateway/src/feed.rs", "use crossbeam::channel::{bounded, unbounded};")],
            &[("feed-sim/src/main.rs", "let (a, b) = std::sync::mpsc::channel();")],
        ],
    },
    Rule {
        says: "time is read in clock.rs only; the simulator may pace itself by tokio's, which a test \
               can stop",
        instead: "take the time as an argument, or hold a Clock",
        check: time_has_one_home,
        broken: &[
            &[("gateway/src/feed.rs", "let t = std::time::Instant::now();")],
            &[("gateway/src/fanout/shard.rs", "let t = tokio::time::Instant::now();")],
            &[("gateway/core/src/ws.rs", "let t = SystemTime::now();")],
            &[("feed-sim/src/serve.rs", "let t = std::time::SystemTime::now();")],
            &[("feed-sim/src/serve.rs", "use std::time::Instant;\nfn f() { Instant::now(); }")],
            &[("bench/src/load.rs", "use std::time::Instant;\nfn f() { Instant::now(); }")],
        ],
    },
    Rule {
        says: "no floating point where prices are",
        instead: "use Px, Qty or Decimal, which are exact",
        check: prices_are_exact,
        broken: &[
            &[("gateway/core/src/market.rs", "struct Px(f64);")],
            &[("gateway/core/src/book/side.rs", "let a = 1f32;")],
            &[("gateway/src/venue/kraken.rs", "let a = b as f64;")],
        ],
    },
    Rule {
        says: "unsafe stands only in files that say why",
        instead: "find a safe way; or list the file in this test with its reason",
        check: unsafe_has_reasons,
        broken: &[
            &[("gateway/src/feed.rs", "unsafe { f() }")],
            &[("gateway/tests/memory.rs", "//! All safe by now.\nfn f() {}")],
        ],
    },
    Rule {
        says: "every file opens with what it is",
        instead: "begin with //!: what it turns into what, who calls it, on which thread, what it \
                  must never do",
        check: files_open_with_words,
        broken: &[
            &[("gateway/src/feed.rs", "use std::fmt;\n//! Late.")],
            &[("bench/src/load.rs", "")],
        ],
    },
    Rule {
        says: "docs/ARCHITECTURE.md names every file of src, and only files that exist",
        instead: "write each file out there, with as much of its path as makes it unique",
        check: architecture_is_complete,
        broken: &[
            &[("gateway/src/feed.rs", "")],
            &[("docs/ARCHITECTURE.md", "`feed.rs`"), ("gateway/src/feed/rest.rs", "")],
            &[
                ("docs/ARCHITECTURE.md", "The life of an update begins in `main.rs`."),
                ("gateway/src/main.rs", ""),
                ("bench/src/main.rs", ""),
            ],
            &[
                ("docs/ARCHITECTURE.md", "`feed.rs` (see gateway/src/old.rs)"),
                ("gateway/src/feed.rs", ""),
            ],
            &[
                ("docs/ARCHITECTURE.md", "`feed/{rest,session}.rs`"),
                ("gateway/src/feed/rest.rs", ""),
            ],
        ],
    },
    Rule {
        says: "our packages depend on each other as the design says, and the core on little else",
        instead: "move what is needed to the left; a new crate under the core is a decision",
        check: packages_flow_one_way,
        broken: &[
            &[(
                "feed-sim/Cargo.toml",
                "[package]\nname = \"feed-sim\"\n[dependencies]\ntickfan.workspace = true",
            )],
            &[(
                "feed-sim/Cargo.toml",
                "[package]\nname = \"feed-sim\"\n[dev-dependencies]\nbench.workspace = true",
            )],
            &[(
                "gateway/core/Cargo.toml",
                "[package]\nname = \"tickfan-core\"\n[dependencies]\ntokio = \"1\"",
            )],
            &[("novel/Cargo.toml", "[package]\nname = \"novel\"")],
            &[("novel/Cargo.toml", "[package")],
        ],
    },
    Rule {
        says: "the simulator shares the core's vocabulary and nothing that it is the oracle for",
        instead: "use tickfan_core::market and ::decimal only; write the rest a second time",
        check: simulator_is_independent,
        broken: &[
            &[("feed-sim/src/truth.rs", "use tickfan_core::{market::Px, book::Book};")],
            &[("feed-sim/src/lib.rs", "fn f() { tickfan_core::diff::side_changes() }")],
        ],
    },
    Rule {
        says: "nothing is left for later",
        instead: "do it, or file an issue; x.rs beside x/ instead of mod.rs",
        check: nothing_is_left_over,
        broken: &[
            &[("gateway/src/feed/mod.rs", "")],
            &[("gateway/src/feed.rs", "fn f() { todo!() }")],
            &[("gateway/tests/spine.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")],
            &[("gateway/src/feed.rs", "// FIXME: later")],
            &[("gateway/src/feed.rs", "#[cfg(test)]\nmod tests { /* TODO */ }")],
        ],
    },
];

#[test]
fn the_tree_keeps_every_rule() {
    let tree = read_tree();
    assert!(tree.len() > 10, "only {} files were found", tree.len());
    let report = report(&tree);
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn every_rule_can_be_broken() {
    for rule in RULES {
        assert!(!rule.broken.is_empty(), "{}: nothing breaks it", rule.says);
        for files in rule.broken {
            let tree =
                tree(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
            assert!(!(rule.check)(&tree).is_empty(), "{}: missed in {files:?}", rule.says);
        }
    }
}

#[test]
fn what_is_allowed_breaks_no_rule() {
    let architecture = "core/src/book.rs core/src/snapshot.rs feed/session.rs gateway/src/main.rs \
                        gateway/src/config.rs venue/kraken.rs feed-sim/src/serve.rs";
    let allowed = tree(
        [
            ("docs/ARCHITECTURE.md", architecture),
            (
                "gateway/core/src/book.rs",
                "//! A.\nuse crate::market::Px;\nuse std::time::Duration;",
            ),
            ("gateway/core/src/snapshot.rs", "//! A.\nuse crate::book;\nuse arc_swap::ArcSwap;"),
            ("gateway/src/feed/session.rs", "//! A.\nuse crate::venue::decoder;\nuse hyper::Uri;"),
            ("gateway/src/main.rs", "//! A.\nuse tickfan::{feed, fanout};\nuse clap::Parser;"),
            ("gateway/src/config.rs", "//! A.\nuse crate::venue::TradeStream;\nfn f(toml: u8) {}"),
            (
                "feed-sim/src/serve.rs",
                "//! A.\nuse tokio::time::Instant;\nfn f() { Instant::now(); }",
            ),
            (
                "gateway/src/venue/kraken.rs",
                "//! A.\nuse super::endpoints;\n#[cfg(test)]\nmod tests { use crate::feed; }",
            ),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned())),
    );
    let report = report(&allowed);
    assert!(report.is_empty(), "\n{report}");
}

/// Every place that breaks a rule, for a person.
fn report(tree: &Tree) -> String {
    let mut report = String::new();
    for rule in RULES {
        for Finding { path, line, what } in (rule.check)(tree) {
            report.push_str(&format!(
                "{path}:{line}: {what}\n  rule: {}\n  instead: {}\n",
                rule.says, rule.instead
            ));
        }
    }
    report
}

fn read_tree() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for package in PACKAGES {
        read_folder(&root, package, &mut files);
    }
    // A missing document is a finding of its rule.
    if let Ok(text) = fs::read_to_string(root.join(ARCHITECTURE)) {
        files.push((ARCHITECTURE.to_owned(), text));
    }
    tree(files)
}

fn read_folder(root: &Path, folder: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"))
    {
        let entry = entry.expect("a readable folder");
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        let path = format!("{folder}/{name}");
        if entry.file_type().expect("a readable folder").is_dir() {
            if name != "target" {
                read_folder(root, &path, files);
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            files.push((path, fs::read_to_string(entry.path()).expect("a file in UTF-8")));
        }
    }
}

fn tree(files: impl IntoIterator<Item = (String, String)>) -> Tree {
    let mut tree: Tree = files
        .into_iter()
        .map(|(path, text)| {
            let rust = path.ends_with(".rs");
            let source = if rust { Source::rust(&text) } else { Source::plain(&text) };
            (path, source)
        })
        .collect();
    // A module that is declared for tests is test code as a whole.
    let test_files: Vec<String> = tree
        .iter()
        .flat_map(|(path, source)| {
            source.test_modules.iter().map(|module| format!("{}/{module}.rs", children(path)))
        })
        .collect();
    for (path, source) in &mut tree {
        let below = |file: &String| {
            path == file || path.starts_with(&format!("{}/", file.trim_end_matches(".rs")))
        };
        if test_files.iter().any(below) {
            source.make_test();
        }
    }
    tree
}

/// The folder of the child modules of a file.
fn children(path: &str) -> &str {
    let stem = path.trim_end_matches(".rs");
    stem.strip_suffix("/lib").or(stem.strip_suffix("/main")).unwrap_or(stem)
}

/// The module that a file is, with its crate in front: `gateway/src/feed/rest.rs` is
/// `tickfan::feed::rest`.
fn module_of(path: &str) -> Vec<String> {
    let crates = [
        ("gateway/core/src", "tickfan_core"),
        ("gateway/src", "tickfan"),
        ("feed-sim/src", "feed_sim"),
        ("bench/src", "bench"),
    ];
    let found =
        crates.iter().find_map(|(folder, name)| Some((name, children(path).strip_prefix(folder)?)));
    let Some((name, inner)) = found else { return Vec::new() };
    let inner = inner.split('/').filter(|part| !part.is_empty());
    std::iter::once(*name).chain(inner).map(str::to_owned).collect()
}

/// A path with its crate in front, where it can be told.
fn absolute(file: &str, path: &CodePath) -> Vec<String> {
    let module = module_of(file);
    let mut segments = path.segments.as_slice();
    let mut base = Vec::new();
    match segments.first().map(String::as_str) {
        Some("crate") => {
            base.extend(module.first().cloned());
            segments = &segments[1..];
        }
        Some("self" | "super") => {
            base = module;
            while let [first, rest @ ..] = segments
                && matches!(first.as_str(), "self" | "super")
            {
                if first == "super" {
                    base.pop();
                }
                segments = rest;
            }
        }
        _ => {}
    }
    base.extend_from_slice(segments);
    base
}

/// The paths of a file that are forbidden there.
fn forbidden_paths(
    file: &str,
    source: &Source,
    forbidden: impl Fn(&[&str]) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in &source.paths {
        let segments = absolute(file, path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if forbidden(&segments) {
            let what = format!("uses {}", segments.join("::"));
            findings.push(Finding { path: file.to_owned(), line: path.line, what });
        }
    }
    findings
}

/// The Rust files whose path begins so.
fn files_in<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Source)> {
    tree.iter()
        .map(|(path, source)| (path.as_str(), source))
        .filter(move |(path, _)| path.starts_with(folder) && path.ends_with(".rs"))
}

/// The Rust files of our packages' `src` folders.
fn src_files(tree: &Tree) -> impl Iterator<Item = (&str, &Source)> {
    files_in(tree, "").filter(|(path, _)| path.contains("/src/"))
}

/// The name of a file without folder and ending.
fn stem(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// Files of a folder that use each other, but for those that they share.
fn siblings_used(tree: &Tree, folder: &str, parent: &[&str], shared: &[&str]) -> Vec<Finding> {
    let stems = files_in(tree, folder).map(|(path, _)| stem(path));
    let modules: Vec<&str> = stems.filter(|stem| !shared.contains(stem)).collect();
    files_in(tree, folder)
        .flat_map(|(path, source)| {
            let own = stem(path);
            forbidden_paths(path, source, |used| {
                used.strip_prefix(parent)
                    .and_then(<[&str]>::first)
                    .is_some_and(|module| *module != own && modules.contains(module))
            })
        })
        .collect()
}

fn venues_stand_alone(tree: &Tree) -> Vec<Finding> {
    let folder = "gateway/src/venue/";
    let mut findings = siblings_used(tree, folder, &["tickfan", "venue"], &["text", "tape"]);
    for (path, source) in files_in(tree, folder) {
        findings.extend(forbidden_paths(path, source, |used| {
            matches!(used, ["tickfan", "feed" | "fanout" | "door" | "admin", ..])
        }));
    }
    findings
}

fn halves_never_meet(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in files_in(tree, "gateway/src/") {
        if STARTERS.contains(&path) {
            continue;
        }
        let own = module_of(path);
        let within = |half: &[&str]| own.get(1).is_some_and(|own| half.contains(&own.as_str()));
        let uses = |half: &[&str]| {
            forbidden_paths(
                path,
                source,
                |used| matches!(used, ["tickfan", module, ..] if half.contains(module)),
            )
        };
        let (writing, reading) = (uses(&WRITING_HALF), uses(&READING_HALF));
        if within(&WRITING_HALF) || (!within(&READING_HALF) && !writing.is_empty()) {
            findings.extend(reading);
        } else if within(&READING_HALF) {
            findings.extend(writing);
        }
    }
    findings
}

fn clients_are_outside(tree: &Tree) -> Vec<Finding> {
    // The client, and the commands in `cli`.
    files_in(tree, "gateway/src/cli")
        .flat_map(|(path, source)| {
            forbidden_paths(path, source, |used| match used {
                ["tickfan", module, ..] => {
                    WRITING_HALF.contains(module) || READING_HALF.contains(module)
                }
                ["tickfan_core", module, ..] => matches!(*module, "book" | "snapshot" | "diff"),
                _ => false,
            })
        })
        .collect()
}

fn core_is_pure(tree: &Tree) -> Vec<Finding> {
    files_in(tree, "gateway/core/src/")
        .flat_map(|(path, source)| {
            forbidden_paths(path, source, |used| {
                matches!(
                    used,
                    ["std", "net" | "thread" | "fs" | "process", ..]
                        | ["std", "time", "Instant" | "SystemTime", ..]
                        | ["tokio" | "crossbeam" | "rustix" | "hyper", _, ..]
                )
            })
        })
        .collect()
}

fn core_flows_one_way(tree: &Tree) -> Vec<Finding> {
    let place = |module: &str| CORE_ORDER.iter().position(|name| *name == module);
    let mut findings = Vec::new();
    for (path, source) in files_in(tree, "gateway/core/src/") {
        let module = module_of(path);
        let Some(module) = module.get(1) else { continue };
        let Some(own) = place(module) else {
            let what = format!("module {module} has no place in the order");
            findings.push(Finding { path: path.to_owned(), line: 1, what });
            continue;
        };
        findings.extend(forbidden_paths(path, source, |used| match used {
            ["tickfan_core", module, ..] => place(module).is_some_and(|other| other > own),
            _ => false,
        }));
    }
    findings
}

fn encodings_stand_alone(tree: &Tree) -> Vec<Finding> {
    siblings_used(tree, "gateway/core/src/wire/", &["tickfan_core", "wire"], &[])
}

fn crates_are_at_home(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in src_files(tree).filter(|(path, _)| path.starts_with("gateway/")) {
        for (crates, homes) in HOMES {
            let at_home = homes
                .iter()
                .any(|home| path == *home || (home.ends_with('/') && path.starts_with(home)));
            if at_home {
                continue;
            }
            for used in &source.paths {
                let name = used.segments[0].as_str();
                // A lone word may be a variable.
                if crates.contains(&name) && (used.imported || used.segments.len() > 1) {
                    let what = format!("uses {name}, whose home is {}", homes.join(", "));
                    findings.push(Finding { path: path.to_owned(), line: used.line, what });
                }
            }
        }
    }
    findings
}

fn queues_are_bounded(tree: &Tree) -> Vec<Finding> {
    src_files(tree)
        .flat_map(|(path, source)| {
            forbidden_paths(path, source, |used| {
                matches!(
                    used,
                    [.., "unbounded_channel"]
                        | [.., "channel", "unbounded"]
                        | ["crossbeam_channel", "unbounded"]
                        | ["std", "sync", "mpsc", "channel"]
                )
            })
        })
        .collect()
}

fn time_has_one_home(tree: &Tree) -> Vec<Finding> {
    src_files(tree)
        .filter(|(path, _)| !CLOCKS.contains(path))
        .flat_map(|(path, source)| {
            let is_tokio = |path: &CodePath| path.imported && path.segments == TOKIO_INSTANT;
            let paces = path.starts_with("feed-sim/") && source.paths.iter().any(is_tokio);
            forbidden_paths(path, source, |used| match used {
                ["Instant", "now"] => !paces,
                _ => matches!(used, [.., "Instant" | "SystemTime", "now"]),
            })
        })
        .collect()
}

fn prices_are_exact(tree: &Tree) -> Vec<Finding> {
    let core = ["market", "book", "decimal"].map(|module| format!("gateway/core/src/{module}"));
    let mut findings = Vec::new();
    for (path, source) in src_files(tree) {
        let has_prices = path.starts_with("gateway/src/venue")
            || core.iter().any(|module| path.starts_with(module.as_str()));
        for token in source.tokens.iter().filter(|_| has_prices) {
            let number = token.text.starts_with(|c: char| c.is_ascii_digit());
            if matches!(token.text.as_str(), "f32" | "f64")
                || (number && (token.text.ends_with("f32") || token.text.ends_with("f64")))
            {
                let what = format!("says {}", token.text);
                findings.push(Finding { path: path.to_owned(), line: token.line, what });
            }
        }
    }
    findings
}

fn unsafe_has_reasons(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in files_in(tree, "") {
        let found = source.tokens_with_tests.iter().find(|token| token.text == "unsafe");
        let listed = UNSAFE.iter().find(|(file, _)| *file == path);
        let (line, what) = match (found, listed) {
            (Some(token), None) => (token.line, "says unsafe and is not listed".to_owned()),
            (None, Some((_, why))) => (1, format!("is listed for unsafe that is gone ({why})")),
            _ => continue,
        };
        findings.push(Finding { path: path.to_owned(), line, what });
    }
    findings
}

fn files_open_with_words(tree: &Tree) -> Vec<Finding> {
    src_files(tree)
        .filter(|(_, source)| !source.text.starts_with("//! "))
        .map(|(path, _)| {
            let what = "does not open with //!".to_owned();
            Finding { path: path.to_owned(), line: 1, what }
        })
        .collect()
}

fn architecture_is_complete(tree: &Tree) -> Vec<Finding> {
    let path = ARCHITECTURE;
    let Some(document) = tree.get(path) else {
        let what = "is missing".to_owned();
        return vec![Finding { path: path.to_owned(), line: 1, what }];
    };
    let mut findings = Vec::new();
    let mut named = Vec::new();
    for (i, line) in document.text.lines().enumerate() {
        for name in rust_names(line) {
            let ending = format!("/{name}");
            let fits = |path: &&str| *path == name || path.ends_with(&ending);
            let mut files = files_in(tree, "").map(|(path, _)| path).filter(fits);
            let what = match (files.next(), files.next()) {
                (Some(file), None) => {
                    named.push(file);
                    continue;
                }
                (Some(one), Some(other)) => format!("{name} may be {one} or {other}"),
                (None, _) => format!("{name:?} is no file"),
            };
            findings.push(Finding { path: path.to_owned(), line: i + 1, what });
        }
    }
    for (file, _) in src_files(tree).filter(|(file, _)| !named.contains(file)) {
        let what = format!("is not named in {path}");
        findings.push(Finding { path: file.to_owned(), line: 1, what });
    }
    findings
}

/// The names of Rust files that a line of prose mentions.
fn rust_names(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.ends_with(".rs"))
}

fn packages_flow_one_way(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.iter().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        for what in package_faults(&source.text) {
            findings.push(Finding { path: path.clone(), line: 1, what });
        }
    }
    findings
}

fn package_faults(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = match manifest.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("is no TOML: {error}")],
    };
    let name = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let name = name.unwrap_or_default();
    let Some((_, ours)) = OUR_PACKAGES.iter().find(|(package, _)| *package == name) else {
        return vec![format!("package {name:?} has no place in the design")];
    };
    let mut faults = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let dependencies = manifest.get(table).and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            let dependency = dependency.as_str();
            let is_ours = OUR_PACKAGES.iter().any(|(package, _)| *package == dependency);
            let core_needs = table == "dev-dependencies" || CORE_CRATES.contains(&dependency);
            if is_ours && !ours.contains(&dependency) {
                faults.push(format!("{name} may not depend on {dependency}"));
            } else if !is_ours && name == "tickfan-core" && !core_needs {
                faults.push(format!(
                    "the core stands on {}, not on {dependency}",
                    CORE_CRATES.join(", ")
                ));
            }
        }
    }
    faults
}

fn simulator_is_independent(tree: &Tree) -> Vec<Finding> {
    files_in(tree, "feed-sim/src/")
        .flat_map(|(path, source)| {
            forbidden_paths(path, source, |used| match used {
                ["tickfan_core", module, ..] => !["market", "decimal"].contains(module),
                _ => false,
            })
        })
        .collect()
}

fn nothing_is_left_over(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in files_in(tree, "") {
        let mut find = |line, what: &str| {
            findings.push(Finding { path: path.to_owned(), line, what: what.to_owned() });
        };
        if stem(path) == "mod" {
            find(1, "is a mod.rs");
        }
        for pair in source.tokens_with_tests.windows(2) {
            match [pair[0].text.as_str(), pair[1].text.as_str()] {
                ["todo" | "unimplemented", "!"] => find(pair[0].line, "is not finished"),
                ["[", "ignore"] => find(pair[0].line, "ignores a test"),
                _ => {}
            }
        }
        for comment in &source.comments {
            if comment.text.contains("FIXME") || comment.text.contains("TODO") {
                find(comment.line, "leaves a note for later");
            }
        }
    }
    findings
}
