//! The commands of the terminal, run as the binary against a gateway in this process: what they print,
//! as text and as JSON, and how they end.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use serde_json::{Value, json};
use tickfan::limits::WORST_CONNECTIONS_MAX;
use tickfan::serve::Running;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venue.rs"]
mod venue;

use client::Client;
use gateway::{get_json, metric, wait_until, wait_until_live};
use venue::{ScriptedVenue, Session};

/// A gateway on a market that moves.
static GATEWAY: LazyLock<Running> = LazyLock::new(|| gateway::start_on_simulator(2, 400));

fn tickfan(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickfan"));
    command.args(arguments).env_remove("TICKFAN_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tickfan(arguments).output().unwrap()
}

/// What it prints, when it ends well.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says on standard error, when it ends with this code and prints nothing.
fn complains(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    errors
}

fn stream_of(running: &Running) -> String {
    format!("ws://{}", running.listen)
}

fn admin_of(running: &Running) -> String {
    format!("http://{}", running.admin)
}

/// A command that is running, line by line.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(arguments: &[&str]) -> Self {
        let mut child = tickfan(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it went on").unwrap()
    }

    /// Reads on until a line that fits.
    fn line_where(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        const LINES_MAX: usize = 1_000;
        for _ in 0..LINES_MAX {
            let line = serde_json::from_str(&self.line()).unwrap();
            if fits(&line) {
                return line;
            }
        }
        panic!("no line was as it should be");
    }

    /// Nobody reads its lines any more; its exit code.
    fn close_pipe(self) -> Option<i32> {
        let Self { mut child, lines } = self;
        drop(lines);
        child.wait().unwrap().code()
    }

    fn interrupt(mut self) -> Option<i32> {
        let kill = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

/// A line to a gateway that a test can make dead: nothing passes it any more, and nothing ends.
struct Line {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Connections with a smaller number than this are dead.
    dead_below: Arc<AtomicUsize>,
}

impl Line {
    fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            dead_below: Arc::default(),
        };
        let (accepted, dead_below) = (Arc::clone(&line.accepted), Arc::clone(&line.dead_below));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, gateway) = (client.unwrap(), TcpStream::connect(gateway).unwrap());
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let ends = (client.try_clone().unwrap(), gateway.try_clone().unwrap());
                for (from, to) in [(client, gateway), (ends.1, ends.0)] {
                    let dead_below = Arc::clone(&dead_below);
                    thread::spawn(move || {
                        pass_on(from, to, || number < dead_below.load(Ordering::SeqCst))
                    });
                }
            }
        });
        line
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Those that are connected hear nothing any more.
    fn die(&self) {
        self.dead_below.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Passes bytes on until an end is closed; takes them and says nothing while the line is dead.
fn pass_on(mut from: TcpStream, mut to: TcpStream, is_dead: impl Fn() -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !is_dead() && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A gateway on a venue of which the test writes every word.
struct Scene {
    venue: ScriptedVenue,
    session: Session,
    running: Running,
}

fn okx(action: &str, [bids, asks]: [&str; 2], follows: i64, last: i64) -> String {
    json!({
        "arg": {"channel": "books", "instId": "BTC-USDT"},
        "action": action,
        "data": [{
            "asks": serde_json::from_str::<Value>(asks).unwrap(),
            "bids": serde_json::from_str::<Value>(bids).unwrap(),
            "ts": "1597026383085", "checksum": 0, "prevSeqId": follows, "seqId": last,
        }],
    })
    .to_string()
}

impl Scene {
    fn new() -> Self {
        let venue = ScriptedVenue::open();
        let running = gateway::start(&venue.feed("okx", &["BTC-USDT"]));
        // It has no list: the scales come from the book.
        venue.request().answer("404 Not Found", "", "");
        let mut session = venue.session();
        session.hear();
        let bids = r#"[["100","1.50","0","1"],["99.5","2","0","1"],["99","0.25","0","1"]]"#;
        let asks = r#"[["100.5","0.75","0","1"],["101","3","0","1"]]"#;
        session.say(&okx("snapshot", [bids, asks], -1, 100));
        wait_until_live(running.admin);
        Self { venue, session, running }
    }

    /// A message of the venue is lost on the way.
    fn lose_a_message(&mut self) {
        self.session.say(&okx("update", [r#"[["98","1","0","1"]]"#, "[]"], 105, 110));
        let gaps = "tickfan_feed_gaps_total{venue=\"okx\"}";
        wait_until("the gap is seen", || metric(&self.running, gaps) == 1);
    }
}

const BOOK: &str = "okx:BTC-USDT";

#[test]
fn book_shows_exactly_what_the_venue_said() {
    let scene = Scene::new();
    let url = stream_of(&scene.running);
    let text = printed(&["book", BOOK, "--once", "--url", &url]);
    let (head, ladder) = text.split_once('\n').unwrap();
    assert!(head.starts_with("okx:BTC-USDT  LIVE  "), "{head}");
    assert!(head.contains("age "), "{head}");
    let expected = include_str!("../testdata/screens/book-of-okx.txt");
    let (ladder, foot) = ladder.split_at(ladder.len().min(expected.len()));
    assert_eq!(ladder, expected, "\n{ladder}");
    assert!(foot.starts_with("updates 1  merged 0  s 1  epoch "), "{foot}");

    let book = printed(&["book", BOOK, "--once", "--json", "--url", &url]);
    let book: Value = serde_json::from_str(&book).unwrap();
    assert_eq!((&book["symbol"], &book["state"]), (&json!(BOOK), &json!("live")));
    assert_eq!(book["bids"], json!([["100", "1.5"], ["99.5", "2"], ["99", "0.25"]]));
    assert_eq!(book["asks"], json!([["100.5", "0.75"], ["101", "3"]]));
    assert!(book["age_ms"].is_u64(), "{book}");
}

#[test]
fn book_says_that_it_is_wrong_and_why_and_comes_back() {
    let mut scene = Scene::new();
    let url = stream_of(&scene.running);
    let mut book = Follower::start(&["book", BOOK, "--json", "--every", "10ms", "--url", &url]);
    book.line_where(|line| line["state"] == "live");
    scene.lose_a_message();
    let line = book.line_where(|line| line["state"] == "gap");
    assert_eq!(line["why"], "sequence_gap");
    assert!(line["for_ms"].is_u64(), "{line}");
    assert_eq!(line["bids"][0], json!(["100", "1.5"]), "the last values, marked");

    let text = run(&["book", BOOK, "--once", "--url", &url]);
    assert_eq!(text.status.code(), Some(1), "who comes now is given no book");
    let words = String::from_utf8(text.stderr).unwrap();
    assert!(words.contains("okx:BTC-USDT has no book to show within 5.0 s: gap"), "{words}");

    let bids = r#"[["98","7","0","1"]]"#;
    scene.session.say(&okx("snapshot", [bids, "[]"], -1, 200));
    let line = book.line_where(|line| line["state"] == "live");
    assert_eq!((&line["bids"], &line["asks"]), (&json!([["98", "7"]]), &json!([])));
    assert_eq!(book.close_pipe(), Some(0));
    drop(scene.venue);
}

#[test]
fn book_says_that_the_gateway_is_gone_and_finds_it_again() {
    let feed = gateway::simulator_feed(1, 400);
    let running = gateway::start(&feed);
    wait_until_live(running.admin);
    let (listen, url) = (running.listen, stream_of(&running));
    let symbol = "sim:BTCUSDT";
    let mut book = Follower::start(&["book", symbol, "--json", "--every", "10ms", "--url", &url]);
    let before = book.line_where(|line| line["state"] == "live" && line["s"].is_u64());
    drop(running);
    let line = book.line_where(|line| line["state"] == "disconnected");
    assert_ne!(line["why"], "");
    assert!(line["s"].as_u64() >= before["s"].as_u64(), "the last values stand");

    let text = format!("listen = \"{listen}\"\nadmin = \"127.0.0.1:0\"\nshards = 1\n{feed}");
    let config = tickfan::config::Config::parse(&text, "the test").unwrap();
    let mut again = None;
    wait_until("the address is free", || {
        again = tickfan::serve::start(config.clone()).ok();
        again.is_some()
    });
    book.line_where(|next| {
        next["state"] == "live" && next["updates"].as_u64() > line["updates"].as_u64()
    });
    assert_eq!(book.close_pipe(), Some(0));
}

#[test]
fn book_gives_up_a_connection_over_which_nothing_comes_and_makes_another() {
    let line = Line::to(GATEWAY.listen);
    let every = ["--every", "100ms", "--url", &line.url()];
    let mut book = Follower::start(&[&["book", "sim:BTCUSDT", "--json"], &every[..]].concat());
    book.line_where(|told| told["state"] == "live");
    line.die();
    book.line_where(|told| told["state"] == "silent");
    let told = book.line_where(|told| told["state"] == "disconnected");
    assert_eq!(told["why"], "the connection is dead: nothing came for 10s, not even heartbeats");
    book.line_where(|next| {
        next["state"] == "live" && next["updates"].as_u64() > told["updates"].as_u64()
    });
    assert_eq!(line.accepted.load(Ordering::SeqCst), 2);
    assert_eq!(book.close_pipe(), Some(0));
}

#[test]
fn top_shows_feeds_shards_classes_and_connections() {
    let mut scene = Scene::new();
    scene.lose_a_message();
    let mut watcher = Client::connect(scene.running.listen);
    watcher.subscribe(json!({"channel": "bbo", "symbols": [BOOK], "budget_ms": 100}));
    let url = admin_of(&scene.running);
    let text = printed(&["top", "--once", "--every", "10ms", "--url", &url]);
    let expected = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start:?} in\n{text}"))
    };
    assert!(expected("tickfan/").contains("1 connections  1 subscriptions  1 lanes"), "{text}");
    let feed = expected("okx");
    assert!(feed.contains("BTC-USDT gap sequence_gap  "), "{feed}");
    assert!(expected("0  ").split_whitespace().nth(1) == Some("1"), "one connection: {text}");
    assert!(expected("100 ms").split_whitespace().nth(4) == Some("1"), "one seat: {text}");
    assert!(expected("127.0.0.1:").contains("tickfan.json.v1"), "{text}");

    let json = printed(&["top", "--once", "--json", "--url", &url]);
    let overview: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(overview["connections"], 1);
    let feed = &overview["feeds"][0];
    assert_eq!(
        (&feed["venue"], &feed["books"], &feed["not_live"]),
        (&json!("okx"), &json!(1), &json!(1))
    );
    assert_eq!((&feed["gaps"], &feed["worst"]["state"]), (&json!(1), &json!("gap")));
    assert_eq!(overview["shards"][0]["answered"], true);
    assert_eq!(overview["worst"][0]["subscriptions"], 1);
    assert_eq!(overview["worst"][0]["budget_ms"], 100);
}

/// The overview, ranked so.
fn overview(admin: SocketAddr, by: &str) -> Value {
    let (status, overview) = get_json(admin, &format!("/overview?by={by}"));
    assert_eq!(status, 200);
    overview
}

#[test]
fn the_overview_names_who_is_blocked_and_what_was_merged_for_whom() {
    let running = gateway::start_on_simulator(4, 20_000);
    let mut slow = Client::connect(running.listen);
    let all = json!(["sim:*"]);
    slow.subscribe(json!({"channel": "book", "symbols": all, "depth": "full", "budget_ms": 0}));
    let stuck = slow.socket.get_ref().local_addr().unwrap().to_string();
    let mut calm = Client::connect(running.listen);
    calm.subscribe(json!({"channel": "book", "symbols": all, "depth": 1, "budget_ms": 500}));
    let calm_address = calm.socket.get_ref().local_addr().unwrap().to_string();
    // It does not read: what was sent fills its socket.
    let blocked = "tickfan_shard_blocked_total{shard=\"0\"}";
    wait_until("a send is not taken whole", || metric(&running, blocked) > 0);
    wait_until("it waits for longer than the other may", || {
        let worst = &overview(running.admin, "blocked")["worst"][0];
        worst["blocked_us"].as_u64() > Some(0) && worst["lag_us"].as_u64() > Some(1_000_000)
    });
    let told = overview(running.admin, "blocked");
    assert_eq!(told["worst"][0]["peer"], stuck.as_str());
    assert_eq!(
        (&told["worst"][1]["peer"], &told["worst"][1]["blocked_us"]),
        (&json!(calm_address), &json!(0))
    );
    assert!(told["worst"][0]["unsent_bytes"].as_u64() > Some(0), "{told}");
    assert_eq!(told["shards"][0]["blocked_now"], 1);
    assert!(told["shards"][0]["lag_us"].as_u64() >= told["worst"][0]["lag_us"].as_u64());
    assert_eq!(overview(running.admin, "lag")["worst"][0]["peer"], stuck.as_str());
    // Half a second of a busy market becomes one update.
    wait_until("the calm one has most merged for it", || {
        let told = overview(running.admin, "merged");
        let worst = &told["worst"];
        worst[0]["peer"] == calm_address.as_str()
            && worst[0]["merged"].as_u64() > worst[1]["merged"].as_u64()
    });
    let merged = |told: &Value| -> u64 {
        told["worst"].as_array().unwrap().iter().map(|one| one["merged"].as_u64().unwrap()).sum()
    };
    let before = metric(&running, "tickfan_shard_merged_total{shard=\"0\"}");
    let sum = merged(&overview(running.admin, "merged"));
    let after = metric(&running, "tickfan_shard_merged_total{shard=\"0\"}");
    assert!((before..=after).contains(&sum), "{before} {sum} {after}");
}

#[test]
fn the_overview_lists_no_more_connections_than_a_screen_takes() {
    let running = gateway::start_on_simulator(1, 10);
    let count = 3 * WORST_CONNECTIONS_MAX;
    let clients: Vec<Client> = (0..count).map(|_| Client::connect(running.listen)).collect();
    let (status, overview) = get_json(running.admin, "/overview");
    assert_eq!(status, 200);
    assert_eq!(overview["connections"], clients.len());
    assert_eq!(overview["worst"].as_array().unwrap().len(), WORST_CONNECTIONS_MAX);
    let (status, words) = get_json(running.admin, "/overview?by=colour");
    assert_eq!(status, 400);
    assert_eq!(words["message"], "write /overview?by=lag, or merged, or blocked");
}

#[test]
fn tail_prints_every_message_as_it_came() {
    let url = stream_of(&GATEWAY);
    let text = printed(&["tail", "sim:BTCUSDT", "--raw", "--count", "3", "--url", &url]);
    let messages: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&messages[0]["type"], &messages[1]["type"]),
        (&json!("hello"), &json!("subscribed"))
    );
    assert_eq!((&messages[2]["n"], &messages[2]["u"][0]["t"]), (&json!(1), &json!("image")));
    assert_eq!(messages.len(), 5);

    let text =
        printed(&["tail", "sim:BTCUSDT", "--raw", "--binary", "--count", "1", "--url", &url]);
    let frame = text.lines().nth(2).unwrap();
    assert!(
        frame.starts_with("5446") && frame.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{frame}"
    );
}

#[test]
fn tail_stops_after_a_while() {
    let url = stream_of(&GATEWAY);
    let text = printed(&["tail", "sim:BTCUSDT", "--for", "300ms", "--url", &url]);
    assert!(text.lines().next().unwrap().contains("sim:BTCUSDT image"), "{text}");
}

#[test]
fn tail_gives_up_a_connection_over_which_nothing_comes_and_says_so() {
    let line = Line::to(GATEWAY.listen);
    let mut child = tickfan(&["tail", "sim:BTCUSDT", "--url", &line.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().expect("updates came").unwrap();
    line.die();
    // The rest of what had passed, and then the end.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("tickfan tail: the connection is dead: nothing came for 10s"),
        "{words}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn who_has_read_enough_or_presses_ctrl_c_ends_it() {
    let (stream, admin) = (stream_of(&GATEWAY), admin_of(&GATEWAY));
    let commands: [&[&str]; 4] = [
        &["tail", "sim:BTCUSDT", "--url", &stream],
        &["book", "sim:BTCUSDT", "--every", "10ms", "--url", &stream],
        &["top", "--every", "10ms", "--url", &admin],
        &["top", "--json", "--every", "10ms", "--url", &admin],
    ];
    for command in commands {
        let mut follower = Follower::start(command);
        follower.line();
        assert_eq!(follower.close_pipe(), Some(0), "{command:?}");
        let mut follower = Follower::start(command);
        follower.line();
        assert_eq!(follower.interrupt(), Some(130), "{command:?}");
    }
}

#[test]
fn what_cannot_be_done_is_told_with_a_way_out() {
    let (stream, admin) = (stream_of(&GATEWAY), admin_of(&GATEWAY));
    let clients = format!("http://{}", GATEWAY.listen);
    for (arguments, words) in [
        (
            &["book", "sim:BTCUSD", "--url", &stream][..],
            "tickfan book: sim:BTCUSD: no instrument \"sim:BTCUSD\"; did you mean sim:BTCUSDT?",
        ),
        (&["book", "sim:BTCUSDT", "--url", "ws://127.0.0.1:1"], "tickfan book: cannot connect to"),
        (&["book", "sim:BTCUSDT", "--url", "x"], "tickfan book: \"x\" is no URL of a gateway"),
        (&["tail", "sim:BTCUSD", "--url", &stream], "tickfan tail: sim:BTCUSD: no instrument"),
        (&["top", "--url", "http://127.0.0.1:1"], "tickfan top: no answer from http://127.0.0.1:1"),
        (&["top", "--json", "--url", "x"], "tickfan top: \"x\" is no URL of an admin listener"),
        (
            &["top", "--url", &clients],
            "answers 404 Not Found to /overview; name the admin listener",
        ),
        (&["check", "/nowhere.toml"], "tickfan check: /nowhere.toml: cannot be read"),
        (&["man", "tali"], "tickfan man: there is no command \"tali\"; commands are top, book,"),
    ] {
        let complaint = complains(1, arguments);
        assert!(complaint.contains(words), "{arguments:?}: {complaint}");
    }
    for arguments in [
        &["tail"][..],
        &["book"],
        &["tail", "sim:BTCUSDT", "--for", "5"],
        &["tail", "sim:BTCUSDT", "--raw", "--json"],
        &["top", "--by", "colour", "--url", &admin],
        &["config"],
        &["completions", "cmd.exe"],
        &["--config", "x", "top"],
        &["bottom"],
    ] {
        complains(2, arguments);
    }
}

/// A file of this test.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_names_the_line_and_the_way_out() {
    let wrong = "listen = \"127.0.0.1:0\"\n\n[[feed]]\nvenue = \"krakn\"\nsymbols = [\"A\"]\n";
    let path = file("check-wrong.toml", wrong);
    let complaint = complains(1, &["check", &path]);
    let expected = format!(
        "tickfan check: {path}:4: unknown venue \"krakn\"; did you mean \"kraken\"? venues are sim,"
    );
    assert!(complaint.starts_with(&expected), "{complaint}");

    // What only a start would find out.
    let all = file("check-all.toml", "[[feed]]\nvenue = \"bitfinex\"\nsymbols = [\"*\"]\n");
    let complaint = complains(1, &["check", &all]);
    assert!(
        complaint.contains("has no instrument list for \"*\": name the symbols"),
        "{complaint}"
    );

    let right = file("check-right.toml", &printed(&["config", "default"]));
    let verdict = printed(&["check", &right]);
    assert!(verdict.starts_with(&format!("{right} can be used\n")), "{verdict}");
    assert!(verdict.contains("feed       kraken: BTC/USD, ETH/USD\n"), "{verdict}");
}

#[test]
fn shells_and_man_know_every_command() {
    let commands = ["top", "book", "tail", "check", "config", "completions", "man"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("budget-ms"), "{shell}");
    }
    let page = printed(&["man"]);
    assert!(page.contains(".TH tickfan 1"), "{page}");
    for command in commands {
        assert!(page.contains(&format!("tickfan\\-{command}(1)")), "{command}: {page}");
        let page = printed(&["man", command]);
        assert!(page.contains(&format!(".TH tickfan-{command} 1")), "{page}");
    }
}
